"""A still that fills in while its parts are rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.models import Task, UnitKind
from renderfarm.errors import InvalidSettings, NotFound
from renderfarm.services.derived import made
from renderfarm.services.previews import Look, preview_of
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.pictures import png
from tests.unit.services.shown import HEIGHT_PX, WIDTH_PX, Shown, decoded
from tests.unit.services.story import Story

SCENE = scene_facts(scene_info(split_obstacles=()))
#: Brighter from top to bottom, opaque.
WHOLE = np.concatenate(
    [
        np.repeat(np.linspace(0.05, 0.8, HEIGHT_PX, dtype=np.float32)[:, None, None], WIDTH_PX, axis=1).repeat(3, 2),
        np.ones((HEIGHT_PX, WIDTH_PX, 1), np.float32),
    ],
    axis=2,
)
SMALL = Look(width_px=32, height_px=100, suffix=".ppm")


@pytest.fixture
def shown(story: Story, tmp_path: Path) -> Shown:
    return Shown(story, tmp_path)


def still(shown: Shown, split: str = "tiles:4", **facts: Any) -> Task:
    scene = scene_facts(scene_info(split_obstacles=(), **facts))
    return shown.story.admitted(shown.story.asset(scene), frames="1", split=split)


def seen(shown: Shown, task: Task, look: Look = SMALL) -> NDArray[np.int_]:
    path = made(shown.story.farm, preview_of(shown.story.farm, LOCAL_OWNER, task.id, look))
    return decoded(path.read_bytes(), shown.folder, look.suffix).astype(int)


def commit_next_part(shown: Shown, whole: NDArray[np.float32] = WHOLE) -> None:
    shown.commit_part(shown.story.place()[0], whole)


def srgb(linear: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255)


def test_tiles_fill_the_picture_from_below(shown: Shown) -> None:
    # The first tile is the lowest: 45 of 180 rows, 4.5 of 18.
    task = still(shown)
    assert seen(shown, task).shape == (18, 32, 3)
    assert seen(shown, task).max() < 40, "nothing is there yet"
    commit_next_part(shown)
    pixels = seen(shown, task)
    assert pixels[:13].max() < 40
    assert pixels[14:].min() > 180
    for _ in range(3):
        commit_next_part(shown)
    whole = seen(shown, task)
    expected = srgb(WHOLE[::10, ::10, :3])
    # Each row stands for ten; and there is no red in it, so no rim.
    assert np.abs(whole - expected).max() < 20
    assert np.abs(whole[:, :, 0] - whole[:, :, 1]).max() <= 1


def test_the_order_of_the_parts_does_not_matter_and_nothing_is_read_twice(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = still(shown)
    fetched = shown.count_fetches(monkeypatch)
    for done in range(1, 5):
        commit_next_part(shown)
        seen(shown, task)
        seen(shown, task)
        assert len(fetched) == len(set(fetched)) == done


def test_sample_ranges_get_less_noisy(shown: Shown) -> None:
    task = still(shown, split="samples:2")
    bright = WHOLE.copy()
    bright[:, :, :3] *= 1.5
    commit_next_part(shown, bright)
    first = seen(shown, task)
    commit_next_part(shown, WHOLE * np.array([0.5, 0.5, 0.5, 1], np.float32))
    assert np.abs(first - srgb(np.clip(bright[::10, ::10, :3], 0, 1))).max() < 20
    assert np.abs(seen(shown, task) - srgb(WHOLE[::10, ::10, :3])).max() < 20


def test_what_is_transparent_is_not_what_is_missing(shown: Shown) -> None:
    task = still(shown)
    commit_next_part(shown, np.zeros_like(WHOLE))
    pixels = seen(shown, task)
    assert pixels[:13].max() < 40
    assert pixels[15:].min() > 80


def test_a_merged_frame_is_its_picture(shown: Shown) -> None:
    task = still(shown)
    for _ in range(4):
        commit_next_part(shown)
    [lease] = shown.story.place()
    assert shown.story.begin(lease).unit.kind is UnitKind.MERGE
    shown.commit(lease, 1, png(77, WIDTH_PX, HEIGHT_PX))
    assert set(seen(shown, task).flat) == {77}


def test_many_tiles_in_a_small_picture(shown: Shown) -> None:
    task = still(shown, split="tiles:11")
    for _ in range(11):
        commit_next_part(shown)
    pixels = seen(shown, task, Look(width_px=8, height_px=4, suffix=".ppm"))
    assert pixels.shape == (4, 7, 3)
    assert (np.diff(pixels[:, 0, 0]) > 20).all(), "every row is some tile's"


def test_a_whole_frame(shown: Shown) -> None:
    task = shown.story.admitted(shown.story.asset(SCENE), frames="1-2", split="none")
    with pytest.raises(NotFound, match="nothing to see of frame 1 yet"):
        preview_of(shown.story.farm, LOCAL_OWNER, task.id, SMALL)
    shown.commit(shown.story.place()[0], 1, png(10))
    assert set(seen(shown, task).flat) == {10}
    with pytest.raises(NotFound, match="nothing to see of frame 2 yet"):
        preview_of(shown.story.farm, LOCAL_OWNER, task.id, Look(frame=2))
    with pytest.raises(NotFound, match="no frame 7"):
        preview_of(shown.story.farm, LOCAL_OWNER, task.id, Look(frame=7))
    with pytest.raises(InvalidSettings, match="does not render from 'Top'"):
        preview_of(shown.story.farm, LOCAL_OWNER, task.id, Look(camera="Top"))
