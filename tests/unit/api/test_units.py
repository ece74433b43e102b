"""Units, their logs and scripts, and outputs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from renderfarm.domain.models import Output, Task
from serve_app.app import create_app
from tests.object_servers import moto_server, s3_store
from tests.unit.api.world import NODE, WORKER, World


@pytest.fixture
def done(world: World) -> tuple[Task, list[Output]]:
    task = world.task()
    return task, world.finish(task)


def test_units(api: TestClient, world: World) -> None:
    task = world.task()
    world.commit(world.place(), 1)
    running = world.place()
    page = api.get(f"/api/tasks/{task.id}/units").json()
    assert [(unit["frames"], unit["status"], unit["progress"]) for unit in page["items"]] == [
        ("1", "succeeded", 100.0),
        ("2", "running", 0.0),
        ("3", "ready", 0.0),
    ]
    (only,) = api.get(f"/api/tasks/{task.id}/units", params={"status": "running"}).json()["items"]
    assert (only["id"], only["worker_id"], only["attempt"]) == (running.unit_id, WORKER, 1)
    page = api.get(f"/api/tasks/{task.id}/units", params={"limit": 1, "offset": 2}).json()
    assert (page["total"], [unit["frames"] for unit in page["items"]]) == (3, ["3"])
    assert api.get(f"/api/tasks/{task.id}/units", params={"status": "idle"}).status_code == 422


def test_unit_with_attempts(api: TestClient, done: tuple[Task, list[Output]]) -> None:
    task, outputs = done
    unit = api.get(f"/api/tasks/{task.id}/units/{outputs[0].unit_id}").json()
    (attempt,) = unit["attempts"]
    assert (attempt["number"], attempt["node"], attempt["blender_version"]) == (1, NODE, "4.5.15")
    assert (attempt["status"], attempt["peak_memory_bytes"], attempt["render_seconds"]) == ("succeeded", 123, 1.5)
    assert attempt["devices"] == ["OPTIX: NVIDIA H200"]
    assert api.get(f"/api/tasks/{task.id}/units/nothing").json()["code"] == "not_found"


def log_of(api: TestClient, task_id: str, unit_id: str, **query: Any) -> tuple[bytes, list[str]]:
    answer = api.get(f"/api/tasks/{task_id}/units/{unit_id}/log", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    names = ("Attempt", "Offset", "Next-Offset", "Complete")
    return answer.content, [answer.headers[f"X-Log-{name}"] for name in names]


def test_stored_log(api: TestClient, done: tuple[Task, list[Output]]) -> None:
    task, outputs = done
    unit_id = outputs[0].unit_id
    assert log_of(api, task.id, unit_id) == (b"Fra:1\nSaved\n", ["1", "0", "12", "true"])
    assert log_of(api, task.id, unit_id, offset=6, limit=3) == (b"Sav", ["1", "6", "9", "false"])
    assert log_of(api, task.id, unit_id, tail=6) == (b"Saved\n", ["1", "6", "12", "true"])
    assert log_of(api, task.id, unit_id, offset=99) == (b"", ["1", "12", "12", "true"])
    path = f"/api/tasks/{task.id}/units/{unit_id}/log"
    assert api.get(path, params={"attempt": 2}).status_code == 404
    for nonsense in ("attempt=0", "offset=-1", "limit=0", f"tail={10**9}", "from=1"):
        assert api.get(f"{path}?{nonsense}").status_code == 422


def test_live_log(api: TestClient, world: World) -> None:
    task = world.task(frames="1")
    lease = world.place()
    world.compute.live_logs[lease.unit_id, 1] = "Fra:1 Öl".encode()
    assert log_of(api, task.id, lease.unit_id, offset=4) == ("1 Öl".encode(), ["1", "4", "9", "false"])
    world.compute.live_logs.clear()
    assert log_of(api, task.id, lease.unit_id, offset=4) == (b"", ["1", "4", "4", "false"])


def test_script(api: TestClient, done: tuple[Task, list[Output]]) -> None:
    task, outputs = done
    answer = api.get(f"/api/tasks/{task.id}/units/{outputs[0].unit_id}/script")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/x-python")
    compile(answer.text, "script", "exec")


def test_outputs(api: TestClient, done: tuple[Task, list[Output]]) -> None:
    task, _ = done
    page = api.get(f"/api/tasks/{task.id}/outputs", params={"limit": 2}).json()
    assert (page["total"], [item["name"] for item in page["items"]]) == (3, ["0001.png", "0002.png"])
    item = page["items"][0]
    answer = api.get(item["url"])
    assert answer.content == b"frame 1"
    assert hashlib.sha256(answer.content).hexdigest() == item["sha256"]
    assert answer.headers["content-type"] == item["media_type"] == "image/png"
    assert answer.headers["content-length"] == str(item["size_bytes"])
    assert answer.headers["etag"] == f'"{item["sha256"]}"'
    assert answer.headers["content-disposition"] == "inline; filename=\"0001.png\"; filename*=UTF-8''0001.png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert api.get(f"/api/tasks/{task.id}/outputs/nothing").json()["code"] == "not_found"


def test_output_head(api: TestClient, done: tuple[Task, list[Output]]) -> None:
    task, outputs = done
    answer = api.head(f"/api/tasks/{task.id}/outputs/{outputs[0].id}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "7"
    assert answer.headers["content-type"] == "image/png"
    assert api.head(f"/api/tasks/{task.id}/outputs/nothing").status_code == 404


def test_output_known(api: TestClient, done: tuple[Task, list[Output]]) -> None:
    task, outputs = done
    path, etag = f"/api/tasks/{task.id}/outputs/{outputs[0].id}", f'"{outputs[0].digest}"'
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = api.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert api.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("wanted", "status", "content", "content_range"),
    [
        ("bytes=0-4", 206, b"frame", "bytes 0-4/7"),
        ("bytes=5-", 206, b" 1", "bytes 5-6/7"),
        ("bytes=-1", 206, b"1", "bytes 6-6/7"),
        ("bytes=3-999", 206, b"me 1", "bytes 3-6/7"),
        ("bytes=7-", 416, None, "bytes */7"),
        ("bytes=-0", 416, None, "bytes */7"),
        ("bytes=-99", 200, b"frame 1", None),
        ("bytes=0-1,3-4", 200, b"frame 1", None),
        ("bytes=4-2", 200, b"frame 1", None),
        ("bytes=-", 200, b"frame 1", None),
        ("lines=1-2", 200, b"frame 1", None),
        (f"bytes={10**30}-", 200, b"frame 1", None),
    ],
)
def test_output_range(
    api: TestClient,
    done: tuple[Task, list[Output]],
    wanted: str,
    status: int,
    content: bytes | None,
    content_range: str | None,
) -> None:
    task, outputs = done
    path = f"/api/tasks/{task.id}/outputs/{outputs[0].id}"
    answer = api.get(path, headers={"Range": wanted})
    assert (answer.status_code, answer.headers.get("content-range")) == (status, content_range)
    if content is not None:
        assert answer.content == content
    changed = api.get(path, headers={"Range": wanted, "If-Range": '"older"'})
    assert (changed.status_code, changed.content) == (200, b"frame 1")


def test_output_by_link(tmp_path: Path) -> None:
    """A GET is sent on to the object store; whoever has the file, or asks about it, is answered here."""
    with moto_server() as address, s3_store(address) as store:
        world = World(tmp_path, storage_url=store.url, storage_links=True)
        try:
            task = world.task(frames="1")
            (output,) = world.finish(task)
            path = f"/api/tasks/{task.id}/outputs/{output.id}"
            with TestClient(create_app(world.farm), base_url="http://127.0.0.1:3000", follow_redirects=False) as api:
                answer = api.get(path)
                assert (answer.status_code, answer.headers["cache-control"], answer.content) == (307, "no-store", b"")
                link = answer.headers["location"]
                assert "X-Amz-Expires=300&" in link
                stored = httpx2.get(link)
                assert (stored.content, stored.headers["content-type"]) == (b"frame 1", "image/png")
                assert stored.headers["content-disposition"] == 'inline; filename="0001.png"'
                part = httpx2.get(link, headers={"Range": "bytes=0-4"})
                assert (part.status_code, part.content) == (206, b"frame")
                assert api.get(path, headers={"If-None-Match": "*"}).status_code == 304
                assert api.head(path).headers["content-length"] == "7"
                assert api.get(f"/api/tasks/{task.id}/outputs/nothing").status_code == 404
        finally:
            world.close()


def test_output_without_link(tmp_path: Path) -> None:
    """A folder gives no links: the farm streams, whatever the setting says."""
    world = World(tmp_path, storage_links=True)
    try:
        task = world.task(frames="1")
        (output,) = world.finish(task)
        with TestClient(create_app(world.farm), base_url="http://127.0.0.1:3000") as api:
            assert api.get(f"/api/tasks/{task.id}/outputs/{output.id}").content == b"frame 1"
    finally:
        world.close()
