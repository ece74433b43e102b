"""What movies there are, and how fast they run."""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction

from renderfarm.errors import InvalidSettings


class MovieFormat(StrEnum):
    H264 = "h264"
    """H.264 in MP4: plays everywhere."""
    H265 = "h265"
    """H.265 in MP4: smaller, for newer players."""
    PRORES = "prores"
    """Apple ProRes in MOV, for editing: 4444 with alpha, 422 HQ without."""
    WEBM = "webm"
    """VP9 in WebM, for the web."""
    GIF = "gif"

    @property
    def suffix(self) -> str:
        """The file name's end, with its dot."""
        return {"h264": ".mp4", "h265": ".mp4", "prores": ".mov", "webm": ".webm", "gif": ".gif"}[self.value]

    @property
    def media_type(self) -> str:
        """For the HTTP header ``Content-Type``."""
        return {".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm", ".gif": "image/gif"}[self.suffix]


def frame_rate(fps: float, fps_base: float = 1.0) -> Fraction:
    """Return the exact frames a second of a scene: 24000/1001 where Blender shows 23.976.

    Blender keeps a whole number and a 32-bit ``fps_base`` that divides it, 24 and 1.001: the base's seven decimal
    digits are what somebody typed.

    Args:
        fps: frames a second, already divided by the base, as ``SceneInfo.fps`` has it.
        fps_base: ``SceneInfo.fps_base``.

    Raises:
        InvalidSettings: not positive.
    """
    if not (0 < fps < float("inf") and 0 < fps_base < float("inf")):
        raise InvalidSettings(f"{fps} frames a second with a base of {fps_base} is no frame rate")
    return Fraction(f"{fps * fps_base:.6g}") / Fraction(f"{fps_base:.7g}")
