"""The commands about tasks and the farm, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import renderfarm
from renderfarm.cli import exit_codes
from renderfarm.errors import Conflict, FarmUnavailable, Forbidden, InvalidFrames, NotFound, StorageFull
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_farm import SCRIPT, FakeFarm, picture


def test_status(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    assert cli("status", "t1").out == "t1  running  33%, 1/3 frames, ETA 7.0 s\n"
    assert cli("status", "t1", "--json").json["frames_done"] == 2


def test_watch_exits_as_the_task_ends(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task("good")
    ended = cli("watch", "t1", "--json")
    assert (ended.code, ended.json["status"], len(ended.json["outputs"])) == (0, "completed", 3)
    assert "good: frame 1 in 1.2 s of rendering  0001.png\n" in ended.err
    farm.fails = True
    farm.add_task("bad")
    ended = cli("watch", "t2")
    assert ended.code == 1
    assert "error: bad: no such node" in ended.err


def test_list(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task("one")
    farm.add_task("two")["status"] = "failed"
    table = cli("list", "--status", "failed", "--sort", "name", "--ascending", "--text", "t")
    assert [line.split()[:3] for line in table.out.splitlines()[1:]] == [["t2", "two", "failed"]]
    assert table.err == "1 of 2 tasks\n"
    assert [task["name"] for task in cli("list", "--json").json["items"]] == ["one", "two"]
    assert cli("list", "--status", "nonsense").code == 2


@pytest.mark.parametrize(
    ("command", "state"), [("cancel", "cancelled"), ("pause", "paused"), ("resume", "running"), ("retry", "queued")]
)
def test_control(cli: Cli, farm: FakeFarm, command: str, state: str) -> None:
    farm.add_task()
    assert cli(command, "t1").err == f"scene (t1) is {state}\n"
    farm.add_task()
    ended = cli(command, "t2", "--json")
    assert (ended.code, ended.json["status"], ended.err) == (0, state, "")


def test_retry_of_named_frames(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    cli("retry", "t1", "-f", "2,3")
    assert farm.tasks["t1"]["retried"] == {"frames": "2,3"}


def test_conflict(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()["status"] = "completed"
    ended = cli("cancel", "t1", "--json")
    assert (ended.code, ended.err) == (2, "error: cannot cancel a completed task\n")
    assert ended.json == {"error": {"kind": "illegal_transition", "message": "cannot cancel a completed task"}}


@pytest.mark.parametrize(
    "command", ["status", "watch", "cancel", "pause", "resume", "retry", "logs", "script", "outputs"]
)
def test_unknown_task(cli: Cli, farm: FakeFarm, command: str) -> None:
    ended = cli(command, "nope", "--json")
    assert (ended.code, ended.err) == (2, "error: no task nope\n")
    assert ended.json["error"]["kind"] == "not_found"


def test_execution_log(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    assert cli("logs", "t1").out.splitlines() == [
        "2026-01-02 03:04:05  task.state  queued: submitted  (user:local)",
        "2026-01-02 03:04:05  unit.state  ready → running  (scheduler)",
        "2026-01-02 03:04:05  task.split  too small  (scheduler)",
        "2026-01-02 03:04:05  task.state  running → completed  (worker:1)",
    ]
    assert len(cli("logs", "t1", "--tail", "1").out.splitlines()) == 1
    assert cli("logs", "t1", "--tail", "0").out == ""
    assert [entry["id"] for entry in cli("logs", "t1", "--json").json["items"]] == [1, 2, 3, 4]


def test_following_the_execution_log_ends_with_the_task(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    lines = cli("logs", "t1", "--follow", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1, 2, 3, 4]


def test_blenders_output(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    everything = "Blender 4.5.15\nFra:1 Sample 1/4\nFra:1 Sample 4/4\nSaved\n"
    assert cli("logs", "t1", "--unit", "u1").out == everything
    assert cli("logs", "t1", "--unit", "u1", "--follow").out == everything
    assert cli("logs", "t1", "--unit", "u1", "--tail", "2").out == "Fra:1 Sample 4/4\nSaved\n"
    assert cli("logs", "t1", "--unit", "u1", "--json").json["text"] == everything
    assert cli("logs", "t1", "--unit", "u1", "--json", "--follow").code == 2


def test_script(cli: Cli, farm: FakeFarm, tmp_path: Path) -> None:
    farm.add_task()
    assert cli("script", "t1").out == SCRIPT
    assert cli("script", "t1", "--unit", "u1", "-o", tmp_path / "unit.py").out == ""
    assert (tmp_path / "unit.py").read_text() == SCRIPT
    assert cli("script", "t1", "--json").json["unit_id"] == "u1"
    assert cli("script", "t1", "-o", tmp_path / "no" / "unit.py").code == 2


def test_outputs(cli: Cli, farm: FakeFarm, tmp_path: Path) -> None:
    farm.add_task()["frames_done"] = 2
    table = cli("outputs", "t1").out.splitlines()
    assert [line.split()[:3] for line in table[1:]] == [["1", "–", "0001.png"], ["2", "–", "0002.png"]]
    items = cli("outputs", "t1", "--json", "-o", tmp_path / "out").json["items"]
    assert [Path(item["path"]).read_bytes() for item in items] == [picture(1), picture(2)]


def test_nodes(cli: Cli, farm: FakeFarm) -> None:
    assert "node-1:0" in cli("nodes").out
    assert cli("nodes", "--json").json["items"][0]["node"] == "node-1"


# --- without a farm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["list"], ["nodes"], ["status", "t1"], ["logs", "t1"], ["submit", "scene.blend"]])
def test_no_farm_runs(cli: Cli, scene: Path, command: list[str]) -> None:
    ended = cli(*command, "--json")
    assert (ended.code, ended.err) == (3, "error: no farm runs on this machine; start one with: renderfarm up\n")
    assert ended.json["error"]["kind"] == "farm_unavailable"


def test_named_farm_does_not_answer(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENDERFARM_URL", "http://127.0.0.1:9")
    ended = cli("list")
    assert (ended.code, ended.err) == (3, "error: no farm answers at http://127.0.0.1:9 (RENDERFARM_URL)\n")


def announce(machine: Path, content: str) -> None:
    (machine / "run").mkdir()
    (machine / "run" / "farm.json").write_text(content)


def test_announced_farm_is_found(cli: Cli, machine: Path) -> None:
    with FakeFarm() as farm:
        announce(machine, json.dumps({"url": farm.url, "pid": 1, "data": "/"}))
        assert cli("list").code == 0
        ended = cli("up")
        assert (ended.code, ended.err) == (2, f"error: a farm already runs on this machine, at {farm.url}\n")


def test_announcement_of_a_farm_that_was_killed(cli: Cli, machine: Path) -> None:
    announce(machine, json.dumps({"url": "http://127.0.0.1:9", "pid": 1, "data": "/"}))
    assert "no farm runs on this machine" in cli("list").err


def test_unreadable_announcement(cli: Cli, machine: Path) -> None:
    announce(machine, "{")
    ended = cli("list")
    assert ended.code == 3
    assert "farm.json" in ended.err


# --- the command line itself ---------------------------------------------------------------------------------


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"renderfarm {renderfarm.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["status"], ["up", "--port", "99999"]])
def test_usage_errors_are_one_line(cli: Cli, arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1


def test_bad_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RENDERFARM_PORT", "many")
    ended = cli("list", "--json")
    assert ended.code == 2
    assert ended.err.startswith("error: RENDERFARM_PORT: ")


def test_names_cannot_control_the_terminal(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task("\x1b[2J[bold]evil\nname")
    assert "[2J[bold]evil\N{REPLACEMENT CHARACTER}name" in cli("list").out


def test_exit_codes() -> None:
    codes = {kind: exit_codes.of_error(kind("x")) for kind in (InvalidFrames, NotFound, Forbidden, Conflict)}
    assert set(codes.values()) == {2}
    assert exit_codes.of_error(FarmUnavailable("x")) == 3
    assert exit_codes.of_error(StorageFull("x")) == 2
    assert [exit_codes.of_task({"status": status}) for status in ("completed", "failed", "cancelled")] == [0, 1, 1]
