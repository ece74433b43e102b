"""Event streams: what they send, where they go on, when they end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from renderfarm.auth import LOCAL_OWNER
from renderfarm.services import tasks
from renderfarm.wiring import close_farm, open_farm
from serve_app.app import create_app
from tests.private_servers import PrivateRedis
from tests.unit.api.world import World, serving
from tests.unit.fakes import FakeCompute


def events_in(answer: httpx2.Response) -> list[httpx2.ServerSentEvent]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(httpx2.EventSource(answer))


def test_ended_task(api: TestClient, world: World) -> None:
    task = world.task()
    world.finish(task)
    log = api.get(f"/api/tasks/{task.id}/log").json()["items"]
    events = events_in(api.get(f"/api/tasks/{task.id}/events"))
    assert [(int(event.id), event.event) for event in events] == [(entry["id"], entry["event"]) for entry in log]
    data = json.loads(events[-1].data)
    assert data == {"id": log[-1]["id"], "task_id": task.id, "unit_id": None, "revision": log[-1]["revision"]}


def test_resume(api: TestClient, world: World) -> None:
    task = world.task()
    world.finish(task)
    path = f"/api/tasks/{task.id}/events"
    ids = [event.id for event in events_in(api.get(path))]
    assert [event.id for event in events_in(api.get(path, headers={"Last-Event-ID": ids[2]}))] == ids[3:]
    assert [event.id for event in events_in(api.get(path, params={"after": ids[2]}))] == ids[3:]
    # All seen and nothing to come: 204 keeps browsers from connecting again.
    assert api.get(path, headers={"Last-Event-ID": ids[-1]}).status_code == 204
    assert api.get(path, headers={"Last-Event-ID": "x"}).json()["code"] == "invalid_input"
    assert api.get(path, headers={"Last-Event-ID": str(10**30)}).status_code == 422


@pytest.fixture
def farm_url(world: World) -> Iterator[str]:
    with serving(create_app(world.farm)) as url:
        yield url


def test_running_task(world: World, farm_url: str) -> None:
    """The stream of a task is live, and ends with the task."""
    task = world.task(frames="1")
    rendering = threading.Timer(0.3, world.finish, [task])
    rendering.start()
    answer = httpx2.get(f"{farm_url}/api/tasks/{task.id}/events", timeout=20)
    rendering.join()
    names = [event.event for event in events_in(answer)]
    assert names[0] == "task.submitted"
    assert names[-1] == "task.state"
    assert "frame.committed" in names


def test_whole_farm(world: World, farm_url: str) -> None:
    task = world.task()
    with httpx2.Client() as client, client.sse(f"{farm_url}/api/events", timeout=20) as source:
        assert source.response.headers["content-type"].startswith("text/event-stream")
        # Only what comes from now on.
        tasks.pause_task(world.farm, LOCAL_OWNER, task.id)
        event = next(iter(source))
        assert (event.event, json.loads(event.data)["task_id"]) == ("task.state", task.id)

    from_the_first = {"Last-Event-ID": "0"}
    with httpx2.Client() as client, client.sse(f"{farm_url}/api/events", headers=from_the_first, timeout=20) as source:
        assert next(iter(source)).id == "1"


def test_whole_farm_resumed(world: World, farm_url: str) -> None:
    """Behind the last event everything comes; what was just before it may come again."""
    task = world.task()
    world.finish(task)
    every = world.farm.events.read("0", 1000, 0.1)[0]
    seen = every[len(every) // 2].id
    resumed = {"Last-Event-ID": str(seen)}
    with httpx2.Client() as client, client.sse(f"{farm_url}/api/events", headers=resumed, timeout=20) as source:
        ids = []
        for event in source:
            ids.append(int(event.id))
            if ids[-1] == every[-1].id:
                break
    behind = [number for number in ids if number > seen]
    assert behind == [entry.id for entry in every if entry.id > seen]
    assert set(ids) <= {entry.id for entry in every} - {seen}


@pytest.fixture(params=["embedded", "redis"])
def two_processes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[World, str]]:
    """A farm's scheduler and worker, and its API as a process that knows nothing of them but by the farm."""
    with PrivateRedis() as redis:
        world = World(tmp_path, redis_url=redis.url if request.param == "redis" else None)
        replica = open_farm(world.farm.settings, FakeCompute())
        with serving(create_app(replica)) as url:
            yield world, url
        close_farm(replica)
        world.close()


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_no_status_is_older_than_an_event(two_processes: tuple[World, str], told: bool) -> None:
    """Whoever has seen an event never reads a status from before it, also when nothing was published."""
    world, url = two_processes
    if not told:
        world.farm.database.on_commit = None  # type: ignore[attr-defined]
    task = world.task(frames="1-8")
    stop = threading.Event()

    def read() -> None:
        """Others keep the cache full of what is about to be outdated."""
        with httpx2.Client() as client:
            while not stop.is_set():
                client.get(f"{url}/api/tasks/{task.id}/status").raise_for_status()

    reader = threading.Thread(target=read)
    working = threading.Timer(0.3, world.finish, [task])
    reader.start()
    working.start()
    revisions: list[int] = []
    try:
        with httpx2.Client() as client, client.sse(f"{url}/api/tasks/{task.id}/events", timeout=20) as source:
            for event in source:
                revision = json.loads(event.data)["revision"] or 0
                with httpx2.Client() as other:
                    status = other.get(f"{url}/api/tasks/{task.id}/status").json()
                assert status["revision"] >= revision
                revisions.append(revision)
    finally:
        stop.set()
        reader.join()
        working.join()
    assert len(set(revisions)) > 8
