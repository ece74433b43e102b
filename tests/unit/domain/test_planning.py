from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.facts import MissingFile, SceneFacts, SceneInfo
from renderfarm.domain.models import UnitKind
from renderfarm.domain.movies import MovieFormat
from renderfarm.domain.parts import cut_tiles
from renderfarm.domain.planning import camera_folders, check_settings, pictures, plan, task_frames
from renderfarm.domain.render_settings import ImageFormat, RenderSettings
from renderfarm.errors import InvalidFrames, InvalidSettings, MissingFiles
from tests.unit.fakes import scene_info

SHOT = scene_info(
    name="Shot",
    frame_end=4,
    cameras=("Front", "Left", "Top"),
    camera="Front",
    view_layers=("Beauty", "Shadows"),
)
STUDIO = dataclasses.replace(
    SHOT, name="Studio", cameras=("Front",), view_layers=("ViewLayer",), frame_start=10, frame_end=20
)


def scene(**changes: Any) -> SceneInfo:
    return dataclasses.replace(SHOT, **changes)


def facts(*scenes: SceneInfo, missing: tuple[MissingFile, ...] = ()) -> SceneFacts:
    every = scenes or (SHOT, STUDIO)
    return SceneFacts(
        blender_version="4.5.15",
        file_version="4.5",
        active_scene=every[0].name,
        scenes=every,
        missing_files=missing,
        libraries=(),
        memory_bytes=200 * 2**20,
        has_scripts=False,
    )


def test_as_the_file_says_is_one_unit_a_frame_from_the_active_camera() -> None:
    units = plan(RenderSettings(), facts())
    assert sorted(unit.frames for unit in units) == [(1,), (2,), (3,), (4,)]
    assert {(unit.camera, unit.folder) for unit in units} == {(None, "")}


def test_the_scenes_step_holds_unless_frames_are_given() -> None:
    stepped = facts(scene(frame_end=10, frame_step=4))
    assert [unit.frames for unit in plan(RenderSettings(), stepped)] == [(1,), (5,), (9,)]
    assert [unit.frames for unit in plan(RenderSettings(frames="1-3"), stepped)] == [(1,), (2,), (3,)]


def test_frames_outside_the_scenes_range_are_allowed() -> None:
    assert [unit.frames for unit in plan(RenderSettings(frames="-2,500"), facts())] == [(-2,), (500,)]


def test_every_camera_gets_a_folder_of_its_own_cameras_outermost() -> None:
    units = plan(RenderSettings(camera="all", frames="1-2"), facts())
    assert [(unit.camera, unit.folder, unit.frames) for unit in units] == [
        ("Front", "Front", (1,)),
        ("Front", "Front", (2,)),
        ("Left", "Left", (1,)),
        ("Left", "Left", (2,)),
        ("Top", "Top", (1,)),
        ("Top", "Top", (2,)),
    ]


def test_every_camera_of_a_scene_with_one_needs_no_folder() -> None:
    (unit,) = plan(RenderSettings(camera="all", scene="Studio", frames="1"), facts())
    assert (unit.camera, unit.folder) == ("Front", "")


def test_a_named_camera_needs_no_folder() -> None:
    (unit,) = plan(RenderSettings(camera="Top", frames="1"), facts())
    assert (unit.camera, unit.folder) == ("Top", "")


def test_another_scene_brings_its_own_range() -> None:
    units = plan(RenderSettings(scene="Studio"), facts())
    assert sorted(unit.frames[0] for unit in units) == list(range(10, 21))


def test_the_first_the_middle_and_the_last_frame_go_first() -> None:
    assert [unit.frames[0] for unit in plan(RenderSettings(frames="1-8"), facts())] == [1, 5, 8, 2, 3, 4, 6, 7]


