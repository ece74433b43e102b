"""``renderfarm logs`` and ``script``: what happened, what Blender said, and what it was told."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import printable, say, show, show_json
from renderfarm.cli.tasks import connect
from renderfarm.client import JSON, FarmClient
from renderfarm.errors import InvalidInput, NotFound

#: Where Blender's output is to end with so many lines, so much of it is read for each of them.
_BYTES_PER_LINE = 400
_CHUNK_BYTES = 1 << 20


def logs(
    task: options.TaskId,
    unit: options.UnitId = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the end.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines.")] = None,
    as_json: options.Json = False,
) -> int:
    """Print a task's execution log, or Blender's output of a unit."""
    with connect() as client:
        if unit is None:
            _show_entries(_entries(client, task, follow=follow, tail=tail), as_json=as_json, one_by_one=follow)
        else:
            _show_unit_log(client, task, unit, follow=follow, tail=tail, as_json=as_json)
    return exit_codes.COMPLETED


def _entries(client: FarmClient, task: str, *, follow: bool, tail: int | None) -> Iterator[JSON]:
    known = list(client.iterate_log(task))
    yield from known if tail is None else known[max(0, len(known) - tail) :]
    if not follow:
        return
    after = known[-1]["id"] if known else 0
    # An event is a hint that there is more to read.
    for _ in client.events(task, last_event_id=after):
        for entry in client.iterate_log(task, after=after):
            after = entry["id"]
            yield entry


def _show_entries(entries: Iterable[JSON], *, as_json: bool, one_by_one: bool) -> None:
    if as_json and not one_by_one:
        show_json({"items": list(entries)})
        return
    for entry in entries:
        if as_json:
            show_json(entry)
        else:
            show(_line(entry))
        sys.stdout.flush()


def _line(entry: JSON) -> str:
    step = " → ".join(state for state in (entry["old"], entry["new"]) if state)
    where = f" {entry['unit_id']}" if entry["unit_id"] else ""
    attempt = f" attempt {entry['attempt']}" if entry["attempt"] else ""
    what = ": ".join(part for part in (step, entry["reason"]) if part)
    when = entry["at"][:19].replace("T", " ")
    return f"{when}  {entry['event']}{where}{attempt}  {what}  ({entry['actor']})"


def _show_unit_log(client: FarmClient, task: str, unit: str, *, follow: bool, tail: int | None, as_json: bool) -> None:
    if as_json and follow:
        raise InvalidInput("--json and --follow do not go together for Blender's output")
    if as_json:
        text, attempt, complete = _read_unit_log(client, task, unit, tail)
        show_json({"task_id": task, "unit_id": unit, "attempt": attempt, "complete": complete, "text": text})
    elif follow:
        tail_bytes = None if tail is None else tail * _BYTES_PER_LINE
        for chunk in client.follow_unit_log(task, unit, tail=tail_bytes):
            _write(chunk.decode(errors="replace"))
    else:
        _write(_read_unit_log(client, task, unit, tail)[0])


def _read_unit_log(client: FarmClient, task: str, unit: str, tail: int | None) -> tuple[str, int, bool]:
    """Return Blender's output so far, or its last lines; the attempt; whether it is complete."""
    if tail is not None:
        part = client.read_unit_log(task, unit, tail=tail * _BYTES_PER_LINE)
        lines = part.data.decode(errors="replace").splitlines(keepends=True)
        return "".join(lines[max(0, len(lines) - tail) :]), part.attempt, part.complete
    part = client.read_unit_log(task, unit, limit=_CHUNK_BYTES)
    pieces = [part.data]
    while part.data and not part.complete:
        part = client.read_unit_log(task, unit, attempt=part.attempt, offset=part.next_offset, limit=_CHUNK_BYTES)
        pieces.append(part.data)
    return b"".join(pieces).decode(errors="replace"), part.attempt, part.complete


def _write(text: str) -> None:
    """Write Blender's own lines, without the control codes that may be among them."""
    for line in text.splitlines(keepends=True):
        ending = "\n" if line.endswith(("\n", "\r")) else ""
        sys.stdout.write(printable(line.expandtabs().rstrip("\r\n")) + ending)
    sys.stdout.flush()


def script(
    task: options.TaskId,
    unit: options.UnitId = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")] = None,
    as_json: options.Json = False,
) -> int:
    """Print the script that renders a unit (default: the first) in plain Blender."""
    with connect() as client:
        unit_id = unit or _first_unit(client, task)
        text = client.get_unit_script(task, unit_id)
    if output is not None:
        try:
            output.write_text(text)
        except OSError as error:
            raise InvalidInput(f"cannot write {output}: {error.strerror or error}") from error
        say(f"The script of unit {unit_id} is in {output}")
    if as_json:
        path = None if output is None else str(output)
        show_json({"task_id": task, "unit_id": unit_id, "path": path, "script": text})
    elif output is None:
        sys.stdout.write(text)
    return exit_codes.COMPLETED


def _first_unit(client: FarmClient, task: str) -> str:
    offset = 0
    while True:
        units = client.list_units(task, offset=offset)["items"]
        if not units:
            raise NotFound(f"task {task} has no render unit")
        for unit in units:
            if unit["kind"] == "render":
                return str(unit["id"])
        offset += len(units)
