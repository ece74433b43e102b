"""Where this machine's Blenders keep the OpenColorIO configuration that says how their views look."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from renderfarm.media.display import is_readable

_CONFIG = "datafiles/colormanagement/config.ocio"
#: From the folder of a Blender program: as it is downloaded, as Linux distributions place it, and on a Mac.
_BESIDE_PROGRAM = ("[0-9]*", "../share/blender", "../share/blender/[0-9]*", "../Resources/[0-9]*")
#: From the folder of a Python interpreter: its ``bpy``.
_BESIDE_PYTHON = ("../lib/python*/site-packages/bpy/[0-9]*",)


def find_config(blenders: Sequence[Path] = ()) -> Path | None:
    """Return the configuration of the first Blender that has one which this process can read; None: there is none.

    Args:
        blenders: Blender programs, or Python interpreters that have ``bpy``. None: this Python's ``bpy``, else the
            ``blender`` on the PATH.
    """
    return _first_readable(tuple(blenders))


@cache
def _first_readable(blenders: tuple[Path, ...]) -> Path | None:
    return next((config for config in _configs(blenders) if is_readable(config)), None)


def _configs(blenders: Sequence[Path]) -> Iterator[Path]:
    if blenders:
        for blender in blenders:
            yield from _beside(blender)
        return
    own = importlib.util.find_spec("bpy")
    if own is not None:
        for folder in own.submodule_search_locations or ():
            yield from _below(Path(folder), ("[0-9]*",))
        return
    program = shutil.which("blender")
    if program is not None:
        yield from _beside(Path(program))


def _beside(blender: Path) -> Iterator[Path]:
    if blender.name.startswith("python"):
        # A virtual environment's interpreter is a link that leads out of it.
        yield from _below(blender.absolute().parent, _BESIDE_PYTHON)
    else:
        yield from _below(blender.resolve().parent, _BESIDE_PROGRAM)


def _below(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    """Yield what the patterns find, of several versions the newest first."""
    for pattern in patterns:
        yield from sorted(folder.glob(f"{pattern}/{_CONFIG}"), reverse=True)
