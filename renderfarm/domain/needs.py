"""What units need of a worker, GPU and memory, and what workers have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from renderfarm.domain.facts import SceneInfo
from renderfarm.domain.failures import Failure
from renderfarm.domain.models import Unit, Worker
from renderfarm.domain.render_settings import Device, Engine, RenderSettings

#: Of a node's memory, for what its workers render; the rest is for the farm itself and the system.
_WORKERS_SHARE = 0.9
#: Shares are whole numbers of this, so that nodes of one kind, which differ by some pages, have the same.
_STEP_BYTES = 256 * 2**20
#: A need that is higher by less is no news: frames of a scene differ.
_NEWS_FACTOR = 1.1
_KEPT_MAX = 20_000


def needs_gpu(settings: RenderSettings, scene: SceneInfo | None) -> bool:
    """Tell whether a task's frames are to go where a GPU is: asked for by the task, or by a file that has its own way.

    A GPU's pixels are not those of a CPU, so the frames of such a file must not be spread over both.
    """
    if settings.device is not Device.AUTO or scene is None:
        return settings.device is Device.GPU
    return scene.wants_gpu and settings.engine in (None, Engine.CYCLES)


def share_bytes(node_bytes: int, workers: int) -> int:
    """Return the memory that each of a node's workers may use, so that all of them can at once; 0: nobody knows."""
    share = int(_WORKERS_SHARE * node_bytes / max(1, workers))
    return share // _STEP_BYTES * _STEP_BYTES or share


class Needs:
    """The most that attempts of tasks have needed, as far as it matters where their units go."""

    def __init__(self) -> None:
        self._written: OrderedDict[str, int] = OrderedDict()
        self._news: dict[str, int] = {}

    def note(self, task_id: str, peak_bytes: int, least_bytes: int) -> None:
        """Learn from an attempt.

        Args:
            peak_bytes: Blender's peak resident memory in it.
            least_bytes: the memory of the worker in service that has the least: what fits there fits everywhere, and
                is no news.
        """
        known = max(self._written.get(task_id, 0), self._news.get(task_id, 0))
        if peak_bytes > max(least_bytes, _NEWS_FACTOR * known):
            self._news[task_id] = peak_bytes

    @property
    def news(self) -> dict[str, int]:
        """What the units of tasks need, by task, that they do not say yet."""
        return dict(self._news)

    def note_written(self, task_id: str) -> None:
        """Take note that a task's units say so now."""
        self._written.pop(task_id, None)
        self._written[task_id] = self._news.pop(task_id)
        while len(self._written) > _KEPT_MAX:
            self._written.popitem(last=False)


def after_out_of_memory(
    unit: Unit, failure: Failure, peak_bytes: int | None, workers: Sequence[Worker]
) -> tuple[int, Failure]:
    """Return what a unit needs that had not enough memory, and the failure, which says if nobody has more.

    Args:
        unit: as it ran.
        peak_bytes: Blender's peak resident memory, as far as it is known.
        workers: those that the scheduler counts on.
    """
    known = max(unit.memory_bytes, peak_bytes or 0)
    failed = next((worker for worker in workers if worker.id == unit.worker_id), None)
    if failed is None or "GPU memory" in failure.message:  # that is Blender's word for a card's own memory
        return known, failure
    had = _share(failed, workers)
    others = (worker for worker in workers if unit.blender in worker.blender_versions)
    if not any(_share(worker, workers) > had for worker in others):
        message = f"{failure.message}; no worker has more memory than the {had / 2**30:.1f} GiB of {failed.id}"
        failure = replace(failure, message=message)
    return max(known, had + 1), failure


def _share(worker: Worker, workers: Sequence[Worker]) -> int:
    place = (worker.node, worker.address)
    return share_bytes(worker.memory_bytes, sum((other.node, other.address) == place for other in workers))
