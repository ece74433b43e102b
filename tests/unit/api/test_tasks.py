"""Submitting, listing and steering tasks."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.models import TaskStatus
from renderfarm.services import progress, tasks
from serve_app.app import create_app
from tests.unit.api.world import World, serving


def test_submit(api: TestClient, world: World) -> None:
    asset = world.ready_asset()
    body = {"asset_id": asset.id, "name": "Drehung", "settings": {"frames": "1-10x3", "format": "PNG", "samples": 4}}
    answer = api.post("/api/tasks", json=body)
    assert answer.status_code == 201
    task = answer.json()
    assert (task["name"], task["status"], task["priority"], task["frames_total"]) == ("Drehung", "queued", 50, 4)
    assert task["settings"]["frames"] == "1-10x3"
    assert task["settings"]["device"] == "auto"
    assert task["settings"]["camera"] is None
    assert (task["owner"], task["started_at"], task["error"]) == ("local", None, None)
    assert api.get(f"/api/tasks/{task['id']}").json() == task


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"settings": {"frames": ""}}, "invalid_frames", "empty"),
        ({"settings": {"frames": "5-1"}}, "invalid_frames", "backwards"),
        ({"settings": {"camera": "Frnt"}}, "invalid_settings", "did you mean Front?"),
        ({"settings": {"scene": "Other"}}, "invalid_settings", "no scene named"),
        ({"settings": {"resolution_x_px": 100}}, "invalid_settings", "both width and height"),
        ({"settings": {"blender": "3.0"}}, "invalid_settings", "no Blender 3.0"),
        ({"settings": {"samples": "4"}}, "invalid_input", "settings.samples"),
        ({"settings": {"samples": True}}, "invalid_input", "settings.samples"),
        ({"settings": {"samples": 10**30}}, "invalid_input", "settings.samples"),
        ({"settings": {"allow_missing": "yes"}}, "invalid_input", "settings.allow_missing"),
        ({"settings": {"format": "FFMPEG"}}, "invalid_input", "settings.format"),
        ({"settings": {"sampels": 4}}, "invalid_input", "settings.sampels"),
        ({"settings": {"camera": "a\u0000b"}}, "invalid_input", "settings.camera: must not contain control"),
        ({"name": "a\ud800b"}, "invalid_input", "name"),
        ({"name": ""}, "invalid_input", "name"),
        ({"name": "x" * 201}, "invalid_input", "name"),
        ({"priority": 101}, "invalid_input", "priority"),
        ({"priority": 1.5}, "invalid_input", "priority"),
        ({"colour": "red"}, "invalid_input", "colour"),
    ],
)
def test_submit_nonsense(api: TestClient, world: World, change: dict[str, Any], code: str, said: str) -> None:
    asset = world.ready_asset()
    text = json.dumps({"asset_id": asset.id, **change})
    answer = api.post("/api/tasks", content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert said in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]
    assert api.get("/api/tasks").json()["total"] == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asset_id": NaN}', "null"])
def test_submit_no_json_object(api: TestClient, text: str) -> None:
    answer = api.post("/api/tasks", content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_submit_a_giant(api: TestClient) -> None:
    answer = api.post("/api/tasks", json={"asset_id": "x" * 2_000_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    answer = api.post("/api/tasks", content=(b"x" * 10_000 for _ in range(200)))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_submit_for_no_asset(api: TestClient) -> None:
    answer = api.post("/api/tasks", json={"asset_id": "nothing"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_submit_while_the_asset_is_inspected(api: TestClient, world: World) -> None:
    asset = world.pending_asset()
    answer = api.post("/api/tasks", json={"asset_id": asset.id})
    assert (answer.status_code, answer.json()["code"]) == (409, "asset_not_ready")


def test_submit_waits_for_the_inspection(world: World) -> None:
    asset = world.pending_asset()
    world.start_worker()
    inspecting = threading.Timer(0.3, world.inspect)
    with TestClient(create_app(world.farm, asset_wait_s=30.0), base_url="http://localhost") as api:
        inspecting.start()
        answer = api.post("/api/tasks", json={"asset_id": asset.id})
    inspecting.join()
    assert (answer.status_code, answer.json()["frames_total"]) == (201, 3)


def test_list(api: TestClient, world: World) -> None:
    asset = world.ready_asset()
    for name, priority in (("apple", 10), ("banana", 90), ("cherry", 50)):
        world.task(asset, name=name, priority=priority)
    cancelled = world.task(asset, name="date")
    tasks.cancel_task(world.farm, LOCAL_OWNER, cancelled.id)

    def names(**query: Any) -> list[str]:
        page = api.get("/api/tasks", params=query).json()
        return [task["name"] for task in page["items"]]

    assert names() == ["date", "cherry", "banana", "apple"]
    assert names(sort="name", order="asc", limit=2, offset=1) == ["banana", "cherry"]
    assert names(sort="priority")[0] == "banana"
    assert names(status="cancelled") == ["date"]
    assert names(status=["cancelled", "queued"], sort="name", order="asc") == ["apple", "banana", "cherry", "date"]
    assert names(sort="status", order="asc")[0] == "date"
    assert names(text="err") == ["cherry"]
    assert api.get("/api/tasks", params={"limit": 1, "offset": 2}).json()["total"] == 4


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "offset=-1", f"offset={10**30}", "sort=size", "order=up", "status=new", "stat=x"]
)
def test_list_nonsense(api: TestClient, query: str) -> None:
    answer = api.get(f"/api/tasks?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert query.partition("=")[0] in answer.json()["detail"]


def test_status(api: TestClient, world: World) -> None:
    task = world.task()
    world.commit(world.place(), 1)
    status = api.get(f"/api/tasks/{task.id}/status").json()
    assert {key: status[key] for key in ("task_id", "status", "progress", "frames_done", "frames_total", "error")} == {
        "task_id": task.id,
        "status": "running",
        "progress": 33.33,
        "frames_done": 1,
        "frames_total": 3,
        "error": None,
    }
    assert status["eta_seconds"] >= 0.0
    assert status["revision"] > task.revision


def test_status_for_many_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All who ask together cost the database one look."""
    task = world.task()
    reads: list[int] = []
    read = progress._read_status

    def slow(*arguments: Any) -> TaskStatus:
        reads.append(1)
        threading.Event().wait(1.0)
        return read(*arguments)

    monkeypatch.setattr(progress, "_read_status", slow)
    with serving(create_app(world.farm)) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: httpx2.get(f"{url}/api/tasks/{task.id}/status", timeout=20), range(8)))
        assert {answer.json()["revision"] for answer in answers} == {task.revision}
        assert len(reads) == 1
        unknown = list(pool.map(lambda _: httpx2.get(f"{url}/api/tasks/nothing/status", timeout=20), range(3)))
        assert [answer.status_code for answer in unknown] == [404] * 3


