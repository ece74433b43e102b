"""Which workers a node has, and what each of them gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.places import WorkerPlace, worker_places


def node(number: int = 0, *, host: str = "vm", cpus: float = 2.0, gpus: float = 0, **changes: Any) -> dict[str, Any]:
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    return {
        "NodeID": f"n{number}-0123456789",
        "Alive": True,
        "NodeManagerHostname": host,
        "NodeManagerAddress": "127.0.0.1",
        "Resources": resources,
        **changes,
    }


def places(workers: int, *nodes: dict[str, Any]) -> list[WorkerPlace]:
    return list(worker_places(nodes, workers))


@pytest.mark.parametrize(
    ("cpus", "workers", "shares"),
    [
        (2.0, 1, [2]),
        (2.0, 2, [1, 1]),
        (5.0, 2, [2, 3]),
        (8.0, 3, [2, 3, 3]),
        (64.0, 5, [12, 13, 13, 13, 13]),
        (5.5, 2, [2, 3]),
        (2.0, 3, [0.6666] * 3),
        (1.0, 4, [0.25] * 4),
    ],
)
def test_cpus_are_divided(cpus: float, workers: int, shares: list[float]) -> None:
    assert [place.cpus for place in places(workers, node(cpus=cpus))] == shares


@given(st.floats(0.5, 512), st.integers(1, 256), st.integers(0, 16))
def test_all_workers_find_room_and_differ_by_one_cpu_at_most(cpus: float, workers: int, gpus: int) -> None:
    found = places(workers, node(cpus=cpus, gpus=gpus))
    shares = [place.cpus for place in found]
    assert len(found) == max(workers, gpus)
    assert sum(shares) <= cpus + 1e-9
    assert min(shares) > 0
    assert max(shares) - min(shares) <= 1
    if cpus >= len(found):
        assert sum(shares) == int(cpus)


@pytest.mark.parametrize(("cpus", "workers"), [(1.0, 1), (2.0, 1), (8.0, 1), (15.0, 1), (16.0, 2), (64.0, 8)])
def test_a_node_has_a_worker_for_each_eight_cpus_unless_it_is_told_otherwise(cpus: float, workers: int) -> None:
    assert len(places(0, node(cpus=cpus))) == workers
    assert len(places(3, node(cpus=cpus))) == 3


def test_there_is_a_worker_for_each_gpu_and_it_has_that_one_only() -> None:
    found = places(0, node(cpus=16.0, gpus=4))
    assert [(place.gpus, place.hides_gpus, place.cpus) for place in found] == [(1, False, 4.0)] * 4


def test_workers_beyond_the_gpus_see_none() -> None:
    found = places(0, node(cpus=32.0, gpus=2))
    assert [(place.gpus, place.hides_gpus) for place in found] == [(1, False), (1, False), (0, True), (0, True)]


def test_where_no_gpu_is_known_any_worker_may_look_for_one() -> None:
    [place] = places(1, node())
    assert (place.gpus, place.hides_gpus) == (0, False)


def test_nodes_of_one_name_have_workers_of_different_names() -> None:
    found = places(1, node(1), node(2), node(3, host="other"))
    assert [place.worker_id for place in found] == ["vm-0", "vm-n2-012-0", "other-0"]
    assert len({place.node_id for place in found}) == 3


def test_a_node_that_is_dead_or_has_no_cpus_has_no_worker() -> None:
    assert places(2, node(1, Alive=False), node(2, Resources={"GPU": 1.0}), node(3, Resources={})) == []
