"""Seeing a task over HTTP: what looks wrong, thumbnails, the contact sheet, a preview."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from renderfarm.domain.flaws import Flaw, FlawKind, Glance
from renderfarm.domain.models import Output, Task
from renderfarm.services import derived
from serve_app.routers.pictures import MAKERS
from tests.unit.api.world import World
from tests.unit.pictures import png

GLANCE = Glance(
    impression=bytes(576), flaws=(Flaw(kind=FlawKind.TRANSPARENT, message="the picture is fully transparent"),)
)


@pytest.fixture
def task(world: World) -> Task:
    return world.task(frames="1-3")


@pytest.fixture
def outputs(world: World, task: Task) -> list[Output]:
    """Three frames, the last of which is no picture."""
    content = {1: png(40, 640, 360), 2: png(80, 640, 360), 3: b"no picture"}
    committed = []
    for _ in content:
        lease = world.place()
        with world.farm.database.read() as tx:
            unit = tx.units.get(lease.unit_id)
        assert unit is not None
        [frame] = unit.frames
        committed.append(world.commit(lease, frame, content[frame], glance=GLANCE if frame == 2 else None))
    return sorted(committed, key=lambda output: output.frame)


def test_what_looks_wrong(api: TestClient, task: Task, outputs: list[Output]) -> None:
    found = api.get(f"/api/tasks/{task.id}/flaws").json()
    assert found["total"] == 1
    assert found["items"] == [
        {
            "kind": "transparent",
            "message": "the picture is fully transparent",
            "frame": 2,
            "camera": None,
            "output_id": outputs[1].id,
            "name": "0002.png",
        }
    ]
    listed = api.get(f"/api/tasks/{task.id}/outputs").json()["items"]
    assert [[flaw["kind"] for flaw in output["flaws"]] for output in listed] == [[], ["transparent"], []]
    assert api.get("/api/tasks/nope/flaws").status_code == 404


def test_a_thumbnail(api: TestClient, task: Task, outputs: list[Output]) -> None:
    listed = api.get(f"/api/tasks/{task.id}/outputs").json()["items"]
    answer = api.get(listed[0]["thumbnail_url"])
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")
    assert answer.content[8:12] == b"WEBP"
    assert answer.headers["Cache-Control"] == "private, no-cache"
    again = api.get(listed[0]["thumbnail_url"], headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    small = api.get(listed[0]["thumbnail_url"], params={"side": 32})
    assert small.headers["ETag"] != answer.headers["ETag"]
    assert len(small.content) < len(answer.content)


@pytest.mark.parametrize("side", ["0", "15", "100000", "x"])
def test_a_thumbnail_of_a_senseless_size(api: TestClient, task: Task, outputs: list[Output], side: str) -> None:
    answer = api.get(f"/api/tasks/{task.id}/outputs/{outputs[0].id}/thumbnail", params={"side": side})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_what_is_no_picture(api: TestClient, task: Task, outputs: list[Output]) -> None:
    answer = api.get(f"/api/tasks/{task.id}/outputs/{outputs[2].id}/thumbnail")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_picture")
    assert api.get(f"/api/tasks/{task.id}/outputs/nope/thumbnail").status_code == 404


def test_a_contact_sheet(api: TestClient, task: Task, outputs: list[Output]) -> None:
    answer = api.get(f"/api/tasks/{task.id}/contact-sheet")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert answer.content.startswith(b"\xff\xd8")
    etag = answer.headers["ETag"]
    assert api.get(f"/api/tasks/{task.id}/contact-sheet", headers={"If-None-Match": etag}).status_code == 304
    named = api.get(f"/api/tasks/{task.id}/contact-sheet", params={"camera": "Front"})
    assert named.headers["ETag"] == etag
    wrong = api.get(f"/api/tasks/{task.id}/contact-sheet", params={"camera": "Nobody"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_settings")


def test_before_there_is_anything_to_see(api: TestClient, task: Task) -> None:
    for what in ("contact-sheet", "preview"):
        answer = api.get(f"/api/tasks/{task.id}/{what}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert api.get(f"/api/tasks/{task.id}/flaws").json()["items"] == []


def test_a_preview(api: TestClient, task: Task, outputs: list[Output]) -> None:
    answer = api.get(f"/api/tasks/{task.id}/preview", params={"frame": 2, "width": 8, "height": 100, "format": "ppm"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/x-portable-pixmap")
    assert answer.content == b"P6\n8 4\n255\n" + bytes([80]) * 96
    webp = api.get(f"/api/tasks/{task.id}/preview", params={"frame": 2})
    assert webp.headers["Content-Type"] == "image/webp"
    assert api.get(f"/api/tasks/{task.id}/preview", params={"frame": 9}).status_code == 404
    assert api.get(f"/api/tasks/{task.id}/preview", params={"format": "tga"}).status_code == 422


def test_only_so_many_pictures_are_made_at_a_time(
    api: TestClient, task: Task, outputs: list[Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, most, lock, enough = 0, 0, threading.Lock(), threading.Event()
    made = derived.made

    def watched(*arguments: object) -> Path:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        enough.wait(0.3)
        try:
            return made(*arguments)  # type: ignore[arg-type]
        finally:
            with lock:
                at_work -= 1

    monkeypatch.setattr(derived, "made", watched)
    url = f"/api/tasks/{task.id}/outputs/{outputs[0].id}/thumbnail"
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda side: api.get(url, params={"side": side}).status_code, range(20, 26)))
    assert answers == [200] * 6
    assert most == MAKERS
