"""A frame that is split and merged is the frame that was rendered as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO
import pytest

from actors.blender_session import SessionFailed
from blender_runtime import protocol
from blender_runtime.protocol import FrameDone
from renderfarm.domain.failures import FailureKind
from renderfarm.domain.parts import (
    Part,
    PartKind,
    SampleRange,
    Tile,
    cut_samples,
    cut_tiles,
    part_to_json,
    picture_size_px,
    why_not_split,
)
from renderfarm.domain.render_settings import ImageFormat, PersistentData, RenderSettings
from renderfarm.domain.unit_spec import UnitSpec
from renderfarm.media.merging import PartFile, merge_parts
from renderfarm.services.unit_script import generate_script
from tests.integration.pictures import read_pixels
from tests.integration.scenes import make_scenes
from tests.integration.session.bench import LIMITS, PLAIN, Bench, Run, opened
from tests.integration.session.splitting_scenes import DENOISED_RANGES, RANGED, REFUSED, TILED, edits

#: Ranges of samples are summed in another order.
RANGE_TOLERANCE = 2e-5
#: Not strips only: a row, a column, and what is left of them.
RECTANGLES = ((0, 0, 96, 5), (0, 5, 17, 54), (17, 5, 96, 30), (17, 30, 96, 54))


@pytest.fixture(scope="module")
def split_scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the scenes to split, by name."""
    folder = tmp_path_factory.mktemp("splitting")
    paths = {name: folder / f"{name}.blend" for name in edits()}
    make_scenes({paths[name]: edit for name, edit in edits().items()})
    return paths


class Splitter:
    """Renders frames of one scene as a whole and in parts."""

    def __init__(self, run: Run[Any], bench: Bench, scene: Path, folder: Path) -> None:
        self._run, self._bench, self._scene, self.folder = run, bench, scene, folder
        self.log = folder / "log"
        self.facts = bench.inspect(scene, self.log).scene(None)
        self.size_px = picture_size_px(self.facts, RenderSettings())

    def whole(self, frame: int = 1, folder: str = "whole", **changes: Any) -> Path:
        spec = replace(PLAIN, frames=(frame,), **changes)
        self._bench.render(spec, self._scene, self.folder / folder, self.log)
        return self.folder / folder

    def part(self, part: Part, frame: int = 1, **changes: Any) -> PartFile:
        spec = replace(PLAIN, frames=(frame,), part=part_to_json(part), **changes)
        folder = self.folder / "parts" / "-".join(str(value) for value in (frame, *part_to_json(part).values()))
        [done] = self._bench.render(spec, self._scene, folder, self.log)
        [file] = done.files
        return PartFile(part=part, path=Path(file))

    def merge(self, merged: Path, frame: int = 1, folder: str = "merged", spec: UnitSpec = PLAIN) -> FrameDone:
        done: FrameDone = self._run(
            self._bench.session.merge(
                protocol.Merge(
                    script=generate_script(spec),
                    scene_path=str(self._scene),
                    merged_path=str(merged),
                    output_dir=str(self.folder / folder),
                    frame=frame,
                    log_path=str(self.log),
                ),
                **LIMITS,
            )
        )
        return done

    def split(self, parts: Iterable[Part], frame: int = 1, folder: str = "merged", **changes: Any) -> Path:
        files = [self.part(part, frame, **changes) for part in parts]
        merged = self.folder / f"merged-{frame}.exr"
        merge_parts(files, merged, width_px=self.size_px[0], height_px=self.size_px[1])
        self.merge(merged, frame, folder, replace(PLAIN, frames=(frame,), **changes))
        return self.folder / folder

    def strips(self, count: int = 3) -> tuple[Tile, ...]:
        return cut_tiles(*self.size_px, count)


