"""Render one unit of a renderfarm task with plain Blender.

Put this script beside the scene's files and run either of

    blender --background --factory-startup --python SCRIPT.py -- [--scene FILE.blend] [--output DIR]
    python SCRIPT.py [--scene FILE.blend] [--output DIR]          (a Python that has the bpy package)

It renders the very picture, under the very name, that the farm renders; by default from the .blend beside it,
into a folder ``output``. It needs nothing but Blender, and the scene's own scripts stay off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy

#: The unit: everything that the task asks for beyond what the file says; null means as the file says.
UNIT: dict[str, Any] = json.loads("{}")

_ENGINES = {
    "cycles": ("CYCLES",),
    # EEVEE's identifier was another one in Blender 4.2 to 4.5.
    "eevee": ("BLENDER_EEVEE_NEXT", "BLENDER_EEVEE"),
    "workbench": ("BLENDER_WORKBENCH",),
}
_PROBE_BYTES = 64 * 2**10
#: What a tile is rendered larger by on each side when adaptive sampling looks at the pixels beside each pixel: as much
#: as Cycles takes around its own tiles (overscan_ in intern/cycles/session/tile.cpp).
_OVERSCAN_PX = 4
_GPU_KINDS = ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL")


class UnitError(Exception):
    """The unit cannot be rendered. ``kind`` is a failure kind of the farm, such as ``bad_file``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


# --- opening the file ----------------------------------------------------------------------------------------


def open_scene(path: str) -> None:
    """Open a .blend without its scripts and its windows.

    Raises:
        UnitError: ``missing_file``, or ``bad_file`` when Blender cannot read it.
    """
    if not Path(path).is_file():
        raise UnitError("missing_file", f"there is no file {path}")
    try:
        bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False)
    except RuntimeError as error:
        reason = _reason(error).replace(path, Path(path).name)
        raise UnitError("bad_file", f"Blender cannot open {Path(path).name}: {reason}") from error


def _reason(error: Exception) -> str:
    """Return what an operator complained of, without the "Error: " that Blender puts before it."""
    return " ".join(str(error).replace("Error: ", "").split())


# --- settings ------------------------------------------------------------------------------------------------


def apply_settings(unit: dict[str, Any]) -> bpy.types.Scene:
    """Make the unit's settings in the open file and return the scene to render. Doing it twice changes nothing.

    The number of samples is Cycles' or EEVEE's; Workbench has none, and its anti-aliasing stays the file's.

    Raises:
        UnitError: ``script_error`` for a name or an engine that is not there, ``device`` when no GPU is.
    """
    scene = _find(bpy.data.scenes, "scene", unit["scene"]) if unit["scene"] else bpy.context.scene
    if unit["view_layer"]:
        _use_view_layer(scene, unit["view_layer"])
    if unit["camera"]:
        _use_camera(scene, unit["camera"])
    if unit["engine"]:
        _use_engine(scene, unit["engine"])
    if unit["samples"]:
        _use_samples(scene, unit["samples"])
    _shape_picture(scene.render, unit)
    if scene.render.engine == "CYCLES":
        _use_device(scene, unit["device"])
    return scene


def _find(items: Any, what: str, name: str) -> Any:
    """Return the item of the file itself, not of a library that it links, which has that name."""
    for item in items:
        if item.name == name and getattr(item, "library", None) is None:
            return item
    for item in items:
        if item.name == name:
            return item
    raise UnitError("script_error", f"there is no {what} named {name!r}")


def _use_view_layer(scene: bpy.types.Scene, name: str) -> None:
    wanted = _find(scene.view_layers, "view layer", name)
    for layer in scene.view_layers:
        layer.use = layer == wanted


def _use_camera(scene: bpy.types.Scene, name: str) -> None:
    camera = _find(scene.objects, "camera", name)
    if camera.type != "CAMERA":
        raise UnitError("script_error", f"{name!r} is not a camera")
    # Markers with cameras would take another one at their frames.
    for marker in scene.timeline_markers:
        marker.camera = None
    scene.camera = camera


def _use_engine(scene: bpy.types.Scene, engine: str) -> None:
    for identifier in _ENGINES[engine]:
        # The list of engines in bl_rna lacks those that come as add-ons, so trying is the only way to know.
        with contextlib.suppress(TypeError):
            scene.render.engine = identifier
            return
    raise UnitError("script_error", f"this Blender has no engine {engine}")


