"""``renderfarm dead``: what the queue has put aside."""

from __future__ import annotations

from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_farm import FakeFarm


def test_list(cli: Cli, farm: FakeFarm) -> None:
    assert cli("dead", "list").err == "no dead letters\n"
    farm.dead = ["a", "b"]
    table = cli("dead", "list").out.splitlines()
    assert table[1].split() == ["a", "task", "t1", "2026-01-02", "03:04:05", "no", "such", "topic"]
    assert [letter["id"] for letter in cli("dead", "list", "--json").json["items"]] == ["a", "b"]
    assert len(cli("dead", "list", "--limit", "1", "--json").json["items"]) == 1


def test_replay(cli: Cli, farm: FakeFarm) -> None:
    farm.dead = ["a", "b", "c", "d"]
    assert cli("dead", "replay", "--id", "a", "--id", "c").err == "2 messages are in the queue again\n"
    assert farm.dead == ["b", "d"]
    assert cli("dead", "replay", "--json").json == {"replayed": 2}
    ended = cli("dead", "replay", "--id", "x", "--json")
    assert (ended.code, ended.err) == (2, "error: no dead letter x\n")
