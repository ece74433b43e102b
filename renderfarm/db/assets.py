"""Projects and assets in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from renderfarm.db.rows import changed, from_row, to_row
from renderfarm.db.tables import asset_files, assets, projects
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.models import Asset, AssetFile, Project
from renderfarm.ports import Page


class SqlProjects:
    """Implements ``ports.Projects``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, project_id: str) -> Project | None:
        row = self._connection.execute(select(projects).where(projects.c.id == project_id)).mappings().first()
        return None if row is None else from_row(Project, row)

    def add(self, project: Project) -> None:
        self._connection.execute(insert(projects), to_row(project))


class SqlAssets:
    """Implements ``ports.Assets``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, asset_id: str) -> Asset | None:
        row = self._connection.execute(select(assets).where(assets.c.id == asset_id)).mappings().first()
        return None if row is None else from_row(Asset, row, files=self._files(asset_id))

    def facts(self, asset_id: str) -> SceneFacts | None:
        row = self._connection.execute(select(assets).where(assets.c.id == asset_id)).mappings().first()
        return None if row is None else from_row(Asset, row, files=()).facts

    def _files(self, asset_id: str) -> tuple[AssetFile, ...]:
        query = select(asset_files).where(asset_files.c.asset_id == asset_id).order_by(asset_files.c.path)
        return tuple(from_row(AssetFile, row) for row in self._connection.execute(query).mappings())

    def add(self, asset: Asset) -> None:
        self._connection.execute(insert(assets), to_row(asset, without=frozenset({"files"})))
        rows: list[dict[str, Any]] = [{"asset_id": asset.id, **to_row(file)} for file in asset.files]
        self._connection.execute(insert(asset_files), rows)

    def latest_version(self, project_id: str, name: str) -> int:
        # Two that add the next version of a name wait for each other here.
        self._connection.execute(select(projects.c.id).where(projects.c.id == project_id).with_for_update())
        query = select(func.max(assets.c.version)).where(assets.c.project_id == project_id, assets.c.name == name)
        return int(self._connection.execute(query).scalar() or 0)

    def update(self, old: Asset, new: Asset) -> bool:
        statement = update(assets).where(assets.c.id == old.id, assets.c.state == old.state)
        return self._connection.execute(statement, changed(old, new)).rowcount == 1

    def page(self, project_id: str | None, limit: int, offset: int) -> Page[Asset]:
        where = [] if project_id is None else [assets.c.project_id == project_id]
        total = self._connection.execute(select(func.count()).select_from(assets).where(*where)).scalar_one()
        query = select(assets).where(*where).order_by(assets.c.id.desc()).limit(limit).offset(offset)
        rows = self._connection.execute(query).mappings()
        return Page(items=tuple(from_row(Asset, row, files=()) for row in rows), total=total)
