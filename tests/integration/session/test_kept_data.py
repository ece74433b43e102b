"""What a session keeps between frames, and how it computes: neither changes a pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renderfarm.domain.render_settings import ImageFormat, PersistentData
from tests.integration.session.bench import PLAIN, Bench, opened, same
from tests.slices import LONG_SLICE_S, slice_s

EXR = replace(PLAIN, scene_file="driver.blend", format=ImageFormat.OPEN_EXR, frames=(1, 2, 3))
AUTO = replace(EXR, persistent_data=PersistentData.AUTO)
WARM = replace(EXR, persistent_data=PersistentData.ON)
COLD = replace(EXR, persistent_data=PersistentData.OFF)


def test_warm_frames_have_the_pixels_of_cold_ones(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "driver.blend"
    warm = bench.render(WARM, scene, tmp_path / "warm", tmp_path / "log", fresh=True)
    assert [frame.warm for frame in warm] == [False, True, True]
    cold = [
        bench.render(replace(COLD, frames=(frame,)), scene, tmp_path / "cold", tmp_path / "log", fresh=True)[0]
        for frame in COLD.frames
    ]
    assert [frame.warm for frame in cold] == [False, False, False]
    assert all(same(one.files[0], other.files[0]) for one, other in zip(warm, cold, strict=True))
    assert not same(warm[0].files[0], warm[1].files[0])  # or there would be nothing to get wrong


def test_data_are_kept_where_that_saves_time(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene, log = scenes / "heavy.blend", tmp_path / "log"
    spec = replace(AUTO, scene_file=scene.name)
    frames = bench.render(spec, scene, tmp_path / "out", log, fresh=True)
    assert [frame.warm for frame in frames] == [False, True, True]
    assert "it is not kept" not in log.read_text()


def test_data_are_not_kept_where_that_saves_nothing(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene, log = scenes / "driver.blend", tmp_path / "log"
    frames = bench.render(replace(AUTO, samples=2000), scene, tmp_path / "out", log, fresh=True)
    assert [frame.warm for frame in frames] == [False, False, False]
    assert log.read_text().count("it is not kept") == 1
    # The same scene with other samples is another matter, and who wants them kept in any case gets them.
    [first, second, _] = bench.render(replace(WARM, samples=2000), scene, tmp_path / "on", log)
    assert (first.warm, second.warm) == (False, True)


def test_it_stays_warm_from_unit_to_unit_and_from_task_to_task(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene, log = scenes / "driver.blend", tmp_path / "log"
    bench.render(replace(WARM, frames=(1,)), scene, tmp_path / "one", log, fresh=True)
    [frame] = bench.render(replace(WARM, frames=(2,), task_id="other"), scene, tmp_path / "two", log)
    assert (frame.warm, opened(log)) == (True, 1)


def test_the_files_own_choice_holds_where_nobody_asks_for_another(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene, log = scenes / "driver.blend", tmp_path / "log"
    bench.render(replace(WARM, frames=(1,)), scene, tmp_path / "one", log, fresh=True)
    [frame] = bench.render(replace(EXR, frames=(2,)), scene, tmp_path / "two", log)  # which is not to keep
    assert (frame.warm, opened(log)) == (False, 1)


def test_a_fresh_frame_knows_nothing_of_those_before(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene, log = scenes / "driver.blend", tmp_path / "log"
    bench.render(replace(WARM, frames=(1,)), scene, tmp_path / "one", log, fresh=True)
    [frame] = bench.render(replace(WARM, frames=(2,)), scene, tmp_path / "two", log, fresh=True)
    assert (frame.warm, opened(log)) == (False, 2)


def test_too_much_memory_costs_the_data_then_the_file_then_the_session(
    bench: Bench, scenes: Path, tmp_path: Path
) -> None:
    scene, log = scenes / "driver.blend", tmp_path / "log"
    # Every session has more than a byte: nothing that it gives up helps.
    first = bench.render(WARM, scene, tmp_path / "one", log, fresh=True, memory_max_bytes=1)
    assert [frame.warm for frame in first] == [False, False, False]
    assert not wants_restart(bench)
    assert [line.split(": ")[-1] for line in log.read_text().splitlines() if line.startswith("renderfarm: ")] == [
        "render data is not kept any more",
        "the file is opened anew",
    ]
    bench.render(WARM, scene, tmp_path / "two", log, memory_max_bytes=1)
    assert opened(log) == 2
    assert wants_restart(bench)
    bench.render(WARM, scene, tmp_path / "three", log)
    assert not wants_restart(bench)


def wants_restart(bench: Bench) -> bool:
    return bench.session.wants_restart


def test_long_frames_are_computed_in_long_slices_and_short_ones_are_not(bench: Bench, tmp_path: Path) -> None:
    bench.misbehave("return []", tmp_path)
    before_s = slice_s(bench.session.pid)
    bench.misbehave("import time; time.sleep(2.1); return []", tmp_path)
    assert slice_s(bench.session.pid) == LONG_SLICE_S
    bench.misbehave("return []", tmp_path)
    assert slice_s(bench.session.pid) == before_s
