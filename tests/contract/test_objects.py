"""What every object store promises, whatever it is made of."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from renderfarm.errors import FarmUnavailable, NotFound, StorageFull
from renderfarm.ports import Objects
from renderfarm.storage import FolderObjects

STORES: dict[str, Callable[[Path], Objects]] = {"folder": lambda root: FolderObjects(root / "objects")}


@pytest.fixture(params=STORES)
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    return STORES[request.param](tmp_path)


def _file(folder: Path, content: bytes, name: str = "source") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_what_is_put_is_there_under_its_digest(objects: Objects, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    digest = objects.put(_file(tmp_path, content))
    assert digest == hashlib.sha256(content).hexdigest()
    assert objects.has(digest)
    with objects.open(digest) as stream:
        assert stream.read() == content


def test_the_same_bytes_are_kept_once(objects: Objects, tmp_path: Path) -> None:
    assert objects.put(_file(tmp_path, b"same", "a")) == objects.put(_file(tmp_path, b"same", "b"))


def test_an_empty_file_is_a_file(objects: Objects, tmp_path: Path) -> None:
    with objects.open(objects.put(_file(tmp_path, b""))) as stream:
        assert stream.read() == b""


def test_fetch_writes_the_whole_file_into_new_folders(objects: Objects, tmp_path: Path) -> None:
    digest = objects.put(_file(tmp_path, b"texture"))
    target = tmp_path / "deep" / "er" / "wood.png"
    objects.fetch(digest, target)
    assert target.read_bytes() == b"texture"
    assert [path.name for path in target.parent.iterdir()] == ["wood.png"]


def test_what_is_not_there_is_not_found(objects: Objects, tmp_path: Path) -> None:
    missing = "0" * 64
    assert not objects.has(missing)
    for act in (
        lambda: objects.open(missing),
        lambda: objects.fetch(missing, tmp_path / "x"),
        lambda: objects.publish(missing, "t/x"),
    ):
        with pytest.raises(NotFound):
            act()
    assert not (tmp_path / "x").exists()


def test_a_source_that_is_gone_is_an_error_of_the_store(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(FarmUnavailable, match="gone"):
        objects.put(tmp_path / "gone")


def test_the_same_bytes_put_by_many_at_once(objects: Objects, tmp_path: Path) -> None:
    source = _file(tmp_path, os.urandom(1_000_000))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(objects.put, [source] * 8))) == 1


# --- of the folder only --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


def test_published_files_appear_whole_and_can_be_replaced(folder: FolderObjects, tmp_path: Path) -> None:
    first, second = folder.put(_file(tmp_path, b"one")), folder.put(_file(tmp_path, b"two"))
    folder.publish(first, "task/Front/0001.png")
    folder.publish(first, "task/Front/0001.png")
    assert (tmp_path / "objects" / "outputs" / "task/Front/0001.png").read_bytes() == b"one"
    folder.publish(second, "task/Front/0001.png")
    assert (tmp_path / "objects" / "outputs" / "task/Front/0001.png").read_bytes() == b"two"
    folder.unpublish("task/Front/0001.png")
    folder.unpublish("task/Front/0001.png")
    assert not (tmp_path / "objects" / "outputs" / "task/Front/0001.png").exists()
    assert folder.has(second)


def test_a_full_disk_leaves_nothing_behind(
    folder: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = _file(tmp_path, b"picture")
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageFull, match="no room left"):
        folder.put(source)
    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


def test_blobs_are_read_only(folder: FolderObjects, tmp_path: Path) -> None:
    digest = folder.put(_file(tmp_path, b"picture"))
    folder.publish(digest, "task/0001.png")
    assert (tmp_path / "objects" / "outputs" / "task/0001.png").stat().st_mode & 0o222 == 0


def test_some_room_is_left_for_the_farms_records(tmp_path: Path) -> None:
    source = _file(tmp_path, b"picture")
    digest = FolderObjects(tmp_path / "objects").put(source)
    greedy = FolderObjects(tmp_path / "objects", reserve_bytes=1 << 62)
    with pytest.raises(StorageFull, match="kept for the farm's own records"):
        greedy.put(source)
    with pytest.raises(StorageFull):
        greedy.fetch(digest, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    assert not list((tmp_path / "objects" / "partial").iterdir())
