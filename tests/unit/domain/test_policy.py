from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.policy import AHEAD_MAX_S, AHEAD_UNITS_MAX, Candidate, Placement, Slot, chunk_s, place

BLENDERS = ("4.5.15", "5.2.3")
WORKERS = tuple(f"w{number}" for number in range(6))
SCENES = ("s1", "s2", "s3")
BACKLOGS_S = (0.1, 60.0, math.inf)
GIB = 2**30


def unit(name: str, **changes: object) -> Candidate:
    values: dict[str, object] = {
        "unit_id": name,
        "order": (-50, "t1", int(name.strip("u") or 0)),
        "asset_id": "s1",
        "blenders": frozenset(BLENDERS[:1]),
        "needs_gpu": False,
        "failed_on": frozenset(),
    }
    return Candidate(**(values | changes))  # type: ignore[arg-type]


def worker(name: str, **changes: object) -> Slot:
    values: dict[str, object] = {
        "worker_id": name,
        "free": True,
        "blenders": frozenset(BLENDERS[:1]),
        "gpus": 0,
        "open_scene": None,
    }
    return Slot(**(values | changes))  # type: ignore[arg-type]


def placed(candidates: list[Candidate], slots: list[Slot]) -> dict[str, str]:
    return {placement.unit_id: placement.worker_id for placement in place(candidates, slots)}


def is_able(candidate: Candidate, slot: Slot) -> bool:
    return bool(candidate.blenders & slot.blenders) and (slot.gpus > 0 or not candidate.needs_gpu)


def can_take(candidate: Candidate, slot: Slot, slots: list[Slot]) -> bool:
    """Tell whether a worker is right for a unit: able, and with memory enough, or with as much as any that is able."""
    if not is_able(candidate, slot):
        return False
    most_bytes = max(other.memory_bytes for other in slots if is_able(candidate, other))
    return slot.memory_bytes >= min(candidate.memory_bytes, most_bytes)


# --- by example ----------------------------------------------------------------------------------------------


def test_higher_priority_goes_first() -> None:
    low, high = unit("u1", order=(-10, "t1", 0)), unit("u2", order=(-90, "t2", 0))
    assert placed([low, high], [worker("w1")]) == {"u2": "w1"}


def test_equal_priority_goes_by_submission_then_by_position() -> None:
    later = unit("u1", order=(-50, "t2", 0))
    second, first = unit("u2", order=(-50, "t1", 1)), unit("u3", order=(-50, "t1", 0))
    assert list(placed([later, second, first], [worker("w1"), worker("w2")])) == ["u3", "u2"]


def test_a_unit_goes_to_the_worker_that_has_its_scene_open() -> None:
    slots = [worker("w1"), worker("w2", open_scene="s2"), worker("w3", open_scene="s1")]
    assert placed([unit("u1")], slots) == {"u1": "w3"}


def test_an_empty_worker_is_better_than_one_with_another_scene() -> None:
    assert placed([unit("u1")], [worker("w1", open_scene="s2"), worker("w2")]) == {"u1": "w2"}


def test_a_unit_does_not_wait_for_the_worker_with_its_scene() -> None:
    slots = [worker("w1", free=False, open_scene="s1"), worker("w2", open_scene="s2")]
    assert placed([unit("u1")], slots) == {"u1": "w2"}


def test_a_gpu_is_kept_for_those_who_need_it() -> None:
    slots = [worker("w1", gpus=1), worker("w2")]
    assert placed([unit("u1"), unit("u2", needs_gpu=True)], slots) == {"u1": "w2", "u2": "w1"}


def test_who_needs_a_gpu_waits_for_one() -> None:
    assert placed([unit("u1", needs_gpu=True)], [worker("w1"), worker("w2", gpus=1, free=False)]) == {}


def test_who_needs_another_blender_waits_for_it() -> None:
    assert placed([unit("u1", blenders=frozenset({"5.2.3"}))], [worker("w1")]) == {}


def test_who_cannot_be_placed_holds_nobody_up() -> None:
    stuck = unit("u1", order=(-99, "t1", 0), needs_gpu=True)
    assert placed([stuck, unit("u2")], [worker("w1")]) == {"u2": "w1"}


def test_after_a_failure_a_unit_goes_to_another_worker() -> None:
    slots = [worker("w1", open_scene="s1"), worker("w2")]
    assert placed([unit("u1", failed_on=frozenset({"w1"}))], slots) == {"u1": "w2"}


def test_after_a_failure_a_unit_waits_for_a_busy_worker_that_has_not_tried_it() -> None:
    slots = [worker("w1"), worker("w2", free=False)]
    assert placed([unit("u1", failed_on=frozenset({"w1"}))], slots) == {}


