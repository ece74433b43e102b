"""How far a task is, for people: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from renderfarm.cli.console import duration, people, printable, say
from renderfarm.cli.fetching import is_movie
from renderfarm.cli.half_blocks import HalfBlocks, room_px

_WORKERS_SHOWN = 12
#: A picture is 60 kB of colours, which may have to go over a slow line each time that anything is drawn.
_PICTURE_EVERY_S = 1.0


class Display(Protocol):
    def __enter__(self) -> Display: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, status: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> None:
        """Show a task's status and its running units."""

    def frame_done(self, output: Mapping[str, Any], path: Path | None) -> None:
        """Tell of a committed output, and where it is here if it was fetched."""

    def room_px(self) -> tuple[int, int] | None:
        """Return width and height of the largest picture that can be shown; None: none can."""

    def show_picture(self, ppm: bytes) -> None:
        """Show a picture, in the place of the one before. Raises BadPicture."""


def open_display(title: str) -> Display:
    """Return the display that fits stderr."""
    return LiveDisplay(title) if people().is_terminal else PlainDisplay(title)


class PlainDisplay:
    """One line for each frame and each change of state; no control codes."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._state: str | None = None
        self._done, self._total = 0, 0

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, status: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> None:
        self._done, self._total = status["frames_done"], status["frames_total"]
        if status["status"] != self._state:
            self._state = status["status"]
            say(f"{self._title}: {self._state}, {self._done}/{self._total} frames")

    def frame_done(self, output: Mapping[str, Any], path: Path | None) -> None:
        what = "movie" if is_movie(output) else f"{_frame(output)} in {_rendering(output)}"
        say(f"{self._title}: {what}  {path or output['name']}")

    def room_px(self) -> tuple[int, int] | None:
        return None

    def show_picture(self, ppm: bytes) -> None:
        """There is no room for it."""


class LiveDisplay:
    """A progress bar with what every worker does, drawn anew as it changes."""

    def __init__(self, title: str) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}", markup=True),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[frames]}"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=people(),
        )
        self._title = printable(title)
        self._task = self._bar.add_task(Text(self._title).markup, total=100.0, frames="", note="")
        self._started = time.monotonic()
        self._workers: RenderableType = Text("")
        self._lines_taken = 2
        self._picture: HalfBlocks | None = None
        self._draw_at = 0.0
        self._last_frame: str | None = None
        self._live = Live(console=self._bar.console, get_renderable=self._render, auto_refresh=False, transient=False)

    def __enter__(self) -> LiveDisplay:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._workers = Text("")
        self._live.refresh()
        self._live.stop()

    def _render(self) -> RenderableType:
        return Group(self._bar, self._workers, self._picture or Text(""))

    def update(self, status: Mapping[str, Any], running: Sequence[Mapping[str, Any]]) -> None:
        notes = [str(status["status"])] if status["status"] != "running" else []
        if status["eta_seconds"] is not None:
            notes.append(f"ETA {duration(status['eta_seconds'])}")
        if self._last_frame is not None:
            notes.append(self._last_frame)
        notes.append(f"{duration(time.monotonic() - self._started)} so far")
        self._bar.update(
            self._task,
            completed=status["progress"],
            frames=f"{status['frames_done']}/{status['frames_total']} frames",
            note=" · ".join(notes),
        )
        self._workers = _worker_table(running)
        # The bar, the workers or that there are more of them, and the line of the cursor. It does not get less, because
        # a picture of another size would have to be made anew of all its parts.
        self._lines_taken = max(self._lines_taken, 3 + min(len(running), _WORKERS_SHOWN))
        if self._picture is None or time.monotonic() >= self._draw_at:
            self._draw()

    def room_px(self) -> tuple[int, int] | None:
        return room_px(self._bar.console, self._lines_taken)

    def show_picture(self, ppm: bytes) -> None:
        self._picture = HalfBlocks(ppm)
        self._draw()

    def _draw(self) -> None:
        self._live.refresh()
        self._draw_at = time.monotonic() + _PICTURE_EVERY_S

    def frame_done(self, output: Mapping[str, Any], path: Path | None) -> None:
        if not is_movie(output):
            self._last_frame = f"{_frame(output)} took {_rendering(output)}"


def _worker_table(running: Sequence[Mapping[str, Any]]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for unit in running[:_WORKERS_SHOWN]:
        what = f"frame {unit['frames']}" if unit["frames"].lstrip("-").isdigit() else f"frames {unit['frames']}"
        if unit.get("part"):
            what = f"a part of {what}"
        camera = f"from {unit['camera']}" if unit["camera"] else ""
        cells = (unit["worker_id"] or "", what, camera, f"{unit['progress']:.0f}%", unit["progress_note"])
        table.add_row(*(Text(printable(cell), style="dim", overflow="ellipsis", no_wrap=True) for cell in cells))
    if len(running) > _WORKERS_SHOWN:
        table.add_row(Text(f"and {len(running) - _WORKERS_SHOWN} more", style="dim"))
    return table


def _frame(output: Mapping[str, Any]) -> str:
    return f"frame {output['frame']}" + (f" from {output['camera']}" if output["camera"] else "")


def _rendering(output: Mapping[str, Any]) -> str:
    """Return what a frame cost: where parts of it were rendered side by side, people waited less for it."""
    return f"{duration(output['render_seconds'])} of rendering"
