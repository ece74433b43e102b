"""What a session's process asks of the system."""

from __future__ import annotations

import os
import threading

from blender_runtime import process
from tests.slices import LONG_SLICE_S, slice_s


def test_all_threads_and_those_they_start_compute_in_long_slices_and_change_nothing_else() -> None:
    def look() -> tuple[float, int, int]:
        return slice_s(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)

    seen: list[tuple[float, int, int]] = []
    is_set = threading.Event()

    def look_later() -> None:
        assert is_set.wait(60)
        seen.append(look())

    earlier = threading.Thread(target=look_later)
    earlier.start()
    before = look()
    try:
        process.compute_in_slices(long=True)
        is_set.set()
        earlier.join()
        later = threading.Thread(target=lambda: seen.append(look()))
        later.start()
        later.join()
        assert seen == [look()] * 2 == [(LONG_SLICE_S, *before[1:])] * 2
    finally:
        process.compute_in_slices(long=False)
    assert look() == before
