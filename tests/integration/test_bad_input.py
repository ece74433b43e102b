"""Bad input: one clear line, exit 2 or HTTP 4xx, nothing half-stored, the farm unharmed."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import zstandard

from tests.integration.farm_process import FarmProcess
from tests.integration.scenes import make_scene


@pytest.fixture(scope="module", autouse=True)
def unharmed(farm: FarmProcess, scenes: dict[str, Path]) -> Iterator[None]:
    """After all of it, the farm keeps nothing of what it refused and renders as before."""
    yield
    assert not list((farm.data / "uploads").iterdir())
    task_id = farm.submit(scenes["quick"], frames="1")
    assert farm.finish(task_id)["status"] == "completed"


def _render(farm: FarmProcess, *arguments: str | Path) -> tuple[int, str]:
    """Run ``renderfarm render`` against the farm; return the exit status and what stands on standard error."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from renderfarm.cli import run; sys.exit(run(sys.argv[1:]))",
            "render",
            *arguments,
        ],
        env=os.environ | {"RENDERFARM_URL": farm.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr


def _assets(farm: FarmProcess) -> int:
    total: int = farm.client.list_assets()["total"]
    return total


@pytest.fixture(scope="module")
def files(scenes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are no usable scene, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("bad")
    good = scenes["quick"].read_bytes()
    contents = {
        "text.blend": b"this is not a scene",
        "empty.blend": b"",
        "truncated.blend": good[: len(good) // 2],
        "random.blend": bytes((7 * index * index + 13) % 256 for index in range(5000)),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "escape.zip", "w") as archive:
        archive.writestr("../evil.blend", good)
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("scene.blend", good)
        archive.writestr("zeros.bin", b"\0" * 300_000_000)
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(folder / "link.zip", "w") as archive:
        archive.writestr("scene.blend", good)
        archive.writestr(link, "/etc/passwd")
    return {path.name: path for path in folder.iterdir()}


BAD_FILES = {
    "text.blend": "not a .blend",
    "empty.blend": "empty",
    "truncated.blend": "truncated",
    "random.blend": "not a .blend",
}
BAD_ZIPS = {"escape.zip": "../evil.blend", "bomb.zip": "250 times its size", "link.zip": "link.png"}


@pytest.mark.parametrize(("name", "text"), BAD_FILES.items())
def test_a_file_that_is_no_scene_on_the_command_line(
    farm: FarmProcess, files: dict[str, Path], name: str, text: str, tmp_path: Path
) -> None:
    status, errors = _render(farm, files[name], "-o", tmp_path / "out")
    assert (status, errors.count("\n")) == (2, 1), errors
    assert text in errors


@pytest.mark.parametrize(("name", "text"), (BAD_FILES | BAD_ZIPS).items())
def test_a_file_that_is_no_scene_over_http(farm: FarmProcess, files: dict[str, Path], name: str, text: str) -> None:
    before = _assets(farm)
    with files[name].open("rb") as stream:
        reply = httpx2.post(f"{farm.url}/api/assets", files={"file": (name, stream)}, timeout=60)
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert text in reply.json()["detail"]
    assert _assets(farm) == before


def test_a_file_from_a_newer_blender(farm: FarmProcess, scenes: dict[str, Path], tmp_path: Path) -> None:
    blend = tmp_path / "newer.blend"
    with scenes["quick"].open("rb") as stream:
        content = zstandard.ZstdDecompressor().stream_reader(stream).read()
    # BLENDER-v405 up to Blender 4.5, BLENDER17-01v0502 since 5.0.
    header = re.sub(rb"v(\d+)(\d\d)", rb"v\g<1>99", content[:17], count=1)
    blend.write_bytes(gzip.compress(header + content[17:]))
    status, errors = _render(farm, blend, "-o", tmp_path / "out")
    assert status == 2, errors
    assert re.search(r"saved by Blender \d\.99, newer than any available", errors.splitlines()[-1])


@pytest.mark.parametrize(
    ("scene", "options", "text"),
    [
        ("no_camera", [], "has no camera"),
        ("movie", [], "writes a movie"),
        ("quick", ["--camera", "Camra"], "did you mean Camera?"),
        ("quick", ["--scene", "Nope"], "no scene named 'Nope'"),
        ("quick", ["--view-layer", "Nope"], "no view layer named 'Nope'"),
        ("quick", ["-f", ""], "empty"),
        ("quick", ["-f", "9-1"], "backwards"),
        ("quick", ["-f", "1-99999999"], "beyond Blender's frames"),
        ("quick", ["--resolution", "0x0"], "must be between"),
        ("quick", ["--samples", "0"], "must be between"),
    ],
)
def test_settings_that_cannot_be(
    farm: FarmProcess, scenes: dict[str, Path], tmp_path: Path, scene: str, options: list[str], text: str
) -> None:
    before = farm.client.list_tasks()["total"]
    status, errors = _render(farm, scenes[scene], "-o", tmp_path / "out", *options)
    assert status == 2, errors
    assert text in errors.splitlines()[-1]
    assert farm.client.list_tasks()["total"] == before


def test_missing_textures_are_listed_before_anything_is_queued(farm: FarmProcess, tmp_path: Path) -> None:
    scene = make_scene(
        tmp_path / "textured.blend",
        'image = bpy.data.images.new("wood", 4, 4); image.source = "FILE"; image.filepath = "//textures/wood.png"\n'
        'material = bpy.data.materials.new("m"); material.use_nodes = True\n'
        'node = material.node_tree.nodes.new("ShaderNodeTexImage"); node.image = image\n'
        "cube.data.materials.append(material)",
    )
    before = farm.client.list_tasks()["total"]
    status, errors = _render(farm, scene, "-o", tmp_path / "out")
    assert status == 2, errors
    assert "wood.png" in errors
    assert farm.client.list_tasks()["total"] == before
    allowed, errors = _render(farm, scene, "-o", tmp_path / "out", "-f", "1", "--allow-missing")
    assert allowed == 0, errors


def test_an_output_folder_that_cannot_be_written(farm: FarmProcess, scenes: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    status, errors = _render(farm, scenes["quick"], "-o", tmp_path / "file" / "out")
    assert (status, errors.count("\n")) == (2, 1), errors


def test_frames_outside_the_scenes_range_are_allowed(
    farm: FarmProcess, scenes: dict[str, Path], tmp_path: Path
) -> None:
    status, errors = _render(farm, scenes["quick"], "-o", tmp_path / "out", "-f", "-5,100")
    assert status == 0, errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["shot_-0005.png", "shot_0100.png"]


@pytest.mark.parametrize("path", ["", "/status", "/units", "/outputs", "/log", "/events"])
def test_an_unknown_task(farm: FarmProcess, path: str) -> None:
    reply = httpx2.get(f"{farm.url}/api/tasks/nope{path}")
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/problem+json")