@pytest.mark.parametrize("other", [worker("w2", blenders=frozenset({"5.2.3"})), worker("w1")])
def test_after_a_failure_the_same_worker_is_better_than_none(other: Slot) -> None:
    slots = {slot.worker_id: slot for slot in (worker("w1"), other)}
    assert placed([unit("u1", failed_on=frozenset({"w1"}))], list(slots.values())) == {"u1": "w1"}


def test_a_unit_that_failed_everywhere_may_go_anywhere() -> None:
    slots = [worker("w1"), worker("w2", free=False)]
    assert placed([unit("u1", failed_on=frozenset({"w1", "w2"}))], slots) == {"u1": "w1"}


@pytest.mark.parametrize(("candidates", "slots"), [([], [worker("w1")]), ([unit("u1")], []), ([], [])])
def test_nothing_to_do_is_no_placement(candidates: list[Candidate], slots: list[Slot]) -> None:
    assert place(candidates, slots) == []


# --- memory --------------------------------------------------------------------------------------------------


def test_a_unit_goes_where_it_fits() -> None:
    slots = [worker("w1", memory_bytes=4 * GIB, open_scene="s1"), worker("w2", memory_bytes=16 * GIB, open_scene="s2")]
    assert placed([unit("u1", memory_bytes=5 * GIB)], slots) == {"u1": "w2"}


def test_a_unit_waits_for_the_worker_where_it_fits() -> None:
    slots = [worker("w1", memory_bytes=4 * GIB), worker("w2", memory_bytes=16 * GIB, free=False)]
    assert placed([unit("u1", memory_bytes=5 * GIB)], slots) == {}


def test_a_unit_that_fits_nowhere_goes_where_there_is_most_and_is_told_so() -> None:
    slots = [worker(f"w{size}", memory_bytes=size * GIB) for size in (4, 16, 8)]
    [placement] = place([unit("u1", memory_bytes=20 * GIB)], slots)
    assert (placement.worker_id, placement.lacks_bytes) == ("w16", 4 * GIB)
    waiting = [replace(slot, free=slot.worker_id != "w16") for slot in slots]
    assert place([unit("u1", memory_bytes=20 * GIB)], waiting) == []


def test_the_most_is_that_of_those_who_are_able() -> None:
    slots = [
        worker("w1", memory_bytes=4 * GIB, gpus=1),
        worker("w2", memory_bytes=64 * GIB),
        worker("w3", memory_bytes=64 * GIB, gpus=1, blenders=frozenset(BLENDERS[1:])),
    ]
    [placement] = place([unit("u1", memory_bytes=20 * GIB, needs_gpu=True)], slots)
    assert (placement.worker_id, placement.lacks_bytes) == ("w1", 16 * GIB)


def test_much_memory_is_kept_for_those_who_need_it() -> None:
    slots = [worker("w1", memory_bytes=16 * GIB), worker("w2", memory_bytes=4 * GIB)]
    first, second = unit("u1", memory_bytes=GIB), unit("u2", memory_bytes=5 * GIB)
    assert placed([first, second], slots) == {"u1": "w2", "u2": "w1"}


def test_after_want_of_memory_it_goes_where_there_is_more_and_not_where_there_is_as_much() -> None:
    # What failed_on alone would allow: w2, which has no more than w1 had.
    slots = [
        worker("w1", memory_bytes=4 * GIB),
        worker("w2", memory_bytes=4 * GIB),
        worker("w3", memory_bytes=16 * GIB, free=False),
    ]
    failed = unit("u1", memory_bytes=4 * GIB + 1, failed_on=frozenset({"w1"}))
    assert placed([failed], slots) == {}
    assert placed([failed], [*slots[:2], replace(slots[2], free=True)]) == {"u1": "w3"}
    # Where none has more, another that has as much may do: it may have been a neighbour that took the memory.
    assert placed([failed], slots[:2]) == {"u1": "w2"}


def test_workers_whose_memory_nobody_knows_lack_nothing() -> None:
    [placement] = place([unit("u1", memory_bytes=5 * GIB)], [worker("w1")])
    assert placement.lacks_bytes == 0


# --- short units, given ahead ---------------------------------------------------------------------------------


def test_a_worker_is_given_short_units_up_to_a_chunk() -> None:
    units = [unit(f"u{number}", estimate_s=0.2) for number in range(5)]
    assert len(place(units, [worker("w1")], ahead_s=0.5)) == 2
    assert len(place(units, [worker("w1")], ahead_s=0.7)) == 3


