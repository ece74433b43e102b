"""Stand-ins for the world outside, for tests that need no Ray and no Blender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from renderfarm.domain.facts import SceneFacts, SceneInfo
from renderfarm.domain.leases import Lease
from renderfarm.errors import FarmUnavailable

SCENE = SceneInfo(
    name="Scene",
    engine="CYCLES",
    frame_start=1,
    frame_end=3,
    frame_step=1,
    frame_current=1,
    fps=24.0,
    resolution_x_px=320,
    resolution_y_px=180,
    percent=100,
    cameras=("Camera",),
    camera="Camera",
    view_layers=("ViewLayer",),
    file_format="PNG",
    is_movie=False,
    output_path="/tmp/",
    samples=16,
)


def scene_info(**changes: Any) -> SceneInfo:
    """Return what inspecting a plain scene finds out, with some changes."""
    return replace(SCENE, **changes)


def scene_facts(*scenes: SceneInfo, **changes: Any) -> SceneFacts:
    """Return what inspecting a file with these scenes finds out (none: the plain one), with some changes."""
    scenes = scenes or (SCENE,)
    facts = SceneFacts(
        blender_version="4.5.15",
        file_version="4.5",
        active_scene=scenes[0].name,
        scenes=scenes,
        missing_files=(),
        libraries=(),
        memory_bytes=10**8,
        has_scripts=False,
    )
    return replace(facts, **changes)


@dataclass
class FakeCompute:
    """The living side: says what the test lets it say."""

    live_logs: dict[tuple[str, int], bytes] = field(default_factory=dict)
    scheduler: str = "ok"
    wakes: int = 0
    on_wake: Callable[[], None] | None = None
    """What the scheduler does once it is woken."""
    held: dict[str, tuple[Lease, ...]] | None = field(default_factory=dict)
    """What each worker that answers works on; None: nobody could tell."""

    def wake(self) -> None:
        self.wakes += 1
        if self.on_wake is not None:
            self.on_wake()

    def leases(self) -> dict[str, tuple[Lease, ...]]:
        if self.held is None:
            raise FarmUnavailable("the workers cannot be asked")
        return dict(self.held)

    def live_log(
        self, worker_id: str, unit_id: str, attempt: int, offset: int, limit: int, tail: int | None
    ) -> tuple[int, bytes] | None:
        log = self.live_logs.get((unit_id, attempt))
        if log is None:
            return None
        start = min(len(log), offset if tail is None else max(0, len(log) - tail))
        return start, log[start : start + limit]

    def answers(self) -> dict[str, str]:
        return {"scheduler": self.scheduler}
