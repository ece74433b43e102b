"""What every object store promises, whatever it is made of."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import pytest

from renderfarm.errors import FarmUnavailable, NotFound, StorageFull
from renderfarm.ports import Objects
from renderfarm.storage import FolderObjects
from tests.object_servers import (
    DavServer,
    Store,
    folder_store,
    moto_server,
    s3_store,
    webdav_server,
    webdav_store,
)

MISSING = "0" * 64


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture(scope="module")
def dav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DavServer]:
    with webdav_server(tmp_path_factory.mktemp("dav")) as server:
        yield server


@pytest.fixture(params=["folder", "s3", "webdav"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "folder":
        with folder_store(tmp_path) as folder:
            yield folder
    elif request.param == "s3":
        with s3_store(request.getfixturevalue("moto")) as s3:
            yield s3
    else:
        with webdav_store(request.getfixturevalue("dav")) as webdav:
            yield webdav


@pytest.fixture
def objects(store: Store) -> Objects:
    return store.objects


def _file(folder: Path, content: bytes, name: str = "source") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def _blob(digest: str) -> str:
    return f"blobs/{digest[:2]}/{digest}"


@pytest.mark.parametrize("spare", [False, True])
def test_what_is_put_is_there_under_its_digest(objects: Objects, tmp_path: Path, spare: bool) -> None:
    content = os.urandom(3_000_000)
    digest = objects.put(_file(tmp_path, content), spare=spare)
    assert digest == hashlib.sha256(content).hexdigest()
    assert objects.has(digest)
    with objects.open(digest) as stream:
        assert stream.read() == content


def test_the_same_bytes_are_kept_once(store: Store, tmp_path: Path) -> None:
    digest = store.objects.put(_file(tmp_path, b"same", "a"))
    assert store.objects.put(_file(tmp_path, b"same", "b")) == digest
    assert store.names() == {_blob(digest)}


def test_an_empty_file_is_a_file(objects: Objects, tmp_path: Path) -> None:
    digest = objects.put(_file(tmp_path, b""))
    with objects.open(digest) as stream:
        assert stream.read() == b""
    objects.fetch(digest, tmp_path / "fetched")
    objects.publish(digest, "task/empty.txt")
    assert (tmp_path / "fetched").read_bytes() == b""


def test_reading_can_begin_anywhere(objects: Objects, tmp_path: Path) -> None:
    content = os.urandom(2_500_000)
    with objects.open(objects.put(_file(tmp_path, content))) as stream:
        for start in (0, 2_499_990, 1_048_570, 7):
            assert stream.seek(start) == start
            assert stream.read(20) == content[start : start + 20]
        assert stream.seek(-5, os.SEEK_END) == 2_499_995
        assert stream.read() == content[-5:]
        assert stream.seek(10, os.SEEK_END) == 2_500_010
        assert stream.read(10) == b""
        stream.seek(0)
        assert b"".join(iter(lambda: stream.read(300_000), b"")) == content


def test_a_stored_archive_can_be_read_in_place(objects: Objects, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.txt", b"one" * 1000)
        archive.writestr("two.txt", b"two")
    with objects.open(objects.put(tmp_path / "a.zip")) as stream, ZipFile(stream) as archive:
        assert archive.read("two.txt") == b"two"


def test_fetch_writes_the_whole_file_into_new_folders(objects: Objects, tmp_path: Path) -> None:
    content = os.urandom(9_000_000)
    digest = objects.put(_file(tmp_path, content))
    target = tmp_path / "deep" / "er" / "wood.png"
    objects.fetch(digest, target)
    assert target.read_bytes() == content
    assert [path.name for path in target.parent.iterdir()] == ["wood.png"]


def test_a_damaged_blob_is_never_handed_out(store: Store, tmp_path: Path) -> None:
    digest = store.objects.put(_file(tmp_path, b"texture"))
    store.write(_blob(digest), b"Texture")
    target = _file(tmp_path, b"before", "target")
    with pytest.raises(FarmUnavailable, match="damaged"):
        store.objects.fetch(digest, target)
    assert target.read_bytes() == b"before"
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"source", "target"}


def test_what_is_not_there_is_not_found(store: Store, tmp_path: Path) -> None:
    objects = store.objects
    assert not objects.has(MISSING)
    for act in (
        lambda: objects.open(MISSING),
        lambda: objects.fetch(MISSING, tmp_path / "x"),
        lambda: objects.publish(MISSING, "t/x"),
    ):
        with pytest.raises(NotFound):
            act()
    assert not (tmp_path / "x").exists()
    assert store.names() == set()


def test_a_source_that_is_gone_is_an_error_of_the_store(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(FarmUnavailable, match="gone"):
        objects.put(tmp_path / "gone")


def test_the_same_bytes_put_by_many_at_once(store: Store, tmp_path: Path) -> None:
    source = _file(tmp_path, os.urandom(1_000_000))
    with ThreadPoolExecutor(8) as pool:
        (digest,) = set(pool.map(store.objects.put, [source] * 8))
    assert store.names() == {_blob(digest)}
    assert store.read(_blob(digest)) == source.read_bytes()


def test_many_files_put_and_fetched_at_once(store: Store, tmp_path: Path) -> None:
    sources = [_file(tmp_path, os.urandom(200_000), str(number)) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(store.objects.put, sources))
        for _ in pool.map(store.objects.fetch, digests, [source.with_suffix(".out") for source in sources]):
            pass
    assert all(source.with_suffix(".out").read_bytes() == source.read_bytes() for source in sources)
    assert store.names() == {_blob(digest) for digest in digests}


def test_published_files_appear_whole_and_can_be_replaced(store: Store, tmp_path: Path) -> None:
    objects = store.objects
    first, second = objects.put(_file(tmp_path, b"one")), objects.put(_file(tmp_path, b"two"))
    name = "task/Küche 1/50%25 ‚a+b‘ &.png"
    objects.publish(first, name)
    objects.publish(first, name)
    assert store.read(f"outputs/{name}") == b"one"
    objects.publish(second, name)
    assert store.read(f"outputs/{name}") == b"two"
    objects.unpublish(name)
    objects.unpublish(name)
    assert store.names() == {_blob(first), _blob(second)}


def test_blobs_are_listed(store: Store, tmp_path: Path) -> None:
    objects = store.objects
    assert list(objects.blobs()) == []
    digests = {objects.put(_file(tmp_path, b"x" * size)): size for size in (0, 1, 300)}
    objects.publish(next(iter(digests)), "task/0001.png")
    for digest in digests:
        store.age(_blob(digest), 1000.0)
    fresh = objects.put(_file(tmp_path, b"fresh"))
    blobs = {blob.digest: blob for blob in objects.blobs()}
    assert {digest: blob.size_bytes for digest, blob in blobs.items()} == {**digests, fresh: 5}
    assert all(900 < blobs[fresh].stored_at - blobs[digest].stored_at < 1100 for digest in digests)


def test_what_is_removed_is_gone(store: Store, tmp_path: Path) -> None:
    digest = store.objects.put(_file(tmp_path, b"old"))
    store.objects.publish(digest, "task/0001.png")
    store.objects.remove(digest)
    store.objects.remove(digest)
    assert not store.objects.has(digest)
    assert store.read("outputs/task/0001.png") == b"old"


def test_bytes_that_were_there_already_count_as_put_anew(store: Store, tmp_path: Path) -> None:
    source = _file(tmp_path, b"texture")
    digest = store.objects.put(source)
    store.age(_blob(digest), 10_000.0)
    (old,) = store.objects.blobs()
    assert store.objects.put(source) == digest
    (blob,) = store.objects.blobs()
    assert blob.stored_at - old.stored_at > 9_000
    assert store.read(_blob(digest)) == b"texture"
    assert store.names() == {_blob(digest)}


def test_a_file_that_grows_is_stored_as_it_was(store: Store, tmp_path: Path) -> None:
    source = _file(tmp_path, b"")
    stopped = threading.Event()

    def grow() -> None:
        with source.open("ab", buffering=0) as stream:
            while not stopped.wait(0.0005) and stream.tell() < 50_000_000:
                stream.write(b"Fra:1 Mem:10M\n" * 5_000)

    with ThreadPoolExecutor(1) as pool:
        growing = pool.submit(grow)
        digests = [store.objects.put(source) for _ in range(3)]
        stopped.set()
        growing.result()
    for digest in digests:
        assert hashlib.sha256(store.read(_blob(digest))).hexdigest() == digest


def test_check_says_nothing_of_a_store_that_can_be_written(store: Store) -> None:
    store.objects.check()
    assert list(store.objects.blobs()) == []


# --- of the folder only --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


@pytest.mark.parametrize("spare", [False, True])
def test_a_full_disk_leaves_nothing_behind(
    folder: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: bool
) -> None:
    def no_room(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = _file(tmp_path, b"picture")
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(StorageFull, match="no room left"):
        folder.put(source, spare=spare)
    assert not [path for path in (tmp_path / "objects").rglob("*") if path.is_file()]


def test_blobs_are_read_only(folder: FolderObjects, tmp_path: Path) -> None:
    digest = folder.put(_file(tmp_path, b"picture"))
    folder.publish(digest, "task/0001.png")
    assert (tmp_path / "objects" / "outputs" / "task/0001.png").stat().st_mode & 0o222 == 0


def test_some_room_is_left_for_the_farms_records(tmp_path: Path) -> None:
    source = _file(tmp_path, b"picture")
    digest = FolderObjects(tmp_path / "objects").put(source)
    greedy = FolderObjects(tmp_path / "objects", reserve_bytes=1 << 62)
    for spare in (False, True):
        with pytest.raises(StorageFull, match="kept for the farm's own records"):
            greedy.put(source, spare=spare)
    with pytest.raises(StorageFull):
        greedy.fetch(digest, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    assert not list((tmp_path / "objects" / "partial").iterdir())


def test_a_spare_file_is_kept_itself_and_may_be_removed(folder: FolderObjects, tmp_path: Path) -> None:
    source = _file(tmp_path, b"picture")
    inode = source.stat().st_ino
    digest = folder.put(source, spare=True)
    assert folder.put(source, spare=True) == digest  # once more, as when an answer was lost
    source.unlink()
    with folder.open(digest) as blob:
        assert (os.fstat(blob.fileno()).st_ino, blob.read()) == (inode, b"picture")
    folder.publish(digest, "task/0001.png")
    assert (tmp_path / "objects" / "outputs" / "task/0001.png").stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("why", ["a link", "no hard links"])
def test_a_spare_file_that_cannot_be_kept_is_copied(
    folder: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    source = _file(tmp_path, b"picture")
    if why == "a link":
        link = tmp_path / "link"
        link.symlink_to(source)
        digest = folder.put(link, spare=True)
    else:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        digest = folder.put(source, spare=True)
    source.write_bytes(b"something else")
    with folder.open(digest) as blob:
        assert blob.read() == b"picture"


def test_a_folder_gives_no_links(folder: FolderObjects) -> None:
    assert folder.link(MISSING, name="a.png", media_type="image/png", lifetime_s=1.0) is None