def _use_samples(scene: bpy.types.Scene, samples: int) -> None:
    if scene.render.engine == "CYCLES":
        scene.cycles.samples = samples
    elif scene.render.engine.startswith("BLENDER_EEVEE"):
        scene.eevee.taa_render_samples = samples


def _shape_picture(render: bpy.types.RenderSettings, unit: dict[str, Any]) -> None:
    if unit["resolution_x_px"]:
        render.resolution_x, render.resolution_y = unit["resolution_x_px"], unit["resolution_y_px"]
    if unit["percent"]:
        render.resolution_percentage = unit["percent"]
    if unit["format"]:
        _use_format(render.image_settings, unit["format"])


def _use_format(settings: bpy.types.ImageFormatSettings, file_format: str) -> None:
    if hasattr(settings, "media_type"):  # Blender 5 offers the formats of the present media type only
        settings.media_type = "MULTI_LAYER_IMAGE" if file_format == "OPEN_EXR_MULTILAYER" else "IMAGE"
    settings.file_format = file_format


def _use_device(scene: bpy.types.Scene, device: str) -> None:
    """Choose where Cycles renders. A file that asks for a GPU by itself may fall back to the CPU, as in Blender.

    Cycles renders on the CPU, and says nothing, when it does not find what the preferences name. What is forced as by
    ``--cycles-device`` fails instead (intern/cycles/blender/device.cpp; tried with 4.5 and 5.2).
    """
    wants_gpu = device == "gpu" or (device == "auto" and scene.cycles.device == "GPU")
    kind = _enable_gpus() if wants_gpu else None
    if device == "gpu" and kind is None:
        raise UnitError("device", "a GPU was asked for, but Cycles finds none here")
    if device != "auto":
        scene.cycles.device = device.upper()
    elif wants_gpu and kind is None:
        print("renderfarm: the file asks for a GPU, there is none: Cycles renders on the CPU")
    if kind is None:
        # Denoising takes any GPU that is enabled, even for a render on the CPU.
        _cycles_preferences().compute_device_type = "NONE"
    import _cycles  # type: ignore[import-not-found]  # Cycles' own

    _cycles.set_device_override(kind or "CPU")


def _enable_gpus() -> str | None:
    """Enable every device of the first kind that has any; return that kind."""
    preferences = _cycles_preferences()
    offered = {entry[0] for entry in preferences.get_device_types(bpy.context)}
    for kind in _GPU_KINDS:
        if kind not in offered:
            continue
        gpus = [device for device in preferences.get_devices_for_type(kind) if device.type == kind]
        if gpus:
            preferences.compute_device_type = kind
            for device in preferences.get_devices_for_type(kind):
                device.use = device.type == kind
            return kind
    return None


def _cycles_preferences() -> Any:
    return bpy.context.preferences.addons["cycles"].preferences


# --- rendering -----------------------------------------------------------------------------------------------


def render_frame(scene: bpy.types.Scene, frame: int, output_dir: str) -> list[str]:
    """Render one frame as ``blender -f`` does; return the paths of all files written, below ``output_dir``.

    Their names are Blender's own for the file's output path. They appear in ``output_dir`` when they are whole.
    Where the unit is a part of a frame, that is one multilayer EXR of the part's passes.

    Raises:
        UnitError: ``storage`` when Blender wrote nothing, or an empty file.
        RuntimeError: Blender's own complaint.
    """
    target = Path(output_dir).absolute()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".frame-", dir=target) as folder:
        with _only_part(scene, UNIT.get("part")):
            _render_into(scene, frame, folder)
        files = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)
        if not files:
            raise UnitError("storage", f"Blender wrote no file for frame {frame}")
        _check_room(files[-1], target)
        for path in files:
            if path.stat().st_size == 0:
                raise UnitError("storage", f"Blender wrote an empty file {path.name} for frame {frame}")
        return [_move(path, target / path.relative_to(folder)) for path in files]


def _render_into(scene: bpy.types.Scene, frame: int, folder: str) -> None:
    render = scene.render
    nodes = _keep_file_outputs(scene, folder)
    before = (render.filepath, render.use_overwrite, render.use_placeholder, scene.frame_start, scene.frame_end)
    try:
        render.filepath = _literal(f"{folder}/") + re.split(r"[/\\]", render.filepath)[-1]
        render.use_overwrite = True
        render.use_placeholder = False
        if frame >= 0:
            scene.frame_start = scene.frame_end = frame
            bpy.ops.render.render(animation=True, scene=scene.name)
        else:
            # A scene's range cannot begin below 0, so such a frame is rendered as a still under the frame's name.
            scene.frame_set(frame)
            render.filepath = _literal(render.frame_path(frame=frame))
            bpy.ops.render.render(write_still=True, scene=scene.name)
    finally:
        render.filepath, render.use_overwrite, render.use_placeholder, scene.frame_start, scene.frame_end = before
        for node, name, path in nodes:
            setattr(node, name, path)