@pytest.fixture
def splitter(
    run: Run[Any], bench: Bench, split_scenes: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Splitter:
    """Return a splitter for the scene that the test's parameter ``name`` names, or else the first."""
    name = request.node.callspec.params["name"] if hasattr(request.node, "callspec") else "adaptive_denoised"
    return Splitter(run, bench, split_scenes[name], tmp_path)


def differences(ours: Path, theirs: Path) -> dict[str, float]:
    """Return the largest difference of each channel of each file that is not equal to the last bit."""
    names = sorted(str(path.relative_to(theirs)) for path in theirs.rglob("*") if path.is_file())
    assert names
    assert sorted(str(path.relative_to(ours)) for path in ours.rglob("*") if path.is_file()) == names
    found = {}
    for name in names:
        left, right = read_pixels(ours / name), read_pixels(theirs / name)
        assert list(left) == list(right)
        assert cryptomatte_texts(ours / name) == cryptomatte_texts(theirs / name)
        for channel, pixels in left.items():
            if not np.array_equal(pixels, right[channel], equal_nan=True):
                found[f"{name}: {channel}"] = float(np.nanmax(np.abs(pixels - right[channel])))
    return found


def cryptomatte_texts(path: Path) -> dict[str, Any]:
    attributes = OpenImageIO.ImageBuf(str(path)).spec().extra_attribs
    return {attribute.name: attribute.value for attribute in attributes if attribute.name.startswith("cryptomatte/")}


def reasons(splitter: Splitter) -> Sequence[str | None]:
    return [why_not_split(splitter.facts, RenderSettings(), kind) for kind in (PartKind.TILE, PartKind.SAMPLES)]


# --- tiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TILED)
def test_tiles_make_the_whole_to_the_last_bit(splitter: Splitter, name: str) -> None:
    assert reasons(splitter)[0] is None
    whole = splitter.whole()
    assert differences(splitter.split(splitter.strips()), whole) == {}


@pytest.mark.parametrize("name", ["adaptive", "denoised", "adaptive_denoised", "adaptive_subdivision"])
def test_tiles_of_any_shape_do(splitter: Splitter, name: str) -> None:
    tiles = [Tile(x0_px=x0, y0_px=y0, x1_px=x1, y1_px=y1) for x0, y0, x1, y1 in RECTANGLES]
    assert differences(splitter.split(tiles), splitter.whole()) == {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["noisy"])
def test_seams_of_a_noisy_picture_do_not_show(splitter: Splitter, name: str, seed: int) -> None:
    assert differences(splitter.split(splitter.strips(8), frame=seed), splitter.whole(frame=seed)) == {}


@pytest.mark.parametrize("name", ["layers_and_passes"])
def test_settings_of_the_task_reach_parts_and_merge(splitter: Splitter, name: str) -> None:
    changes: dict[str, Any] = {
        "format": ImageFormat.OPEN_EXR,
        "view_layer": "Third",
        "samples": 7,
        "percent": 50,
        "folder": "x",
    }
    splitter.size_px = (48, 27)
    whole = splitter.whole(**changes)
    assert differences(splitter.split(splitter.strips(2), **changes), whole) == {}


def test_the_comparison_tells_other_pixels(splitter: Splitter) -> None:
    one, other = splitter.whole(1, "one"), splitter.whole(2, "other")
    (other / "shot_0002.exr").rename(other / "shot_0001.exr")
    assert max(differences(one, other).values()) > 0.1


# --- sample ranges -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANGED)
def test_sample_ranges_make_the_whole_but_for_rounding(splitter: Splitter, name: str) -> None:
    assert reasons(splitter) == [None, None]
    parts = cut_samples(splitter.facts.samples, 3)
    assert max(differences(splitter.split(parts), splitter.whole()).values()) <= RANGE_TOLERANCE


@pytest.mark.parametrize("name", DENOISED_RANGES)
def test_sample_ranges_are_denoised_after_the_merge(splitter: Splitter, name: str) -> None:
    assert reasons(splitter) == [None, None]
    found = differences(splitter.split(cut_samples(splitter.facts.samples, 3)), splitter.whole())
    assert max(value for channel, value in found.items() if "Noisy" in channel) <= RANGE_TOLERANCE
    assert max(found.values()) <= 5 * RANGE_TOLERANCE


# --- one session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["layers_and_passes", "composited"])
def test_parts_and_whole_frames_mix_in_a_warm_session(splitter: Splitter, name: str) -> None:
    warm: dict[str, Any] = {"persistent_data": PersistentData.ON}
    tiles = splitter.strips()
    for frame in (1, 2, 3):
        splitter.whole(frame, "before", **warm) if frame % 2 else splitter.split(tiles, frame, **warm)
    for frame in (1, 2, 3):
        splitter.split(tiles, frame, **warm) if frame % 2 else splitter.whole(frame, "before", **warm)
    assert opened(splitter.log) == 1
    for frame in (1, 2, 3):
        splitter.whole(frame, "cold", persistent_data=PersistentData.OFF)
    assert differences(splitter.folder / "before", splitter.folder / "cold") == {}
    assert differences(splitter.folder / "merged", splitter.folder / "cold") == {}


def test_merging_takes_frames_before_zero(splitter: Splitter) -> None:
    assert differences(splitter.split(splitter.strips(2), frame=-2), splitter.whole(frame=-2)) == {}


# --- what goes wrong -----------------------------------------------------------------------------------------


def test_parts_of_another_size_are_told(splitter: Splitter) -> None:
    splitter.split(splitter.strips(2))
    with pytest.raises(SessionFailed, match="the parts make 96 x 54 pixels, the scene wants 48 x 27") as raised:
        splitter.merge(splitter.folder / "merged-1.exr", folder="wrong", spec=replace(PLAIN, percent=50))
    assert raised.value.failure.kind == FailureKind.SCRIPT_ERROR


@pytest.mark.parametrize(
    ("name", "missing"), [("adaptive_denoised", "Debug Sample Count"), ("denoised", "CryptoObject00")]
)
def test_parts_without_what_the_scene_needs_are_told(
    splitter: Splitter, name: str, missing: str, split_scenes: dict[str, Path]
) -> None:
    plain = Splitter(splitter._run, splitter._bench, split_scenes["plain"], splitter.folder)
    plain.split(plain.strips(2))
    with pytest.raises(SessionFailed, match=f"the parts have no pass {missing} of view layer ViewLayer"):
        splitter.merge(splitter.folder / "merged-1.exr", folder="wrong")
    assert list((splitter.folder / "wrong").iterdir()) == []


def test_a_truncated_file_is_told(splitter: Splitter) -> None:
    splitter.split(splitter.strips(2))
    merged = splitter.folder / "merged-1.exr"
    merged.write_bytes(merged.read_bytes()[:-1000])
    with pytest.raises(SessionFailed, match="truncated") as raised:
        splitter.merge(merged, folder="wrong")
    assert raised.value.failure.kind == FailureKind.STORAGE


# --- what is not split ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_is_told_with_the_reason(splitter: Splitter, name: str) -> None:
    _, *wanted = REFUSED[name]
    for reason, word in zip(reasons(splitter), wanted, strict=True):
        if word is None:
            assert reason is None
        else:
            assert reason is not None
            assert word in reason


@pytest.mark.parametrize(
    "name", ["guiding", "counted_adaptively", "exposed_denoised", "catcher_denoised", "odd_samples"]
)
def test_what_is_not_split_would_differ_indeed(splitter: Splitter, name: str) -> None:
    assert differences(splitter.split(splitter.strips()), splitter.whole()) != {}


@pytest.mark.parametrize("name", ["depth", "direct", "cryptomatte", "layer_samples", "catcher"])
def test_what_is_not_split_by_samples_would_differ_indeed(splitter: Splitter, name: str) -> None:
    ranges: tuple[SampleRange, ...] = cut_samples(splitter.facts.samples, 3)
    assert max(differences(splitter.split(ranges), splitter.whole()).values()) > RANGE_TOLERANCE
