"""``renderfarm check``: whether all that know a unit's state agree."""

from __future__ import annotations

from typing import Annotated

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import duration, say, show_json, show_table
from renderfarm.cli.farm_process import require_farm
from renderfarm.cli.scenes import working
from renderfarm.client import JSON, FarmClient
from renderfarm.settings import Settings


def check(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    objects: Annotated[
        bool, typer.Option("--objects/--no-objects", help="Look into the object store, too; it may be large.")
    ] = True,
    message_age_s: Annotated[
        float | None,
        typer.Option("--message-age", metavar="SECONDS", help="A message older than this is late (default: 30)."),
    ] = None,
    object_grace_s: Annotated[
        float | None,
        typer.Option("--object-grace", metavar="SECONDS", help="Leave younger objects alone (default: 3600)."),
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Compare database, cache, queue, workers and object store; exits 1 when something stays wrong."""
    with FarmClient(require_farm(Settings())) as client, working("Looking"):
        report = client.check_farm(
            repair=repair, objects=objects, message_age_s=message_age_s, object_grace_s=object_grace_s
        )
    if as_json:
        show_json(report)
    else:
        _show(report)
    if report["remaining"] or report["more"]:
        return exit_codes.STILL_WRONG
    return exit_codes.UNAVAILABLE if report["not_looked_at"] else exit_codes.COMPLETED


def _show(report: JSON) -> None:
    findings = report["findings"]
    if findings:
        show_table(("finding", "mended", "what"), ((item["kind"], _mended(item), item["detail"]) for item in findings))
    for kind, reason in report["not_looked_at"].items():
        say(f"could not look for {kind}: {reason}")
    for kind in report["more"]:
        say(f"there is more of {kind}: mend these, and look again")
    seen = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in report["looked_at"].items())
    say(f"{len(findings) or 'no'} findings, {report['repaired']} mended ({duration(report['seconds'])}: {seen})")


def _mended(item: JSON) -> str:
    if item["repaired"]:
        return "yes"
    return "no" if item["repairable"] else "by hand"
