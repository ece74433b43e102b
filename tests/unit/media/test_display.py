"""Linear light in display colours. That they are Blender's is measured in tests/integration/test_media.py."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from renderfarm.domain.facts import ViewSettings
from renderfarm.errors import InvalidSettings
from renderfarm.media.display import Display, colours_over_black, display_colours, is_readable, srgb_encoded
from renderfarm.media.pictures import Picture
from tests.unit.media.picture_files import blender_config

STANDARD = Display(config=blender_config(), settings=ViewSettings(view="Standard"))


def light(*colours: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array([colours], np.float32)


def with_view(**settings: object) -> Display:
    return replace(STANDARD, settings=replace(STANDARD.settings, **settings))  # type: ignore[arg-type]


def test_the_srgb_curve_has_its_known_values() -> None:
    # IEC 61966-2-1: middle grey, the joint of both pieces, and the ends.
    shown = srgb_encoded(light((0.0, 0.0031308, 0.18), (0.5, 1.0, 2.0), (-1.0, math.nan, math.inf)))
    assert shown[0].ravel() == pytest.approx([0, 0.04045, 0.46136, 0.73536, 1, 1, 0, 0, 1], abs=1e-4)


def test_the_view_standard_is_the_srgb_curve() -> None:
    ramp = np.geomspace(1e-4, 2, 300, dtype=np.float32).reshape(10, 10, 3)
    np.testing.assert_allclose(STANDARD.encode(ramp), srgb_encoded(ramp), atol=2e-5)


def test_exposure_counts_in_stops() -> None:
    np.testing.assert_allclose(
        with_view(exposure=2.0).encode(light((0.01, 0.05, 0.2))), STANDARD.encode(light((0.04, 0.2, 0.8))), atol=1e-6
    )


def test_gamma_comes_last() -> None:
    plain = STANDARD.encode(light((0.01, 0.05, 0.2)))
    np.testing.assert_allclose(with_view(gamma=2.0).encode(light((0.01, 0.05, 0.2))), np.sqrt(plain), atol=1e-6)


def test_a_look_changes_the_picture_and_keeps_white_and_black() -> None:
    colours = light((0.0, 0.0, 0.0), (0.1, 0.1, 0.1), (60.0, 60.0, 60.0))
    plain = with_view(view="AgX").encode(colours)
    punchy = with_view(view="AgX", look="AgX - Punchy").encode(colours)
    assert punchy[0, 1, 0] < plain[0, 1, 0] - 0.05
    assert punchy[0, 0] == pytest.approx(plain[0, 0], abs=0.01)
    assert punchy[0, 2] == pytest.approx(plain[0, 2], abs=0.05)


def test_agx_is_not_clipped_and_has_no_gaps() -> None:
    shown = with_view(view="AgX").encode(np.geomspace(0.01, 10, 60, dtype=np.float32).reshape(1, 60, 1).repeat(3, 2))
    steps = np.diff(shown[0, :, 0])
    assert (steps > 0).all()
    assert steps.max() < 0.03


def test_what_is_no_number_is_shown_somehow() -> None:
    shown = with_view(view="AgX").encode(light((math.nan, math.nan, math.nan), (math.inf, 1e30, 5.0), (-1.0, 0.0, 0.0)))
    assert np.isfinite(shown).all()
    assert ((shown >= 0) & (shown <= 1)).all()


# --- alpha ------------------------------------------------------------------------------------------------------


def half_seen(*, is_linear: bool) -> Picture:
    pixels = np.full((2, 3, 4), (0.2, 0.1, 0.05, 0.5), np.float32)
    return Picture(pixels=pixels, channels=("R", "G", "B", "A"), is_linear=is_linear, is_premultiplied=is_linear)


def test_alpha_is_taken_out_before_the_view() -> None:
    shown = display_colours(half_seen(is_linear=True), STANDARD)
    assert shown.shape == (2, 3, 3)
    np.testing.assert_allclose(shown[0, 0], STANDARD.encode(light((0.4, 0.2, 0.1)))[0, 0], atol=1e-6)


def test_light_is_laid_over_black_before_the_view_and_display_colours_as_they_are() -> None:
    over = colours_over_black(half_seen(is_linear=True), STANDARD)
    np.testing.assert_allclose(over[0, 0], STANDARD.encode(light((0.2, 0.1, 0.05)))[0, 0], atol=1e-6)
    over = colours_over_black(half_seen(is_linear=False), STANDARD)
    np.testing.assert_allclose(over[0, 0], [0.1, 0.05, 0.025], atol=1e-6)


def test_without_a_display_light_is_shown_by_the_srgb_curve() -> None:
    shown = display_colours(half_seen(is_linear=True), None)
    np.testing.assert_allclose(shown[0, 0], srgb_encoded(light((0.4, 0.2, 0.1)))[0, 0], atol=1e-6)


def test_display_colours_are_taken_as_they_are() -> None:
    shown = display_colours(half_seen(is_linear=False), with_view(view="AgX"))
    np.testing.assert_allclose(shown[0, 0], [0.2, 0.1, 0.05], atol=1e-6)


# --- what is not there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "display",
    [
        with_view(view="Kodachrome"),
        with_view(display="Etch A Sketch"),
        with_view(look="Sepia"),
        replace(STANDARD, config=Path("/nowhere/config.ocio")),
        replace(with_view(look="AgX - Punchy"), config=Path("/nowhere/config.ocio")),
    ],
    ids=["view", "display", "look", "config", "config with look"],
)
def test_what_is_not_there_is_an_error_of_one_line(display: Display) -> None:
    with pytest.raises(InvalidSettings) as caught:
        display.encode(light((0.5, 0.5, 0.5)))
    assert "\n" not in str(caught.value)


def test_a_configuration_is_readable_if_it_is_one(tmp_path: Path) -> None:
    assert is_readable(blender_config())
    assert not is_readable(tmp_path / "config.ocio")
    (tmp_path / "config.ocio").write_text("ocio_profile_version: 2.99\n")
    assert not is_readable(tmp_path / "config.ocio")
