"""``renderfarm check``, for people and for programs."""

from __future__ import annotations

from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_farm import FakeFarm

STALE = {"kind": "stale_status", "detail": "the kept status of task t1 is old", "repairable": True}
LOST = {"kind": "missing_object", "detail": "file a.blend of asset a1 is gone", "repairable": False}


def test_nothing_is_wrong(cli: Cli, farm: FakeFarm) -> None:
    ended = cli("check")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "Looking…\nno findings, 0 mended (2.5 s: 3 tasks, 1 running units)\n"
    assert cli("check", "--json").json["findings"] == []
    assert farm.requests.count("GET /api/check") == 2


def test_findings_are_shown_and_not_mended_unasked(cli: Cli, farm: FakeFarm) -> None:
    farm.findings = [STALE, LOST]
    ended = cli("check")
    assert ended.code == 1
    assert [line.split()[:3] for line in ended.out.splitlines()] == [
        ["finding", "mended", "what"],
        ["stale_status", "no", "the"],
        ["missing_object", "by", "hand"],
    ]
    assert "POST /api/check" not in farm.requests


def test_exits_as_what_remains(cli: Cli, farm: FakeFarm) -> None:
    farm.findings = [STALE]
    ended = cli("check", "--repair", "--json")
    assert (ended.code, ended.err) == (0, "Looking…\n")
    assert (ended.json["repaired"], ended.json["remaining"]) == (1, 0)
    farm.findings = [STALE, LOST]
    ended = cli("check", "--repair", "--json")
    assert (ended.code, ended.json["repaired"], ended.json["remaining"]) == (1, 1, 1)


def test_what_could_not_be_looked_at_is_not_all_right(cli: Cli, farm: FakeFarm) -> None:
    farm.blind = True
    ended = cli("check")
    assert ended.code == 3
    assert "could not look for stale_status: Redis does not answer\n" in ended.err
    farm.findings = [STALE]
    assert cli("check").code == 1


def test_how_to_look(cli: Cli, farm: FakeFarm) -> None:
    cli("check")
    cli("check", "--no-objects", "--message-age", "5", "--object-grace", "600")
    assert farm.checks == [
        {"objects": ["true"]},
        {"objects": ["false"], "message_age_s": ["5.0"], "object_grace_s": ["600.0"]},
    ]
    assert cli("check", "--message-age", "soon").code == 2


def test_no_farm(cli: Cli) -> None:
    assert cli("check", "--json").code == 3
