"""Uploading, and everything that is no upload."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serve_app.app import create_app
from serve_app.uploads import sweep_uploads
from tests.unit.api.world import World, blend_bytes

FORM = {"Content-Type": "multipart/form-data; boundary=cut"}


def part(name: str, content: bytes, file_name: str | None = None) -> bytes:
    file = "" if file_name is None else f'; filename="{file_name}"'
    head = f'--cut\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


FILE = part("file", blend_bytes(), "shot.blend")
END = b"--cut--\r\n"


def test_upload_a_blend(api: TestClient, world: World) -> None:
    answer = api.post("/api/assets", files={"file": ("Küche 1.blend", blend_bytes())}, data={"name": "Kitchen"})
    assert answer.status_code == 201
    asset = answer.json()
    assert {key: asset[key] for key in ("name", "version", "status", "file_version", "error", "facts")} == {
        "name": "Kitchen",
        "version": 1,
        "status": "pending",
        "file_version": "4.5",
        "error": None,
        "facts": None,
    }
    assert asset["main_file"] == "Küche 1.blend"
    assert [file["size_bytes"] for file in asset["files"]] == [len(blend_bytes())]
    assert asset["created_at"].endswith("Z")
    assert api.get(f"/api/assets/{asset['id']}").json() == asset
    assert world.uploads == []


def test_upload_a_project(api: TestClient) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.blend", blend_bytes())
        archive.writestr("b.blend", blend_bytes())
        archive.writestr("textures/wood.png", b"wood")
    form = {"main": "b.blend"}
    answer = api.post("/api/assets", files={"file": ("project.zip", packed.getvalue())}, data=form)
    assert answer.status_code == 201
    assert answer.json()["main_file"] == "b.blend"
    assert {file["path"] for file in answer.json()["files"]} == {"a.blend", "b.blend", "textures/wood.png"}


def test_facts_and_list(api: TestClient, world: World) -> None:
    asset = world.ready_asset()
    page = api.get("/api/assets", params={"limit": 1}).json()
    assert (page["total"], page["limit"], page["offset"]) == (1, 1, 0)
    (item,) = page["items"]
    assert item["id"] == asset.id
    assert "files" not in item
    assert item["facts"]["scenes"][0]["cameras"] == ["Front", "Top"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (END, "no file"),
        (part("name", b"x") + END, "no file"),
        (part("file", b"x") + END, "has no name"),
        (part("file", b"x", "folder/") + END, "has no name"),
        (FILE + FILE + END, "two fields named 'file'"),
        (part("name", b"x") + part("name", b"y") + FILE + END, "two fields named 'name'"),
        (part("nam", b"x") + FILE + END, "a field named 'nam'"),
        (part("name", b"") + FILE + END, "name must be"),
        (part("name", b"x" * 201) + FILE + END, "name must be"),
        (part("name", b"a\nb") + FILE + END, "name must be"),
        (part("name", b"\xff") + FILE + END, "UTF-8"),
        (part("main", b"x" * 5000) + FILE + END, "main is too long"),
        (FILE, "cut off"),
        (FILE[:40], "cut off"),
        (b"", "cut off"),
        (b"no form at all, whatever its header says", "not a well-formed"),
    ],
)
def test_bad_form(api: TestClient, world: World, body: bytes, said: str) -> None:
    answer = api.post("/api/assets", content=body, headers=FORM)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert said in answer.json()["detail"]
    assert world.uploads == []
    assert api.get("/api/assets").json()["total"] == 0


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data", "multipart/form-data; boundary="])
def test_no_form(api: TestClient, world: World, media_type: str) -> None:
    answer = api.post("/api/assets", content=FILE + END, headers={"Content-Type": media_type})
    assert answer.status_code == 422
    assert "multipart/form-data" in answer.json()["detail"]
    assert world.uploads == []


@pytest.mark.parametrize("content", [b"", b"hello", blend_bytes()[:-30], b"PK\x03\x04 and nothing"])
def test_no_scene(api: TestClient, world: World, content: bytes) -> None:
    answer = api.post("/api/assets", files={"file": ("shot.blend", content)})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_asset")
    assert answer.headers["content-type"] == "application/problem+json"
    assert world.uploads == []


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and nothing"])
def test_a_zip_that_is_none_is_told_as_such(api: TestClient, world: World, content: bytes) -> None:
    answer = api.post("/api/assets", files={"file": ("Shot.ZIP", content)}, data={"main": "shot.blend"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_asset")
    assert "not a readable zip archive" in answer.json()["detail"]
    assert world.uploads == []


def test_an_empty_zip_has_no_scene(api: TestClient) -> None:
    packed = io.BytesIO()
    zipfile.ZipFile(packed, "w").close()
    answer = api.post("/api/assets", files={"file": ("shot.zip", packed.getvalue())})
    assert answer.json()["detail"] == "the zip has no .blend file"


def test_file_name_with_folders(api: TestClient) -> None:
    answer = api.post("/api/assets", content=part("file", blend_bytes(), "../../etc/shot.blend") + END, headers=FORM)
    assert answer.json()["main_file"] == "shot.blend"
    assert answer.json()["name"] == "shot"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[World, TestClient]]:
    """A farm that takes 1,000 bytes."""
    world = World(tmp_path, upload_max_bytes=1000)
    with TestClient(create_app(world.farm), base_url="http://127.0.0.1:3000") as client:
        yield world, client
    world.close()


def test_too_large_by_its_length(small: tuple[World, TestClient]) -> None:
    world, api = small
    answer = api.post("/api/assets", files={"file": ("shot.blend", bytes(200_000))})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert world.uploads == []


def test_too_large_by_its_bytes(small: tuple[World, TestClient]) -> None:
    world, api = small
    answer = api.post("/api/assets", files={"file": ("shot.blend", bytes(1001))})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "1000 bytes" in answer.json()["detail"]
    assert world.uploads == []


def test_too_large_without_a_length(small: tuple[World, TestClient]) -> None:
    world, api = small
    chunks = [part("file", b"", "shot.blend")[:-2], *(bytes(10_000) for _ in range(200))]
    answer = api.post("/api/assets", content=iter(chunks), headers=FORM)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert world.uploads == []


def test_unknown_asset(api: TestClient) -> None:
    answer = api.get("/api/assets/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_the_disk_does_not_take_it(api: TestClient, world: World) -> None:
    (world.farm.settings.data / "uploads").write_bytes(b"a file where the folder should be")
    answer = api.post("/api/assets", files={"file": ("shot.blend", blend_bytes())})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def test_sweep(tmp_path: Path) -> None:
    old, new = tmp_path / "a.part", tmp_path / "b.part"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    sweep_uploads(tmp_path)
    assert list(tmp_path.iterdir()) == [new]
