"""Real sessions with real Blender: pictures, failures, and every way to die."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import OpenImageIO
import pytest

from actors.blender_session import BlenderSession, FrameDone, Progress, SessionCancelled, SessionFailed
from actors.blenders import Blender, find_blenders
from blender_runtime import protocol
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.render_settings import Device, Engine, ImageFormat
from renderfarm.domain.unit_spec import UnitSpec
from renderfarm.services.unit_script import generate_script
from tests.integration.scenes import make_scenes

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

HOSTILE = "'''; import os; os.mkdir('pwned') #\"\n{}"
REPOSITORY = Path(__file__).parents[2]

#: A stand-in for a unit's script that behaves badly in a chosen way, without the cost of a picture.
BAD_SCRIPT = """
import os, signal, time
UNIT = {{}}
def open_scene(path): pass
def apply_settings(unit):
    import bpy
    return bpy.context.scene
def render_frame(scene, frame, output_dir):
    {body}
"""

PLAIN = UnitSpec(
    scene_file="plain.blend",
    scene=None,
    view_layer=None,
    camera=None,
    frames=(1,),
    engine=None,
    samples=None,
    resolution_x_px=None,
    resolution_y_px=None,
    percent=None,
    format=None,
    device=Device.AUTO,
    folder="",
    unit_id="unit",
    task_id="task",
)

SCENES = {
    "plain": "",
    "noisy": "scene.render.resolution_x, scene.render.resolution_y, scene.cycles.samples = 320, 180, 1",
    "tmp": "scene.render.filepath = '/tmp/'",
    "cameras": f"""
second = bpy.data.objects.new({HOSTILE!r}, bpy.data.cameras.new("second"))
scene.collection.objects.link(second)
second.matrix_world = scene.camera.matrix_world
second.location.z += 2
scene.timeline_markers.new("cut", frame=2).camera = scene.camera
""",
    "two_scenes": """
other = bpy.data.scenes.new("Other")
other.collection.objects.link(scene.camera)
other.camera = scene.camera
other.view_layers.new("Second")
other.render.image_settings.file_format = "FFMPEG"
other.render.fps, other.render.fps_base = 30, 1.001
bpy.context.window.scene = other
""",
    "missing": """
image = bpy.data.images.new("wood", 4, 4)
image.source, image.filepath, image.use_fake_user = "FILE", "//textures/wood.png", True
tiles = bpy.data.images.new("tiles", 4, 4, tiled=True)
tiles.source, tiles.filepath, tiles.use_fake_user = "TILED", "//tile.<UDIM>.png", True
series = bpy.data.images.new("series", 4, 4)
series.source, series.filepath, series.use_fake_user = "SEQUENCE", "//frames/s_0001.png", True
packed = bpy.data.images.new("packed", 4, 4)
packed.pack()
text = bpy.data.texts.new("start.py")
text.use_module = True
""",
    "no_camera": "bpy.data.objects.remove(scene.camera)",
    "driver": "cube.driver_add('location', 0).driver.expression = 'frame * 0.1'",
    "python_driver": "cube.driver_add('location', 0).driver.expression = '[frame for _ in range(3)][0]'",
}


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def blender() -> Blender:
    return find_blenders([])[0]


@pytest.fixture(scope="module")
def run() -> Iterator[Run[Any]]:
    """Run a coroutine on an event loop that all of the module's tests share."""
    with asyncio.Runner() as runner:
        yield runner.run


class Bench:
    """A session that is started anew when a test has killed it, and short ways to use it."""

    def __init__(self, run: Run[Any], blender: Blender, folder: Path) -> None:
        self._run, self._blender, self._folder = run, blender, folder
        self.session = self._start()

    def _start(self) -> BlenderSession:
        session: BlenderSession = self._run(
            BlenderSession.start(
                self._blender, folder=self._folder, log_path=self._folder.with_suffix(".log"), start_timeout_s=60
            )
        )
        return session

    def revive(self) -> None:
        if not self.session.alive:
            self._run(self.session.close())
            self.session = self._start()

    def close(self) -> None:
        self._run(self.session.close())

    def inspect(self, scene: Path, log: Path) -> Any:
        return self._run(self.session.inspect(scene, log_path=log, open_timeout_s=60))

    def render(self, spec: UnitSpec, scene: Path, output: Path, log: Path) -> tuple[FrameDone, ...]:
        return self._render(generate_script(spec), spec.frames, scene, output, log)

    def misbehave(self, body: str, folder: Path, **options: Any) -> tuple[FrameDone, ...]:
        """Render frame 1 by a script whose ``render_frame`` does ``body``."""
        return self._render(
            BAD_SCRIPT.format(body=body), (1,), folder / "none.blend", folder, folder / "log", **options
        )

    def _render(
        self, script: str, frames: tuple[int, ...], scene: Path, output: Path, log: Path, **options: Any
    ) -> tuple[FrameDone, ...]:
        limits = {"open_timeout_s": 60, "frame_timeout_s": 60, "no_progress_timeout_s": 60} | options
        done: tuple[FrameDone, ...] = self._run(
            self.session.render(
                script=script, scene_path=scene, output_dir=output, frames=frames, log_path=log, **limits
            )
        )
        return done


