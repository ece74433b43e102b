"""Units that wait for others: a merge for the parts of its frame, a movie for its frames."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from renderfarm.domain.models import Output, Unit, UnitKind
from renderfarm.domain.parts import Part
from renderfarm.domain.states import UNIT_WAITING, UnitState
from renderfarm.ports import Farm, Link, Transaction
from renderfarm.services.journal import Cause, unit_entry

_WITHOUT_RESULT = (UnitState.FAILED, UnitState.CANCELLED)


def with_related(tx: Transaction, task_id: str, unit_ids: Collection[str]) -> list[str]:
    """Return units with all that must be done again when they are.

    That is what was made of them; and the parts of a merged frame, which are kept no longer than until it is merged.
    What has ended without a result stays as it is where something else that it waits for has, too: it would wait for
    ever.
    """
    links = {link.id: link for link in tx.units.links(task_id)}
    inputs: dict[str, list[Link]] = defaultdict(list)
    for link in links.values():
        if link.feeds is not None:
            inputs[link.feeds].append(link)
    found = _closure(unit_ids, links, inputs)
    while hopeless := {unit_id for unit_id in found if _is_hopeless(unit_id, links, inputs, found)}:
        found -= hopeless
    return sorted(found)


def _closure(unit_ids: Collection[str], links: Mapping[str, Link], inputs: Mapping[str, list[Link]]) -> set[str]:
    found: set[str] = set()
    left = list(unit_ids)
    while left:
        unit_id = left.pop()
        if unit_id in found:
            continue
        found.add(unit_id)
        if unit_id not in links:
            continue
        unit = links[unit_id]
        if unit.feeds is not None:
            left.append(unit.feeds)
        if unit.kind is UnitKind.MERGE and unit.state is UnitState.SUCCEEDED:
            left += [part.id for part in inputs.get(unit_id, ())]
    return found


def _is_hopeless(
    unit_id: str, links: Mapping[str, Link], inputs: Mapping[str, list[Link]], restarted: Collection[str]
) -> bool:
    """Tell whether a unit that has ended without a result waits for another that has, and is not restarted."""
    if unit_id not in links or links[unit_id].state not in _WITHOUT_RESULT:
        return False
    return any(link.state in _WITHOUT_RESULT and link.id not in restarted for link in inputs.get(unit_id, ()))


def in_work(tx: Transaction, task_id: str, unit_ids: Collection[str]) -> list[str]:
    """Return those of some units that merge or encode at the moment."""
    kinds = (UnitKind.MERGE, UnitKind.ENCODE)
    running = (link for link in tx.units.links(task_id) if link.state is UnitState.RUNNING and link.kind in kinds)
    return [link.id for link in running if link.id in unit_ids]


def block_again(tx: Transaction, task_id: str, cause: Cause, revision: int) -> None:
    """Let the units of a locked task that are ready or blocked wait for as many others as have not succeeded."""
    links = tx.units.links(task_id)
    missing = Counter(link.feeds for link in links if link.feeds and link.state is not UnitState.SUCCEEDED)
    fed = [link.id for link in links if link.id in missing and link.state in UNIT_WAITING]
    if not fed:
        return
    old = tx.units.lock_all(fed)
    changes = [
        (unit, replace(unit, state=UnitState.BLOCKED, inputs_open=missing[unit.id]))
        for unit in old.values()
        if unit.inputs_open != missing[unit.id] or unit.state is not UnitState.BLOCKED
    ]
    tx.units.update_all(changes)
    entries = [
        unit_entry(cause, "unit.state", before.state, after.state, after, revision)
        for before, after in changes
        if before.state is not after.state
    ]
    if entries:
        tx.log.add(entries)


def parts_done(tx: Transaction, task_id: str) -> float:
    """Return the frames' worth of a task's parts that are done and not merged."""
    links = tx.units.links(task_id)
    merges = {link.id for link in links if link.kind is UnitKind.MERGE and link.state is not UnitState.SUCCEEDED}
    return sum(link.share for link in links if link.feeds in merges and link.state is UnitState.SUCCEEDED)


@dataclass(frozen=True, kw_only=True)
class RenderedPart:
    """A part of a frame, and the file that holds it."""

    part: Part
    output: Output


def parts_of(farm: Farm, unit: Unit) -> list[RenderedPart]:
    """Return what a merge unit merges."""
    with farm.database.read() as tx:
        units = tx.units.some(inputs_of(tx, unit.task_id or "", unit.id))
        outputs = [output for output in tx.outputs.of_units(units) if output.frame in unit.frames]
    parts = [(units[output.unit_id].part, output) for output in outputs]
    return [RenderedPart(part=part, output=output) for part, output in parts if part is not None]


def inputs_of(tx: Transaction, task_id: str, unit_id: str) -> Sequence[str]:
    """Return the ids of the units for which one waits, or has waited, in order."""
    return [link.id for link in tx.units.links(task_id) if link.feeds == unit_id]
