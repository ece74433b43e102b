"""What the commands print: results on stdout, messages for people on stderr, with ``--json`` only JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Tables that nobody looks at in a terminal are not to be cut to one's width.
_FILE_WIDTH = 10_000


def people() -> Console:
    """Return the console for messages; control codes only on a terminal."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """Tell people something on stderr."""
    people().print(Text(printable(message)))


def say_error(message: str) -> None:
    """Write the one line of an error to stderr."""
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)


def show(text: str) -> None:
    """Write a result for people to stdout."""
    print(printable(text))


def show_json(value: Any) -> None:
    """Write a JSON value to stdout, on one line."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def show_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to stdout."""
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else printable(str(cell))) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(table)


def printable(text: str) -> str:
    """Replace control characters: names come from other people's files."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def shortened(text: str, length: int = 40) -> str:
    """Cut a name so that a table stays readable."""
    return text if len(text) <= length else text[: length - 1] + "…"


def duration(seconds: float | None) -> str:
    """Write a time for people: ``3.4 s``, ``1:02:03``."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def size(count: int) -> str:
    """Write a number of bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
