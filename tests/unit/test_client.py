"""The Python client against a real API on a real socket."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from renderfarm import errors
from renderfarm.client import FarmClient
from renderfarm.client import events as client_events
from renderfarm.domain.flaws import Flaw, FlawKind, Glance
from serve_app.app import create_app
from tests.unit.api.world import World, blend_bytes, serving
from tests.unit.pictures import png


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def farm(world: World) -> Iterator[FarmClient]:
    with serving(create_app(world.farm, asset_wait_s=0.0)) as url, FarmClient(url) as client:
        yield client


@contextmanager
def client_of(app: ASGIApp) -> Iterator[FarmClient]:
    with serving(app) as url, FarmClient(url, timeout_s=5.0) as client:
        yield client


def test_from_upload_to_picture(world: World, farm: FarmClient, tmp_path: Path) -> None:
    world.start_worker()
    file = tmp_path / "Küche.blend"
    file.write_bytes(blend_bytes())
    seen: list[tuple[int, int]] = []
    asset = farm.upload_asset(file, name="Kitchen", on_progress=lambda done, total: seen.append((done, total)))
    assert (asset["name"], asset["main_file"], asset["status"]) == ("Kitchen", "Küche.blend", "pending")
    assert seen[-1] == (len(blend_bytes()), len(blend_bytes()))

    # The inspection ends while the submission waits, over several refusals.
    inspecting = threading.Timer(0.3, world.inspect)
    inspecting.start()
    task = farm.submit_task(asset["id"], {"frames": "1-2"}, name="Kitchen, both", priority=60)
    inspecting.join()
    assert farm.get_asset(asset["id"])["facts"]["active_scene"] == "Scene"
    assert farm.list_assets()["total"] == 1
    assert (task["status"], task["frames_total"], task["priority"]) == ("queued", 2, 60)

    world.commit(world.place(), 1)
    assert farm.get_status(task["id"])["progress"] == 50.0
    world.commit(world.place(), 2, b"two")
    assert farm.get_task(task["id"])["status"] == "completed"

    outputs = list(farm.iterate_outputs(task["id"]))
    assert farm.list_outputs(task["id"], limit=1)["items"] == outputs[:1]
    target = tmp_path / "out" / "0002.png"
    farm.download_output(task["id"], outputs[1], target, lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == b"two"
    assert seen[-1] == (3, 3)
    assert [path.name for path in target.parent.iterdir()] == ["0002.png"]


def test_seeing_a_task(world: World, farm: FarmClient) -> None:
    task = world.task(frames="1")
    with pytest.raises(errors.NotFound, match="nothing to see"):
        farm.get_preview(task.id)
    flaw = Flaw(kind=FlawKind.BLACK, message="the picture is all black")
    glance = Glance(impression=bytes(576), flaws=(flaw,))
    output = world.commit(world.place(), 1, png(0, 80, 40), glance=glance)
    assert [(found["frame"], found["kind"]) for found in farm.iterate_flaws(task.id)] == [(1, "black")]
    assert farm.get_thumbnail(task.id, output.id, side_px=20).media_type == "image/webp"
    assert farm.get_contact_sheet(task.id).media_type == "image/jpeg"
    picture = farm.get_preview(task.id, frame=1, width_px=8, height_px=8, file_format="ppm")
    assert picture is not None
    assert picture.data == b"P6\n8 4\n255\n" + bytes(96)
    again = farm.get_preview(task.id, frame=1, width_px=8, height_px=8, file_format="ppm", etag=picture.etag)
    assert again is None
    with pytest.raises(errors.InvalidSettings):
        farm.get_contact_sheet(task.id, "Nobody")


def test_what_is_no_picture_is_told_as_such(world: World, farm: FarmClient) -> None:
    task = world.task(frames="1")
    output = world.commit(world.place(), 1, b"no picture")
    with pytest.raises(errors.BadPicture):
        farm.get_thumbnail(task.id, output.id)


def test_lists_and_steering(world: World, farm: FarmClient) -> None:
    asset = world.ready_asset()
    task = world.task(asset, name="one")
    world.task(asset, name="two")
    assert [item["name"] for item in farm.list_tasks(sort="name", descending=False)["items"]] == ["one", "two"]
    assert farm.pause_task(task.id)["status"] == "paused"
    assert [item["id"] for item in farm.list_tasks(status=["paused", "failed"], text="on")["items"]] == [task.id]
    assert farm.list_tasks(status=["failed"])["items"] == []
    assert farm.resume_task(task.id)["status"] == "queued"
    assert farm.cancel_task(task.id)["status"] == "cancelled"
    assert farm.retry_task(task.id, "2")["status"] == "queued"
    assert farm.retry_task(task.id)["status"] == "queued"
    assert farm.list_units(task.id, status=["ready"], limit=1)["total"] == 3
    log = list(farm.iterate_log(task.id))
    assert farm.list_log(task.id, after=log[0]["id"], limit=1)["items"] == log[1:2]
    assert [worker["status"] for node in farm.list_nodes() for worker in node["workers"]] == ["idle"]
    assert farm.is_alive()
    assert farm.check_ready()["status"] == "ready"
    world.compute.scheduler = "gone"
    parts = ("database", "workers", "queue", "objects", "cache", "events")
    assert farm.check_ready() == {
        "status": "not_ready",
        "services": dict.fromkeys(parts, "ok") | {"scheduler": "gone"},
    }


def test_units_and_logs(world: World, farm: FarmClient) -> None:
    task = world.task(frames="1")
    lease = world.place()
    world.compute.live_logs[lease.unit_id, 1] = b"Fra:1\n"
    part = farm.read_unit_log(task.id, lease.unit_id, offset=2)
    assert (part.data, part.attempt, part.offset, part.next_offset, part.complete) == (b"a:1\n", 1, 2, 6, False)

    pieces = farm.follow_unit_log(task.id, lease.unit_id, poll_s=0.01)
    assert next(pieces) == b"Fra:1\n"
    world.commit(lease, 1, log=b"Fra:1\nSaved\n")
    assert list(pieces) == [b"Saved\n"]
    assert list(farm.follow_unit_log(task.id, lease.unit_id, tail=3)) == [b"ed\n"]
    assert farm.get_unit(task.id, lease.unit_id)["attempts"][0]["status"] == "succeeded"
    compile(farm.get_unit_script(task.id, lease.unit_id), "script", "exec")


def test_events_of_a_task(world: World, farm: FarmClient) -> None:
    task = world.task(frames="1-2")
    events = farm.events(task.id)
    assert next(events).event == "task.submitted"
    rendering = threading.Timer(0.2, world.finish, [task])
    rendering.start()
    rest = list(events)
    rendering.join()
    assert [event.event for event in rest].count("frame.committed") == 2
    assert rest[-1].task_id == task.id
    assert list(farm.events(task.id, last_event_id=rest[-2].id)) == rest[-1:]
    assert list(farm.events(task.id, last_event_id=rest[-1].id)) == []


def test_events_of_the_farm(world: World, farm: FarmClient) -> None:
    task = world.task()
    events = farm.events(last_event_id=0)
    last = farm.list_log(task.id)["next_after"]
    assert [next(events).id for _ in range(last)] == list(range(1, last + 1))
    events.close()


class Cutting:
    """Breaks each event stream after so many bytes, as a restart of the farm would."""

    def __init__(self, app: ASGIApp, after_bytes: int) -> None:
        self._app = app
        self._after_bytes = after_bytes
        self.connections = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.connections += 1
        sent = 0

        async def cutting(message: Message) -> None:
            nonlocal sent
            body = message.get("body", b"")
            if sent + len(body) > self._after_bytes:
                await send({**message, "body": body[: self._after_bytes - sent], "more_body": True})
                raise ConnectionError("cut")
            sent += len(body)
            await send(message)

        await self._app(scope, receive, cutting)


def test_events_over_broken_connections(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every event comes once, in order, however often the connection breaks."""
    monkeypatch.setattr(client_events, "_PAUSE_FIRST_S", 0.01)
    task = world.task()
    world.finish(task)
    app = Cutting(create_app(world.farm), after_bytes=400)
    with client_of(app) as farm:
        ids = [event.id for event in farm.events(task.id)]
    with world.farm.database.read() as tx:
        assert ids == [entry.id for entry in tx.log.page(task_id=task.id)]
    assert app.connections > 3


