"""Real projects, made and opened by Blender: after the move to another folder every file is found again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from renderfarm.domain.blend_header import check_blend
from renderfarm.errors import MissingFiles
from renderfarm.packing import find_dependencies, pack_project

MAKE = """
import bpy, os, sys
from pathlib import Path

root, absolute = Path(sys.argv[1]), sys.argv[2] == "absolute"

def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = bpy.data.images.new("new", 4, 4)
    image.filepath_raw, image.file_format = str(path), "PNG"
    image.save()
    bpy.data.images.remove(image)

def use(path, library=False, **properties):
    image = bpy.data.images.load(str(path))
    image.use_fake_user = True
    for name, value in properties.items():
        setattr(image, name, value)
    return image

def written(path):
    return str(path) if absolute else bpy.path.relpath(str(path))

def save(path, compress=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=compress, relative_remap=False)

bpy.ops.wm.read_factory_settings(use_empty=True)
names = ["a/tex/wood.png", "b/far.png", "b/lib/tex/lib.png", "a/tex/udim.1001.png", "a/tex/udim.1002.png"]
for name in names + [f"a/tex/seq_{number:04}.png" for number in (1, 2, 3)]:
    picture(root / name)

save(root / "b/lib/lib.blend")
image = use(root / "b/lib/tex/lib.png", filepath="//tex/lib.png")
bpy.data.objects.new("Empty", None).use_fake_user = True
world = bpy.data.worlds.new("World")
world.use_fake_user = True
world.use_nodes = True
world.node_tree.nodes.new("ShaderNodeTexEnvironment").image = image
save(root / "b/lib/lib.blend")

bpy.ops.wm.read_factory_settings(use_empty=True)
main = root / "a/shot/scene.blend"
save(main)
use(root / "a/tex/wood.png", filepath="//../tex/wood.png")
use(root / "b/far.png", filepath=written(root / "b/far.png"))
use(root / "a/tex/udim.1001.png", source="TILED", filepath=written(root / "a/tex/udim.<UDIM>.png"))
use(root / "a/tex/seq_0001.png", source="SEQUENCE", filepath=written(root / "a/tex/seq_0001.png"))
with bpy.data.libraries.load(str(root / "b/lib/lib.blend"), link=True, relative=not absolute) as (_, data):
    data.worlds = ["World"]
bpy.context.scene.world = data.worlds[0]
save(main, compress=absolute)
sys.stdout.flush()
os._exit(0)
"""

#: Opens a scene and tells which of the files it names are there.
LOOK = """
import bpy, json, os, sys

bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
paths = set()
for block, found in bpy.data.file_path_map().items():
    for path in found:
        path = bpy.path.abspath(path, library=block.library).replace("<UDIM>", "1002").replace("seq_0001", "seq_0003")
        paths.add(os.path.normpath(path))
with open(sys.argv[2], "w") as answer:
    json.dump({path: os.path.isfile(path) for path in paths}, answer)
os._exit(0)
"""

FILES = {
    "a/tex/seq_0001.png",
    "a/tex/seq_0002.png",
    "a/tex/seq_0003.png",
    "a/tex/udim.1001.png",
    "a/tex/udim.1002.png",
    "a/tex/wood.png",
    "b/far.png",
    "b/lib/lib.blend",
    "b/lib/tex/lib.png",
}


def blender(script: str, *arguments: object) -> None:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=["relative", "absolute"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    blender(MAKE, tmp_path / "project", request.param)
    return tmp_path / "project"


def test_project_is_whole_elsewhere(project: Path, tmp_path: Path) -> None:
    scene = project / "a/shot/scene.blend"
    package = pack_project(scene, tmp_path / "packed.zip")
    assert package.main == "a/shot/scene.blend"
    assert {file.relative_to(project).as_posix() for file in package.dependencies.files} == FILES
    with zipfile.ZipFile(package.file) as archive:
        assert set(archive.namelist()) == FILES | {package.main}
        archive.extractall(tmp_path / "elsewhere")
    shutil.rmtree(project)

    main = tmp_path / "elsewhere" / package.main
    with main.open("rb") as stream:
        check_blend(stream)
    blender(LOOK, main, tmp_path / "answer.json")
    found = json.loads((tmp_path / "answer.json").read_text())
    assert len(found) == 6
    assert all(path.startswith(str(tmp_path / "elsewhere")) for path in found), found
    assert all(found.values()), found


def test_missing_files_are_listed(project: Path, tmp_path: Path) -> None:
    scene = project / "a/shot/scene.blend"
    (project / "a/tex/wood.png").unlink()
    for tile in (project / "a/tex").glob("udim.*"):
        tile.unlink()
    missing = find_dependencies(scene).missing
    assert [file.used_by for file in missing if "wood" in file.path] == ['Image "wood.png"']
    assert len(missing) == 2
    with pytest.raises(MissingFiles, match="2 missing files: "):
        pack_project(scene, tmp_path / "packed.zip")
    assert not (tmp_path / "packed.zip").exists()
    package = pack_project(scene, tmp_path / "packed.zip", allow_missing=True)
    assert len(package.dependencies.files) == len(FILES) - 3


def test_scene_without_external_files_goes_as_it_is(tmp_path: Path) -> None:
    scene = tmp_path / "scene.blend"
    script = "import bpy, os, sys; bpy.ops.wm.save_as_mainfile(filepath=sys.argv[1], compress=True); os._exit(0)"
    blender(script, scene)
    package = pack_project(scene, tmp_path / "packed.zip")
    assert (package.file, package.main, package.dependencies.files) == (scene, None, ())
    assert not (tmp_path / "packed.zip").exists()
