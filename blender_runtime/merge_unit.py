"""From the merged passes of a frame's parts to the very files that Blender writes for the whole frame.

Blender itself does everything but rendering: an engine that hands out the merged passes takes Cycles' place for one
render, so that compositor, colour management, stamps, File Output nodes and file formats are Blender's own. Denoising
is Cycles' own too, with the arithmetic around it as in Cycles: its pixels are the whole render's to the last bit.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from blender_runtime import exr

#: What Cycles writes into the header of a multilayer file.
_OWN_TEXTS = ("cycles.", "cryptomatte/")

Pixels = np.ndarray[Any, np.dtype[np.float32]]


def merge_frame(
    render_frame: Callable[[bpy.types.Scene, int, str], list[str]],
    scene: bpy.types.Scene,
    frame: int,
    merged_path: str,
    output_dir: str,
) -> list[str]:
    """Write a frame's files from its merged passes; return their paths.

    Args:
        render_frame: the unit script's, for a whole frame.
        scene: the scene with the unit's settings.
        frame: the frame.
        merged_path: multilayer EXR of the whole picture, as ``renderfarm.media.merging`` writes it.
        output_dir: folder of the files.

    Raises:
        MergeError: the merged passes are not this scene's.
        BadExr: the file is truncated.
        UnitError, RuntimeError: as ``render_frame``.
    """
    merged = _Merged(merged_path)
    render = scene.render
    wanted = tuple(size * render.resolution_percentage // 100 for size in (render.resolution_x, render.resolution_y))
    if merged.size_px != wanted:
        sizes = ("{} x {}".format(*size) for size in (merged.size_px, wanted))
        raise MergeError("the parts make {} pixels, the scene wants {}".format(*sizes))
    failures: list[Exception] = []
    with _engine(scene, merged, failures), _nothing_to_evaluate(scene):
        files = render_frame(scene, frame, output_dir)
    if failures:  # of which Blender makes nothing but a line in its output
        for file in files:
            Path(file).unlink()
        raise failures[0]
    return files


class MergeError(RuntimeError):
    """The merged passes are not what the scene needs."""


class _Merged:
    """The merged passes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._channels = exr.read_plain(path)
        header = exr.read_header(path)
        self.size_px = (header.width_px, header.height_px)
        self.texts = {name: text for name, text in header.texts.items() if name.startswith(_OWN_TEXTS)}

    def channel(self, layer: str, name: str, letter: str) -> Pixels:
        """Return one channel of a pass, with the bottom row first as in Blender's memory."""
        try:
            return self._channels[f"{layer}.{name}.{letter}"][::-1]
        except KeyError:
            raise MergeError(f"the parts have no pass {name} of view layer {layer}") from None


