"""Commands about tasks: ``status``, ``watch``, ``list``, ``cancel``, ``pause``, ``resume``, ``retry``, ``outputs``."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import duration, say, say_error, shortened, show, show_json, show_table, size
from renderfarm.cli.display import open_display
from renderfarm.cli.farm_process import require_farm
from renderfarm.cli.fetching import Outputs, check_writable, is_movie
from renderfarm.cli.flaws import ask_flaws, tell_flaws
from renderfarm.cli.following import follow_task
from renderfarm.client import JSON, FarmClient
from renderfarm.domain.states import TaskState
from renderfarm.settings import Settings


class Sort(StrEnum):
    CREATED = "created_at"
    UPDATED = "updated_at"
    PRIORITY = "priority"
    NAME = "name"
    STATUS = "status"


def connect() -> FarmClient:
    """Return a client of the running farm. Raises FarmUnavailable."""
    return FarmClient(require_farm(Settings()))


def status(task: options.TaskId, as_json: options.Json = False) -> int:
    """Tell how far a task is."""
    with connect() as client:
        found = client.get_status(task)
    if as_json:
        show_json(found)
        return exit_codes.COMPLETED
    done = f"{found['progress']:.0f}%, {found['frames_done']}/{found['frames_total']} frames"
    eta = f", ETA {duration(found['eta_seconds'])}" if found["eta_seconds"] is not None else ""
    show(f"{task}  {found['status']}  {done}{eta}")
    if found["error"] is not None:
        show(f"{found['error']['kind']}: {found['error']['message']}")
    return exit_codes.COMPLETED


def watch(task: options.TaskId, as_json: options.Json = False) -> int:
    """Show a task until it ends; exits as render does."""
    with connect() as client:
        found = client.get_task(task)
        outputs = Outputs(client, task, folder=None)
        with open_display(found["name"]) as display:
            ended = follow_task(client, task, display, outputs)
        flaws = ask_flaws(client, task)
    if as_json:
        result = {"task_id": task, "status": ended["status"], "error": ended["error"]}
        show_json({**result, "outputs": outputs.as_json(), "flaws": flaws})
    if ended["error"] is not None:
        say_error(f"{found['name']}: {ended['error']['message']}")
    say(f"{found['name']}: {ended['status']}, {ended['frames_done']} of {ended['frames_total']} frames")
    tell_flaws(flaws, task)
    return exit_codes.of_task(ended)


def list_tasks(
    state: Annotated[
        list[TaskState] | None, typer.Option("--status", help="Only tasks in this state; may be given again.")
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="Only tasks with this in their name.")] = None,
    sort: Annotated[Sort, typer.Option("--sort", help="Order.")] = Sort.CREATED,
    ascending: Annotated[bool, typer.Option("--ascending", help="Lowest or oldest first.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 50,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Leave out so many.")] = 0,
    as_json: options.Json = False,
) -> int:
    """List tasks, newest first."""
    with connect() as client:
        page = client.list_tasks(
            status=[wanted.value for wanted in state or ()],
            text=text,
            sort=sort.value,
            descending=not ascending,
            limit=limit,
            offset=offset,
        )
    if as_json:
        show_json(page)
        return exit_codes.COMPLETED
    show_table(
        ("task", "name", "status", "frames", "priority", "created", "render time"), map(_task_row, page["items"])
    )
    if page["total"] > len(page["items"]):
        say(f"{len(page['items'])} of {page['total']} tasks")
    return exit_codes.COMPLETED


def _task_row(task: JSON) -> tuple[object, ...]:
    frames = f"{task['frames_done']}/{task['frames_total']}"
    created = f"{task['created_at'][:19].replace('T', ' ')}"
    name, spent = shortened(task["name"]), duration(task["render_seconds"])
    return (task["id"], name, task["status"], frames, task["priority"], created, spent)


def cancel(task: options.TaskId, as_json: options.Json = False) -> int:
    """Cancel a task; what is being rendered stops at once."""
    return _change(lambda client: client.cancel_task(task), as_json)


def pause(task: options.TaskId, as_json: options.Json = False) -> int:
    """Pause a task; frames in work are finished."""
    return _change(lambda client: client.pause_task(task), as_json)


def resume(task: options.TaskId, as_json: options.Json = False) -> int:
    """Go on with a paused task."""
    return _change(lambda client: client.resume_task(task), as_json)


def retry(
    task: options.TaskId,
    frames: Annotated[
        str | None, typer.Option("--frames", "-f", metavar="FRAMES", help="These frames (default: all that failed).")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Render again what failed, or the frames named."""
    return _change(lambda client: client.retry_task(task, frames), as_json)


def _change(change: Callable[[FarmClient], JSON], as_json: bool) -> int:
    with connect() as client:
        task = change(client)
    if as_json:
        show_json(task)
    else:
        say(f"{task['name']} ({task['id']}) is {task['status']}")
    return exit_codes.COMPLETED


def list_outputs(
    task: options.TaskId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Fetch the files into this folder.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """List a task's files, or fetch them."""
    if output is not None:
        check_writable(output)
    with connect() as client:
        found = list(Outputs(client, task, output).fetch_new())
    if as_json:
        items = [{**item, "path": None if path is None else str(path)} for item, path in found]
        show_json({"items": items, "total": len(items)})
    elif output is not None:
        say(f"{len(found)} files are in {output}")
    else:
        show_table(
            ("frame", "camera", "name", "size", "render time", "sha256"), (_output_row(item) for item, _ in found)
        )
    return exit_codes.COMPLETED


def _output_row(output: JSON) -> tuple[object, ...]:
    return (
        None if is_movie(output) else output["frame"],
        output["camera"],
        output["name"],
        size(output["size_bytes"]),
        None if is_movie(output) else duration(output["render_seconds"]),
        output["sha256"][:12],
    )