def test_steer(api: TestClient, world: World) -> None:
    """queued > paused > queued > cancelled > queued, and steps that are none."""
    task = world.task()

    def post(what: str, **arguments: Any) -> tuple[int, str]:
        answer = api.post(f"/api/tasks/{task.id}/{what}", **arguments)
        return answer.status_code, answer.json()["status"] if answer.is_success else answer.json()["code"]

    assert post("pause") == (200, "paused")
    assert post("pause") == (409, "illegal_transition")
    assert post("resume") == (200, "queued")
    assert post("retry") == (409, "conflict")
    assert post("cancel") == (200, "cancelled")
    assert post("cancel") == (409, "illegal_transition")
    assert post("retry", json={"frames": "99"}) == (422, "invalid_frames")
    assert post("retry", json={"frame": "1"}) == (422, "invalid_input")
    assert post("retry", json={"frames": "2"}) == (200, "queued")
    assert post("retry") == (200, "queued")


def test_failed_task(api: TestClient, world: World) -> None:
    task = world.task(frames="7")
    world.fail(world.place())
    body = api.get(f"/api/tasks/{task.id}").json()
    assert (body["status"], body["units_failed"]) == ("failed", 1)
    assert body["error"] == {"kind": "script_error", "message": "frame 7: no such node"}
    assert api.get(f"/api/tasks/{task.id}/status").json()["error"] == body["error"]


def test_log(api: TestClient, world: World) -> None:
    task = world.task(frames="1")
    world.finish(task)
    log = api.get(f"/api/tasks/{task.id}/log").json()
    assert [(entry["event"], entry["old"], entry["new"]) for entry in log["items"]][:2] == [
        ("task.submitted", None, None),
        ("task.state", "queued", "running"),
    ]
    assert log["items"][0]["actor"] == "user:local"
    assert log["next_after"] == log["items"][-1]["id"]
    first = api.get(f"/api/tasks/{task.id}/log", params={"limit": 1}).json()
    rest = api.get(f"/api/tasks/{task.id}/log", params={"after": first["next_after"]}).json()
    assert first["items"] + rest["items"] == log["items"]
    empty = api.get(f"/api/tasks/{task.id}/log", params={"after": log["next_after"]}).json()
    assert empty == {"items": [], "next_after": log["next_after"]}


READS = ["status", "log", "units", "units/x", "units/x/log", "units/x/script", "outputs", "outputs/x", "events"]


def test_unknown_task(api: TestClient) -> None:
    paths = ["/api/tasks/nothing", *(f"/api/tasks/nothing/{path}" for path in READS)]
    answers = [api.get(path) for path in paths]
    answers += [api.post(f"/api/tasks/nothing/{step}") for step in ("cancel", "pause", "resume", "retry")]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.json()["detail"] == "no task 'nothing'"
