"""The object store adapters. ``renderfarm.storage.s3`` is left out: it loads boto3, which not every farm needs."""

from renderfarm.storage.folder import FolderObjects
from renderfarm.storage.location import S3Location, WebDavLocation, parse_storage_url
from renderfarm.storage.webdav import WebDavObjects

__all__ = ["FolderObjects", "S3Location", "WebDavLocation", "WebDavObjects", "parse_storage_url"]