def test_a_mistake_shows_early_from_every_camera() -> None:
    units = plan(RenderSettings(camera="all", frames="1-5"), facts())
    assert [(unit.camera, *unit.frames) for unit in units] == [
        *(("Front", 1), ("Front", 3), ("Front", 5), ("Left", 1), ("Left", 3), ("Left", 5)),
        *(("Top", 1), ("Top", 3), ("Top", 5)),
        *(("Front", 2), ("Front", 4), ("Left", 2), ("Left", 4), ("Top", 2), ("Top", 4)),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (RenderSettings(scene="Shoot"), "no scene named 'Shoot'; did you mean Shot?"),
        (RenderSettings(scene="xyz"), "no scene named 'xyz'; there is: Shot, Studio"),
        (RenderSettings(camera="front"), "no camera named 'front'; did you mean Front?"),
        (RenderSettings(camera="xyz"), "no camera named 'xyz'; there is: Front, Left, Top"),
        (RenderSettings(view_layer="Beaty"), "no view layer named 'Beaty'; did you mean Beauty?"),
        (RenderSettings(scene="Studio", camera="Top"), "no camera named 'Top'; there is: Front"),
        (RenderSettings(camera=""), "no camera named ''; there is: Front, Left, Top"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(settings: RenderSettings, message: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        plan(settings, facts())
    assert str(raised.value) == message


def test_a_scene_without_cameras_is_refused() -> None:
    with pytest.raises(InvalidSettings, match=r"scene 'Shot' has no camera$"):
        plan(RenderSettings(), facts(scene(cameras=(), camera=None)))


def test_a_scene_without_an_active_camera_needs_one_named() -> None:
    undecided = facts(scene(camera=None))
    with pytest.raises(InvalidSettings, match="no active camera; name one of: Front, Left, Top"):
        plan(RenderSettings(), undecided)
    assert len(plan(RenderSettings(camera="Left"), undecided)) == 4
    assert len(plan(RenderSettings(camera="all"), undecided)) == 12


def test_a_scene_that_writes_a_movie_needs_a_format() -> None:
    movie = facts(scene(file_format="FFMPEG", is_movie=True))
    with pytest.raises(InvalidSettings, match=r"writes a movie \(FFMPEG\).*give a format such as PNG"):
        plan(RenderSettings(), movie)
    assert len(plan(RenderSettings(format=ImageFormat.PNG), movie)) == 4


def test_missing_files_are_refused_unless_allowed() -> None:
    incomplete = facts(missing=(MissingFile(path="//wood.png", used_by='Image "wood"'),))
    with pytest.raises(MissingFiles, match=r'^1 missing file: //wood\.png \(Image "wood"\)$'):
        plan(RenderSettings(), incomplete)
    assert len(plan(RenderSettings(allow_missing=True), incomplete)) == 4


def test_many_missing_files_stay_one_line() -> None:
    incomplete = facts(missing=tuple(MissingFile(path=f"//{i}.png", used_by="Image") for i in range(100)))
    with pytest.raises(MissingFiles, match=r"^100 missing files: //0\.png .*, and 92 more$"):
        plan(RenderSettings(), incomplete)


def test_a_wrong_name_is_told_before_missing_files() -> None:
    incomplete = facts(missing=(MissingFile(path="//wood.png", used_by="Image"),))
    with pytest.raises(InvalidSettings):
        check_settings(RenderSettings(camera="xyz"), incomplete)


def test_an_empty_range_of_the_scene_is_refused() -> None:
    with pytest.raises(InvalidFrames, match=r"empty frame range \(5 to 4\)"):
        plan(RenderSettings(), facts(scene(frame_start=5, frame_end=4)))


def test_more_pictures_than_anyone_means_are_refused() -> None:
    with pytest.raises(InvalidFrames, match="200000 frames from 3 cameras are more than 250000 pictures"):
        plan(RenderSettings(camera="all", frames="1-200000"), facts())


@pytest.mark.parametrize(
    ("cameras", "folders"),
    [
        ((None,), ("",)),
        (("Front",), ("",)),
        (("Front", "Left"), ("Front", "Left")),
        (("a/b", "a\\b", "a:b"), ("a_b", "a_b-2", "a_b-3")),
        (("..", "."), ("camera", "camera-2")),
        (("cam", "CAM"), ("cam", "CAM-2")),  # the same folder on many file systems
        (("a", "a", "a-2"), ("a", "a-2", "a-2-2")),
        (("Kamera Süd", "カメラ"), ("Kamera Süd", "カメラ")),
    ],
)
def test_folders_are_safe_and_unique(cameras: tuple[str | None, ...], folders: tuple[str, ...]) -> None:
    assert camera_folders(cameras) == folders


@given(st.lists(st.text(max_size=12), min_size=2, max_size=12, unique=True))
def test_no_camera_name_leads_out_of_the_output_folder(cameras: list[str]) -> None:
    folders = camera_folders(cameras)
    assert len({folder.casefold() for folder in folders}) == len(cameras)
    for folder in folders:
        assert folder
        assert folder not in {".", ".."}
        assert not set(folder) & set('/\\:*?"<>|\0')
        assert folder == folder.strip()


@given(st.sets(st.integers(-50, 50), min_size=1), st.sets(st.sampled_from(["A", "B", "C"]), min_size=1))
def test_a_plan_covers_every_picture_once(frames: set[int], cameras: set[str]) -> None:
    settings = RenderSettings(camera="all", frames=",".join(map(str, frames)))
    units = plan(settings, facts(scene(cameras=tuple(sorted(cameras)), camera=min(cameras))))
    pictures = [(unit.folder, frame) for unit in units for frame in unit.frames]
    assert len(pictures) == len(set(pictures)) == len(frames) * len(cameras)
    assert {frame for _, frame in pictures} == frames


@given(st.integers(-100, 100), st.integers(0, 100), st.integers(1, 30))
def test_the_scenes_own_frames_are_what_blender_would_render(start: int, length: int, step: int) -> None:
    frames = task_frames(RenderSettings(), scene(frame_start=start, frame_end=start + length, frame_step=step))
    assert frames[0] == start
    assert start + length - step < frames[-1] <= start + length
    assert all(later - earlier == step for earlier, later in itertools.pairwise(frames))


def test_a_movie_waits_for_the_pictures_of_its_camera() -> None:
    planned = plan(RenderSettings(camera="all", frames="1-2", movie=MovieFormat.H264), facts())
    movies = [(position, unit) for position, unit in enumerate(planned) if unit.kind is UnitKind.ENCODE]
    assert [(unit.folder, unit.inputs) for _, unit in movies] == [("Front", 2), ("Left", 2), ("Top", 2)]
    for position, movie in movies:
        assert {unit.folder for unit in planned if unit.feeds == position} == {movie.folder}
    assert pictures(planned) == 6


def test_a_split_frame_is_its_parts_and_a_merge() -> None:
    parts = cut_tiles(320, 180, 3)
    planned = plan(RenderSettings(frames="1,5", movie=MovieFormat.GIF), facts(), parts)
    assert [(unit.kind, unit.frames, unit.part, unit.feeds, unit.inputs) for unit in planned] == [
        *((UnitKind.RENDER, (1,), part, 3, 0) for part in parts),
        (UnitKind.MERGE, (1,), None, 8, 3),
        *((UnitKind.RENDER, (5,), part, 7, 0) for part in parts),
        (UnitKind.MERGE, (5,), None, 8, 3),
        (UnitKind.ENCODE, (), None, None, 2),
    ]
    assert sum(unit.share for unit in planned) == pytest.approx(2)
    assert pictures(planned) == 2
