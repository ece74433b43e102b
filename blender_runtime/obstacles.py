"""What in a scene keeps its frames from being split into parts and merged without a trace, in words for people.

What is not named here was split, merged and found equal (``tests/integration/session/test_splitting.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy

#: Bytes that Blender keeps of a channel's name in a multilayer file, such as ``ViewLayer.Debug Sample Count.X``
#: (EXR_TOT_MAXNAME in source/blender/imbuf/intern/openexr). Reading a longer one back crashes Blender 4.5.
_CHANNEL_NAME_MAX = 63
#: Parts of a scene that is denoised have this pass, the longest of all.
_LONGEST_PASS = "Denoising Specular Albedo"
_GREASE_PENCIL = ("GPENCIL", "GREASEPENCIL")
#: Passes that are means over all samples. The others come from one sample, or are quotients of means.
_MEANS = frozenset(
    {
        *("Combined", "Noisy Image", "Mist", "Normal", "UV", "Debug Sample Count"),
        *("Denoising Normal", "Denoising Albedo", "Denoising Depth", "Denoising Specular Albedo"),
        *("DiffCol", "GlossCol", "TransCol", "VolumeDir", "VolumeInd", "Emit", "Env", "AO"),
        # Since Blender 5.0:
        *("Diffuse Color", "Glossy Color", "Transmission Color", "Volume Direct", "Volume Indirect"),
        *("Emission", "Environment", "Ambient Occlusion", "Denoising Roughness"),
    }
)


def splitting_facts(scene: bpy.types.Scene) -> dict[str, Any]:
    """Return the fields of ``renderfarm.domain.facts.SceneInfo`` that tell whether and how frames can be split."""
    if not hasattr(scene, "cycles"):
        return {"split_obstacles": ["this Blender has no Cycles"]}
    cycles = scene.cycles
    return {
        "uses_adaptive_sampling": cycles.use_adaptive_sampling,
        "denoises": cycles.use_denoising and any(layer.cycles.use_denoising for layer in scene.view_layers),
        "wants_gpu": cycles.device == "GPU",
        "denoises_on_gpu": cycles.denoising_use_gpu,
        "split_obstacles": [*_of_picture(scene), *_of_cycles(scene)],
        "denoising_obstacles": list(_of_denoising(scene)),
        "sample_obstacles": list(_of_samples(scene)),
    }


def _of_picture(scene: bpy.types.Scene) -> Iterator[str]:
    """What Blender draws over, or puts in place of, what Cycles renders."""
    render = scene.render
    stamps = render.use_stamp and (render.use_stamp_render_time or render.use_stamp_memory)
    found = {
        "it is rendered in several views": render.use_multiview,
        "Freestyle draws lines for the whole picture": render.use_freestyle,
        "Grease Pencil is drawn for the whole picture": any(item.type in _GREASE_PENCIL for item in bpy.data.objects),
        "it renders a region of its own": render.use_border,
        "its render time or memory, which parts do not have, is burnt into the picture": stamps,
        "the video sequencer makes its pictures": render.use_sequencer and _has_strips(scene),
    }
    yield from (why for why, is_so in found.items() if is_so)
    for node in _compositor_nodes(scene):
        other = getattr(node, "scene", None)
        if other is not None and other != scene:
            yield f"its compositor uses pictures of scene {other.name!r}"


def _of_cycles(scene: bpy.types.Scene) -> Iterator[str]:
    cycles = scene.cycles
    if cycles.use_guiding:
        yield "path guiding learns from the whole picture"
    if cycles.time_limit > 0:
        yield "its time limit makes each picture another one"
    if _learns_of_volumes(cycles) and _has_volumes():
        yield "volumes are sampled by what the pixels around show, unless Biased is set"
    if any(camera.type == "CUSTOM" for camera in bpy.data.cameras):
        yield "a camera is a script of its own"
    for layer in scene.view_layers:
        longest = max((name for name, _, _ in _passes(scene, layer)), key=_size, default="")
        longest = max(longest, _LONGEST_PASS if cycles.use_denoising else "", key=_size)
        if _size(f"{layer.name}.{longest}.X") > _CHANNEL_NAME_MAX:
            yield f"the name of view layer {layer.name!r} is too long for a multilayer file"
        if cycles.use_adaptive_sampling and layer.cycles.pass_debug_sample_count:
            yield "the pass Debug Sample Count is relative to the most samples of any pixel"


def _of_denoising(scene: bpy.types.Scene) -> Iterator[str]:
    cycles = scene.cycles
    if cycles.denoiser != "OPENIMAGEDENOISE":
        yield f"denoising by {cycles.denoiser} is not known to be the same after a merge"
    if cycles.film_exposure != 1:
        yield "with an exposure of the film other than 1, denoising rounds otherwise after a merge"
    if _catches_shadows(scene):
        yield "shadow catchers are denoised in a way that cannot be done after a merge"
    if not cycles.use_adaptive_sampling and any(samples & (samples - 1) for samples in _layers_own_samples(scene)):
        yield "a view layer's number of samples is no power of two, so denoising rounds otherwise after a merge"


def _of_samples(scene: bpy.types.Scene) -> Iterator[str]:
    if scene.cycles.use_sample_subset:
        yield "it renders a subset of its samples by itself"
    if any(_layers_own_samples(scene)):
        yield "a view layer has a number of samples of its own"
    if _catches_shadows(scene):
        yield "shadow catchers are not means over all samples"
    for layer in scene.view_layers:
        means = _MEANS | {aov.name for aov in layer.aovs} | {f"Combined_{group.name}" for group in layer.lightgroups}
        for name in dict.fromkeys(name for name, _, _ in _passes(scene, layer) if name not in means):
            yield f"the pass {name} is no mean over all samples"


# --- looking -------------------------------------------------------------------------------------------------


def _passes(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> Iterator[tuple[str, str, str]]:
    from cycles import engine  # type: ignore[import-not-found]

    yield from engine.list_render_passes(scene, layer)


def _layers_own_samples(scene: bpy.types.Scene) -> list[int]:
    """Return the numbers of samples that view layers have in place of the scene's."""
    if scene.cycles.use_layer_samples == "IGNORE":
        return []
    return [layer.samples for layer in scene.view_layers if layer.samples > 0]


