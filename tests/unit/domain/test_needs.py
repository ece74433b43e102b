"""What units need, and what workers have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.failures import Failure, FailureKind
from renderfarm.domain.needs import Needs, after_out_of_memory, needs_gpu, share_bytes
from renderfarm.domain.render_settings import Device, Engine, RenderSettings
from tests.unit.fakes import scene_info

MIB, GIB = 2**20, 2**30


# --- GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "wants_gpu", "needs"),
    [
        (RenderSettings(device=Device.GPU), False, True),
        (RenderSettings(device=Device.CPU), True, False),
        (RenderSettings(), True, True),
        (RenderSettings(), False, False),
        (RenderSettings(engine=Engine.CYCLES), True, True),
        (RenderSettings(engine=Engine.EEVEE), True, False),  # what the file asks for is Cycles' own
    ],
)
def test_a_gpu_is_needed_by_the_tasks_word_else_by_the_files(
    settings: RenderSettings, wants_gpu: bool, needs: bool
) -> None:
    assert needs_gpu(settings, scene_info(wants_gpu=wants_gpu)) is needs


# --- memory ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4096 * GIB), st.integers(1, 256))
def test_all_workers_of_a_node_may_use_their_shares_at_once(node_bytes: int, workers: int) -> None:
    share = share_bytes(node_bytes, workers)
    assert 0 <= share * workers <= node_bytes
    if node_bytes >= workers * GIB:
        assert share * workers > node_bytes / 2


def test_nodes_that_differ_by_some_pages_are_alike() -> None:
    assert share_bytes(64 * GIB - 5000, 4) == share_bytes(64 * GIB - 9000, 4)


def test_what_fits_everywhere_is_no_news() -> None:
    needs = Needs()
    needs.note("t1", 2 * GIB, least_bytes=4 * GIB)
    assert needs.news == {}
    needs.note("t1", 6 * GIB, least_bytes=4 * GIB)
    assert needs.news == {"t1": 6 * GIB}


def test_what_was_written_is_news_again_only_when_it_is_much_more() -> None:
    needs = Needs()
    needs.note("t1", 6 * GIB, least_bytes=GIB)
    needs.note_written("t1")
    for peak_bytes in (5 * GIB, 6 * GIB, int(6.5 * GIB)):
        needs.note("t1", peak_bytes, least_bytes=GIB)
        assert needs.news == {}
    needs.note("t1", 7 * GIB, least_bytes=GIB)
    needs.note("t2", 2 * GIB, least_bytes=GIB)
    assert needs.news == {"t1": 7 * GIB, "t2": 2 * GIB}


def test_what_could_not_be_written_stays_news() -> None:
    needs = Needs()
    needs.note("t1", 6 * GIB, least_bytes=GIB)
    needs.note("t1", 2 * GIB, least_bytes=GIB)
    assert needs.news == {"t1": 6 * GIB}


def worker(name: str, memory_bytes: int, *, node: str | None = None, blender: str = "4.5.15") -> Any:
    place = node or name
    return SimpleNamespace(id=name, node=place, address=place, memory_bytes=memory_bytes, blender_versions=(blender,))


def unit(worker_id: str | None = "w1", memory_bytes: int = 0) -> Any:
    return SimpleNamespace(worker_id=worker_id, memory_bytes=memory_bytes, blender="4.5.15")


OUT = Failure(kind=FailureKind.OUT_OF_MEMORY, message="Malloc returns null")


def test_where_more_is_there_it_is_needed() -> None:
    workers = [worker("w1", 8 * GIB), worker("w2", 64 * GIB)]
    need, failure = after_out_of_memory(unit(memory_bytes=GIB), OUT, 3 * GIB, workers)
    assert share_bytes(8 * GIB, 1) < need <= share_bytes(64 * GIB, 1)
    assert failure == OUT


def test_what_it_had_in_use_is_needed_at_least() -> None:
    workers = [worker("w1", 8 * GIB), worker("w2", 64 * GIB)]
    assert after_out_of_memory(unit(), OUT, 30 * GIB, workers)[0] == 30 * GIB
    assert after_out_of_memory(unit(memory_bytes=40 * GIB), OUT, None, workers)[0] == 40 * GIB


@pytest.mark.parametrize(
    "others",
    [
        [],
        [worker("w2", 8 * GIB)],
        [worker("w2", 64 * GIB, blender="5.2.3")],  # it cannot render this
    ],
)
def test_where_nobody_has_more_the_failure_says_so(others: list[Any]) -> None:
    need, failure = after_out_of_memory(unit(), OUT, None, [worker("w1", 8 * GIB), *others])
    assert need == share_bytes(8 * GIB, 1) + 1
    assert failure.message == "Malloc returns null; no worker has more memory than the 7.0 GiB of w1"


def test_a_node_is_shared_by_its_workers() -> None:
    workers = [worker(f"w{number}", 32 * GIB, node="big") for number in (1, 2, 3, 4)] + [worker("w5", 16 * GIB)]
    need, failure = after_out_of_memory(unit(), OUT, None, workers)
    assert need == share_bytes(32 * GIB, 4) + 1
    assert failure == OUT  # the smaller node has more for each of its workers


def test_a_gpus_own_memory_is_another_matter() -> None:
    failure = Failure(kind=FailureKind.OUT_OF_MEMORY, message="System is out of GPU memory")
    workers = [worker("w1", 8 * GIB)]
    assert after_out_of_memory(unit(memory_bytes=GIB), failure, 2 * GIB, workers) == (2 * GIB, failure)


def test_a_worker_that_is_gone_had_nobody_knows_what() -> None:
    assert after_out_of_memory(unit("w9", GIB), OUT, None, [worker("w1", 8 * GIB)]) == (GIB, OUT)