@pytest.fixture(scope="module")
def shared_bench(run: Run[Any], blender: Blender, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(run, blender, tmp_path_factory.mktemp("session"))
    yield bench
    bench.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    shared_bench.revive()
    return shared_bench


def pixels(path: str | Path) -> Any:
    image = OpenImageIO.ImageBuf(str(path))
    assert not image.has_error, image.geterror()
    return image.get_pixels(OpenImageIO.FLOAT)


def same(one: str | Path, other: str | Path) -> bool:
    return bool(np.array_equal(pixels(one), pixels(other)))


def names(done: tuple[FrameDone, ...]) -> list[list[str]]:
    return [[Path(file).name for file in frame.files] for frame in done]


def opened(log: Path) -> int:
    """Count how often Blender says it opened a file."""
    return log.read_text().count("Read blend:")


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    """Wait for a process that is not a child of ours to be gone or a zombie of its new parent."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


# --- pictures ------------------------------------------------------------------------------------------------


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
            script=generate_script(spec),
            scene_path=scenes / "plain.blend",
            output_dir=tmp_path,
            frames=spec.frames,
            log_path=tmp_path / "log",
            open_timeout_s=60,
            frame_timeout_s=60,
            no_progress_timeout_s=60,
            on_progress=heard.append,
            on_frame=on_frame,
        )
    )
    assert [reply.frame for reply in heard] == sorted(reply.frame for reply in heard)
    assert [reply.frame for reply in heard if isinstance(reply, FrameDone)] == [1, 2]
    progress = [reply for reply in heard if isinstance(reply, Progress)]
    assert all(0 <= reply.fraction <= 1 and reply.memory_bytes > 0 for reply in progress)
    assert any("Sample" in reply.note and reply.fraction > 0 for reply in progress)
    assert bench.session.peak_memory_bytes > 50 * 2**20


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


# --- failures that Blender survives --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("random", FailureKind.BAD_FILE),
        ("empty", FailureKind.BAD_FILE),
        ("truncated", FailureKind.BAD_FILE),
        ("nowhere", FailureKind.MISSING_FILE),
    ],
)
def test_files_that_cannot_be_opened(bench: Bench, scenes: Path, tmp_path: Path, name: str, kind: FailureKind) -> None:
    with pytest.raises(SessionFailed) as raised:
        bench.inspect(scenes / f"{name}.blend", tmp_path / "log")
    assert raised.value.failure.kind == kind
    assert f"{name}.blend" in raised.value.failure.message
    assert bench.session.alive
    assert bench.session.open_scene is None
    assert bench.inspect(scenes / "plain.blend", tmp_path / "log").active_scene == "Scene"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"camera": "Nobody"}, "there is no camera named 'Nobody'"),
        ({"camera": "Cube"}, "'Cube' is not a camera"),
        ({"scene": "Nowhere"}, "there is no scene named 'Nowhere'"),
        ({"view_layer": "None"}, "there is no view layer named 'None'"),
    ],
)
def test_names_that_the_file_does_not_have(
    bench: Bench, scenes: Path, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(SessionFailed) as raised:
        bench.render(replace(PLAIN, **change), scenes / "plain.blend", tmp_path, tmp_path / "log")  # type: ignore[arg-type]
    assert raised.value.failure.kind == FailureKind.SCRIPT_ERROR
    assert raised.value.failure.message == message
    assert message in (tmp_path / "log").read_text()
    assert bench.session.alive


@pytest.mark.parametrize("frame", [1, -1])
def test_a_scene_without_a_camera(bench: Bench, scenes: Path, tmp_path: Path, frame: int) -> None:
    with pytest.raises(SessionFailed, match=r"script_error: .*[Nn]o camera"):
        bench.render(replace(PLAIN, frames=(frame,)), scenes / "no_camera.blend", tmp_path / "out", tmp_path / "log")
    assert bench.session.alive
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("raise MemoryError", FailureKind.OUT_OF_MEMORY, "MemoryError"),
        (
            "raise RuntimeError('Error: System is out of GPU memory')",
            FailureKind.OUT_OF_MEMORY,
            "System is out of GPU memory",
        ),
        ("raise OSError(28, os.strerror(28))", FailureKind.STORAGE, "No space left on device"),
        ("raise KeyError('x\\n\\ny')", FailureKind.SCRIPT_ERROR, "KeyError: "),
    ],
)
def test_exceptions_have_kinds(bench: Bench, tmp_path: Path, body: str, kind: FailureKind, message: str) -> None:
    with pytest.raises(SessionFailed) as raised:
        bench.misbehave(body, tmp_path)
    assert raised.value.failure.kind == kind
    assert message in raised.value.failure.message
    assert "\n" not in raised.value.failure.message
    assert bench.session.alive


def test_a_script_that_is_no_python(run: Run[Any], bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(SessionFailed, match="script_error: SyntaxError"):
        bench.misbehave("if", tmp_path)


def test_an_output_folder_that_cannot_be_written(bench: Bench, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SessionFailed) as raised:
        bench.render(PLAIN, scenes / "plain.blend", tmp_path / "file" / "out", tmp_path / "log")
    assert raised.value.failure.kind == FailureKind.STORAGE


# --- failures that Blender does not survive ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", FailureKind.CRASH, "was killed by SIGKILL"),
        ("os.abort()", FailureKind.CRASH, "was killed by SIGABRT"),
        ("os._exit(7)", FailureKind.CRASH, "ended by itself with exit code 7"),
        # What was printed last reaches the log although nothing flushes it.
        (
            "print('Error: the cause'); os.kill(os.getpid(), 9)",
            FailureKind.CRASH,
            "for want of memory: Error: the cause",
        ),
        ("print('Malloc returns null: len=9'); os.abort()", FailureKind.OUT_OF_MEMORY, "Malloc returns null: len=9"),
    ],
)
def test_a_crash_is_told(bench: Bench, tmp_path: Path, body: str, kind: FailureKind, message: str) -> None:
    with pytest.raises(SessionFailed) as raised:
        bench.misbehave(body, tmp_path)
    assert raised.value.failure.kind == kind
    assert message in raised.value.failure.message
    assert not bench.session.alive
    assert is_gone(bench.session.pid)


def test_a_kill_from_outside_between_requests_is_told_by_the_next(bench: Bench, tmp_path: Path) -> None:
    os.kill(bench.session.pid, signal.SIGSEGV)
    with pytest.raises(SessionFailed, match="crash: Blender was killed by SIGSEGV"):
        bench.misbehave("return []", tmp_path)


@pytest.mark.parametrize(
    ("body", "limits", "message"),
    [
        (
            "os.kill(os.getpid(), signal.SIGSTOP)",
            {"no_progress_timeout_s": 0.5},
            "frame 1 showed no progress for 0.5 s",
        ),
        ("time.sleep(60)", {"frame_timeout_s": 0.5}, "frame 1 took longer than 0.5 s"),
        (
            "\n    while True: print('busy'); time.sleep(0.05)",  # a growing log is a sign of life
            {"no_progress_timeout_s": 0.4, "frame_timeout_s": 2},
            "frame 1 took longer than 2 s",
        ),
    ],
)
def test_a_hang_is_ended(bench: Bench, tmp_path: Path, body: str, limits: dict[str, float], message: str) -> None:
    began = time.monotonic()
    with pytest.raises(SessionFailed) as raised:
        bench.misbehave(body, tmp_path, **limits)
    assert time.monotonic() - began < 5
    assert (raised.value.failure.kind, raised.value.failure.message) == (FailureKind.TIMEOUT, message)
    assert is_gone(bench.session.pid)


def test_opening_has_a_limit_of_its_own(run: Run[Any], bench: Bench, scenes: Path, tmp_path: Path) -> None:
    os.kill(bench.session.pid, signal.SIGSTOP)
    with pytest.raises(SessionFailed, match=r"timeout: opening the file took longer than 0.3 s"):
        run(bench.session.inspect(scenes / "plain.blend", log_path=tmp_path / "log", open_timeout_s=0.3))
    assert is_gone(bench.session.pid)


def test_kill_ends_a_render_at_once(run: Run[Any], bench: Bench, tmp_path: Path) -> None:
    async def cancel_when_it_renders() -> float:
        began = 0.0

        def on_progress(_: Progress) -> None:
            nonlocal began
            began = time.monotonic()
            asyncio.get_running_loop().call_later(0.1, bench.session.kill)

        with pytest.raises(SessionCancelled):
            await bench.session.render(
                script=BAD_SCRIPT.format(body="time.sleep(60)"),
                scene_path=tmp_path / "none.blend",
                output_dir=tmp_path,
                frames=(1,),
                log_path=tmp_path / "log",
                open_timeout_s=60,
                frame_timeout_s=60,
                no_progress_timeout_s=60,
                on_progress=on_progress,
            )
        return time.monotonic() - began

    assert run(cancel_when_it_renders()) < 1
    assert is_gone(bench.session.pid, within_s=1)


def test_cancelling_the_waiting_task_ends_the_render(run: Run[Any], bench: Bench, scenes: Path, tmp_path: Path) -> None:
    async def cancel() -> None:
        os.kill(bench.session.pid, signal.SIGSTOP)
        inspecting = asyncio.create_task(
            bench.session.inspect(scenes / "plain.blend", log_path=tmp_path / "log", open_timeout_s=60)
        )
        await asyncio.sleep(0.05)
        inspecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inspecting

    run(cancel())
    assert not bench.session.alive
    assert is_gone(bench.session.pid, within_s=1)


def test_a_callback_that_fails_ends_the_render(run: Run[Any], bench: Bench, scenes: Path, tmp_path: Path) -> None:
    def on_progress(_: Progress) -> None:
        raise LookupError("the caller's own")

    with pytest.raises(LookupError, match="the caller's own"):
        bench._render(
            generate_script(PLAIN), (1,), scenes / "plain.blend", tmp_path, tmp_path / "log", on_progress=on_progress
        )
    assert is_gone(bench.session.pid)


# --- starting and ending -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/nowhere/blender",), "crash: cannot start /nowhere/blender: No such file or directory"),
        (("sh", "-c", "echo 'error: libX.so not found' >&2; exit 127"), "exit code 127: error: libX.so not found"),
        (("sh", "-c", "sleep 60"), r"timeout: starting Blender took longer than 0.5 s"),
    ],
)
def test_a_blender_that_does_not_start(run: Run[Any], tmp_path: Path, command: tuple[str, ...], message: str) -> None:
    broken = Blender(version="1.0", argv_prefix=command)
    with pytest.raises(SessionFailed, match=message):
        run(BlenderSession.start(broken, folder=tmp_path / "s", log_path=tmp_path / "log", start_timeout_s=0.5))


def test_the_device_asked_for_is_not_there(
    run: Run[Any], blender: Blender, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR"):
        monkeypatch.setenv(name, "*:cpu" if name.startswith("ONEAPI") else "")
    bench = Bench(run, blender, tmp_path / "session")
    try:
        with pytest.raises(SessionFailed, match="device: a GPU was asked for"):
            bench.render(replace(PLAIN, device=Device.GPU), scenes / "plain.blend", tmp_path, tmp_path / "log")
        assert bench.session.alive
    finally:
        bench.close()


def test_sessions_leave_nothing_behind(run: Run[Any], blender: Blender, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def live(kill: bool) -> int:
        session = await BlenderSession.start(
            blender, folder=tmp_path / "session", log_path=tmp_path / "log", start_timeout_s=60, threads=1
        )
        if kill:
            session.kill()
        await session.close()
        await session.close()
        assert not session.alive
        return session.pid

    pids = [run(live(kill=True))]
    before = descriptors()
    pids += [run(live(kill=True)), run(live(kill=False))]
    assert descriptors() == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    # The last one ended by itself and took its temporary files along.
    assert len(list((tmp_path / "session" / "tmp").iterdir())) <= 2


def test_the_child_ends_at_the_end_of_its_pipe_and_answers_before(blender: Blender, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    command = [*blender.argv_prefix, "--requests-fd", str(fd), "--replies-fd", str(fd)]
    with theirs, (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(fd,))
    with ours, ours.makefile("rwb") as channel:
        assert protocol.decode_reply(channel.readline()) == (
            0,
            protocol.Ready(blender_version=blender.version, pid=child.pid),
        )
        channel.write(b"nonsense\n")
        channel.write(protocol.encode(5, protocol.Ping()))
        channel.flush()
        request_id, reply = protocol.decode_reply(channel.readline())
        assert request_id == 0
        assert isinstance(reply, protocol.Error)
        assert protocol.decode_reply(channel.readline()) == (5, protocol.Result(value={}))
    assert child.wait(timeout=10) == 0


PARENT = """
import asyncio, json, sys
from pathlib import Path
from actors.blender_session import BlenderSession
from actors.blenders import find_blenders

async def main(folder, script):
    session = await BlenderSession.start(
        find_blenders([])[0], folder=folder / "s", log_path=folder / "log", start_timeout_s=60
    )
    await session.render(
        script=script, scene_path=folder / "none", output_dir=folder, frames=(1,), log_path=folder / "log",
        open_timeout_s=60, frame_timeout_s=60, no_progress_timeout_s=60,
        on_progress=lambda _: print(session.pid, flush=True),
    )

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_a_rendering_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = BAD_SCRIPT.format(body="time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), script], cwd=REPOSITORY, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        parent.kill()
    assert is_gone(child_pid)
