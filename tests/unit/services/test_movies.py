"""A movie is made of a camera's frames once all are there, and made anew when one of them is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from renderfarm.auth import LOCAL_OWNER
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.leases import Lease, RenderedFile
from renderfarm.domain.models import Output, OutputRole, Task, Unit, UnitKind
from renderfarm.domain.movies import MovieFormat
from renderfarm.domain.states import TaskState, UnitState
from renderfarm.errors import LeaseLost
from renderfarm.services import movies
from renderfarm.services.retries import retry_task
from tests.unit.services.story import REPORT, Story


@pytest.fixture
def task(story: Story) -> Task:
    return story.admitted(frames="1-3", movie=MovieFormat.H264)


def encode(story: Story, task: Task) -> Unit:
    [unit] = [unit for unit in story.units(task.id) if unit.kind is UnitKind.ENCODE]
    return unit


def make_movie(story: Story, lease: Lease) -> Output:
    frames = movies.frames_of(story.farm, story.begin(lease).unit)
    file = RenderedFile(name=movies.movie_name(frames, MovieFormat.H264), digest="f" * 64, size_bytes=9)
    return movies.commit_movie(story.farm, lease, frames, file, REPORT)


def render_frames(story: Story, count: int = 3) -> None:
    for _ in range(count):
        [lease] = story.place()
        story.commit(lease)


def test_it_waits_for_every_frame(story: Story, task: Task) -> None:
    # T: blocked > ready > running > succeeded
    render_frames(story, 2)
    assert (encode(story, task).state, encode(story, task).inputs_open) == (UnitState.BLOCKED, 1)
    assert story.task(task.id).frames_total == 3
    render_frames(story, 1)
    [lease] = story.place()
    assert story.task(task.id).state is TaskState.RUNNING
    assert [frame.name for frame in movies.frames_of(story.farm, story.begin(lease).unit)] == [
        "0001.png",
        "0002.png",
        "0003.png",
    ]
    movie = make_movie(story, lease)
    assert (movie.name, movie.role, movie.media_type) == ("0001-0003.mp4", OutputRole.MOVIE, "video/mp4")
    ended = story.task(task.id)
    assert (ended.state, ended.frames_done) == (TaskState.COMPLETED, 3)


def test_a_frame_that_is_rendered_again_makes_another_movie(story: Story, task: Task) -> None:
    # T: encode succeeded > ready > blocked
    render_frames(story)
    [lease] = story.place()
    make_movie(story, lease)
    retry_task(story.farm, LOCAL_OWNER, task.id, "2")
    assert (encode(story, task).state, encode(story, task).inputs_open) == (UnitState.BLOCKED, 1)
    assert [output.role for output in story.outputs(task.id)] == [OutputRole.PICTURE] * 2
    render_frames(story, 1)
    [again] = story.place()
    make_movie(story, again)
    assert story.task(task.id).state is TaskState.COMPLETED
    assert [output.role for output in story.outputs(task.id)].count(OutputRole.MOVIE) == 1


def test_a_movie_whose_frames_have_changed_meanwhile_is_not_kept(story: Story, task: Task) -> None:
    render_frames(story)
    [lease] = story.place()
    frames = movies.frames_of(story.farm, story.begin(lease).unit)
    stale = [replace(frames[0], id="0" * 26), *frames[1:]]
    file = RenderedFile(name="0001-0003.mp4", digest="f" * 64, size_bytes=9)
    with pytest.raises(LeaseLost):
        movies.commit_movie(story.farm, lease, stale, file, REPORT)
    assert OutputRole.MOVIE not in {output.role for output in story.outputs(task.id)}


def test_no_movie_is_made_where_a_frame_is_missing(story: Story, task: Task) -> None:
    # T: blocked > cancelled
    [lease] = story.place()
    story.fail(lease, FailureKind.SCRIPT_ERROR)
    render_frames(story, 2)
    assert encode(story, task).state is UnitState.CANCELLED
    assert story.task(task.id).state is TaskState.FAILED
    [entry] = [entry for entry in story.log(task.id) if entry.unit_id == encode(story, task).id]
    assert "it broke" in entry.reason


def test_files_of_file_output_nodes_are_not_in_it(story: Story, task: Task) -> None:
    from renderfarm.services import results

    [lease] = story.place()
    files = tuple(RenderedFile(name=name, digest="1" * 64, size_bytes=1) for name in ("Depth/0001.exr", "0001.png"))
    commit = replace(story.frame_commit(lease, 1, files[0]), files=files)
    results.commit_frames(story.farm, [commit])
    assert [frame.name for frame in movies.frames_of(story.farm, encode(story, task))] == ["0001.png"]
