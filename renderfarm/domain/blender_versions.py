"""Blender versions: which of the farm's Blenders may open a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from renderfarm.errors import InvalidAsset, InvalidSettings

_VERSION = re.compile(r"^\d{1,4}(\.\d{1,4}){0,2}\Z", re.ASCII)


def version_key(version: str) -> tuple[int, ...]:
    """Return ``4.5.15`` as (4, 5, 15), for comparing."""
    return tuple(int(part) for part in version.split("."))


def matches(version: str, wanted: str) -> bool:
    """Tell whether ``4.5.15`` is what ``4.5`` asks for."""
    key = version_key(wanted)
    return version_key(version)[: len(key)] == key


def choose_blender(available: Sequence[str], file_version: str, wanted: str | None = None) -> str:
    """Return the version of ``available`` (in order of preference) that is to open a file.

    Raises:
        InvalidSettings: no Blender of the version wanted is available.
        InvalidAsset: every Blender that could serve is older than the one that wrote the file.
    """
    listed = ", ".join(available) or "none"
    if wanted is not None and not _VERSION.match(wanted):
        raise InvalidSettings(f"{wanted[:40]!r} is not a Blender version; write 4.5 or 4.5.15")
    candidates = [version for version in available if wanted is None or matches(version, wanted)]
    if not candidates:
        raise InvalidSettings(f"no Blender {wanted or ''} on this farm; it has: {listed}".replace("  ", " "))
    file_key = version_key(file_version)[:2]
    for version in candidates:
        if version_key(version)[:2] >= file_key:
            return version
    raise InvalidAsset(
        f"the file was saved by Blender {file_version}, newer than any available here: {', '.join(candidates)}"
    )