# --- the engine ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _engine(scene: bpy.types.Scene, merged: _Merged, failures: list[Exception]) -> Iterator[None]:
    """Let the scene be rendered by handing out what is merged. Cycles' data of earlier frames are freed by that."""

    class MergedPasses(bpy.types.RenderEngine):  # type: ignore[misc]
        bl_idname = "RENDERFARM_MERGED"
        bl_label = "Merged Parts"

        def update_render_passes(self, scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> None:
            for name, channels, kind in _passes(scene, layer):
                self.register_pass(scene, layer, name, len(channels), channels, kind)

        def render(self, depsgraph: bpy.types.Depsgraph) -> None:
            with _result(self, depsgraph) as result:
                try:
                    _fill_in(self, result, depsgraph, merged)
                except Exception as error:  # noqa: BLE001 Blender would only print it, and write a black picture
                    failures.append(error)
                    self.error_set(str(error))

    before = scene.render.engine
    bpy.utils.register_class(MergedPasses)
    try:
        scene.render.engine = MergedPasses.bl_idname
        yield
    finally:
        scene.render.engine = before
        bpy.utils.unregister_class(MergedPasses)


@contextlib.contextmanager
def _nothing_to_evaluate(scene: bpy.types.Scene) -> Iterator[None]:
    """Hide what costs time to prepare and is in the passes already. The compositor may ask for cameras."""
    hidden = [item for item in scene.objects if item.type != "CAMERA" and not item.hide_render]
    try:
        for item in hidden:
            item.hide_render = True
        yield
    finally:
        for item in hidden:
            item.hide_render = False


def _passes(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> Iterator[tuple[str, str, str]]:
    """Give name, channels and kind of each pass that Cycles would render."""
    from cycles import engine  # type: ignore[import-not-found]

    yield from engine.list_render_passes(scene, layer)


@contextlib.contextmanager
def _result(engine: bpy.types.RenderEngine, depsgraph: bpy.types.Depsgraph) -> Iterator[bpy.types.RenderResult]:
    """Give an empty result for one view layer; without any, Blender crashes."""
    layer = depsgraph.view_layer_eval
    for name, channels, _ in _passes(depsgraph.scene_eval, layer):
        if name != "Combined":  # which every result has
            engine.add_pass(name, len(channels), channels, layer=layer.name)
    result = engine.begin_result(0, 0, engine.resolution_x, engine.resolution_y, layer=layer.name)
    yield result
    engine.end_result(result)


def _fill_in(
    engine: bpy.types.RenderEngine, result: bpy.types.RenderResult, depsgraph: bpy.types.Depsgraph, merged: _Merged
) -> None:
    """Fill in one view layer, and denoise it where Cycles would."""
    for name, letters, _ in _passes(depsgraph.scene_eval, depsgraph.view_layer_eval):
        if name != "Noisy Image":
            for letter in letters:
                merged.channel(depsgraph.view_layer_eval.name, name, letter)  # as Blender leaves black what is missing
    result.load_from_file(merged.path)
    if depsgraph.scene_eval.cycles.use_denoising and depsgraph.view_layer_eval.cycles.use_denoising:
        _denoise(result.layers[0].passes, depsgraph, merged)
    whole = engine.get_result()
    for name, text in merged.texts.items():
        whole.stamp_data_add_field(name, text)


# --- denoising -----------------------------------------------------------------------------------------------


def _denoise(passes: Any, depsgraph: bpy.types.Depsgraph, merged: _Merged) -> None:
    """Denoise Combined, and leave what it was in Noisy Image.

    Cycles gives its denoiser the sums of all samples; where it counts them for each pixel, the means. What comes back
    it keeps as sums, which it divides by multiplying with the inverse when the picture is read. Each of these steps
    rounds, so each is done here. See intern/cycles/integrator/denoiser_oidn_base.cpp and kernel/film/read.h.
    """
    scene, layer = depsgraph.scene_eval, depsgraph.view_layer_eval
    noisy = _read(passes["Combined"], merged.size_px)
    total = np.float32(merged.texts[f"cycles.{layer.name}.samples"])
    if scene.cycles.use_adaptive_sampling or layer.cycles.pass_debug_sample_count:
        counts = np.rint(merged.channel(layer.name, "Debug Sample Count", "X") * total)[:, :, np.newaxis]
        denoised = _run_denoiser(noisy[:, :, :3], depsgraph, merged) * counts * (np.float32(1) / counts)
    else:
        denoised = _run_denoiser(noisy[:, :, :3] * total, depsgraph, merged) * (np.float32(1) / total)
    _write(passes["Noisy Image"], noisy)
    _write(passes["Combined"], np.dstack((denoised, noisy[:, :, 3])))


def _run_denoiser(colours: Pixels, depsgraph: bpy.types.Depsgraph, merged: _Merged) -> Pixels:
    """Return the colours denoised by Cycles, with the scene's own denoiser, device, quality and so on.

    Cycles reads and writes files only, and takes pictures for upside down in them: its first row is the bottom one.
    It insists on motion vectors, and uses them between frames of a series only.
    """
    import _cycles  # type: ignore[import-not-found]

    channels = {f"L.Combined.{letter}": colours[:, :, index] for index, letter in enumerate("RGB")}
    for name, letters in (("Denoising Normal", "XYZ"), ("Denoising Albedo", "RGB")):
        for letter in letters:
            channels[f"L.{name}.{letter}"] = merged.channel(depsgraph.view_layer_eval.name, name, letter)
    channels |= {f"L.Vector.{letter}": np.zeros(colours.shape[:2], np.float32) for letter in "XYZW"}
    with tempfile.TemporaryDirectory() as folder:
        noisy, denoised = f"{folder}/noisy.exr", f"{folder}/denoised.exr"
        exr.write_plain(noisy, channels, {"cycles.L.samples": "1"})
        pointers = (bpy.context.preferences, depsgraph.scene, depsgraph.view_layer)
        # What the operator cycles.denoise_animation does, for the scene and layer of its context.
        _cycles.denoise(*(item.as_pointer() for item in pointers), input=[noisy], output=[denoised])
        result = exr.read_plain(denoised)
        return np.dstack([result[f"L.Combined.{letter}"] for letter in "RGB"])


def _read(source: bpy.types.RenderPass, size_px: tuple[int, int]) -> Pixels:
    pixels = np.empty(size_px[0] * size_px[1] * source.channels, np.float32)
    source.rect.foreach_get(pixels)
    return pixels.reshape(size_px[1], size_px[0], source.channels)


def _write(target: bpy.types.RenderPass, pixels: Pixels) -> None:
    target.rect.foreach_set(np.ascontiguousarray(pixels, np.float32).ravel())