def test_the_next_unit_waits_at_the_worker_unless_it_is_long() -> None:
    busy = worker("w1", free=False, units=1, backlog_s=2.0)
    assert len(place([unit("u1", estimate_s=2.9), unit("u2", estimate_s=0.1)], [busy], ahead_s=0.0)) == 1
    assert place([unit("u1", estimate_s=AHEAD_MAX_S)], [busy], ahead_s=AHEAD_MAX_S) == []


@pytest.mark.parametrize(
    ("backlog_s", "ahead_s", "given"),
    [(5.25, AHEAD_MAX_S, 0), (4.75, AHEAD_MAX_S, 21), (2.5, 4.5, 0), (2.0, 4.5, 10), (1.25, 2.0, 3)],
)
def test_a_worker_is_given_more_once_half_of_its_chunk_is_done(backlog_s: float, ahead_s: float, given: int) -> None:
    units = [unit(f"u{number}", estimate_s=0.25) for number in range(40)]
    busy = worker("w1", free=False, units=3, backlog_s=backlog_s)
    assert len(place(units, [busy], ahead_s=ahead_s)) == given


def test_chunks_get_smaller_towards_the_end() -> None:
    units = [unit(f"u{number}", estimate_s=0.25) for number in range(400)]
    slots = [worker("w1"), worker("w2")]
    assert chunk_s(units, slots) == AHEAD_MAX_S
    assert chunk_s(units[:40], slots) == 2.5


def test_the_last_seconds_are_shared_out_at_once() -> None:
    units = [unit(f"u{number}", estimate_s=0.25) for number in range(8)]
    assert chunk_s(units, [worker("w1"), worker("w2")]) == 1.25
    assert chunk_s(units * 2, [worker("w1"), worker("w2")]) == 1.5


def test_what_workers_have_already_counts_as_well() -> None:
    busy = worker("w1", free=False, units=4, backlog_s=0.5)
    unknown = worker("w2", free=False, units=1)
    units = [unit(f"u{number}", estimate_s=0.25) for number in range(4)]
    assert chunk_s(units, [busy, unknown]) == 1.0


def test_the_very_last_unit_goes_to_who_is_done_first() -> None:
    busy = [worker(f"w{number}", free=False, units=2, backlog_s=0.4 + 0.1 * number) for number in range(2)]
    last = [unit("u1", estimate_s=0.25)]
    assert [one.worker_id for one in place(last, busy, ahead_s=chunk_s(last, busy))] == ["w0"]


def test_free_workers_get_one_each_before_anybody_gets_two() -> None:
    units = [unit(f"u{number}", estimate_s=0.2) for number in range(3)]
    assert placed(units, [worker("w1"), worker("w2")]) == {"u0": "w1", "u1": "w2", "u2": "w1"}


def test_a_unit_of_unknown_length_waits_for_a_free_worker() -> None:
    busy = worker("w1", free=False, units=1, backlog_s=0.1)
    assert placed([unit("u1")], [busy]) == {}
    assert placed([unit("u1", estimate_s=0.1)], [busy]) == {"u1": "w1"}


def test_behind_a_unit_of_unknown_length_nobody_waits() -> None:
    assert placed([unit("u1"), unit("u2", estimate_s=0.1)], [worker("w1")]) == {"u1": "w1"}


def test_however_short_there_is_a_limit() -> None:
    units = [unit(f"u{number}", estimate_s=0.0) for number in range(AHEAD_UNITS_MAX + 50)]
    assert len(placed(units, [worker("w1")])) == AHEAD_UNITS_MAX


def test_a_thousand_workers_are_filled_within_a_moment() -> None:
    slots = [
        worker(f"w{number:04d}", open_scene=f"s{number % 40}", memory_bytes=(4 + number % 4) * GIB)
        for number in range(1000)
    ]
    units = [unit(f"u{number}", asset_id=f"s{number % 80}", memory_bytes=number % 8 * GIB) for number in range(4000)]
    assert len(placed(units, slots)) == 1000


# --- whatever the farm looks like ----------------------------------------------------------------------------

