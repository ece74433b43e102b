"""The command line. Imports no Ray: it talks to a farm over HTTP, and starts one as a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError

import renderfarm
from renderfarm.cli import check, db, dead, exit_codes, farm, logs, pictures, render, submit, tasks
from renderfarm.cli.console import say_error, show_json
from renderfarm.errors import RenderfarmError, without_prefix

app = typer.Typer(
    name="renderfarm",
    help="A Blender render farm: on this machine by one command, on many by the same.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(render.render)
app.command()(farm.up)
app.command()(submit.submit)
app.command()(tasks.status)
app.command()(tasks.watch)
app.command(name="list")(tasks.list_tasks)
app.command()(tasks.cancel)
app.command()(tasks.pause)
app.command()(tasks.resume)
app.command()(tasks.retry)
app.command()(logs.logs)
app.command()(logs.script)
app.command(name="outputs")(tasks.list_outputs)
app.command(name="contact-sheet")(pictures.contact_sheet)
app.command()(pictures.flaws)
app.command()(farm.nodes)
app.command()(check.check)
app.add_typer(db.app, name="db")
app.add_typer(dead.app, name="dead")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"renderfarm {renderfarm.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """A Blender render farm: on this machine by one command, on many by the same."""


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Every error is one line on stderr."""
    try:
        # The command's own code, or typer's: 0 after --help, 130 after Ctrl-C.
        code = app(args=list(arguments), prog_name="renderfarm", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except RenderfarmError as error:
        return _fail(arguments, error.code, str(error), exit_codes.of_error(error))
    except typer.TyperException as error:
        return _fail(arguments, "usage", without_prefix(error.format_message()), exit_codes.BAD_INPUT)
    except ValidationError as error:
        return _fail(arguments, "invalid_settings", _settings_message(error), exit_codes.BAD_INPUT)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.COMPLETED
    except OSError as error:
        return _fail(arguments, "system", str(error), exit_codes.UNAVAILABLE)


def _fail(arguments: Sequence[str], kind: str, message: str, exit_code: int) -> int:
    say_error(message)
    if "--json" in arguments:
        show_json({"error": {"kind": kind, "message": message}})
    return exit_code


def _settings_message(error: ValidationError) -> str:
    found = error.errors()[0]
    name = "_".join(("RENDERFARM", *(str(part) for part in found["loc"]))).upper()
    return f"{name}: {without_prefix(found['msg'])}"