def test_events_of_a_farm_that_stays_away(monkeypatch: pytest.MonkeyPatch, free_url: str) -> None:
    monkeypatch.setattr(client_events, "ABSENCE_MAX_S", 0.0)
    with FarmClient(free_url) as farm, pytest.raises(errors.FarmUnavailable):
        next(farm.events())


def test_problems_become_errors(world: World, farm: FarmClient, tmp_path: Path) -> None:
    task, asset = world.task(), world.pending_asset("other")
    bad = tmp_path / "bad.blend"
    bad.write_bytes(b"nonsense")
    with pytest.raises(errors.NotFound, match=r"^no task 'x'$"):
        farm.get_task("x")
    for nothing in ("", "..", "a/b", "a?b", "\udcff"):
        with pytest.raises(errors.NotFound):
            farm.get_status(nothing)
    with pytest.raises(errors.NotFound):
        next(farm.events("nothing"))
    with pytest.raises(errors.InvalidAsset):
        farm.upload_asset(bad)
    with pytest.raises(errors.InvalidFrames):
        farm.submit_task(task.asset_id, {"frames": "1-"})
    with pytest.raises(errors.InvalidSettings, match="did you mean Front"):
        farm.submit_task(task.asset_id, {"camera": "front"})
    with pytest.raises(errors.InvalidInput):
        farm.submit_task(task.asset_id, {"camera": "\udcff"})
    with pytest.raises(errors.InvalidInput):
        farm.list_tasks(text="\udcff")
    with pytest.raises(errors.AssetNotReady):
        farm.submit_task(asset.id, wait_s=0.0)
    with pytest.raises(errors.IllegalTransition):
        farm.resume_task(task.id)
    with pytest.raises(FileNotFoundError):
        farm.upload_asset(tmp_path / "nothing.blend")


