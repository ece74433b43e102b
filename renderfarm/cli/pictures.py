"""``renderfarm flaws`` and ``contact-sheet``: what a task's pictures look like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import say, show_json, show_table
from renderfarm.cli.scenes import working
from renderfarm.cli.tasks import connect
from renderfarm.errors import InvalidInput

_JPEG_SUFFIXES = (".jpg", ".jpeg")


def flaws(task: options.TaskId, as_json: options.Json = False) -> int:
    """List frames that look wrong: all black, pink, not a number, unlike their neighbours."""
    with connect() as client:
        found = list(client.iterate_flaws(task))
    if as_json:
        show_json({"items": found, "total": len(found)})
    elif found:
        show_table(
            ("frame", "camera", "file", "flaw", "what"),
            ((flaw["frame"], flaw["camera"], flaw["name"], flaw["kind"], flaw["message"]) for flaw in found),
        )
    else:
        say("Nothing looks wrong.")
    return exit_codes.COMPLETED


def contact_sheet(
    task: options.TaskId,
    camera: Annotated[
        str | None, typer.Option("--camera", metavar="NAME", help="A camera (default: the first).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.jpg", help="The file (default: TASK.jpg).")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Write one picture of all frames so far; of very many, an even choice."""
    path = Path(f"{task}.jpg") if output is None else output
    if path.suffix.lower() not in _JPEG_SUFFIXES:
        raise InvalidInput(f"a contact sheet is a JPEG: name a file that ends with .jpg, not {path.name}")
    with connect() as client, working("Making the contact sheet"):
        sheet = client.get_contact_sheet(task, camera)
    try:
        path.write_bytes(sheet.data)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror or error}") from error
    if as_json:
        show_json({"task_id": task, "path": str(path)})
    else:
        say(f"The contact sheet is {path}")
    return exit_codes.COMPLETED
