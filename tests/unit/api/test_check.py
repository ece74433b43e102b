"""Checks over HTTP."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from renderfarm.auth import LOCAL_OWNER, Permission
from serve_app.app import create_app
from tests.unit.api.world import World


def _orphan(world: World, age_s: float) -> Path:
    """An object that no row refers to."""
    source = world.folder / "orphan"
    source.write_bytes(b"nobody's")
    digest = world.farm.objects.put(source)
    path = world.farm.settings.data / "objects" / "blobs" / digest[:2] / digest
    at = world.farm.clock() - age_s
    os.utime(path, (at, at))
    return path


def test_a_healthy_farm(api: TestClient, world: World) -> None:
    world.finish(world.task())
    report = api.get("/api/check").json()
    assert report["findings"] == []
    assert (report["repaired"], report["remaining"], report["more"], report["not_looked_at"]) == (0, 0, [], {})
    assert report["looked_at"]["tasks"] == 1


def test_a_look_changes_nothing_and_a_repair_does(api: TestClient, world: World) -> None:
    orphan = _orphan(world, 4000)
    report = api.get("/api/check").json()
    assert (report["repaired"], report["remaining"]) == (0, 1)
    [finding] = report["findings"]
    assert (finding["kind"], finding["digest"], finding["task_id"]) == ("orphaned_object", orphan.name, None)
    assert orphan.exists()
    report = api.post("/api/check").json()
    assert (report["repaired"], report["remaining"]) == (1, 0)
    assert [finding["repaired"] for finding in report["findings"]] == [True]
    assert not orphan.exists()
    assert api.post("/api/check").json()["findings"] == []


def test_how_to_look(api: TestClient, world: World) -> None:
    _orphan(world, 300)
    assert api.get("/api/check").json()["findings"] == []
    assert len(api.get("/api/check", params={"object_grace_s": 200}).json()["findings"]) == 1
    report = api.get("/api/check", params={"object_grace_s": 200, "objects": False}).json()
    assert report["findings"] == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"message_age_s": 0}, "message_age_s must be above 0, not 0.0"),
        ({"object_grace_s": 1}, "object_grace_s must be at least 120, not 1"),
        ({"object_grace_s": "inf"}, "object_grace_s must be above 0, not inf"),
        ({"message_age_s": "soon"}, "message_age_s"),
        ({"repair": True}, "repair"),
    ],
)
def test_nonsense(api: TestClient, query: dict[str, str | int], said: str) -> None:
    for method in ("GET", "POST"):
        answer = api.request(method, "/api/check", params=query)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
        assert said in answer.json()["detail"]


def test_who_may_only_look_cannot_mend(world: World) -> None:
    guest = replace(LOCAL_OWNER, permissions=frozenset({Permission.FARM_READ}))
    api = TestClient(create_app(world.farm, lambda _: guest), base_url="http://127.0.0.1:3000")
    assert api.get("/api/check").status_code == 200
    assert api.post("/api/check").status_code == 403
