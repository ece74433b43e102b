"""Which Blenders this machine has, and how a session is started in each."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from renderfarm.domain.blender_versions import version_key
from renderfarm.errors import FarmUnavailable

_LOOK_TIMEOUT_S = 120.0
_BLENDER = re.compile(r"^Blender (\d+\.\d+(?:\.\d+)?)", re.MULTILINE)
_NUMBER = re.compile(r"\d+\.\d+(?:\.\d+)?")
_ASK_FOR_BPY = "import importlib.metadata as m; print(m.version('bpy'))"


@dataclass(frozen=True, kw_only=True)
class Blender:
    """A Blender that sessions can run in."""

    version: str
    """For example ``4.5.15``."""
    argv_prefix: tuple[str, ...]
    """The command that starts a session, up to the session's own options."""
    is_program: bool = False
    """It is Blender itself, not a Python that has ``bpy``."""

    def command(self, threads: int | None) -> tuple[str, ...]:
        """Return the command, with so many threads for all that Blender does (None: as many as there are cores)."""
        own = () if threads is None or not self.is_program else ("--threads", str(threads))
        return (self.argv_prefix[0], *own, *self.argv_prefix[1:])


def find_blenders(paths: Sequence[Path] = ()) -> tuple[Blender, ...]:
    """Return the Blenders to work with, best first.

    Args:
        paths: Blender programs, or Python interpreters that have ``bpy``. None: this Python's ``bpy``, else the
            ``blender`` on the PATH.

    Raises:
        FarmUnavailable: one of the paths does not run, or there is no Blender at all.
    """
    if paths:
        return tuple(_at(path) for path in paths)
    version = _own_bpy()
    if version is not None:
        return (_in_python(Path(sys.executable), version),)
    program = shutil.which("blender")
    if program is not None:
        return (_at(Path(program)),)
    raise FarmUnavailable(
        "there is no Blender here: install the bpy package into this Python, put blender on the PATH, "
        "or name a program in RENDERFARM_BLENDER"
    )


def _own_bpy() -> str | None:
    """Return the version of this Python's ``bpy`` without the seconds that importing it takes."""
    try:
        return importlib.metadata.version("bpy")
    except importlib.metadata.PackageNotFoundError:
        return None


def _at(path: Path) -> Blender:
    answer = _output_of(path, "--version")
    blender = _BLENDER.search(answer)
    if blender is not None:
        return _in_program(path, blender[1])
    if answer.startswith("Python "):
        bpy = _NUMBER.fullmatch(_output_of(path, "-c", _ASK_FOR_BPY).strip())
        if bpy is not None:
            return _in_python(path, bpy[0])
    raise FarmUnavailable(f"{path} is not a Blender: it does not tell its version")


def _output_of(path: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOOK_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FarmUnavailable(f"{path} does not run as Blender: {_reason(error)}") from error
    return done.stdout.decode(errors="replace")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, subprocess.CalledProcessError):
        last_words = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return " ".join([f"exit status {error.returncode}", *last_words])
    return f"no answer within {_LOOK_TIMEOUT_S:g} s"


def _in_python(interpreter: Path, version: str) -> Blender:
    # By path, as the interpreter need not be one that has the farm installed.
    return Blender(version=version, argv_prefix=(str(interpreter), _session_file()))


def _in_program(program: Path, version: str) -> Blender:
    # So that Cycles says at the end of each render on which devices it was (blender_runtime.devices).
    report = ("--log", "cycles", "--log-level", "info") if version_key(version) >= (5,) else ()
    command = (str(program), "--background", "--factory-startup", *report, "--python", _session_file(), "--")
    return Blender(version=version, argv_prefix=command, is_program=True)


def _session_file() -> str:
    return str(resources.files("blender_runtime") / "session.py")
