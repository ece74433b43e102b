"""The farm that ``render`` starts for itself, here with a fake one in the place of ``serve_app``."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.unit.cli.conftest import Cli

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def fake_serve_app(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m`` finds the fake first, because it looks into the working folder first."""
    (machine / "serve_app").mkdir()
    (machine / "serve_app" / "__init__.py").touch()
    (machine / "serve_app" / "__main__.py").write_text("from tests.unit.cli.fake_farm import serve\nserve()\n")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


def children(machine: Path) -> list[psutil.Process]:
    """Return the farms on this test's data; other tests may have theirs."""
    return [child for child in psutil.Process().children(recursive=True) if str(machine) in " ".join(child.cmdline())]


def test_farm_is_started_and_taken_down(cli: Cli, scene: Path, machine: Path) -> None:
    ended = cli("render", scene, "-o", machine / "out", "--json")
    assert ended.code == 0
    assert len(ended.json["outputs"]) == 3
    assert "Starting the farm…" in ended.err
    assert list((machine / "data").iterdir()) == []
    assert children(machine) == []


def test_leftovers_of_former_farms_are_removed_after_a_day(cli: Cli, scene: Path, machine: Path) -> None:
    folders = {name: machine / "data" / f"render-{name}" for name in ("fresh", "old", "held")}
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "farm.lock").touch()
    for name in ("old", "held"):
        os.utime(folders[name], (1e9, 1e9))
    with (folders["held"] / "farm.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli("render", scene, "-o", machine / "out").code == 0
    assert [name for name, folder in folders.items() if folder.exists()] == ["fresh", "held"]


def test_farm_that_says_why_it_cannot_start(
    cli: Cli, scene: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FARM", "fails")
    ended = cli("render", scene, "-o", machine / "out", "--json")
    assert ended.code == 3
    assert "error: the farm did not start: no Blender here (its logs are in " in ended.err
    assert ended.json["error"]["kind"] == "farm_unavailable"


def test_farm_that_dies_at_the_start_shows_its_last_words(
    cli: Cli, scene: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FARM", "dies")
    ended = cli("render", scene, "-o", machine / "out")
    assert ended.code == 3
    assert "something broke in Ray\nerror: the farm did not start: it ended with status 7" in ended.err


def test_farm_that_dies_while_it_renders(cli: Cli, scene: Path, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FARM", "leaves")
    ended = cli("render", scene, "-o", machine / "out")
    assert ended.code == 3
    assert "error: the farm ended by itself (its logs are in " in ended.err


def test_interrupt_takes_the_farm_down(cli: Cli, scene: Path, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FARM", "stands still")

    def interrupt_when_the_farm_runs() -> None:
        while not children(machine):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_the_farm_runs, daemon=True).start()
    assert cli("render", scene, "-o", machine / "out").code == 130
    assert children(machine) == []
    assert list((machine / "data").iterdir()) == []


def interrupt_once_a_process_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt at the worst moment: the process is there, and nobody has been told of it."""

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)


def test_interrupt_in_the_moment_in_which_the_farm_starts(
    cli: Cli, scene: Path, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_once_a_process_has_started(monkeypatch)
    assert cli("render", scene, "-o", machine / "out").code == 130
    assert children(machine) == []
    assert list((machine / "data").iterdir()) == []


def test_interrupt_in_the_moment_in_which_up_starts(cli: Cli, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_once_a_process_has_started(monkeypatch)
    assert cli("up", "--data", machine / "data").code == 0
    assert children(machine) == []


def start_up(machine: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "import sys; from renderfarm.cli import run; sys.exit(run(sys.argv[1:]))", "up"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=machine)
    assert process.stdout is not None
    assert "its API described at http://127.0.0.1:" in process.stdout.readline()
    return process


def farm_of(process: subprocess.Popen[str]) -> psutil.Process:
    return psutil.Process(process.pid).children()[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_runs_until_it_is_stopped(machine: Path, number: signal.Signals) -> None:
    process = start_up(machine)
    farm = farm_of(process)
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 0
    assert not farm.is_running()


def test_farm_does_not_outlive_a_command_line_that_is_killed(machine: Path) -> None:
    process = start_up(machine)
    farm = farm_of(process)
    process.kill()
    process.communicate(timeout=20)
    assert psutil.wait_procs([farm], timeout=20)[1] == []


def test_up_where_its_data_cannot_be_written(cli: Cli, machine: Path) -> None:
    (machine / "file").write_text("in the way")
    ended = cli("up", "--data", machine / "file" / "data")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "error: cannot write" in ended.err
