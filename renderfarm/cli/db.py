"""``renderfarm db``: the database's schema. Needs no farm that runs, only the settings of one."""

from __future__ import annotations

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import show, show_json
from renderfarm.settings import Settings

app = typer.Typer(help="The farm's database and its schema.")


@app.command()
def upgrade(as_json: options.Json = False) -> int:
    """Bring the schema up to date, as the farm does when it starts."""
    # Late: SQLAlchemy takes longer to import than all of the command line.
    from renderfarm.wiring import upgrade_database

    before, after = upgrade_database(Settings())
    if as_json:
        show_json({"before": before, "schema": after})
    elif before == after:
        show(f"The schema is {after} already.")
    else:
        show(f"The schema was {before or 'not there'} and is now {after}.")
    return exit_codes.COMPLETED


@app.command()
def status(as_json: options.Json = False) -> int:
    """Tell which schema the database has, and which one this program needs.

    Exits with 3 if they differ, or if the database does not answer.
    """
    from renderfarm.wiring import database_revision

    present, needed = database_revision(Settings())
    if as_json:
        show_json({"schema": present, "needed": needed})
    elif present == needed:
        show(f"The schema is {present}, as it should be.")
    else:
        show(f"The schema is {present or 'not there'}; this program needs {needed}: renderfarm db upgrade")
    return exit_codes.COMPLETED if present == needed else exit_codes.UNAVAILABLE
