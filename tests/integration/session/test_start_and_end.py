"""How sessions start and end, and that nothing is left of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BufferedRWPair
from pathlib import Path
from typing import Any

import pytest

from actors.blender_session import BlenderSession, SessionFailed
from actors.blenders import Blender
from blender_runtime import protocol
from renderfarm.domain.render_settings import Device
from tests.integration.session.bench import (
    BAD_SCRIPT,
    PLAIN,
    REPOSITORY,
    Bench,
    Run,
    is_gone,
)

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


#: Asks TBB how many threads it would use at most, by the function that its own header calls.
ASK_TBB = """import ctypes
    maps = open("/proc/self/maps").read().split()
    tbb = ctypes.CDLL(next(path for path in maps if "libtbb.so" in path))
    ask = tbb._ZN3tbb6detail2r115max_concurrencyEPKNS0_2d115task_arena_baseE
    ask.argtypes, ask.restype = [ctypes.c_void_p], ctypes.c_int
    threads = [int(thread) for thread in os.listdir("/proc/self/task")]
    print("TBB:", ask(None), sorted({core for thread in threads for core in os.sched_getaffinity(thread)}),
          {len(os.sched_getaffinity(thread)) for thread in threads})
    return []"""


@pytest.mark.parametrize("threads", [1, None])
def test_all_that_runs_in_parallel_keeps_to_the_workers_threads(
    run: Run[Any], blender: Blender, tmp_path: Path, threads: int | None
) -> None:
    bench = Bench(run, blender, tmp_path / "session", threads=threads)
    try:
        bench.misbehave(ASK_TBB, tmp_path)
    finally:
        bench.close()
    cores = sorted(os.sched_getaffinity(0))
    # The system may still put its threads on any core.
    assert f"TBB: {threads or len(cores)} {cores} {{{len(cores)}}}" in (tmp_path / "log").read_text()


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


@contextmanager
def talking(blender: Blender, log_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], BufferedRWPair]]:
    """Start a session as the farm does, and give its process and the pipe."""
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    command = [*blender.argv_prefix, "--requests-fd", str(fd), "--replies-fd", str(fd)]
    with theirs, log_path.open("wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(fd,))
    with ours, ours.makefile("rwb") as channel:
        yield child, channel


def test_the_child_ends_at_the_end_of_its_pipe_and_answers_before(blender: Blender, tmp_path: Path) -> None:
    with talking(blender, tmp_path / "log") as (child, channel):
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


def test_requests_are_done_in_their_order_but_for_those_withdrawn(blender: Blender, tmp_path: Path) -> None:
    with talking(blender, tmp_path / "log") as (child, channel):
        assert isinstance(protocol.decode_reply(channel.readline())[1], protocol.Ready)
        pings = [protocol.encode(number, protocol.Ping()) for number in (1, 2, 3)]
        taken_back = [protocol.encode(number, protocol.Withdraw()) for number in (2, 77)]
        channel.write(b"".join([*pings, *taken_back, protocol.encode(4, protocol.Quit())]))
        channel.flush()
        replies = [protocol.decode_reply(line) for line in channel]
    assert replies == [(number, protocol.Result(value={})) for number in (1, 3, 4)]
    assert child.wait(timeout=10) == 0


PARENT = """
import asyncio, json, sys
from pathlib import Path
from actors.blender_session import BlenderSession
from actors.blenders import find_blenders
from blender_runtime.protocol import Render

async def main(folder, script):
    session = await BlenderSession.start(
        find_blenders([])[0], folder=folder / "s", log_path=folder / "log", start_timeout_s=60
    )
    request = Render(
        script=script, scene_path=str(folder / "none"), output_dir=str(folder), frames=(1,),
        log_path=str(folder / "log"), saving_min=0.1,
    )
    await session.render(
        request,
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
