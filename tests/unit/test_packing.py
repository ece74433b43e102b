"""Which files a path stands for, the zip that mirrors a project, and a tracer that cannot read a file."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from renderfarm import packing
from renderfarm.domain.facts import MissingFile
from renderfarm.errors import InvalidAsset
from renderfarm.packing import tracing
from renderfarm.packing.tracing import Usage


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.mark.parametrize(
    ("name", "is_sequence", "expected"),
    [
        ("wood.png", False, ["wood.png"]),
        ("none.png", False, []),
        ("none/none.png", True, []),
        ("wall.<UDIM>.exr", True, ["wall.1001.exr", "wall.1011.exr"]),
        ("none.<UDIM>.exr", True, []),
        ("seq_0001.png", True, ["seq_0001.png", "seq_0002.png", "seq_0010.png"]),
        ("seq_0001.png", False, ["seq_0001.png"]),
        # The first frame of a sequence may be missing; others of it are not.
        ("seq_0000.png", True, ["seq_0001.png", "seq_0002.png", "seq_0010.png"]),
        ("cache", True, ["cache/a.bphys", "cache/b/c.bphys"]),
        ("cache", False, []),
        ("cache/*.bphys", True, ["cache/a.bphys"]),
        ("wood.png", True, ["wood.png"]),
    ],
)
def test_expand(tmp_path: Path, name: str, is_sequence: bool, expected: list[str]) -> None:
    touch(tmp_path, "wood.png", "wall.1001.exr", "wall.1011.exr", "wall.preview.exr", "wall.10011.exr")
    touch(tmp_path, "seq_0001.png", "seq_0002.png", "seq_0010.png", "seq_0001.jpg", "seq_x.png", "other_0001.png")
    touch(tmp_path, "cache/a.bphys", "cache/b/c.bphys")
    found = tracing.expand(tmp_path / name, is_sequence=is_sequence)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == expected


class FakeTracer:
    """A .blend that was rewritten once, and never read."""

    def __init__(self, blend: Path, copies: dict[Path, Path]) -> None:
        self.blend = blend
        self.project: Path | None = None
        self._copies = copies

    def usages(self) -> list[Usage]:
        return []

    def rewrite(self, project: Path) -> dict[Path, Path]:
        self.project = project
        return self._copies


def test_zip_mirrors_the_folders_below_the_common_one(tmp_path: Path) -> None:
    touch(tmp_path, "a/shot/scene.blend", "a/tex/wood.png", "b/lib/lib.blend", "rewritten.blend")
    tracer = FakeTracer(tmp_path / "a/shot/scene.blend", {tmp_path / "b/lib/lib.blend": tmp_path / "rewritten.blend"})
    files = [tmp_path / "a/tex/wood.png", tmp_path / "b/lib/lib.blend"]
    assert tracing.write_project(tracer, files, tmp_path / "out.zip") == "a/shot/scene.blend"
    assert tracer.project == tmp_path
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "a/shot/scene.blend": "a/shot/scene.blend",
            "a/tex/wood.png": "a/tex/wood.png",
            "b/lib/lib.blend": "rewritten.blend",
        }


def test_same_project_gives_the_same_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "scene.blend", "tex/wood.png")
    for name in ("one.zip", "two.zip"):
        tracing.write_project(FakeTracer(tmp_path / "scene.blend", {}), [tmp_path / "tex/wood.png"], tmp_path / name)
        os.utime(tmp_path / "tex/wood.png", (1e9, 1e9))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["/p/a.blend", "/p/t/b.png"], "/p"),
        (["/p/s/a.blend", "/p/t/b.png"], "/p"),
        (["/p/s/a.blend"], "/p/s"),
        (["/p/a.blend", "/q/b.png"], "/"),
        (["/proj/a.blend", "/proj2/b.png"], "/"),
    ],
)
def test_common_folder(files: list[str], folder: str) -> None:
    assert tracing.common_folder(Path(file) for file in files) == Path(folder)


def test_file_that_the_tracer_cannot_read(tmp_path: Path) -> None:
    """In the process of its own, so that whatever happens there is one error here."""
    (tmp_path / "scene.blend").write_bytes(b"BLENDER-v405" + bytes(1000))
    with pytest.raises(InvalidAsset, match=r"cannot find the external files of scene\.blend: ") as caught:
        packing.find_dependencies(tmp_path / "scene.blend")
    assert "\n" not in str(caught.value)


def test_process_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\necho Segmentation fault >&2\nkill -SEGV $$\n")
    killer.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(killer))
    with pytest.raises(InvalidAsset, match=r"ended with signal 11 \(Segmentation fault\)"):
        packing.find_dependencies(tmp_path / "scene.blend")


def test_missing_message() -> None:
    missing = [MissingFile(path=f"//{number}.png", used_by=f'Image "{number}"') for number in range(10)]
    assert packing.missing_message(missing[:1]) == '1 missing file: //0.png (Image "0")'
    assert packing.missing_message(missing).startswith("10 missing files: //0.png")
    assert packing.missing_message(missing).endswith("and 2 more")
