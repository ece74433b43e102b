"""Every error a caller can meet, in one tree.

::

    RenderfarmError
    ├── InvalidInput            the request cannot be right, whatever the farm's state
    │   ├── InvalidFrames       a frame range nobody can render
    │   ├── InvalidSettings     unknown camera, scene, view layer, format, …
    │   ├── InvalidAsset        not a .blend, truncated, a hostile zip, …
    │   └── MissingFiles        the scene names files that did not come with it
    ├── NotFound                no such asset, task, unit or output
    ├── Forbidden               the principal may not do this
    ├── Conflict                right in itself, but not in the present state
    │   ├── IllegalTransition   the transition table has no such step
    │   └── AssetNotReady       the asset is still being inspected
    ├── LeaseLost               the worker's attempt is no longer the unit's attempt
    ├── Deposed                 a scheduler with a higher epoch has taken over
    ├── BadPicture              a picture file that is truncated, or not what it should be
    ├── InternalError           a mistake in the farm itself
    ├── StorageFull             no room left for the bytes
    └── FarmUnavailable         a service the farm needs does not answer
        └── RolledBack          nothing of it happened; the same may be done again at once

Their messages are one line, for people. HTTP statuses and exit codes are mapped elsewhere, once each
(``serve_app.problems`` and ``renderfarm.cli.exit_codes``).
"""

from __future__ import annotations


class RenderfarmError(Exception):
    """Root of everything the farm raises on purpose."""

    code = "error"


class InvalidInput(RenderfarmError):
    """The request cannot be right, whatever the farm's state."""

    code = "invalid_input"


class InvalidFrames(InvalidInput):
    """A frame range nobody can render."""

    code = "invalid_frames"


class InvalidSettings(InvalidInput):
    """A setting that this scene or this farm does not have."""

    code = "invalid_settings"


class InvalidAsset(InvalidInput):
    """What was uploaded is not a usable .blend file or project archive."""

    code = "invalid_asset"


class MissingFiles(InvalidInput):
    """The scene names files that did not come with it."""

    code = "missing_files"


class NotFound(RenderfarmError):
    """No such asset, task, unit or output."""

    code = "not_found"


class Forbidden(RenderfarmError):
    """The principal may not do this."""

    code = "forbidden"


class Conflict(RenderfarmError):
    """Right in itself, but not in the present state."""

    code = "conflict"


class IllegalTransition(Conflict):
    """The transition table has no such step."""

    code = "illegal_transition"


class AssetNotReady(Conflict):
    """The asset is still being inspected."""

    code = "asset_not_ready"


class LeaseLost(RenderfarmError):
    """The worker's attempt is no longer the unit's attempt; its result must be thrown away."""

    code = "lease_lost"


class Deposed(RenderfarmError):
    """A scheduler with a higher epoch has taken over."""

    code = "deposed"


class BadPicture(RenderfarmError):
    """A picture file is truncated, or not what it should be."""

    code = "bad_picture"


class InternalError(RenderfarmError):
    """A mistake in the farm itself."""

    code = "internal_error"


class StorageFull(RenderfarmError):
    """No room left for the bytes."""

    code = "storage_full"


class FarmUnavailable(RenderfarmError):
    """A service the farm needs does not answer."""

    code = "farm_unavailable"


class RolledBack(FarmUnavailable):
    """Nothing of what was asked has happened, for sure: the same may be done again at once."""


def without_prefix(message: str) -> str:
    """Return what pydantic says of a value, and typer after it, without the name of Python's exception."""
    return message.replace("Value error, ", "", 1)
