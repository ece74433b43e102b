"""What holds for every route: problems, headers, who may call from where, and the OpenAPI page."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from renderfarm.auth import Principal
from renderfarm.errors import FarmUnavailable, LeaseLost
from renderfarm.services import health
from serve_app.app import create_app
from serve_app.proxy import middlewares
from tests.private_servers import free_port
from tests.unit.api.world import World


def test_health(api: TestClient) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}


def test_ready(api: TestClient, world: World) -> None:
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    assert answer.json()["services"]["database"] == "ok"
    world.start_worker()
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    world.compute.scheduler = "there is no scheduler"
    answer = api.get("/readyz")
    assert (answer.status_code, answer.json()["services"]["scheduler"]) == (503, "there is no scheduler")


def test_degraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The farm does without its cache, its events and its queue for a while, but not without its store."""
    world = World(tmp_path, redis_url=f"redis://:secret@127.0.0.1:{free_port()}/")
    world.start_worker()

    def fail() -> None:
        raise FarmUnavailable("the disk is on fire")

    def ready() -> tuple[int, str, dict[str, str]]:
        with TestClient(create_app(world.farm), base_url="http://127.0.0.1:3000") as api:
            answer = api.get("/readyz")
        assert "secret" not in answer.text
        return answer.status_code, answer.json()["status"], answer.json()["services"]

    code, status, services = ready()
    assert (code, status) == (200, "degraded")
    assert {name for name, word in services.items() if word != "ok"} == {"cache", "events"}
    assert "Redis does not answer" in services["cache"]
    monkeypatch.setattr(world.farm.queue, "check", fail)
    code, status, services = ready()
    assert (code, status, services["queue"]) == (200, "degraded", "the disk is on fire")
    monkeypatch.setattr(world.farm.objects, "check", fail)
    code, status, services = ready()
    assert (code, status, services["objects"]) == (503, "not_ready", "the disk is on fire")
    world.close()