def test_file_name_that_is_no_unicode(farm: FarmClient, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.blend"))
    file.write_bytes(blend_bytes())
    assert farm.upload_asset(file)["main_file"] == "caf_.blend"


def test_damaged_download(world: World, farm: FarmClient, tmp_path: Path) -> None:
    task = world.task(frames="1")
    world.finish(task)
    output = farm.list_outputs(task.id)["items"][0]
    target = tmp_path / "out" / "0001.png"
    with pytest.raises(errors.FarmUnavailable, match="arrived damaged"):
        farm.download_output(task.id, {**output, "sha256": hashlib.sha256(b"").hexdigest()}, target)
    assert list(target.parent.iterdir()) == []
    with pytest.raises(errors.NotFound):
        farm.download_output(task.id, {**output, "id": "nothing"}, target)
    with pytest.raises(FileExistsError):
        farm.download_output(task.id, output, tmp_path / "scene.blend" / "0001.png")


def test_download_from_the_object_store(tmp_path: Path) -> None:
    """The farm sends us to the store itself, and what we tell the farm stays with the farm."""
    seen: list[dict[str, str]] = []
    answers = [Response(status_code=403), Response(b"pixels")]

    async def store(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await answers.pop(0)(scope, receive, send)

    output = {"id": "o", "sha256": hashlib.sha256(b"pixels").hexdigest(), "size_bytes": 6}
    with serving(store) as store_url:
        sent_on = Response(status_code=307, headers={"Location": f"{store_url}/bucket/blob?signature=s3cret"})
        with client_of(sent_on) as farm:
            farm._transport._client.headers["Authorization"] = "Bearer t0ken"
            farm.download_output("t", output, tmp_path / "0001.png")
            assert (tmp_path / "0001.png").read_bytes() == b"pixels"
            assert len(seen) == 2  # a link that was refused is asked for again
            assert not any("authorization" in headers or "cookie" in headers for headers in seen)
            answers.extend([Response(status_code=404)] * 3)
            with pytest.raises(errors.FarmUnavailable, match="answered 404") as caught:
                farm.download_output("t", output, tmp_path / "0002.png")
            assert "s3cret" not in str(caught.value)
    with client_of(sent_on) as farm, pytest.raises(errors.FarmUnavailable, match="did not send the file"):
        farm.download_output("t", output, tmp_path / "0002.png")
    nowhere = Response(status_code=307, headers={"Location": "/elsewhere"})
    with client_of(nowhere) as farm, pytest.raises(errors.RenderfarmError, match="answered 307"):
        farm.download_output("t", output, tmp_path / "0002.png")
    assert [path.name for path in tmp_path.iterdir()] == ["0001.png"]


@pytest.fixture
def free_url() -> Iterator[str]:
    """An address at which nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_no_farm(free_url: str, tmp_path: Path) -> None:
    with FarmClient(free_url + "/") as farm:
        assert farm.url == free_url
        assert not farm.is_alive()
        with pytest.raises(errors.FarmUnavailable) as caught:
            farm.list_tasks()
        assert str(caught.value) == f"no farm answers at {free_url}"


@pytest.mark.parametrize("url", ["127.0.0.1:3000", "ftp://127.0.0.1", "http://127.0.0.1:port", ""])
def test_no_address(url: str) -> None:
    with pytest.raises(errors.InvalidInput, match="not a farm's address"), FarmClient(url) as farm:
        farm.list_tasks()


def test_not_a_farm() -> None:
    with client_of(PlainTextResponse("hello")) as farm, pytest.raises(errors.RenderfarmError, match="is not a farm"):
        farm.get_task("x")
    with client_of(PlainTextResponse("no", 418)) as farm, pytest.raises(errors.InvalidInput, match="answered 418"):
        farm.get_task("x")
    elsewhere = Response(status_code=307, headers={"Location": "/"})
    with client_of(elsewhere) as farm, pytest.raises(errors.RenderfarmError, match="answered 307"):
        farm.get_task("x")


class Busy:
    """Answers 503 so many times."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        answer = Response(status_code=503) if self.requests <= self._times else Response(b"{}")
        await answer(scope, receive, send)


def test_reading_is_repeated_and_writing_is_not() -> None:
    app = Busy(2)
    with client_of(app) as farm:
        assert farm.get_task("x") == {}
        assert app.requests == 3
    app = Busy(2)
    with client_of(app) as farm:
        with pytest.raises(errors.FarmUnavailable):
            farm.cancel_task("x")
        assert app.requests == 1
