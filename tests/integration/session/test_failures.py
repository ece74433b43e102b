"""What goes wrong in a session: what Blender survives, and what it does not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.blender_session import SessionCancelled, SessionFailed
from blender_runtime import protocol
from blender_runtime.protocol import Progress
from renderfarm.domain.failures import FailureKind
from renderfarm.services.unit_script import generate_script
from tests.integration.session.bench import (
    BAD_SCRIPT,
    LIMITS,
    PLAIN,
    Bench,
    Run,
    is_gone,
    render_request,
)
from tests.unit.actors.fake_blender import until

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

        script = BAD_SCRIPT.format(body="time.sleep(60)")
        request = render_request(script, (1,), tmp_path / "none.blend", tmp_path, tmp_path / "log")
        with pytest.raises(SessionCancelled):
            await bench.session.render(request, on_progress=on_progress, **LIMITS)
        return time.monotonic() - began

    assert run(cancel_when_it_renders()) < 1
    assert is_gone(bench.session.pid, within_s=1)


class Ahead:
    """A frame that ends when it is told to, and others that are sent ahead meanwhile."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.session, self.folder = bench.session, folder
        self._gate = folder / "gate"

    def request(self, name: str, body: str = "") -> protocol.Render:
        """Return a request that leaves a file of its name, and does something before."""
        script = BAD_SCRIPT.format(body=f"{body or 'pass'}; open({str(self.folder / name)!r}, 'x').close(); return []")
        return render_request(script, (1,), self.folder / "none.blend", self.folder, self.folder / f"{name}.log")

    async def begin(self) -> asyncio.Task[Any]:
        """Begin the frame, and wait until it renders."""
        wait = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists({str(self._gate)!r}), True)]"
        rendering = asyncio.create_task(self.session.render(self.request("first", wait), **LIMITS))
        await until(lambda: self.session.takes_ahead, seconds=30)
        return rendering

    async def begin_second(self, body: str) -> protocol.Render:
        """Send one ahead, and end the first; return the second, with which Blender has begun."""
        rendering, second = await self.begin(), self.request("second", body)
        self.session.send_ahead(second)
        self.end()
        await rendering
        return second

    def end(self) -> None:
        self._gate.touch()

    def wait_for(self, name: str) -> None:
        """Wait for a file, and let nothing else happen."""
        end = time.monotonic() + 30
        while name not in self.done():
            assert time.monotonic() < end
            time.sleep(0.01)

    def done(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if not path.suffix} - {"gate"}


def test_what_was_sent_ahead_is_done_without_being_asked_for(run: Run[Any], bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> None:
        ahead = Ahead(bench, tmp_path)
        rendering, second = await ahead.begin(), ahead.request("second")
        ahead.session.send_ahead(second)
        assert not ahead.session.takes_ahead
        ahead.end()
        assert len(await rendering) == 1
        await until(lambda: "second" in ahead.done(), seconds=30)
        assert len(await ahead.session.render(second, **LIMITS)) == 1
        assert len(await ahead.session.render(ahead.request("third"), **LIMITS)) == 1
        assert ahead.done() == {"first", "second", "third"}

    run(scenario())
    assert bench.session.alive


@pytest.mark.parametrize("begun", [False, True])
def test_what_was_withdrawn_is_not_done_or_heard_of_no_more(
    run: Run[Any], bench: Bench, tmp_path: Path, begun: bool
) -> None:
    async def scenario() -> None:
        ahead = Ahead(bench, tmp_path)
        rendering, second = await ahead.begin(), ahead.request("second")
        ahead.session.send_ahead(second)
        if begun:
            ahead.end()
            ahead.wait_for("second")  # meanwhile nobody reads that the first is done
        ahead.session.withdraw(second)
        third = ahead.request("third")
        if not begun:
            ahead.session.send_ahead(third)
            ahead.end()
        assert len(await rendering) == 1
        [done] = await ahead.session.render(third, **LIMITS)
        assert done.frame == 1
        assert ahead.done() == {"first", "third"} | ({"second"} if begun else set())

    run(scenario())
    assert bench.session.alive


def test_what_is_withdrawn_after_its_beginning_ends_blender(run: Run[Any], bench: Bench, tmp_path: Path) -> None:
    async def scenario() -> None:
        ahead = Ahead(bench, tmp_path)
        second = await ahead.begin_second("time.sleep(60)")
        ahead.session.withdraw(second)

    run(scenario())
    assert not bench.session.alive
    assert is_gone(bench.session.pid, within_s=1)


def test_another_request_takes_the_place_of_one_that_is_about_to_be_withdrawn(
    run: Run[Any], bench: Bench, tmp_path: Path
) -> None:
    async def scenario() -> None:
        ahead = Ahead(bench, tmp_path)
        second = await ahead.begin_second("time.sleep(0.1)")
        assert len(await ahead.session.render(ahead.request("third"), **LIMITS)) == 1
        ahead.session.withdraw(second)

    run(scenario())
    assert bench.session.alive


def test_a_session_that_is_closed_does_not_wait_for_what_was_sent_ahead(
    run: Run[Any], bench: Bench, tmp_path: Path
) -> None:
    async def scenario() -> float:
        ahead = Ahead(bench, tmp_path)
        await ahead.begin_second("time.sleep(60)")
        began = time.monotonic()
        await ahead.session.close()
        return time.monotonic() - began

    assert run(scenario()) < 1


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
