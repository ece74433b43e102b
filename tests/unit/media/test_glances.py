"""One look at a picture file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from renderfarm.domain.flaws import FlawKind
from renderfarm.errors import BadPicture
from renderfarm.media.flaws import picture_flaws
from renderfarm.media.glances import glance_at
from renderfarm.media.pictures import open_picture
from renderfarm.media.sequences import impression
from tests.unit.pictures import png, write_exr


def test_a_glance_is_what_the_two_say_that_it_is_made_of(tmp_path: Path) -> None:
    light = np.repeat(np.random.default_rng(1).random((90, 160, 1), np.float32), 4, axis=2)
    light[4, 7, 2] = np.inf
    path = write_exr(tmp_path / "0001.exr", light)
    glance = glance_at(path)
    assert (glance.flaws, glance.impression) == (picture_flaws(path), impression(open_picture(path)))
    assert [flaw.kind for flaw in glance.flaws] == [FlawKind.NOT_A_NUMBER]


def test_a_single_pixel_that_shines_makes_a_large_picture_not_black(tmp_path: Path) -> None:
    # Mostly only a sample is looked at.
    light = np.zeros((600, 800, 4), np.float32)
    light[:, :, 3] = 1
    black = glance_at(write_exr(tmp_path / "black.exr", light))
    light[13, 17, 0] = 0.5
    star = glance_at(write_exr(tmp_path / "star.exr", light))
    assert ([flaw.kind for flaw in black.flaws], star.flaws) == ([FlawKind.BLACK], ())


def test_what_is_truncated_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "0001.png"
    path.write_bytes(png()[:-12])
    with pytest.raises(BadPicture, match="its end is missing"):
        glance_at(path)
