"""The process that reads a .blend with blender-asset-tracer: one JSON object on stdout, everything else on stderr."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from renderfarm.packing.tracing import Usage, open_tracer, write_project


def main() -> None:
    """Answer one request and leave at once: a plain exit with ``bpy`` loaded may hang."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what Blender and the tracer print
    answer = json.dumps(_answer(_arguments())).encode()
    with open(answers, "wb", closefd=False) as stream:
        stream.write(answer)
    sys.stderr.flush()
    os._exit(0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m renderfarm.packing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list").add_argument("blend", type=Path)
    pack = commands.add_parser("pack")
    pack.add_argument("blend", type=Path)
    pack.add_argument("target", type=Path)
    pack.add_argument("--allow-missing", action="store_true")
    return parser.parse_args()


def _answer(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        return _list_or_pack(arguments)
    except OSError as error:
        code = "storage_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "failed"
        return {"error": {"code": code, "message": _one_line(error)}}
    except Exception as error:  # noqa: BLE001  the tracer raises whatever a strange file makes it raise
        return {"error": {"code": "failed", "message": _one_line(error)}}


def _list_or_pack(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="renderfarm-pack-") as scratch:
        tracer = open_tracer(arguments.blend, Path(scratch))
        usages = tracer.usages()
        answer = _describe(arguments.blend, usages)
        wanted = arguments.command == "pack" and (arguments.allow_missing or not answer["missing"])
        if wanted and answer["files"]:
            answer["main"] = write_project(tracer, [Path(path) for path in answer["files"]], arguments.target)
        return answer


def _describe(blend: Path, usages: list[Usage]) -> dict[str, Any]:
    files = {str(file) for usage in usages for file in usage.files} - {str(blend)}
    missing = {(usage.written, usage.used_by) for usage in usages if not usage.files}
    return {
        "files": sorted(files),
        "missing": [{"path": path, "used_by": used_by} for path, used_by in sorted(missing)],
        "main": None,
    }


def _one_line(error: Exception) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")


if __name__ == "__main__":
    main()
