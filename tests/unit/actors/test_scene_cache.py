"""The node's cache of scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.scene_cache import SceneCache
from renderfarm.domain.models import Asset, AssetFile
from renderfarm.domain.states import AssetState
from renderfarm.errors import NotFound
from renderfarm.storage import FolderObjects

HOUR_S = 3600.0


class Shelf:
    """An object store, and assets in it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cache"
        self.objects = FolderObjects(folder / "objects")
        self._source = folder / "source"

    def asset(self, asset_id: str, **files: str) -> Asset:
        kept = []
        for name, text in files.items():
            self._source.write_text(text)
            path = name.replace("__", "/")
            kept.append(AssetFile(path=path, digest=self.objects.put(self._source), size_bytes=len(text)))
        return Asset(
            id=asset_id,
            project_id="default",
            owner="local",
            name=asset_id,
            version=1,
            main_file=kept[0].path,
            files=tuple(kept),
            file_version="4.5",
            state=AssetState.READY,
            facts=None,
            failure=None,
            created_at=0.0,
        )

    def cache(self, bytes_max: int = 1000) -> SceneCache:
        return SceneCache(self.root, self.objects, bytes_max)

    def present(self) -> set[str]:
        return {folder.name for folder in self.root.iterdir()}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_files_are_laid_out_as_they_were_uploaded(shelf: Shelf) -> None:
    main = shelf.cache().fetch(shelf.asset("a", main="scene", textures__wood="brown"), 0.0)
    assert main == shelf.root / "a" / "main"
    assert (main.parent / "textures" / "wood").read_text() == "brown"


def test_what_is_missing_or_of_another_size_is_fetched_again(shelf: Shelf) -> None:
    asset = shelf.asset("a", main="scene", textures__wood="brown", textures__iron="grey")
    main = shelf.cache().fetch(asset, 0.0)
    (main.parent / "textures" / "wood").unlink()
    (main.parent / "textures" / "iron").write_text("rust!")
    inode = main.stat().st_ino
    shelf.cache().fetch(asset, 1.0)
    assert (main.parent / "textures" / "wood").read_text() == "brown"
    assert (main.parent / "textures" / "iron").read_text() == "grey"
    assert main.stat().st_ino == inode, "what is right stays"


def test_a_blob_that_is_lost_is_told(shelf: Shelf) -> None:
    asset = shelf.asset("a", main="scene")
    shelf.objects = FolderObjects(shelf.root / "empty")
    with pytest.raises(NotFound):
        shelf.cache().fetch(asset, 0.0)


def test_the_scene_used_longest_ago_makes_room(shelf: Shelf) -> None:
    cache = shelf.cache(bytes_max=100)
    for number, name in enumerate("abc"):
        cache.fetch(shelf.asset(name, main=name * 30), number * 10.0)
    cache.fetch(shelf.asset("a", main="a" * 30), 40.0)
    cache.fetch(shelf.asset("d", main="d" * 30), 2 * HOUR_S)
    assert shelf.present() == {"a", "c", "d"}


def test_a_scene_in_use_is_never_removed(shelf: Shelf) -> None:
    cache = shelf.cache(bytes_max=50)
    cache.fetch(shelf.asset("a", main="a" * 30), 0.0)
    cache.touch("a", 1.5 * HOUR_S)
    cache.touch("nobody", 1.5 * HOUR_S)
    cache.fetch(shelf.asset("b", main="b" * 30), 2 * HOUR_S)
    assert shelf.present() == {"a", "b"}


def test_what_killed_workers_left_is_swept_and_never_taken_for_a_scene(shelf: Shelf) -> None:
    left = shelf.root / ".trash-1" / "textures"
    left.mkdir(parents=True)
    (left / "wood").write_text("x" * 900)
    cache = shelf.cache(bytes_max=50)
    cache.fetch(shelf.asset("a", main="a" * 30), 0.0)
    cache.fetch(shelf.asset("b", main="b" * 20), 2 * HOUR_S)
    assert shelf.present() == {"a", "b"}


def test_a_scene_is_out_of_sight_before_its_files_go(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = shelf.cache(bytes_max=50)
    cache.fetch(shelf.asset("a", main="a" * 30), 0.0)
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if the worker were killed just here
    cache.fetch(shelf.asset("b", main="b" * 30), 2 * HOUR_S)
    assert {name for name in shelf.present() if not name.startswith(".trash-")} == {"b"}