def _catches_shadows(scene: bpy.types.Scene) -> bool:
    # The light of every new file has the option set, to no effect.
    catchers = (item for item in bpy.data.objects if item.is_shadow_catcher and item.type != "LIGHT")
    return any(catchers) or any(layer.cycles.use_pass_shadow_catcher for layer in scene.view_layers)


def _learns_of_volumes(cycles: Any) -> bool:
    """Tell whether Cycles is one since Blender 5.0, without the option for the volumes of before."""
    return not getattr(cycles, "volume_biased", True)


def _has_volumes() -> bool:
    trees = [owner.node_tree for owner in (*bpy.data.materials, *bpy.data.worlds) if owner.node_tree]
    outputs = (node for tree in trees for node in tree.nodes if node.type in ("OUTPUT_MATERIAL", "OUTPUT_WORLD"))
    return any(item.type == "VOLUME" for item in bpy.data.objects) or any(
        node.inputs["Volume"].is_linked for node in outputs
    )


def _has_strips(scene: bpy.types.Scene) -> bool:
    editor = scene.sequence_editor
    return editor is not None and len(editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all) > 0


def _compositor_nodes(scene: bpy.types.Scene) -> Iterator[Any]:
    """Give the nodes of the scene's compositor and of the groups in it."""
    if not scene.render.use_compositing:
        return
    if hasattr(scene, "compositing_node_group"):  # since Blender 5.0
        trees = [scene.compositing_node_group]
    else:
        trees = [scene.node_tree if scene.use_nodes else None]
    seen = set()
    while trees:
        tree = trees.pop()
        if tree is None or tree.name in seen:
            continue
        seen.add(tree.name)
        yield from tree.nodes
        trees += [node.node_tree for node in tree.nodes if node.type == "GROUP"]


def _size(name: str) -> int:
    return len(name.encode())