def _keep_file_outputs(scene: bpy.types.Scene, folder: str) -> list[tuple[Any, str, str]]:
    """Let File Output nodes write below ``folder``; return what to set back: node, attribute, path.

    They may name any path of this machine; so their files become outputs of the frame instead.
    """
    if hasattr(scene, "compositing_node_group"):  # since Blender 5.0
        trees = [scene.compositing_node_group]
    else:
        trees = [scene.node_tree if scene.use_nodes else None]
    kept = []
    for node in _file_outputs(trees):
        name = "directory" if hasattr(node, "directory") else "base_path"
        path = getattr(node, name)
        kept.append((node, name, path))
        # Up to Blender 4.5, the path of a multilayer file ends with the beginning of the file's name.
        is_file = name == "base_path" and node.format.file_format == "OPEN_EXR_MULTILAYER"
        last = re.split(r"[/\\]", path)[-1] if is_file else ""
        place = Path(folder, re.sub(r"[^\w.\- ]", "_", node.name).strip(" .") or "File Output")
        place.mkdir(exist_ok=True)
        setattr(node, name, _literal(f"{place}/") + last)
    return kept


def _file_outputs(trees: list[Any]) -> list[Any]:
    """Return the File Output nodes of node trees and of the groups in them."""
    found, seen = [], set()
    while trees:
        tree = trees.pop()
        if tree is None or tree.name in seen:
            continue
        seen.add(tree.name)
        for node in tree.nodes:
            if node.type == "OUTPUT_FILE":
                found.append(node)
            elif node.type == "GROUP":
                trees.append(node.node_tree)
    return found


def _literal(path: str) -> str:
    """Return a path that Blender takes as it is: since 4.5 it reads braces as a template."""
    return path.replace("{", "{{").replace("}", "}}") if bpy.app.version >= (4, 5, 0) else path


def _check_room(path: Path, folder: Path) -> None:
    """Write a little more than Blender did, as on a full disk it leaves a truncated PNG or EXR and says nothing.

    Measured with 4.5 and 5.2. What is left of a full disk is less than a block. It is written behind the end of a file
    and cut off again, as new files take longer, the more were removed in the last seconds (ext4).
    """
    size_bytes = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        raise UnitError("storage", f"the disk of {folder} is full: {error.strerror}") from error
    finally:
        os.truncate(path, size_bytes)


def _move(source: Path, target: Path) -> str:
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
    return str(source.replace(target))


# --- a part of a frame ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _only_part(scene: bpy.types.Scene, part: dict[str, int] | None) -> Iterator[None]:
    """Let the scene render a part of its picture only, into a multilayer EXR that holds all that merging needs.

    What is done once for a picture (denoising, the compositor, the sequencer) is left to the merge.
    """
    changes = list(_part_changes(scene, part)) if part else []
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        # In the same order, as what a file's colours may be like depends on its format.
        for owner, name, value in before:
            setattr(owner, name, value)


def _part_changes(scene: bpy.types.Scene, part: dict[str, int]) -> Iterator[tuple[Any, str, Any]]:
    """Give each change to the scene: owner, attribute, value."""
    render, cycles = scene.render, scene.cycles
    yield render, "use_compositing", False
    yield render, "use_sequencer", False
    yield render, "use_stamp", False
    yield from _raw_file(render.image_settings)
    if "total" in part:
        yield cycles, "use_sample_subset", True
        yield cycles, "sample_offset", part["first"]
        yield cycles, "sample_subset_length", part["count"]
    else:
        yield from _border(render, part, _OVERSCAN_PX if cycles.use_adaptive_sampling else 0)
    if cycles.use_denoising:
        yield cycles, "use_denoising", False
        yield from _several_cycles_tiles(scene, part)
        for layer in scene.view_layers:
            if layer.cycles.use_denoising:
                yield layer.cycles, "denoising_store_passes", True
                yield layer.cycles, "pass_debug_sample_count", True


