"""Finding Blenders."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from actors.blenders import find_blenders
from renderfarm.errors import FarmUnavailable


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_programs_are_asked_for_their_version(tmp_path: Path) -> None:
    paths = [
        program(tmp_path / "new one", "echo 'Blender 4.5.15 LTS'; echo 'build date: 2026-01-01'"),
        program(tmp_path / "old", "echo 'Warning: something' >&2; echo 'Blender 3.4.1'"),
    ]
    found = find_blenders(paths)
    assert [blender.version for blender in found] == ["4.5.15", "3.4.1"]
    assert found[0].argv_prefix[0] == str(paths[0])
    assert found[0].argv_prefix[-1] == "--"
    assert "--log" not in found[0].argv_prefix


def test_later_programs_are_told_to_say_on_which_devices_they_render(tmp_path: Path) -> None:
    (blender,) = find_blenders([program(tmp_path / "blender", "echo 'Blender 5.2.0 LTS'")])
    options = blender.argv_prefix
    assert options[options.index("--log") :][:4] == ("--log", "cycles", "--log-level", "info")
    assert options.index("--log") < options.index("--python")


def test_a_program_has_as_many_threads_as_its_worker(tmp_path: Path) -> None:
    (blender,) = find_blenders([program(tmp_path / "blender", "echo 'Blender 4.5.15 LTS'")])
    assert blender.command(3)[:4] == (blender.argv_prefix[0], "--threads", "3", "--background")
    assert blender.command(None) == blender.argv_prefix
    (own,) = find_blenders([])
    assert own.command(3) == own.argv_prefix, "the session sees to that"


def test_a_python_with_bpy_will_do(tmp_path: Path) -> None:
    python = program(tmp_path / "python", 'case "$1" in --version) echo Python 3.13.0;; *) echo 5.2.0;; esac')
    (blender,) = find_blenders([python])
    assert blender.version == "5.2.0"
    assert Path(blender.argv_prefix[1]).name == "session.py"


def test_this_pythons_own_bpy_is_the_default() -> None:
    (blender,) = find_blenders([])
    assert blender.version == version("bpy")
    assert blender.argv_prefix[0] == sys.executable
    assert "bpy" not in sys.modules


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'GNU bash 5.2'", "does not tell its version"),
        ("echo 'libX.so: not found' >&2; exit 127", "exit status 127 libX.so: not found"),
        ('case "$1" in --version) echo Python 3.13.0;; *) echo no bpy >&2; exit 1;; esac', "exit status 1 no bpy"),
    ],
)
def test_what_is_no_blender_is_named(tmp_path: Path, body: str, reason: str) -> None:
    path = program(tmp_path / "thing", body)
    with pytest.raises(FarmUnavailable, match=reason) as raised:
        find_blenders([path])
    assert str(path) in str(raised.value)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FarmUnavailable, match="nowhere does not run as Blender: No such file or directory"):
        find_blenders([tmp_path / "nowhere"])


def test_no_blender_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("actors.blenders._own_bpy", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FarmUnavailable, match="install the bpy package"):
        find_blenders([])


def test_blender_on_the_path_is_the_last_resort(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("actors.blenders._own_bpy", lambda: None)
    program(tmp_path / "blender", "echo Blender 4.2.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    (blender,) = find_blenders([])
    assert blender.version == "4.2.0"
