"""What a session renders and finds out, with real Blender."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from actors.blenders import Blender
from blender_runtime.protocol import FrameDone, Progress
from renderfarm.domain.facts import ViewSettings
from renderfarm.domain.movies import frame_rate
from renderfarm.domain.render_settings import Device, Engine, ImageFormat
from renderfarm.services.unit_script import generate_script
from tests.integration.session.bench import (
    HOSTILE,
    LIMITS,
    PLAIN,
    Bench,
    Run,
    names,
    opened,
    pixels,
    render_request,
    same,
)


def test_frames_are_written_under_blenders_names(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    spec = replace(PLAIN, frames=(-2, 0, 3, 12345))
    done = bench.render(spec, scenes / "plain.blend", tmp_path / "out", tmp_path / "log")
    assert [frame.frame for frame in done] == [-2, 0, 3, 12345]
    assert names(done) == [["shot_-0002.png"], ["shot_0000.png"], ["shot_0003.png"], ["shot_12345.png"]]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(name for (name,) in names(done))
    assert pixels(done[0].files[0]).shape == (18, 32, 4)
    assert all(frame.render_seconds > 0 for frame in done)
    assert not (scenes / "render").exists()


def test_an_output_path_that_is_a_folder_gives_bare_numbers(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    # Blender reads braces and number signs in paths; in the farm's own folders they are what they are.
    output = tmp_path / "a {b} c#"
    done = bench.render(PLAIN, scenes / "tmp.blend", output, tmp_path / "log")
    assert [frame.files for frame in done] == [(str(output / "0001.png"),)]


@pytest.mark.parametrize(
    ("image_format", "suffix"),
    [
        (ImageFormat.PNG, "png"),
        (ImageFormat.JPEG, "jpg"),
        (ImageFormat.OPEN_EXR, "exr"),
        (ImageFormat.OPEN_EXR_MULTILAYER, "exr"),
        (ImageFormat.TIFF, "tif"),
        (ImageFormat.WEBP, "webp"),
    ],
)
def test_every_format_is_written(
    bench: Bench, scenes: Path, tmp_path: Path, image_format: ImageFormat, suffix: str
) -> None:
    done = bench.render(replace(PLAIN, format=image_format), scenes / "plain.blend", tmp_path, tmp_path / "log")
    assert names(done) == [[f"shot_0001.{suffix}"]]
    assert pixels(done[0].files[0]).shape[:2] == (18, 32)


def test_settings_of_one_unit_do_not_reach_the_next(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "plain.blend"
    other = replace(
        PLAIN,
        engine=Engine.WORKBENCH,
        format=ImageFormat.JPEG,
        resolution_x_px=40,
        resolution_y_px=20,
        percent=50,
        device=Device.CPU,
    )
    before = bench.render(PLAIN, scene, tmp_path / "before", tmp_path / "log")
    between = bench.render(other, scene, tmp_path / "between", tmp_path / "log")
    after = bench.render(PLAIN, scene, tmp_path / "after", tmp_path / "log")
    assert pixels(between[0].files[0]).shape == (10, 20, 3)
    assert names(after) == names(before)
    assert same(after[0].files[0], before[0].files[0])


def test_a_second_unit_of_the_same_scene_does_not_open_it_again(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "plain.blend"
    first = replace(PLAIN, samples=1)
    bench.render(first, scene, tmp_path / "1", tmp_path / "log1")
    second = replace(first, frames=(2,), unit_id="another", folder="elsewhere")
    bench.render(second, scene, tmp_path / "2", tmp_path / "log2")
    bench.render(replace(second, samples=2), scene, tmp_path / "3", tmp_path / "log3")
    assert [opened(tmp_path / f"log{number}") for number in (1, 2, 3)] == [1, 0, 1]
    assert bench.session.open_scene == scene


def test_a_file_that_was_inspected_is_not_opened_again(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    bench.inspect(scenes / "cameras.blend", tmp_path / "log")
    bench.render(PLAIN, scenes / "cameras.blend", tmp_path, tmp_path / "log")
    assert opened(tmp_path / "log") == 1


def test_a_camera_of_ones_own_beats_the_files_markers(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    scene = scenes / "cameras.blend"
    spec = replace(PLAIN, frames=(2,))
    active = bench.render(spec, scene, tmp_path / "active", tmp_path / "log")
    hostile = bench.render(replace(spec, camera=HOSTILE), scene, tmp_path / "hostile", tmp_path / "log")
    assert not same(active[0].files[0], hostile[0].files[0])
    assert not list(scenes.rglob("pwned"))
    assert not Path("pwned").exists()


def test_the_downloaded_script_gives_the_same_pixels(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    spec = replace(PLAIN, scene_file="plain.blend", frames=(1, 3), samples=5, percent=200, folder="Left")
    done = bench.render(spec, scenes / "plain.blend", tmp_path / "farm", tmp_path / "log")
    script = scenes / "render_unit_1.py"
    script.write_text(generate_script(spec))
    subprocess.run([sys.executable, script], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    for frame in done:
        (file,) = frame.files
        assert same(file, tmp_path / "output" / "Left" / Path(file).name)


def test_the_downloaded_script_tells_what_is_wrong(scenes: Path, tmp_path: Path) -> None:
    script = tmp_path / "render_unit.py"
    script.write_text(generate_script(replace(PLAIN, camera="Nobody")))
    command = [sys.executable, str(script), "--scene", str(scenes / "plain.blend"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("error: there is no camera named 'Nobody'")


def test_a_truncated_picture_is_no_picture(scenes: Path, tmp_path: Path) -> None:
    # A limit on file sizes stands in for a full disk: Blender meets the same error, and is silent about both.
    script = tmp_path / "render_unit.py"
    script.write_text(generate_script(PLAIN))
    command = ["sh", "-c", 'ulimit -f 16; exec "$@"', "sh", sys.executable, str(script)]
    command += ["--scene", str(scenes / "noisy.blend"), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "is full" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_and_frames_are_told_as_they_come(run: Run[Any], bench: Bench, scenes: Path, tmp_path: Path) -> None:
    heard: list[Progress | FrameDone] = []

    async def on_frame(frame: FrameDone) -> None:
        assert all(pixels(file).shape == (72, 128, 4) for file in frame.files)
        heard.append(frame)

    spec = replace(PLAIN, frames=(1, 2), samples=400, percent=400)
    run(
        bench.session.render(
            render_request(generate_script(spec), spec.frames, scenes / "plain.blend", tmp_path, tmp_path / "log"),
            on_progress=heard.append,
            on_frame=on_frame,
            **LIMITS,
        )
    )
    assert [reply.frame for reply in heard] == sorted(reply.frame for reply in heard)
    assert [reply.frame for reply in heard if isinstance(reply, FrameDone)] == [1, 2]
    progress = [reply for reply in heard if isinstance(reply, Progress)]
    assert all(0 <= reply.fraction <= 1 and reply.memory_bytes > 0 for reply in progress)
    assert any("Sample" in reply.note and reply.fraction > 0 for reply in progress)
    assert bench.session.peak_memory_bytes > 50 * 2**20


def test_short_frames_in_a_row_tell_only_of_their_ends(
    run: Run[Any], bench: Bench, scenes: Path, tmp_path: Path
) -> None:
    heard: list[Progress | FrameDone | str] = []

    async def on_frame(frame: FrameDone) -> None:
        heard.append(frame)

    def render(frames: tuple[int, ...]) -> None:
        request = render_request(
            generate_script(replace(PLAIN, frames=frames)), frames, scenes / "plain.blend", tmp_path, tmp_path / "log"
        )
        done = bench.session.render(
            request, on_begin=lambda _: heard.append("begun"), on_progress=heard.append, on_frame=on_frame, **LIMITS
        )
        run(done)

    render((1,))
    render((2, 3))
    render((4,))
    told = [f"{type(reply).__name__} {reply.frame}" for reply in heard if not isinstance(reply, str)]
    frames = [reply for reply in heard if isinstance(reply, FrameDone)]
    assert heard.count("begun") == 3
    assert told[0] == "Progress 1"
    assert [frame.frame for frame in frames] == [1, 2, 3, 4]
    assert all(frame.memory_bytes > 50 * 2**20 for frame in frames)
    for before, frame in itertools.pairwise(frames):
        if max(before.render_seconds, frame.render_seconds) < 0.5:
            assert f"Progress {frame.frame}" not in told


# --- facts ---------------------------------------------------------------------------------------------------


def test_facts_of_a_plain_scene(bench: Bench, blender: Blender, scenes: Path, tmp_path: Path) -> None:
    facts = bench.inspect(scenes / "plain.blend", tmp_path / "log")
    (scene,) = facts.scenes
    assert facts.blender_version == blender.version
    assert facts.file_version == ".".join(blender.version.split(".")[:2])
    assert (facts.active_scene, scene.name, scene.cameras, scene.camera) == ("Scene", "Scene", ("Camera",), "Camera")
    assert (scene.frame_start, scene.frame_end, scene.frame_step, scene.fps) == (1, 3, 1, 24.0)
    assert (scene.resolution_x_px, scene.resolution_y_px, scene.percent) == (32, 18, 100)
    assert (scene.engine, scene.samples, scene.view_layers) == ("CYCLES", 2, ("ViewLayer",))
    assert (scene.file_format, scene.is_movie, scene.output_path) == ("PNG", False, "//render/shot_####")
    assert (scene.fps_base, scene.view_settings) == (1.0, ViewSettings())
    assert (facts.missing_files, facts.libraries, facts.has_scripts) == ((), (), False)
    assert facts.memory_bytes > 50 * 2**20


def test_facts_of_several_scenes(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    facts = bench.inspect(scenes / "two_scenes.blend", tmp_path / "log")
    assert facts.active_scene == "Other"
    other = facts.scene("Other")
    assert other is not None
    assert other.is_movie
    assert other.view_layers == ("ViewLayer", "Second")
    assert other.fps == pytest.approx(29.97, abs=0.001)
    assert frame_rate(other.fps, other.fps_base) == Fraction(30000, 1001)
    assert other.view_settings == ViewSettings(
        view="Filmic", look="High Contrast", exposure=0.5, gamma=1.25, is_whole=False
    )


def test_missing_files_are_told_with_their_users(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    facts = bench.inspect(scenes / "missing.blend", tmp_path / "log")
    missing = {(file.path, file.used_by) for file in facts.missing_files}
    assert missing == {("//textures/wood.png", 'Image "wood"'), ("//tile.1001.png", 'Image "tiles"')}
    assert facts.has_scripts


@pytest.mark.parametrize(("name", "needs_scripts"), [("driver", False), ("python_driver", True)])
def test_only_python_in_drivers_needs_scripts(
    bench: Bench, scenes: Path, tmp_path: Path, name: str, needs_scripts: bool
) -> None:
    assert bench.inspect(scenes / f"{name}.blend", tmp_path / "log").has_scripts == needs_scripts
