"""A farm and its API, called without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serve_app.app import create_app
from tests.unit.api.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def api(world: World) -> Iterator[TestClient]:
    with TestClient(create_app(world.farm, asset_wait_s=0.0), base_url="http://127.0.0.1:3000") as client:
        yield client