some_blenders = st.frozensets(st.sampled_from(BLENDERS), min_size=1)
farms = st.lists(
    st.builds(
        Slot,
        worker_id=st.sampled_from(WORKERS),
        free=st.booleans(),
        blenders=some_blenders,
        gpus=st.integers(0, 2),
        open_scene=st.sampled_from((None, *SCENES)),
        memory_bytes=st.sampled_from((0, 4 * GIB, 16 * GIB)),
    ).map(
        lambda slot: slot if slot.free else replace(slot, units=1, backlog_s=BACKLOGS_S[int(slot.worker_id[1:]) % 3])
    ),
    max_size=len(WORKERS),
    unique_by=lambda slot: slot.worker_id,
)
waiting = st.lists(
    st.builds(
        Candidate,
        unit_id=st.uuids().map(str),
        order=st.tuples(st.integers(-100, 0), st.sampled_from(["t1", "t2", "t3"]), st.integers(0, 1000)),
        asset_id=st.sampled_from(SCENES),
        blenders=some_blenders,
        needs_gpu=st.booleans(),
        failed_on=st.frozensets(st.sampled_from(WORKERS)),
        estimate_s=st.sampled_from((None, 0.0, 0.1, 0.3, 60.0)),
        memory_bytes=st.sampled_from((0, GIB, 4 * GIB, 5 * GIB, 64 * GIB)),
    ),
    max_size=12,
    unique_by=lambda candidate: candidate.order,
)


@given(waiting, farms)
def test_each_unit_at_most_once(candidates: list[Candidate], slots: list[Slot]) -> None:
    placements = place(candidates, slots)
    assert len({p.unit_id for p in placements}) == len(placements)


@given(waiting, farms)
def test_a_worker_has_more_than_one_unit_only_if_all_of_them_are_short(
    candidates: list[Candidate], slots: list[Slot]
) -> None:
    workers = {slot.worker_id: slot for slot in slots}
    placements = place(candidates, slots)
    for worker_id in {placement.worker_id for placement in placements}:
        ours = [placement.estimate_s for placement in placements if placement.worker_id == worker_id]
        slot = workers[worker_id]
        if len(ours) + slot.units > 1:
            backlog_s = 0.0 if slot.free else slot.backlog_s
            assert None not in ours
            assert backlog_s + sum(estimate_s or 0.0 for estimate_s in ours) <= AHEAD_MAX_S


@given(waiting, farms)
def test_only_on_free_workers_that_can(candidates: list[Candidate], slots: list[Slot]) -> None:
    units = {candidate.unit_id: candidate for candidate in candidates}
    workers = {slot.worker_id: slot for slot in slots}
    for placement in place(candidates, slots):
        slot = workers[placement.worker_id]
        assert slot.may_take()
        assert can_take(units[placement.unit_id], slot, slots)


@given(waiting, farms)
def test_never_where_it_failed_while_another_can_take_it(candidates: list[Candidate], slots: list[Slot]) -> None:
    units = {candidate.unit_id: candidate for candidate in candidates}
    for placement in place(candidates, slots):
        candidate = units[placement.unit_id]
        if placement.worker_id in candidate.failed_on:
            untried = [slot for slot in slots if slot.worker_id not in candidate.failed_on]
            assert not any(can_take(candidate, slot, slots) for slot in untried)


@given(waiting, farms)
def test_no_unit_takes_a_worker_from_one_before_it(candidates: list[Candidate], slots: list[Slot]) -> None:
    """A unit's place depends on those before it only: those behind it change nothing."""
    ordered = sorted(candidates, key=lambda candidate: candidate.order)
    everything = place(ordered, slots)
    for count in range(len(ordered)):
        before = place(ordered[:count], slots)
        assert everything[: len(before)] == before


@given(waiting, farms)
def test_no_free_worker_idles_while_a_fresh_unit_could_run_on_it(
    candidates: list[Candidate], slots: list[Slot]
) -> None:
    placements = place(candidates, slots)
    started, taken = {p.unit_id for p in placements}, {p.worker_id for p in placements}
    left_over = [c for c in candidates if c.unit_id not in started and not c.failed_on]
    idle = [slot for slot in slots if slot.free and slot.worker_id not in taken]
    assert not any(can_take(candidate, slot, slots) for candidate, slot in itertools.product(left_over, idle))


@given(waiting, farms)
def test_the_first_unit_finds_its_scene_open_if_any_worker_has_it(
    candidates: list[Candidate], slots: list[Slot]
) -> None:
    fresh = [candidate for candidate in candidates if not candidate.failed_on]
    if not fresh:
        return
    first = min(fresh, key=lambda candidate: candidate.order)
    warm = {s.worker_id for s in slots if s.free and s.open_scene == first.asset_id and can_take(first, s, slots)}
    if warm:
        assert place(fresh, slots)[0].worker_id in warm


@given(waiting, farms, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    candidates: list[Candidate], slots: list[Slot], shuffler: random.Random
) -> None:
    expected: list[Placement] = place(candidates, slots)
    shuffler.shuffle(candidates)
    shuffler.shuffle(slots)
    assert place(candidates, slots) == expected
