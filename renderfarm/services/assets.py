"""Assets: taking an upload in, and reading what is there."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from renderfarm.auth import Permission, Principal, authorise
from renderfarm.domain.blend_header import check_blend
from renderfarm.domain.blender_versions import choose_blender
from renderfarm.domain.models import Asset, AssetFile
from renderfarm.domain.states import AssetState
from renderfarm.errors import InvalidAsset, NotFound, StorageFull
from renderfarm.ports import Farm, Page
from renderfarm.services.archives import unpack_project
from renderfarm.services.nodes import available_blenders
from renderfarm.services.projects import DEFAULT_PROJECT
from renderfarm.services.repeating import repeated_if_undone

_ZIP_MAGIC = b"PK\x03\x04"
_UNSAFE_NAME = re.compile(r"[\x00-\x1f/\\:*?\"<>|]")
_NAME_LENGTH_MAX = 200
TOPIC_ASSET = "asset"


def store_asset(
    farm: Farm, principal: Principal, *, upload: Path, file_name: str, name: str | None, main: str | None
) -> Asset:
    """Check an uploaded .blend, or a zip of a project, and keep it as a new version of the asset ``name``.

    Inspection follows in the background; the asset is ``pending`` until then.

    Raises:
        InvalidAsset: not a usable file; nothing of it is kept.
        StorageFull: no room; nothing of it is kept.
    """
    authorise(principal, Permission.ASSET_CREATE, DEFAULT_PROJECT)
    with _work_folder(farm) as folder:
        root, main_file = _unpack(farm, upload, folder, file_name, main)
        with (root / main_file).open("rb") as stream:
            file_version = check_blend(stream).version
        _check_version(farm, file_version)
        files = tuple(_store_file(farm, root, path) for path in sorted(root.rglob("*")) if path.is_file())
    asset_name = (name or Path(file_name).stem or main_file)[:_NAME_LENGTH_MAX]
    unnumbered = Asset(
        id=farm.new_id(),
        project_id=DEFAULT_PROJECT,
        owner=principal.name,
        name=asset_name,
        version=0,
        main_file=main_file,
        files=files,
        file_version=file_version,
        state=AssetState.PENDING,
        facts=None,
        failure=None,
        created_at=farm.clock(),
    )
    asset = _add_version(farm, unnumbered)
    farm.compute.wake()
    return asset


@repeated_if_undone
def _add_version(farm: Farm, unnumbered: Asset) -> Asset:
    """Write an asset down as the next version of its name."""
    with farm.database.write() as tx:
        latest = tx.assets.latest_version(unnumbered.project_id, unnumbered.name)
        asset = replace(unnumbered, version=latest + 1)
        tx.assets.add(asset)
        tx.outbox.add(TOPIC_ASSET, asset.id, asset.created_at)
    return asset


def get_asset(farm: Farm, principal: Principal, asset_id: str) -> Asset:
    """Return one asset with its files. Raises NotFound."""
    with farm.database.read() as tx:
        asset = tx.assets.get(asset_id)
    if asset is None:
        raise NotFound(f"no asset {asset_id!r}")
    authorise(principal, Permission.ASSET_READ, asset.project_id)
    return asset


def list_assets(farm: Farm, principal: Principal, *, limit: int, offset: int) -> Page[Asset]:
    """Return assets, newest first, without their files."""
    authorise(principal, Permission.ASSET_READ, DEFAULT_PROJECT)
    with farm.database.read() as tx:
        return tx.assets.page(DEFAULT_PROJECT, limit, offset)


def _unpack(farm: Farm, upload: Path, folder: Path, file_name: str, main: str | None) -> tuple[Path, str]:
    """Return the folder that holds the asset's files, and the main file's path in it."""
    root = folder / "files"
    root.mkdir()
    if _is_meant_as_zip(upload, file_name):
        settings = farm.settings
        main_file = unpack_project(
            upload, root, main=main, bytes_max=settings.upload_max_bytes, files_max=settings.upload_files_max
        )
        return root, main_file
    if main is not None:
        raise InvalidAsset("a main file can be named for a zip of a project only")
    main_file = _blend_name(file_name)
    shutil.copyfile(upload, root / main_file)
    return root, main_file


def _is_meant_as_zip(upload: Path, file_name: str) -> bool:
    """Tell a project from a .blend, so that what is wrong with it is told of what the uploader takes it for."""
    with upload.open("rb") as stream:
        return stream.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC or file_name.lower().endswith(".zip")


def _blend_name(file_name: str) -> str:
    """Make the uploader's file name safe; Blender puts it into paths that use ``{blend_name}``."""
    base = _UNSAFE_NAME.sub("_", file_name.replace("\\", "/").rsplit("/", 1)[-1]).strip(" .")[:_NAME_LENGTH_MAX]
    stem = base.removesuffix(".blend") or "scene"
    return f"{stem}.blend"


def _check_version(farm: Farm, file_version: str) -> None:
    """Refuse a file from a newer Blender at the door, as far as the farm's Blenders are known yet."""
    available = available_blenders(farm)
    if available:
        choose_blender(available, file_version)


def _store_file(farm: Farm, root: Path, path: Path) -> AssetFile:
    return AssetFile(
        path=path.relative_to(root).as_posix(), digest=farm.objects.put(path), size_bytes=path.stat().st_size
    )


@contextmanager
def _work_folder(farm: Farm) -> Iterator[Path]:
    parent = farm.settings.data / "uploads"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise StorageFull(f"cannot keep the upload: {error.strerror or error}") from error
