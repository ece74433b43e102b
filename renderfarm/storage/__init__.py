"""The object store adapters."""

from renderfarm.storage.folder import FolderObjects

__all__ = ["FolderObjects"]