def test_parts_outside_are_asked_once_a_second(api: TestClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(world.farm.objects, "check", lambda: asked.append(1))
    world.start_worker()
    assert [api.get("/readyz").json()["status"] for _ in range(20)] == ["ready"] * 20
    assert 1 <= len(asked) <= 5


def test_a_part_that_never_answers_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    monkeypatch.setattr(world.farm.queue, "check", answers.wait)
    monkeypatch.setattr(health, "_ANSWER_TIMEOUT_S", 0.1)
    found = health.Readiness(world.farm).check()
    answers.set()
    assert found.services["queue"] == "no answer within 0.1 s"
    assert found.services["objects"] == "ok"


def test_nodes(api: TestClient, world: World) -> None:
    assert api.get("/api/nodes").json() == {"items": []}
    world.start_worker()
    (node,) = api.get("/api/nodes").json()["items"]
    assert (node["node"], node["gpus"], node["labels"]) == ("node-1", 0, {"pool": "default"})
    (worker,) = node["workers"]
    assert (worker["status"], worker["blender_versions"], worker["set_aside_until"]) == ("idle", ["4.5.15"], None)
    assert worker["gpus"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/tasks/", 404, "not_found"),
        ("DELETE", "/api/tasks", 405, "method_not_allowed"),
        ("GET", "/api/tasks?limit=x", 422, "invalid_input"),
    ],
)
def test_problem(api: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code"}
    assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", status, code)


def api_that_raises(world: World, error: Exception) -> TestClient:
    def principal_of(_request: Request) -> Principal:
        raise error

    return TestClient(create_app(world.farm, principal_of), base_url="http://127.0.0.1:3000")


@pytest.mark.parametrize("error", [RuntimeError("the secret is 42"), LeaseLost("the secret is 42")])
def test_unexpected_error(world: World, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    answer = api_that_raises(world, error).get("/api/tasks", headers={"X-Request-Id": "abc-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "abc-1" in answer.json()["detail"]
    assert answer.headers["x-request-id"] == "abc-1"
    assert "the secret is 42" in caplog.text


def test_upload_whose_client_goes_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """However the server says it: nothing is left, nothing is answered, nothing is called a bug."""
    headers = [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=cut")]
    scope = {"type": "http", "method": "POST", "path": "/api/assets", "headers": headers, "query_string": b""}
    chunk = {"type": "http.request", "body": b"--cut\r\n", "more_body": True}

    async def upload(last: dict[str, str] | Exception) -> None:
        said = iter([chunk, last])

        async def receive() -> Any:
            message = next(said)
            if isinstance(message, Exception):
                raise message
            return message

        async def send(message: Any) -> None:
            raise AssertionError(message)

        await create_app(world.farm)(dict(scope), receive, send)

    asyncio.run(upload({"type": "http.disconnect"}))
    asyncio.run(upload(ConnectionError("the proxy died")))
    assert world.uploads == []
    assert caplog.text == ""


def test_unavailable(world: World) -> None:
    answer = api_that_raises(world, FarmUnavailable("the database does not answer")).get("/api/tasks")
    assert (answer.status_code, answer.json()["code"]) == (503, "farm_unavailable")


def test_nobody(world: World) -> None:
    """Every route under /api asks who calls."""
    nobody = Principal(name="nobody", permissions=frozenset(), projects=frozenset())
    asset, task = world.ready_asset(), world.task()
    api = TestClient(create_app(world.farm, lambda _: nobody), base_url="http://127.0.0.1:3000")
    for path, operations in api.get("/openapi.json").json()["paths"].items():
        url = path.format(asset_id=asset.id, task_id=task.id, unit_id="x", output_id="x")
        for method in operations:
            answer = api.request(method, url, json={"asset_id": asset.id} if url == "/api/tasks" else None)
            expected = [403] if path.startswith("/api") and url != "/api/assets" else [200, 403, 422]
            assert answer.status_code in expected, (method, url, answer.text)
            if url == "/api/assets" and method == "post":
                files = {"file": ("x.blend", b"x")}
                assert api.post(url, files=files).status_code == 403


def test_request_id(api: TestClient) -> None:
    made = api.get("/healthz").headers["x-request-id"]
    assert len(made) == 32
    assert api.get("/healthz", headers={"X-Request-Id": "mine.1"}).headers["x-request-id"] == "mine.1"
    for harmful in ("a b", "x" * 65, '"'):
        assert api.get("/healthz", headers={"X-Request-Id": harmful}).headers["x-request-id"] != harmful


def test_request_id_is_left_to_serve(world: World) -> None:
    api = TestClient(create_app(world.farm, send_request_id=False), base_url="http://127.0.0.1")
    assert "x-request-id" not in api.get("/healthz").headers


@pytest.mark.parametrize("host", ["127.0.0.1:3000", "localhost", "LOCALHOST:1", "[::1]:3000", "127.8.8.8"])
def test_loopback_host(api: TestClient, host: str) -> None:
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:3000", "127.0.0.1.evil.example", "localhost.evil.example", "[::1", "", "10.0.0.1"],
)
def test_other_host(api: TestClient, host: str) -> None:
    answer = api.get("/api/tasks", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:8000", "http://localhost:3000", "http://[x"]
)
def test_page_of_another_site(api: TestClient, world: World, origin: str) -> None:
    task = world.task()
    answer = api.post(f"/api/tasks/{task.id}/cancel", headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert api.get(f"/api/tasks/{task.id}").json()["status"] == "queued"
    read = api.get("/api/tasks", headers={"Origin": origin})
    assert "access-control-allow-origin" not in read.headers
    assert read.headers["cross-origin-resource-policy"] == "same-origin"


def test_page_of_the_farm_itself(api: TestClient, world: World) -> None:
    task = world.task()
    answer = api.post(f"/api/tasks/{task.id}/cancel", headers={"Origin": "http://127.0.0.1:3000"})
    assert answer.status_code == 200


def test_plain_text_is_no_json(api: TestClient) -> None:
    """What a form of another site could send without asking first."""
    answer = api.post("/api/tasks", content='{"asset_id": "x"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422


def test_openapi(api: TestClient) -> None:
    page = api.get("/openapi.json").json()
    operations = [operation for path in page["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        assert operation["summary"]
        assert operation["tags"]
        assert all(_is_described(*answer) for answer in operation["responses"].items()), operation["operationId"]
        assert operation["responses"]["500"]["content"].keys() == {"application/problem+json"}
    schemas = page["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert {ref.rpartition("/")[2] for ref in _refs(page)} <= set(schemas)
    assert {"Task", "Status", "Problem", "Event", "SceneFacts", "RenderSettings"} <= set(schemas)


def _is_described(status: str, answer: dict[str, Any]) -> bool:
    content = answer.get("content", {})
    return status in ("204", "304", "307") or (bool(content) and all("schema" in kind for kind in content.values()))


def _refs(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for child in value.values() for ref in _refs(child)]
    return [ref for child in value for ref in _refs(child)] if isinstance(value, list) else []


def test_routes_of_the_issue(api: TestClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    task = "/api/tasks/{task_id}"
    expected = {
        "/api/assets": {"get", "post"},
        "/api/assets/{asset_id}": {"get"},
        "/api/tasks": {"get", "post"},
        task: {"get"},
        f"{task}/status": {"get"},
        f"{task}/units": {"get"},
        f"{task}/units/{{unit_id}}": {"get"},
        f"{task}/units/{{unit_id}}/log": {"get"},
        f"{task}/units/{{unit_id}}/script": {"get"},
        f"{task}/outputs": {"get"},
        f"{task}/outputs/{{output_id}}": {"get", "head"},
        f"{task}/outputs/{{output_id}}/thumbnail": {"get"},
        f"{task}/contact-sheet": {"get"},
        f"{task}/preview": {"get"},
        f"{task}/flaws": {"get"},
        f"{task}/log": {"get"},
        f"{task}/events": {"get"},
        f"{task}/cancel": {"post"},
        f"{task}/pause": {"post"},
        f"{task}/resume": {"post"},
        f"{task}/retry": {"post"},
        "/api/events": {"get"},
        "/api/nodes": {"get"},
        "/api/check": {"get", "post"},
        "/api/dead-letters": {"get"},
        "/api/dead-letters/replay": {"post"},
        "/healthz": {"get"},
        "/readyz": {"get"},
    }
    assert {path: set(operations) for path, operations in paths.items()} == expected


def test_serve_headers_are_dropped_in_the_proxy() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    (middleware,) = middlewares()
    headers = [(b"host", b"x"), (b"X-Request-Timeout-Seconds", b"1"), (b"x-request-disconnect-disabled", b"?1")]
    wrapped: Any = middleware.cls
    asyncio.run(wrapped(app)({"type": "http", "headers": headers}, None, None))
    assert seen[0]["headers"] == [(b"host", b"x")]
