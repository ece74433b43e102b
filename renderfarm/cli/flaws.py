"""Which frames of a task look wrong, in one line at the end of a command."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from renderfarm.cli.console import printable, say
from renderfarm.client import JSON, FarmClient
from renderfarm.domain.flaws import FlawKind
from renderfarm.errors import RenderfarmError

_FRAMES_NAMED_MAX = 5
_WORDS = {
    FlawKind.BLACK: "all black",
    FlawKind.TRANSPARENT: "fully transparent",
    FlawKind.NOT_A_NUMBER: "not a number",
    FlawKind.PINK: "pink as a missing texture",
    FlawKind.TRUNCATED: "truncated",
    FlawKind.OUTLIER: "unlike its neighbours",
}


def ask_flaws(client: FarmClient, task_id: str) -> list[JSON]:
    """Return what looks wrong with a task's pictures; if the farm cannot tell, say so, as nothing depends on it."""
    try:
        return list(client.iterate_flaws(task_id))
    except RenderfarmError as error:
        say(f"Whether frames look wrong is not known: {error}")
        return []


def tell_flaws(found: Sequence[JSON], task_id: str | None) -> None:
    """Say in one line which frames look wrong, if any do; with the task's id if its farm can be asked for more."""
    frames: dict[tuple[str | None, int], list[JSON]] = defaultdict(list)
    for flaw in found:
        frames[flaw["camera"], flaw["frame"]].append(flaw)
    if not frames:
        return
    named = [_named(flaws) for flaws in list(frames.values())[:_FRAMES_NAMED_MAX]]
    if len(frames) > _FRAMES_NAMED_MAX:
        named.append(f"and {len(frames) - _FRAMES_NAMED_MAX} more")
    what = "1 frame looks wrong" if len(frames) == 1 else f"{len(frames)} frames look wrong"
    hint = "" if task_id is None else f"; see renderfarm flaws {task_id}"
    say(f"{what}: {', '.join(named)}{hint}")


def _named(flaws: Sequence[JSON]) -> str:
    camera = f" from {printable(flaws[0]['camera'])}" if flaws[0]["camera"] else ""
    words: dict[str, None] = dict.fromkeys(_WORDS.get(flaw["kind"], printable(flaw["kind"])) for flaw in flaws)
    return f"{flaws[0]['frame']}{camera} ({', '.join(words)})"