def _several_cycles_tiles(scene: bpy.types.Scene, tile: dict[str, int]) -> Iterator[tuple[Any, str, Any]]:
    """Have Cycles itself render in several tiles.

    Debug Sample Count is told as a share, of the samples asked for if there are several tiles; of the samples made if
    there is one, which nobody can know from outside when adaptive sampling stops early
    (PathTrace::get_num_render_tile_samples in intern/cycles/integrator/path_trace.cpp).
    """
    cycles = scene.cycles
    if cycles.use_adaptive_sampling:
        # Cycles makes tiles where a square of this size is smaller than the picture, and rounds it up to 128 pixels.
        area_px = (tile["x1_px"] - tile["x0_px"]) * (tile["y1_px"] - tile["y0_px"])
        side_px = math.isqrt(area_px - 1)
        side_px -= side_px % 128 if side_px > 128 else 0
        yield cycles, "tile_size", max(8, min(side_px, cycles.tile_size if cycles.use_auto_tile else side_px))
        yield cycles, "use_auto_tile", True


def _raw_file(settings: bpy.types.ImageFormatSettings) -> Iterator[tuple[Any, str, Any]]:
    if hasattr(settings, "media_type"):
        yield settings, "media_type", "MULTI_LAYER_IMAGE"
    yield settings, "file_format", "OPEN_EXR_MULTILAYER"
    yield settings, "color_mode", "RGBA"
    yield settings, "color_depth", "32"
    yield settings, "exr_codec", "ZIP"
    yield settings, "color_management", "FOLLOW_SCENE"
    if settings.color_management == "OVERRIDE":
        yield from _own_colours(settings)
    if hasattr(settings, "use_exr_interleave"):
        yield settings, "use_exr_interleave", True


def _own_colours(settings: bpy.types.ImageFormatSettings) -> Iterator[tuple[Any, str, Any]]:
    """Give what Blender forgets while the colours follow the scene's."""
    for name in ("linear_colorspace_settings", "display_settings", "view_settings"):
        owner = getattr(settings, name)
        for item in owner.bl_rna.properties:
            if not item.is_readonly:
                yield owner, item.identifier, getattr(owner, item.identifier)


def _border(render: bpy.types.RenderSettings, tile: dict[str, int], margin_px: int) -> Iterator[tuple[Any, str, Any]]:
    """Give the region of a tile, cut off at the picture's edges. Blender counts from the bottom, as tiles do."""
    yield render, "use_border", True
    yield render, "use_crop_to_border", True
    for axis, size_px in zip("xy", picture_size_px(render), strict=True):
        low_px = max(0, tile[f"{axis}0_px"] - margin_px)
        high_px = min(size_px, tile[f"{axis}1_px"] + margin_px)
        # Blender and Cycles multiply by the size and cut off the fraction; half a pixel more is far from both.
        yield render, f"border_min_{axis}", (low_px + 0.5) / size_px
        yield render, f"border_max_{axis}", min(1.0, (high_px + 0.5) / size_px)


def picture_size_px(render: bpy.types.RenderSettings) -> tuple[int, int]:
    """Return width and height of the whole picture, computed in whole numbers as Blender does."""
    percent = render.resolution_percentage
    return render.resolution_x * percent // 100, render.resolution_y * percent // 100


# --- as a script of its own ----------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Render every frame of the unit; return the exit status."""
    scene_file = Path(__file__).absolute().parent / UNIT["scene_file"]
    parser = argparse.ArgumentParser(description=f"Render frames {UNIT['frames']} of {UNIT['scene_file']}.")
    parser.add_argument("--scene", default=scene_file, help="the .blend file")
    parser.add_argument("--output", default="output", help="folder of the pictures")
    options = parser.parse_args(argv)
    try:
        open_scene(str(Path(options.scene).absolute()))
        scene = apply_settings(UNIT)
        output = str(Path(options.output, UNIT["folder"]))
        for frame in UNIT["frames"]:
            for path in render_frame(scene, frame, output):
                print(f"frame {frame}: {path}")
    except (UnitError, RuntimeError, OSError) as error:
        print(f"error: {_reason(error)}", file=sys.stderr)
        return 1
    return 0


def _own_arguments() -> list[str]:
    """Return what follows ``--``; Blender's own arguments come before it, plain Python has none of those."""
    if "--" in sys.argv:
        return sys.argv[sys.argv.index("--") + 1 :]
    return sys.argv[1:] if getattr(bpy.app, "module", False) else []


if __name__ == "__main__":
    status = main(_own_arguments())
    sys.stdout.flush()
    sys.stderr.flush()
    if getattr(bpy.app, "module", False):
        os._exit(status)  # the interpreter's own finish may hang once bpy has rendered
    sys.exit(status)
