"""The farm's pictures are Blender's own, pixel for pixel, file name for file name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renderfarm.domain.render_settings import ImageFormat
from tests.integration.farm_process import FarmProcess
from tests.integration.pictures import largest_difference, read_pixels, render_plainly
from tests.integration.scenes import make_scenes

#: 8-bit files are dithered; everything else must be equal to the last bit.
TOLERANCE = {"PNG": 1 / 255, "JPEG": 1 / 255, "WEBP": 1 / 255, "TIFF": 1 / 255}
_PASSES = """
layer = scene.view_layers[0]
layer.use_pass_z = layer.use_pass_normal = True
second = scene.view_layers.new("Second")
scene.world.use_nodes = True
"""
SAMPLING = {
    "fixed": "scene.cycles.use_adaptive_sampling = False; scene.cycles.samples = 8",
    "adaptive": "c = scene.cycles; c.use_adaptive_sampling = True; c.adaptive_threshold = 0.1; c.samples = 64",
}
JOBS = [(sampling, image_format) for sampling in SAMPLING for image_format in (*ImageFormat, None)]


@pytest.fixture(scope="module")
def pictures(farm: FarmProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, tuple[Path, Path]]:
    """For each job the folder of the farm's files and the folder of plain Blender's."""
    folder = tmp_path_factory.mktemp("pictures")
    scenes = {sampling: folder / f"{sampling}.blend" for sampling in SAMPLING}
    make_scenes({scenes[sampling]: SAMPLING[sampling] + "\n" + _PASSES for sampling in SAMPLING})
    assets = {sampling: farm.upload(scenes[sampling]) for sampling in SAMPLING}
    tasks, plain = {}, []
    for sampling, image_format in JOBS:
        settings = {"frames": "1-2", **({"format": str(image_format)} if image_format else {})}
        tasks[sampling, image_format] = farm.client.submit_task(assets[sampling], settings)["id"]
        output = folder / "plain" / sampling / str(image_format)
        plain.append(
            {
                "scene": str(scenes[sampling]),
                "format": image_format,
                "first": 1,
                "last": 2,
                "output": str(output / "shot_####"),
            }
        )
    render_plainly(plain)
    found = {}
    for (sampling, image_format), task_id in tasks.items():
        assert farm.finish(task_id)["status"] == "completed"
        ours = farm.data / "objects" / "outputs" / task_id
        found[sampling, image_format] = (ours, folder / "plain" / sampling / str(image_format))
    return found


@pytest.mark.parametrize(("sampling", "image_format"), JOBS)
def test_an_animation_is_the_same(pictures: dict[Any, Any], sampling: str, image_format: ImageFormat | None) -> None:
    ours, plain = pictures[sampling, image_format]
    names = sorted(path.name for path in plain.iterdir())
    assert len(names) == 2
    assert sorted(path.name for path in ours.iterdir()) == names
    for name in names:
        assert largest_difference(ours / name, plain / name) <= TOLERANCE.get(str(image_format), 0.0)


def test_multilayer_files_keep_every_layer_and_pass(pictures: dict[Any, Any]) -> None:
    ours, _ = pictures["fixed", ImageFormat.OPEN_EXR_MULTILAYER]
    channels = " ".join(read_pixels(ours / "shot_0001.exr"))
    for part in ("ViewLayer.Combined", "ViewLayer.Depth", "ViewLayer.Normal", "Second.Combined"):
        assert part in channels


def test_the_frames_are_not_all_the_same(pictures: dict[Any, Any]) -> None:
    """The comparison above would also pass for a farm that rendered one frame over and over, if Blender did."""
    ours, _ = pictures["fixed", ImageFormat.OPEN_EXR]
    assert largest_difference(ours / "shot_0001.exr", ours / "shot_0002.exr") > 0.01


@pytest.mark.parametrize("engine", ["workbench", "eevee"])
def test_a_still_with_another_engine(farm: FarmProcess, scenes: dict[str, Path], tmp_path: Path, engine: str) -> None:
    task_id = farm.submit(scenes["quick"], engine=engine, frames="3", percent=50, format="PNG", samples=2)
    identifier = {
        "workbench": '"BLENDER_WORKBENCH"',
        "eevee": "next(e for e in ('BLENDER_EEVEE_NEXT', 'BLENDER_EEVEE') if e in es)",
    }
    scene = tmp_path / "still.blend"
    engines = "es = [i.identifier for i in scene.render.bl_rna.properties['engine'].enum_items]"
    make_scenes(
        {
            scene: f"{engines}\nscene.render.engine = {identifier[engine]}\n"
            "scene.eevee.taa_render_samples = 2\nscene.render.resolution_percentage = 50"
        }
    )
    output = tmp_path / "plain" / "shot_####"
    render_plainly([{"scene": str(scene), "format": "PNG", "first": 3, "last": 3, "output": str(output)}])
    assert farm.finish(task_id, timeout_s=250)["status"] == "completed"
    ours = farm.data / "objects" / "outputs" / task_id / "shot_0003.png"
    assert largest_difference(ours, tmp_path / "plain" / "shot_0003.png") <= 1 / 255


def test_the_downloaded_script_makes_the_same_picture(
    farm: FarmProcess, scenes: dict[str, Path], tmp_path: Path
) -> None:
    task_id = farm.submit(scenes["quick"], frames="2", percent=150, samples=5, format="OPEN_EXR")
    assert farm.finish(task_id)["status"] == "completed"
    [unit] = farm.client.list_units(task_id)["items"]
    script = tmp_path / "unit.py"
    script.write_text(farm.client.get_unit_script(task_id, unit["id"]))
    shutil.copy(scenes["quick"], tmp_path)
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    ours = farm.data / "objects" / "outputs" / task_id / "shot_0002.exr"
    assert largest_difference(ours, tmp_path / "output" / "shot_0002.exr") == 0.0


@pytest.mark.parametrize("multilayer", [False, True])
def test_files_of_a_file_output_node_become_outputs_wherever_it_points(
    farm: FarmProcess, tmp_path: Path, multilayer: bool
) -> None:
    elsewhere = tmp_path / "elsewhere"
    kind = "OPEN_EXR_MULTILAYER" if multilayer else "PNG"
    scene = tmp_path / "nodes.blend"
    make_scenes(
        {
            scene: f"""
if hasattr(scene, "compositing_node_group"):
    tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
    scene.compositing_node_group = tree
else:
    scene.use_nodes = True
    tree = scene.node_tree
layers = tree.nodes.new("CompositorNodeRLayers")
node = tree.nodes.new("CompositorNodeOutputFile")
node.name = "Beauty"
if hasattr(node, "directory"):
    node.directory, node.file_name = {str(elsewhere)!r}, "beauty_"
    if {multilayer}:
        node.format.media_type = "MULTI_LAYER_IMAGE"
    else:
        node.format.media_type = "IMAGE"
        node.format.file_format = "PNG"
    node.file_output_items.new("RGBA", "Image")
else:
    node.format.file_format = {kind!r}
    node.base_path = {str(elsewhere / "beauty_" if multilayer else elsewhere)!r}
tree.links.new(layers.outputs["Image"], node.inputs[0])
"""
        }
    )
    task_id = farm.submit(scene, frames="1")
    assert farm.finish(task_id)["status"] == "completed"
    names = {output["name"] for output in farm.client.iterate_outputs(task_id)}
    assert "shot_0001.png" in names
    [extra] = names - {"shot_0001.png"}
    assert extra.startswith("Beauty/")
    assert extra.endswith("0001.exr" if multilayer else "0001.png")
    assert not elsewhere.exists()
