"""``renderfarm render``: one scene, from the file to its frames."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import say, say_error, show_json
from renderfarm.cli.display import open_display
from renderfarm.cli.farm_process import EmbeddedFarm, find_farm, interruptible, uninterrupted
from renderfarm.cli.fetching import Outputs, check_writable
from renderfarm.cli.flaws import ask_flaws, tell_flaws
from renderfarm.cli.following import follow_task
from renderfarm.cli.scenes import check_scene, own_output_folder, packed_scene, upload_scene, wait_inspected, working
from renderfarm.client import JSON, FarmClient
from renderfarm.domain.render_settings import RenderSettings, Split
from renderfarm.errors import FarmUnavailable, RenderfarmError
from renderfarm.packing import Package
from renderfarm.settings import Settings


@dataclass(kw_only=True)
class _Order:
    """What one call of ``render`` is to do, and how far it is."""

    scene: Path
    settings: RenderSettings
    folder: Path | None
    """Where the outputs go; None until the file has told."""
    name: str
    priority: int
    task_id: str | None = None
    outputs: Outputs | None = None
    ended: JSON | None = field(default=None)
    """The task's last status."""
    flaws: list[JSON] = field(default_factory=list)
    """What looks wrong with its frames."""
    split: str | None = None
    """What became of the wish to split its frames, if there was one."""
    farm_stays: bool = True
    """Others may ask the farm, too."""
    is_cancelled: bool = False
    """The farm has said so, or has gone with the task."""
    rendered: Path | None = None
    """Where its files are that could not be fetched, if the farm has gone."""


@options.takes_settings
def render(
    scene: options.Scene,
    settings: RenderSettings,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for the files (default: the file's own)."),
    ] = None,
    name: options.Name = None,
    priority: options.Priority = 50,
    as_json: options.Json = False,
) -> int:
    """Render a scene and wait for its files: on the farm that runs here, else on one just for this."""
    order = _Order(scene=scene, settings=settings, folder=output, name=name or scene.stem, priority=priority)
    try:
        _carry_out(order)
    except KeyboardInterrupt:
        return _tell_interruption(order, as_json=as_json)
    except RenderfarmError as error:
        if order.task_id is None:
            raise
        return _tell_failure(order, error, as_json=as_json)
    assert order.ended is not None
    if as_json:
        show_json(_result(order, order.ended["status"], order.ended["error"]))
    return _tell_ending(order, order.ended)


def _carry_out(order: _Order) -> None:
    """Everything that can be known to be wrong is found before a farm starts, the rest before anything is queued."""
    check_scene(order.scene)
    if order.folder is not None:
        check_writable(order.folder)
    with (
        interruptible(),
        packed_scene(order.scene, allow_missing=order.settings.allow_missing) as package,
        ExitStack() as stack,
    ):
        url, embedded = _farm(Settings(), stack)
        client = stack.enter_context(FarmClient(url))
        try:
            _submit(client, order, package, farm_stays=embedded is None)
            _follow(client, order, embedded)
        except KeyboardInterrupt:
            _cancel(url, order, embedded)
            raise
        except RenderfarmError as error:
            if embedded is not None and isinstance(error, FarmUnavailable) and embedded.ends():
                raise embedded.broken("the farm ended by itself") from error
            if embedded is not None and order.task_id is not None:
                order.rendered = embedded.keep_outputs()
            raise


def _farm(settings: Settings, stack: ExitStack) -> tuple[str, EmbeddedFarm | None]:
    url = find_farm(settings)
    if url is not None:
        say(f"Using the farm at {url}")
        return url, None
    with working("Starting the farm"):
        with uninterrupted():
            farm = stack.enter_context(EmbeddedFarm(settings))
        return farm.start(), farm


def _submit(client: FarmClient, order: _Order, package: Package, *, farm_stays: bool) -> None:
    asset = wait_inspected(client, upload_scene(client, order.scene, package))
    if order.folder is None:
        order.folder = own_output_folder(order.scene, asset, order.settings.scene)
        check_writable(order.folder)
    task = client.submit_task(
        asset["id"], options.settings_json(order.settings), name=order.name, priority=order.priority
    )
    order.task_id, order.farm_stays = task["id"], farm_stays
    order.outputs = Outputs(client, task["id"], order.folder)


def _follow(client: FarmClient, order: _Order, embedded: EmbeddedFarm | None) -> None:
    assert order.task_id is not None
    assert order.outputs is not None

    def is_alive() -> bool:
        return embedded is None or embedded.is_running

    with open_display(order.name) as display:
        order.ended = follow_task(client, order.task_id, display, order.outputs, is_alive=is_alive)
    order.flaws = ask_flaws(client, order.task_id)
    if order.settings.split not in list(Split):  # else it is the farm's own choice
        order.split = _ask_split(client, order.task_id)


def _ask_split(client: FarmClient, task_id: str) -> str | None:
    """Return what became of the wish to split a task's frames; if the farm cannot tell, nothing depends on it."""
    try:
        return next((entry["reason"] for entry in client.iterate_log(task_id) if entry["event"] == "task.split"), None)
    except RenderfarmError as error:
        return f"whether it was done is not known: {error}"


def _cancel(url: str, order: _Order, embedded: EmbeddedFarm | None) -> None:
    """Cancel the task after Ctrl-C, on a new connection: the old one may be in the middle of an answer."""
    order.is_cancelled = embedded is not None
    if order.task_id is None:
        return
    try:
        with FarmClient(url) as client:
            client.cancel_task(order.task_id)
            order.is_cancelled = True
    except RenderfarmError as error:
        say(f"Task {order.task_id} could not be cancelled: {error}")


def _tell_interruption(order: _Order, *, as_json: bool) -> int:
    if order.task_id is None:
        say("Interrupted.")
    elif order.is_cancelled:
        say(f"Interrupted; task {order.task_id} is cancelled.")
    else:
        say(f"Interrupted; task {order.task_id} may run on; cancel it with: renderfarm cancel {order.task_id}")
    if as_json:
        status = "cancelled" if order.is_cancelled or order.task_id is None else None
        show_json(_result(order, status, {"kind": "interrupted", "message": "interrupted"}))
    return exit_codes.INTERRUPTED


def _tell_failure(order: _Order, error: RenderfarmError, *, as_json: bool) -> int:
    """Tell why the task could not be followed to its end, and how to come by its files all the same."""
    say_error(str(error))
    if order.farm_stays:
        say(f"Task {order.task_id} goes on; fetch its files with: renderfarm outputs {order.task_id} --output DIR")
    elif order.rendered is not None:
        say(f"What was rendered is kept for a day in {order.rendered}")
    if as_json:
        show_json(_result(order, None, {"kind": error.code, "message": str(error)}))
    return exit_codes.of_error(error)


def _result(order: _Order, status: str | None, error: JSON | None) -> JSON:
    outputs = [] if order.outputs is None else order.outputs.as_json()
    return {"task_id": order.task_id, "status": status, "error": error, "outputs": outputs, "flaws": order.flaws}


def _tell_ending(order: _Order, ended: JSON) -> int:
    if ended["error"] is not None:
        say_error(f"{order.name}: {ended['error']['message']}")
    elif ended["status"] != "completed":
        say_error(f"{order.name} was {ended['status']}")
    if order.split is not None:
        say(f"--split {order.settings.split}: {order.split}")
    say(f"{ended['frames_done']} of {ended['frames_total']} frames are in {order.folder}")
    tell_flaws(order.flaws, order.task_id if order.farm_stays else None)
    return exit_codes.of_task(ended)
