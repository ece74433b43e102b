"""Thumbnails and contact sheets: made when first asked for, kept, and never out of date."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.facts import ViewSettings
from renderfarm.domain.models import OutputRole
from renderfarm.errors import BadPicture, FarmUnavailable, InvalidSettings, NotFound, StorageFull
from renderfarm.services import derived
from renderfarm.services.derived import Derived, kept, key_of, made, sweep
from renderfarm.services.retries import retry_task
from renderfarm.services.thumbnails import contact_sheet_of, thumbnail_of
from tests.unit.fakes import scene_facts, scene_info
from tests.unit.pictures import png, write_exr
from tests.unit.services.shown import Shown, decoded
from tests.unit.services.story import Story


@pytest.fixture
def shown(story: Story, tmp_path: Path) -> Shown:
    return Shown(story, tmp_path)


def thumbnail(shown: Shown, task_id: str, output_id: str, side_px: int = 512) -> Derived:
    return thumbnail_of(shown.story.farm, LOCAL_OWNER, task_id, output_id, side_px)


def sheet(shown: Shown, task_id: str, camera: str | None = None) -> Derived:
    return contact_sheet_of(shown.story.farm, LOCAL_OWNER, task_id, camera)


def made_of(shown: Shown, thing: Derived) -> bytes:
    return made(shown.story.farm, thing).read_bytes()


# --- thumbnails ----------------------------------------------------------------------------------------------


def test_a_thumbnail_is_small_and_kept(shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = shown.story.admitted(frames="1")
    output = shown.commit(shown.story.place()[0], 1, png(200, 400, 100))
    wanted = thumbnail(shown, task.id, output.id, 64)
    assert kept(shown.story.farm, wanted) is None
    content = made_of(shown, wanted)
    pixels = decoded(content, tmp_path, ".webp")
    assert pixels.shape == (16, 64, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 3
    monkeypatch.setattr(shown.story.farm.objects, "fetch", lambda *_: pytest.fail("it is there already"))
    assert kept(shown.story.farm, thumbnail(shown, task.id, output.id, 64)) == content
    assert made_of(shown, thumbnail(shown, task.id, output.id, 64)) == content


def test_linear_light_is_seen_through_the_scenes_view(shown: Shown, tmp_path: Path) -> None:
    exr = write_exr(tmp_path / "linear.exr", np.ones((10, 10, 4), np.float32)).read_bytes()
    greys = {}
    for view in ("Standard", "AgX"):
        facts = scene_facts(scene_info(view_settings=ViewSettings(view=view)))
        task = shown.story.admitted(shown.story.asset(facts), frames="1")
        output = shown.commit(shown.story.place()[0], 1, exr, name="0001.exr")
        pixels = decoded(made_of(shown, thumbnail(shown, task.id, output.id)), tmp_path, ".webp")
        greys[view] = int(pixels.mean())
    # What is white by the sRGB curve is still far from it in AgX.
    assert greys["Standard"] >= 253
    assert 190 < greys["AgX"] < 220


def test_a_view_that_no_blender_here_knows_is_shown_plainly(shown: Shown, tmp_path: Path) -> None:
    facts = scene_facts(scene_info(view_settings=ViewSettings(view="From the future")))
    task = shown.story.admitted(shown.story.asset(facts), frames="1")
    exr = write_exr(tmp_path / "linear.exr", np.ones((4, 4, 4), np.float32)).read_bytes()
    output = shown.commit(shown.story.place()[0], 1, exr, name="0001.exr")
    assert decoded(made_of(shown, thumbnail(shown, task.id, output.id)), tmp_path, ".webp").min() >= 253


def test_a_movie_shows_its_first_frame(shown: Shown) -> None:
    task = shown.story.admitted(frames="3")
    picture = shown.commit(shown.story.place()[0], 3, png(200))
    movie = replace(picture, id="m" * 26, role=OutputRole.MOVIE, name="0003-0003.mp4", digest="f" * 64)
    with shown.story.farm.database.write() as tx:
        tx.outputs.add([movie])
    assert thumbnail(shown, task.id, movie.id).key == thumbnail(shown, task.id, picture.id).key
    with shown.story.farm.database.write() as tx:
        tx.outputs.remove([picture.unit_id], [3])
        tx.outputs.add([movie])
    with pytest.raises(NotFound, match=r"first frame of 0003-0003\.mp4"):
        thumbnail(shown, task.id, movie.id)


def test_what_is_no_picture_has_no_thumbnail(shown: Shown) -> None:
    task = shown.story.admitted(frames="1")
    output = shown.commit(shown.story.place()[0], 1, b"no picture")
    with pytest.raises(BadPicture):
        made(shown.story.farm, thumbnail(shown, task.id, output.id))
    assert kept(shown.story.farm, thumbnail(shown, task.id, output.id)) is None


def test_an_output_of_another_task_is_not_found(shown: Shown) -> None:
    one, other = shown.story.admitted(frames="1"), shown.story.admitted(frames="1")
    output = shown.commit(shown.story.place()[0], 1, png())
    with pytest.raises(NotFound):
        thumbnail(shown, ({one.id, other.id} - {output.task_id}).pop(), output.id)


# --- the contact sheet ---------------------------------------------------------------------------------------


def test_a_contact_sheet_grows_with_the_film(shown: Shown, tmp_path: Path) -> None:
    task = shown.story.admitted(frames="1-3")
    with pytest.raises(NotFound, match="no pictures yet"):
        sheet(shown, task.id)
    keys = set()
    for _ in range(3):
        [lease] = shown.story.place()
        [frame] = shown.story.begin(lease).frames
        shown.commit(lease, frame, png(60 * frame, 64, 36))
        keys.add(sheet(shown, task.id).key)
    assert len(keys) == 3
    pixels = decoded(made_of(shown, sheet(shown, task.id)), tmp_path, ".jpg")
    for frame in (1, 2, 3):
        assert (np.abs(pixels.astype(int) - 60 * frame).max(axis=2) <= 2).sum() > 1500, f"frame {frame}"


def test_a_frame_that_is_rendered_again_changes_the_sheet(shown: Shown) -> None:
    task = shown.story.admitted(frames="1")
    shown.commit(shown.story.place()[0], 1, png(10))
    before = sheet(shown, task.id).key
    retry_task(shown.story.farm, LOCAL_OWNER, task.id, "1")
    shown.commit(shown.story.place()[0], 1, png(20))
    assert sheet(shown, task.id).key != before


def test_of_many_frames_only_those_that_are_shown_are_fetched(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("renderfarm.media.thumbnails.PICTURES_MAX", 4)
    task = shown.story.admitted(frames="1-10")
    for _ in range(10):
        [lease] = shown.story.place()
        [frame] = shown.story.begin(lease).frames
        shown.commit(lease, frame, png(frame))
    fetched = shown.count_fetches(monkeypatch)
    made(shown.story.farm, sheet(shown, task.id))
    assert len(fetched) == 4
    made(shown.story.farm, sheet(shown, task.id))
    assert len(fetched) == 4


def test_a_picture_that_nobody_can_read_is_red_on_the_sheet(shown: Shown, tmp_path: Path) -> None:
    task = shown.story.admitted(frames="1-2")
    for _ in range(2):
        [lease] = shown.story.place()
        [frame] = shown.story.begin(lease).frames
        shown.commit(lease, frame, png(200, 64, 36) if frame == 1 else b"no picture")
    pixels = decoded(made_of(shown, sheet(shown, task.id)), tmp_path, ".jpg").astype(int)
    assert ((pixels[:, :, 0] - pixels[:, :, 1]) > 80).sum() > 1500


def test_each_camera_has_a_sheet(shown: Shown) -> None:
    facts = scene_facts(scene_info(cameras=("Left", "Right")))
    task = shown.story.admitted(shown.story.asset(facts), frames="1", camera="all")
    for _ in range(2):
        [lease] = shown.story.place()
        shown.commit(lease, 1, png(10 if shown.story.begin(lease).unit.camera == "Left" else 90))
    assert sheet(shown, task.id).key == sheet(shown, task.id, "Left").key
    assert sheet(shown, task.id, "Right").key != sheet(shown, task.id, "Left").key
    with pytest.raises(InvalidSettings, match="its cameras: Left, Right"):
        sheet(shown, task.id, "Top")


def test_the_scenes_own_camera_goes_by_its_name_too(shown: Shown) -> None:
    task = shown.story.admitted(frames="1")
    shown.commit(shown.story.place()[0], 1, png())
    assert sheet(shown, task.id, "Camera").key == sheet(shown, task.id).key


def test_what_file_output_nodes_wrote_is_not_on_it(shown: Shown) -> None:
    task = shown.story.admitted(frames="1")
    shown.commit(shown.story.place()[0], 1, png(), name="Mask/0001.png")
    with pytest.raises(NotFound, match="no pictures yet"):
        sheet(shown, task.id)


# --- what is kept --------------------------------------------------------------------------------------------


def touched(folder: Path, name: str, size: int, age_s: float) -> Path:
    path = folder / name[:2] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    at = path.stat().st_mtime - age_s
    os.utime(path, (at, at))
    return path


def test_what_was_asked_for_longest_ago_goes_first(tmp_path: Path) -> None:
    old, older, fresh = (touched(tmp_path, name, 400, age) for name, age in (("aa", 5e3), ("bb", 9e3), ("cc", 0)))
    sweep(tmp_path, 1200)
    assert all(path.exists() for path in (old, older, fresh))
    sweep(tmp_path, 1000)
    assert [path.exists() for path in (old, older, fresh)] == [True, False, True]
    sweep(tmp_path, 100)
    assert [path.exists() for path in (old, fresh)] == [False, True], "what is about to be read stays"


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".scratch-x").mkdir()
    (tmp_path / ".scratch-y").mkdir()
    os.utime(tmp_path / ".scratch-x", (1, 1))
    sweep(tmp_path, 1000)
    assert [path.name for path in tmp_path.iterdir()] == [".scratch-y"]


def test_keeping_sweeps_now_and_then(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []
    monkeypatch.setattr(derived, "sweep", lambda _folder, bytes_max: swept.append(bytes_max))
    for chance in (0.5, 0.001):
        farm = replace(shown.story.farm, random=partial(float, chance))
        made(farm, Derived(key=key_of(chance), suffix=".x", make=lambda target, _: target.touch()))
    assert swept == [2**30]


@pytest.mark.parametrize(("number", "error"), [(28, StorageFull), (13, FarmUnavailable)])
def test_a_disk_that_takes_nothing(shown: Shown, number: int, error: type[Exception]) -> None:
    def make(_target: Path, _scratch: Path) -> None:
        raise OSError(number, "no")

    with pytest.raises(error):
        made(shown.story.farm, Derived(key=key_of("x"), suffix=".x", make=make))
