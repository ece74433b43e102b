"""Assets on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from renderfarm.domain import models
from renderfarm.domain.facts import SceneFacts
from renderfarm.domain.states import AssetState
from serve_app.schemas.common import Error, moment


class AssetFile(BaseModel):
    path: str = Field(description="Relative to the asset's root.")
    sha256: str
    size_bytes: int


class Asset(BaseModel):
    """An uploaded, immutable, versioned set of files."""

    id: str
    project_id: str
    owner: str
    name: str
    version: int = Field(description="1, 2, … for each name in a project.")
    main_file: str = Field(description="The .blend file that is rendered.")
    size_bytes: int
    file_version: str = Field(description="The Blender that wrote the main file.")
    status: AssetState
    error: Error | None = Field(description="Why the asset was rejected.")
    facts: SceneFacts | None = Field(description="What inspecting the scene found out; null until then.")
    created_at: datetime

    @classmethod
    def of(cls, asset: models.Asset) -> Asset:
        return Asset(**_asset_fields(asset))


class AssetDetail(Asset):
    """An asset with its files."""

    files: list[AssetFile]

    @classmethod
    def of(cls, asset: models.Asset) -> AssetDetail:
        files = [AssetFile(path=file.path, sha256=file.digest, size_bytes=file.size_bytes) for file in asset.files]
        return AssetDetail(files=files, **_asset_fields(asset))


def _asset_fields(asset: models.Asset) -> dict[str, Any]:
    return {
        "id": asset.id,
        "project_id": asset.project_id,
        "owner": asset.owner,
        "name": asset.name,
        "version": asset.version,
        "main_file": asset.main_file,
        "size_bytes": asset.size_bytes,
        "file_version": asset.file_version,
        "status": asset.state,
        "error": Error.of(asset.failure),
        "facts": asset.facts,
        "created_at": moment(asset.created_at),
    }
