"""Frames made into a movie whose colours and speed are those of the frames.

Frames are read one after the other: memory is that of a few frames and of the encoder's look-ahead. The same frames
give the same bytes, on any number of cores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from renderfarm.domain.movies import MovieFormat
from renderfarm.errors import BadPicture, InvalidSettings
from renderfarm.media.display import Display, colours_over_black, display_colours
from renderfarm.media.encoders import FRAMES_HELD_BACK, codec_for, encode
from renderfarm.media.gifs import gif_rate, write_gif
from renderfarm.media.pictures import Picture, open_picture
from renderfarm.media.whole_files import whole_file


@dataclass(frozen=True, kw_only=True)
class Movie:
    """What was written."""

    frames: int
    """In the file: a GIF may have fewer than there were."""
    width_px: int
    height_px: int
    duration_s: float


def encode_movie(
    frames: Iterable[Path],
    target: Path,
    *,
    movie_format: MovieFormat,
    frame_rate: Fraction,
    display: Display | None = None,
    keeps_alpha: bool | None = None,
) -> Movie:
    """Write a movie of frames, in their order. Which there are, and what stands for missing ones, is the caller's.

    Colours are sRGB with the matrix and the primaries of BT.709, in the limited range, and marked as such. ProRes has
    10 bits, H.265 too for frames of more than 8 bits, the others have 8. All but ProRes 4444 and GIF have even sizes:
    an odd last column or row is repeated. Transparent frames are laid over black, except in ProRes 4444. A GIF shows at
    most 50 frames a second; of faster ones, some are left out.

    Args:
        frames: picture files of one size. A file is no longer needed once the next is asked for.
        target: it appears when it is whole. Its suffix is ``movie_format.suffix``, or whatever the caller likes.
        movie_format: codec and container.
        frame_rate: frames a second, exactly; see ``renderfarm.domain.movies.frame_rate``.
        display: how linear frames are shown; None: by the plain sRGB curve.
        keeps_alpha: make ProRes 4444 of ProRes, with the frames' alpha, not multiplied into the colours; None: if the
            first frame is transparent anywhere.

    Raises:
        BadPicture: a frame is truncated, corrupt, no picture, or of another size than the first.
        InvalidSettings: no frames, a frame rate that is not positive, or frames that the encoder does not take; see
            also ``Display.encode``.
        OSError: a frame cannot be read, or the target not written.
    """
    if frame_rate <= 0:
        raise InvalidSettings(f"{frame_rate} frames a second is no frame rate")
    pictures = _pictures(frames)
    head = list(islice(pictures, FRAMES_HELD_BACK + 1))
    if not head:
        raise InvalidSettings("a movie needs at least one frame")
    first = head[0]
    codec = None
    if movie_format is not MovieFormat.GIF:
        codec = codec_for(
            movie_format,
            width_px=first.width_px,
            is_deep=first.depth_bits > 8,
            keeps_alpha=_is_transparent(first) if keeps_alpha is None else keeps_alpha,
            is_held_back=len(head) <= FRAMES_HELD_BACK,
        )
    with_alpha = codec is not None and codec.has_alpha
    arrays = (_pixels(picture, display, with_alpha=with_alpha) for picture in chain(head, pictures))
    size_px = (first.width_px, first.height_px)
    with whole_file(target) as unfinished:
        try:
            if codec is None:
                count = write_gif(arrays, unfinished, frame_rate)
                frame_rate = gif_rate(frame_rate)
            else:
                size_px = codec.coded_size(*size_px)
                count = encode(arrays, unfinished, codec, frame_rate, size_px)
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            size = f"{first.width_px} x {first.height_px}"
            raise InvalidSettings(f"{movie_format} does not take frames of {size}: {error.strerror}") from error
    return Movie(frames=count, width_px=size_px[0], height_px=size_px[1], duration_s=float(count / frame_rate))


def _pictures(frames: Iterable[Path]) -> Iterator[Picture]:
    size = None
    for path in frames:
        picture = open_picture(path)
        own = (picture.width_px, picture.height_px)
        size = size or own
        if own != size:
            raise BadPicture(f"{path.name} is {own[0]} x {own[1]}, the frames before are {size[0]} x {size[1]}")
        yield picture


def _is_transparent(picture: Picture) -> bool:
    alpha = picture.alpha()
    return alpha is not None and bool(alpha.min() < 1)


def _pixels(picture: Picture, display: Display | None, *, with_alpha: bool) -> NDArray[Any]:
    """Return display colours, with alpha behind them or over black: shape (height, width, 3 or 4), uint8 or uint16."""
    if with_alpha:
        alpha = picture.alpha()
        opaque = np.ones(picture.pixels.shape[:2], np.float32)
        colours = display_colours(picture, display)
        shown = np.concatenate([colours, (opaque if alpha is None else alpha)[:, :, None]], axis=2)
    elif _is_shown_as_it_is(picture):
        return np.ascontiguousarray(picture.pixels[:, :, :3])
    else:
        shown = colours_over_black(picture, display)
    depth = np.uint8 if picture.depth_bits == 8 else np.uint16
    rounded: NDArray[Any] = np.round(np.clip(shown, 0, 1) * np.iinfo(depth).max).astype(depth)
    return rounded


def _is_shown_as_it_is(picture: Picture) -> bool:
    """Tell of the usual frames: display colours, and opaque, whether or not they have alpha."""
    if picture.is_linear or "R" not in picture.channels:
        return False
    return "A" not in picture.channels or bool((picture.pixels[:, :, 3] == np.iinfo(picture.pixels.dtype).max).all())
