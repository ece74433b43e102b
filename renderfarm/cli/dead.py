"""Commands about dead letters: ``dead list``, ``dead replay``."""

from __future__ import annotations

from typing import Annotated

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import say, show_json, show_table
from renderfarm.cli.tasks import connect
from renderfarm.client import JSON

app = typer.Typer(help="Messages that the queue has put aside, because nobody could deal with them.")


@app.command(name="list")
def list_dead(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 100,
    as_json: options.Json = False,
) -> int:
    """List dead letters, oldest first."""
    with connect() as client:
        found = client.list_dead_letters(limit=limit)
    if as_json:
        show_json(found)
    elif found["items"]:
        show_table(("id", "topic", "about", "died", "reason"), map(_row, found["items"]))
    else:
        say("no dead letters")
    return exit_codes.COMPLETED


@app.command()
def replay(
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="This one (default: all); may be given again.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Put dead letters back into the queue."""
    with connect() as client:
        done = client.replay_dead_letters(ids or None)
    if as_json:
        show_json(done)
    else:
        say(f"{done['replayed']} messages are in the queue again")
    return exit_codes.COMPLETED


def _row(letter: JSON) -> tuple[object, ...]:
    died = letter["died_at"][:19].replace("T", " ")
    return (letter["id"], letter["topic"], letter["key"], died, letter["reason"])
