"""Ready-made checks of one rendered picture: what is likely wrong with it, without knowing what it should show.

What a picture shows may be what the artist wants: these are hints. See ``sequences`` for what its neighbours tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renderfarm.domain.flaws import Flaw, FlawKind
from renderfarm.errors import BadPicture
from renderfarm.media.display import Display, srgb_encoded
from renderfarm.media.pictures import Floats, Picture, open_picture

__all__ = ["Flaw", "FlawKind", "PinkLimits", "flaws_of", "picture_flaws", "pink_limits"]

#: Blender's dithering may lift black by one of 255.
_BLACK_MAX = 1.5 / 255
#: The same in linear light, by the sRGB curve.
_BLACK_MAX_LINEAR = _BLACK_MAX / 12.92
#: Enough pixels to measure a share of a picture.
_PIXELS_LOOKED_AT = 20_000
#: So bright, of 1, that it is not black even where it is half transparent.
_BRIGHT_MIN = 0.04

# Cycles and EEVEE draw a missing texture as (1, 0, 1), TEX_IMAGE_MISSING_R and so on in Blender's svm_image; Workbench
# draws none. Measured with bpy 4.5 on a cube in grey surroundings: lit, the median green is 0.045 of red and blue in
# linear light, what it reflects included. Through AgX the same cube has up to 0.58 of it, as orchid has in the Standard
# view: what is pink depends on the view.
_PINK_GREEN_MAX = 0.12
_PINK_BLUE_TO_RED = (0.75, 1 / 0.75)
#: In scene-linear light: in the dark any colour may be, and displays show the glare of many colours as pink.
_PINK_LIGHT = (0.02, 2.0)
_PINK_SHARE_MIN = 0.005


def picture_flaws(path: Path, display: Display | None = None) -> tuple[Flaw, ...]:
    """Return what is likely wrong with a picture file, in the order of ``FlawKind``.

    Args:
        path: the picture.
        display: what display pictures were written through; None: taken for the view ``Standard``, which misses most of
            a missing texture that is shown through AgX.

    Raises:
        OSError: the file cannot be read at all.
    """
    try:
        picture = open_picture(path)
    except BadPicture as error:
        return (Flaw(kind=FlawKind.TRUNCATED, message=str(error)),)
    return flaws_of(picture, display)


def flaws_of(picture: Picture, display: Display | None = None) -> tuple[Flaw, ...]:
    """Return the same of a picture that has been read."""
    sample = picture.sample(_PIXELS_LOOKED_AT)
    seen = _opaque(sample)
    # A pixel that shines in the sample shines in the picture, too: mostly the rest need not be looked at.
    emptiness = None if _is_bright(seen) else _emptiness(picture)
    found = (emptiness, _not_numbers(picture), _pink(seen, display))
    return tuple(flaw for flaw in found if flaw is not None)


def _opaque(picture: Picture) -> Picture:
    """Return in one row what hides half or more of what is behind it."""
    pixels = picture.pixels.reshape(1, -1, len(picture.channels))
    if "A" in picture.channels:
        is_opaque = pixels[0, :, -1] > 0.5 * picture.one
        if not is_opaque.all():
            pixels = pixels[:, is_opaque]
    return replace(picture, pixels=pixels)


def _is_bright(picture: Picture) -> bool:
    """Tell whether there is light for sure; as the numbers in the file are enough for that, at little cost."""
    colours = picture.pixels[:, :, :3] if "R" in picture.channels else picture.pixels[:, :, :1]
    return colours.size > 0 and bool(colours.max() > _BRIGHT_MIN * picture.one)


def _emptiness(picture: Picture) -> Flaw | None:
    alpha = picture.alpha()
    if alpha is not None and not alpha.any():
        return Flaw(kind=FlawKind.TRANSPARENT, message="the picture is fully transparent")
    # What is not a number is not black either.
    brightest = np.nan_to_num(picture.colours(premultiplied=True), nan=np.inf).max()
    if brightest <= (_BLACK_MAX_LINEAR if picture.is_linear else _BLACK_MAX):
        return Flaw(kind=FlawKind.BLACK, message="the picture is all black")
    return None


def _not_numbers(picture: Picture) -> Flaw | None:
    if not picture.is_linear or _all_are_numbers(picture.pixels):
        return None
    wrong = ~np.isfinite(picture.pixels).all(axis=2)
    count = int(wrong.sum())
    if count == 0:
        return None
    y_px, x_px = divmod(int(wrong.argmax()), picture.width_px)
    pixels = "pixel is" if count == 1 else "pixels are"
    where = f"column {x_px}, row {y_px}"
    return Flaw(kind=FlawKind.NOT_A_NUMBER, message=f"{count} {pixels} infinite or not a number, the first at {where}")


def _all_are_numbers(pixels: NDArray[Any]) -> bool:
    """Tell whether no exponent is the one that stands for infinite or not a number (IEEE 754).

    Takes a tenth of the time of ``numpy.isfinite`` on 16 bits, which numpy does not do by vectors.
    """
    exponent = 0x7C00 if pixels.itemsize == 2 else 0x7F800000
    bits: NDArray[Any] = pixels.view(f"u{pixels.itemsize}")
    return bool((bits & bits.dtype.type(exponent)).max() < exponent)


# --- missing textures -----------------------------------------------------------------------------------------


def _pink(picture: Picture, display: Display | None) -> Flaw | None:
    """Look for pink among the opaque pixels of a picture."""
    if "R" not in picture.channels or not picture.width_px:
        return None
    limits = None if picture.is_linear else pink_limits(display)
    # Most pictures have few pixels of so little green, whatever alpha they are multiplied with: those get the closer
    # look, and some more, as rounding is not to matter.
    green_max = 1.01 * (_PINK_GREEN_MAX if limits is None else float(limits.green.max()))
    red, green, blue = (picture.pixels[:, :, channel] for channel in range(3))
    is_near = green <= np.multiply(np.minimum(red, blue), green_max, dtype=np.float32)
    if np.count_nonzero(is_near) < _PINK_SHARE_MIN * picture.width_px:
        return None
    few = replace(picture, pixels=picture.pixels[is_near][None])
    share = float(_is_pink(few.colours(premultiplied=False)[0], limits).sum()) / picture.width_px
    if share < _PINK_SHARE_MIN:
        return None
    amount = f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
    return Flaw(kind=FlawKind.PINK, message=f"{amount} of the picture has the pink of a missing texture")


@dataclass(frozen=True, kw_only=True, eq=False)
class PinkLimits:
    """How a barely pink surface looks at rising brightness: what is less pink than that is no missing texture."""

    brightness: Floats
    """The larger of red and blue, rising."""
    green: Floats
    """Green by the smaller of red and blue, at each brightness."""
    blue_to_red: Floats
    """Blue by red of a surface under white light, at each brightness."""


@lru_cache(maxsize=16)
def pink_limits(display: Display | None) -> PinkLimits:
    """Return the limits in display colours."""
    light = np.geomspace(*_PINK_LIGHT, 65, dtype=np.float32)[:, None]
    colours = (light * np.array([1, _PINK_GREEN_MAX, 1], np.float32))[None]
    red, green, blue = (srgb_encoded(colours) if display is None else display.encode(colours))[0].T
    brightness = np.maximum(red, blue)
    # Where a view is at its white, more light changes nothing.
    rising = np.concatenate([[True], np.diff(np.maximum.accumulate(brightness)) > 0])
    return PinkLimits(
        # The last in full, as rounding to 8 bits may have lifted what was as bright.
        brightness=np.append(brightness[rising][:-1], brightness.max() + 1 / 255),
        green=(green / np.maximum(np.minimum(red, blue), 1e-6))[rising],
        blue_to_red=(blue / np.maximum(red, 1e-6))[rising],
    )


def _is_pink(colours: Floats, limits: PinkLimits | None) -> NDArray[np.bool_]:
    """Tell of each colour, shape (count, 3), whether it is a missing texture's; no limits: in linear light."""
    red, green, blue = np.nan_to_num(colours, nan=0.0, posinf=0.0, neginf=0.0).T
    brightness, smaller = np.maximum(red, blue), np.minimum(red, blue)
    low, high = _PINK_BLUE_TO_RED
    if limits is None:
        is_seen = brightness >= _PINK_LIGHT[0]
        return np.asarray(is_seen & (green <= _PINK_GREEN_MAX * smaller) & (blue >= low * red) & (blue <= high * red))
    is_seen = (brightness >= limits.brightness[0]) & (brightness <= limits.brightness[-1]) & (smaller > 0)
    white = np.interp(brightness, limits.brightness, limits.blue_to_red) * red
    # Display values are roughly the 2.2th root of light (sRGB).
    low, high = low ** (1 / 2.2), high ** (1 / 2.2)
    most_green = np.interp(brightness, limits.brightness, limits.green) * smaller
    return np.asarray(is_seen & (green <= most_green) & (blue >= low * white) & (blue <= high * white))
