"""Dead letters over HTTP: seen, and put back."""

from __future__ import annotations

from fastapi.testclient import TestClient

from renderfarm.client import FarmClient
from serve_app.app import create_app
from tests.unit.api.world import World, serving


def bury(world: World, *keys: str) -> None:
    world.farm.queue.publish([("nonsense", key) for key in keys])
    # Admitting the asset: nonsense taken, too > no such topic > put aside.
    world.ready_asset()


def test_unknown_topics_are_put_aside_and_can_be_replayed(api: TestClient, world: World) -> None:
    assert api.get("/api/dead-letters").json() == {"items": []}
    bury(world, "a", "b")
    a, b = api.get("/api/dead-letters").json()["items"]
    assert (a["topic"], a["key"], a["reason"]) == ("nonsense", "a", "no such topic: nonsense")
    assert a["died_at"].endswith("Z")
    assert api.get("/api/dead-letters?limit=1").json()["items"] == [a]
    wakes = world.compute.wakes
    assert api.post("/api/dead-letters/replay", json={"ids": [b["id"]]}).json() == {"replayed": 1}
    assert world.compute.wakes == wakes + 1
    assert api.get("/api/dead-letters").json()["items"] == [a]
    assert api.post("/api/dead-letters/replay").json() == {"replayed": 1}
    assert api.post("/api/dead-letters/replay").json() == {"replayed": 0}
    assert [delivery.key for delivery in world.farm.queue.take(10)] == ["b", "a"]


def test_wrong_requests(api: TestClient) -> None:
    answer = api.post("/api/dead-letters/replay", json={"ids": ["1234"]})
    assert (answer.status_code, answer.json()["detail"]) == (404, "no dead letter 1234")
    bodies: list[dict[str, object]] = [{"ids": []}, {"ids": "1"}, {"id": ["1"]}, {"ids": ["\n"]}]
    for body in bodies:
        assert api.post("/api/dead-letters/replay", json=body).status_code == 422
    assert api.get("/api/dead-letters?limit=0").status_code == 422


def test_the_client(world: World) -> None:
    with serving(create_app(world.farm)) as url, FarmClient(url) as client:
        assert client.list_dead_letters() == {"items": []}
        bury(world, "a")
        (letter,) = client.list_dead_letters(limit=5)["items"]
        assert client.replay_dead_letters([letter["id"]]) == {"replayed": 1}
        assert client.replay_dead_letters() == {"replayed": 0}
