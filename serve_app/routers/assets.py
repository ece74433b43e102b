"""Assets: uploading scenes, and looking at them."""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request

from renderfarm.services import assets
from serve_app.dependencies import Caller, Farm, Paged
from serve_app.problems import problem_responses
from serve_app.schemas.assets import Asset, AssetDetail
from serve_app.schemas.common import Listed, listed
from serve_app.uploads import FORM_SCHEMA, received_upload

UPLOAD_PATH = "/api/assets"
router = APIRouter(tags=["assets"])


@router.post(
    UPLOAD_PATH,
    status_code=201,
    summary="Upload a .blend file or a zip of a project",
    responses=problem_responses(403, 413, 422, 507),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM_SCHEMA}}}},
)
async def upload_asset(request: Request, farm: Farm, caller: Caller) -> AssetDetail:
    """Store the file as a new asset. It is `pending` until Blender has inspected it."""
    folder = farm.settings.data / "uploads"
    async with received_upload(request, folder, farm.settings.upload_max_bytes) as upload:
        asset = await run_sync(
            lambda: assets.store_asset(
                farm, caller, upload=upload.file, file_name=upload.file_name, name=upload.name, main=upload.main
            )
        )
    return AssetDetail.of(asset)


@router.get(UPLOAD_PATH, summary="List assets, newest first", responses=problem_responses(403, 422))
def list_assets(farm: Farm, caller: Caller, query: Paged) -> Listed[Asset]:
    page = assets.list_assets(farm, caller, limit=query.limit, offset=query.offset)
    return listed(page, Asset.of, limit=query.limit, offset=query.offset)


@router.get(UPLOAD_PATH + "/{asset_id}", summary="Get an asset with its files", responses=problem_responses(403, 404))
def get_asset(farm: Farm, caller: Caller, asset_id: str) -> AssetDetail:
    return AssetDetail.of(assets.get_asset(farm, caller, asset_id))
