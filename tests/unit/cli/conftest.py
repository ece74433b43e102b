"""A machine without a farm, a scene, and a fake farm for those who ask for one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from renderfarm.cli import following, run, scenes
from renderfarm.domain.facts import MissingFile
from renderfarm.errors import MissingFiles
from renderfarm.packing import Dependencies, Package, missing_message
from tests.unit.cli.fake_farm import FakeFarm


@dataclass(frozen=True)
class Ended:
    """A command's end."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON of the last line; everything before it must be JSON as well."""
        return [json.loads(line) for line in self.out.splitlines()][-1]


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: object) -> Ended:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "\x1b" not in captured.out + captured.err, "control codes outside of a terminal"
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No farm runs here, nothing waits long, and the working folder is a fresh one."""
    for name in ("URL", "PORT", "BLENDER"):
        monkeypatch.delenv(f"RENDERFARM_{name}", raising=False)
    monkeypatch.setenv("RENDERFARM_RUNTIME", str(tmp_path / "run"))
    monkeypatch.setenv("RENDERFARM_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(following, "POLL_S", 0.01)
    monkeypatch.setattr(following, "PATIENCE_S", 0.2)
    monkeypatch.setattr(scenes, "_POLL_S", 0.01)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFarm]:
    with FakeFarm() as fake:
        monkeypatch.setenv("RENDERFARM_URL", fake.url)
        yield fake


def blend_bytes(size: int = 100) -> bytes:
    def block(code: bytes, data: bytes) -> bytes:
        return struct.pack("<4siQii", code, len(data), 1, 0, 1) + data

    return b"BLENDER-v405" + block(b"DATA", bytes(size)) + block(b"DNA1", b"SDNA") + block(b"ENDB", b"")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .blend without external files, as far as anybody can tell who does not look into its blocks."""
    return make_scene(tmp_path / "scene.blend", monkeypatch)


def make_scene(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: tuple[Path, ...] = (),
    missing: tuple[MissingFile, ...] = (),
) -> Path:
    path.write_bytes(blend_bytes())

    def pack(blend: Path, target: Path, *, allow_missing: bool) -> Package:
        if missing and not allow_missing:
            raise MissingFiles(missing_message(missing))
        dependencies = Dependencies(files=files, missing=missing)
        if not files:
            return Package(file=blend, main=None, dependencies=dependencies)
        target.write_bytes(b"the zip")
        return Package(file=target, main=f"shot/{blend.name}", dependencies=dependencies)

    monkeypatch.setattr(scenes, "pack_project", pack)
    return path
