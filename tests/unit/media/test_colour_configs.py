"""Finding the colours of this machine's Blender."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from renderfarm.media import colour_configs
from renderfarm.media.colour_configs import find_config

CONFIG = "datafiles/colormanagement/config.ocio"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    colour_configs._first_readable.cache_clear()
    yield
    colour_configs._first_readable.cache_clear()


@pytest.fixture
def bpys_own() -> Path:
    found = find_config()
    assert found is not None
    colour_configs._first_readable.cache_clear()
    return found


def install(config: Path, bpys_own: Path, *, readable: bool = True) -> Path:
    config.parent.mkdir(parents=True)
    if readable:
        shutil.copytree(bpys_own.parent, config.parent, dirs_exist_ok=True)
    else:
        config.write_text("ocio_profile_version: 99\n")
    return config


def test_the_own_bpys(bpys_own: Path) -> None:
    spec = importlib.util.find_spec("bpy")
    assert spec is not None
    assert bpys_own.is_relative_to(Path((spec.submodule_search_locations or [""])[0]))


@pytest.mark.parametrize(
    ("program", "config"),
    [
        ("blender-4.5/blender", f"blender-4.5/4.5/{CONFIG}"),
        ("usr/bin/blender", f"usr/share/blender/{CONFIG}"),
        ("usr/bin/blender", f"usr/share/blender/4.5/{CONFIG}"),
        ("Blender.app/Contents/MacOS/Blender", f"Blender.app/Contents/Resources/4.5/{CONFIG}"),
        ("venv/bin/python3.11", f"venv/lib/python3.11/site-packages/bpy/4.5/{CONFIG}"),
    ],
)
def test_beside_a_program(tmp_path: Path, bpys_own: Path, program: str, config: str) -> None:
    wanted = install(tmp_path / config, bpys_own)
    path = tmp_path / program
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = find_config([path])
    assert found is not None
    assert found.samefile(wanted)


def test_through_a_link(tmp_path: Path, bpys_own: Path) -> None:
    wanted = install(tmp_path / "opt/blender/4.5" / CONFIG, bpys_own)
    (tmp_path / "opt/blender/blender").touch()
    (tmp_path / "blender").symlink_to(tmp_path / "opt/blender/blender")
    assert find_config([tmp_path / "blender"]) == wanted.resolve()


def test_one_that_is_too_new_is_passed_over(tmp_path: Path, bpys_own: Path) -> None:
    install(tmp_path / "new/5.2" / CONFIG, bpys_own, readable=False)
    wanted = install(tmp_path / "old/4.5" / CONFIG, bpys_own)
    for name in ("new", "old"):
        (tmp_path / name / "blender").touch()
    assert find_config([tmp_path / "new" / "blender"]) is None
    assert find_config([tmp_path / "new" / "blender", tmp_path / "old" / "blender"]) == wanted


def test_no_blender_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_config() is None
