"""Scenes with all that can be asked for, and one Blender session for the tests of this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.blenders import Blender, find_blenders
from tests.integration.scenes import make_scenes
from tests.integration.session.bench import SCENES, Bench, Run


@pytest.fixture(scope="package")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a .blend for each of SCENES."""
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes({folder / f"{name}.blend": edit for name, edit in SCENES.items()})
    (folder / "frames").mkdir()
    (folder / "frames" / "s_0007.png").touch()
    (folder / "random.blend").write_bytes(bytes(range(256)) * 8)
    (folder / "empty.blend").touch()
    whole = (folder / "plain.blend").read_bytes()
    (folder / "truncated.blend").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="package")
def blender() -> Blender:
    return find_blenders([])[0]


@pytest.fixture(scope="package")
def run() -> Iterator[Run[Any]]:
    """Run a coroutine on an event loop that all of the module's tests share."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="package")
def shared_bench(run: Run[Any], blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(run, blender, tmp_path_factory.mktemp("session"))
    yield bench
    bench.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    shared_bench.revive()
    return shared_bench
