"""A real farm, on SQLite and on MariaDB, with a clock that stands still and no workers but those a test writes down."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from renderfarm.ports import Farm
from renderfarm.wiring import close_farm
from tests.servers import migrated_mysql_database
from tests.unit.services.check_bench import Bench
from tests.unit.services.story import Clock, Story, make_farm


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "mariadb"])
def farm(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Farm]:
    with nullcontext() if request.param == "sqlite" else migrated_mysql_database() as url:
        farm = make_farm(tmp_path, clock, itertools.count(1), url)
        yield farm
        close_farm(farm)


@pytest.fixture
def story(farm: Farm, clock: Clock) -> Story:
    return Story(farm, clock)


@pytest.fixture
def bench(story: Story, tmp_path: Path) -> Bench:
    return Bench(story, tmp_path)
