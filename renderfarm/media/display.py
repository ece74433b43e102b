"""Linear light shown as Blender shows it, by Blender's own OpenColorIO configuration.

Blender's chain (``createDisplayProcessor`` in its source/blender/imbuf/opencolorio): exposure in scene-linear light,
the look in its own space, the view transform, then gamma. PNG files that Blender 4.5 and 5.2 write from the same EXR,
dithering off, have the same 8-bit values, and 16-bit values within 4 of 65535, for every view of the sRGB display, some
of the others, and looks of each kind (False Color where there is little alpha: 56 of 65535). See
``tests/integration/test_media.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import OpenImageIO as oiio

from renderfarm.domain.facts import ViewSettings
from renderfarm.errors import InvalidSettings
from renderfarm.media.pictures import Floats, Picture

_SCENE_LINEAR = "scene_linear"
_NO_LOOK = "None"
#: OpenColorIO's tables are made for finite numbers; this is beyond every view's white.
_BRIGHTEST = 65504.0


@dataclass(frozen=True, kw_only=True)
class Display:
    """A scene's view settings, and where the Blender that rendered it keeps its colour configuration.

    Curves and white balance (``settings.is_whole`` is false) are left out: only Blender itself applies them.
    """

    config: Path
    """Blender's ``datafiles/colormanagement/config.ocio``."""
    settings: ViewSettings = field(default_factory=ViewSettings)

    def encode(self, linear: Floats) -> Floats:
        """Return display colours from 0 to 1 of scene-linear ones; both have the shape (height, width, 3).

        Raises:
            InvalidSettings: the configuration is not there or has no such display, view or look.
        """
        settings = self.settings
        light = np.nan_to_num(linear, nan=0.0, posinf=_BRIGHTEST, neginf=0.0) * np.float32(2.0**settings.exposure)
        buffer = oiio.ImageBuf(np.ascontiguousarray(light, np.float32))
        space = _SCENE_LINEAR
        if settings.look != _NO_LOOK:
            # ociodisplay would apply the look in another place than Blender does.
            space = self._look_space()
            buffer = self._checked(
                oiio.ImageBufAlgo.ociolook(
                    buffer, settings.look, _SCENE_LINEAR, space, unpremult=False, colorconfig=str(self.config)
                )
            )
        buffer = self._checked(
            oiio.ImageBufAlgo.ociodisplay(
                buffer, settings.display, settings.view, space, unpremult=False, colorconfig=str(self.config)
            )
        )
        pixels = buffer.get_pixels(oiio.FLOAT)
        assert pixels is not None
        shown: Floats = np.clip(pixels, 0, 1)
        return shown if settings.gamma == 1 else shown ** np.float32(1 / settings.gamma)

    def _look_space(self) -> str:
        space = _look_spaces(self.config).get(self.settings.look) if self.config.is_file() else None
        if space is None:
            raise InvalidSettings(f"this Blender's colour configuration has no look {self.settings.look!r}")
        return space

    def _checked(self, buffer: oiio.ImageBuf) -> oiio.ImageBuf:
        if buffer.has_error:
            reason = " ".join(buffer.geterror().replace(str(self.config), self.config.name).split())
            raise InvalidSettings(f"cannot show the picture through {self.settings.view}: {reason}")
        return buffer


def is_readable(config: Path) -> bool:
    """Tell whether there is a configuration, and one that is not newer than this process's OpenColorIO.

    Blender 5's are too new for OpenImageIO 3.0 (OpenColorIO 2.4), which is the newest for Python 3.11.
    """
    return config.is_file() and not oiio.ColorConfig(str(config)).geterror()


@cache
def _look_spaces(config: Path) -> dict[str, str]:
    """Return each look's process space, which OpenImageIO does not tell."""
    found = re.findall(r"!<Look>\s+name: (.+?)\s*\n\s+process_space: (.+?)\s*\n", config.read_text(encoding="utf-8"))
    return {look: space.strip("\"'") for look, space in found}


def display_colours(picture: Picture, display: Display | None) -> Floats:
    """Return the picture's display colours without alpha in them, shape (height, width, 3), from 0 to 1.

    Args:
        picture: linear or not; a picture in display colours is taken as it is.
        display: for linear pictures; None: the plain sRGB curve, which is Blender's view ``Standard``.
    """
    return _shown(picture, display, premultiplied=False)


def colours_over_black(picture: Picture, display: Display | None) -> Floats:
    """Return the same with the picture laid over black: where Blender does it, in linear light if there is any."""
    return _shown(picture, display, premultiplied=True)


def _shown(picture: Picture, display: Display | None, *, premultiplied: bool) -> Floats:
    colours = picture.colours(premultiplied=premultiplied)
    if not picture.is_linear:
        return colours
    return srgb_encoded(colours) if display is None else display.encode(colours)


def srgb_encoded(linear: Floats) -> Floats:
    """Return sRGB values from 0 to 1 of linear light, clipped (IEC 61966-2-1)."""
    light = np.clip(np.nan_to_num(linear, nan=0.0), 0, 1)
    encoded: Floats = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055)
    return encoded.astype(np.float32, copy=False)
