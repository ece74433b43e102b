"""The video codecs, and what each of them must be told so that players show the frames' own colours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter
from numpy.typing import NDArray

from renderfarm.domain.movies import MovieFormat

#: Frames that H.265 holds back with its usual B-frames.
FRAMES_HELD_BACK = 2
#: Encoders divide their work by it, and with it changes what they write: a number of our own, not the machine's.
_THREADS = 4
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
#: libswscale takes 16-bit white for 255 * 256: 65535 becomes 943 of 940 in 10 bits (measured with FFmpeg 8).
_WHITE_16 = 65280 / 65535


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A codec in its container, with all its settings."""

    encoder: str
    container: str
    pixels: str
    """FFmpeg's name of the pixel format."""
    options: dict[str, str]
    transfer: ColorTrc = ColorTrc.IEC61966_2_1
    """What the values mean: sRGB, as in the frames."""
    tag: str | None = None
    """What Apple's players know the codec by."""
    has_alpha: bool = False

    def coded_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return the size of the movie for frames of a size: chroma at half the resolution needs even ones."""
        return (width_px, height_px) if "444" in self.pixels else (width_px + width_px % 2, height_px + height_px % 2)


# Quality is such that eyes see no loss. H.264 stays at 8 bits: with 10, browsers and phones do not play it. So does
# VP9: PyAV's libvpx has no more.
_H264 = Codec(encoder="libx264", container="mp4", pixels="yuv420p", options={"preset": "medium", "crf": "18"})
# One frame at a time: with more, libx265 may wait for ever at the end of a movie (4.1, seen once: the thread of a frame
# in RateControl::rateControlEnd, which waits for others only).
_H265_PARAMS = "log-level=error:frame-threads=1"
_H265 = Codec(
    encoder="libx265",
    container="mp4",
    pixels="yuv420p",
    options={"preset": "medium", "crf": "18", "x265-params": _H265_PARAMS},
    tag="hvc1",
)
_WEBM = Codec(
    encoder="libvpx-vp9",
    container="webm",
    pixels="yuv420p",
    options={"crf": "18", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1", "tile-columns": "2"},
)
# ProRes has no mark for sRGB; BT.709 is what editors take it for anyhow.
_PRORES = Codec(
    encoder="prores_ks",
    container="mov",
    pixels="yuv422p10le",
    options={"profile": "hq", "vendor": "apl0"},
    transfer=ColorTrc.BT709,
)
_PRORES_4444 = Codec(
    encoder="prores_ks",
    container="mov",
    pixels="yuva444p10le",
    options={"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
    transfer=ColorTrc.BT709,
    has_alpha=True,
)


def codec_for(
    movie_format: MovieFormat, *, width_px: int, is_deep: bool, keeps_alpha: bool, is_held_back: bool
) -> Codec:
    """Return the codec for a movie format other than GIF.

    Args:
        movie_format: what is wanted.
        width_px: of the frames.
        is_deep: they have more than 8 bits.
        keeps_alpha: where the format can.
        is_held_back: there are no more frames than ``FRAMES_HELD_BACK``.
    """
    match movie_format:
        case MovieFormat.PRORES:
            return _PRORES_4444 if keeps_alpha else _PRORES
        case MovieFormat.H264 if _spoils_mbtree(width_px):
            return replace(_H264, options={**_H264.options, "mbtree": "0"})
        case MovieFormat.H265:
            # libx265 makes times up for them (seen in 4.1: dts far below zero, in some runs).
            params = f"{_H265_PARAMS}:bframes=0" if is_held_back else _H265_PARAMS
            pixels = "yuv420p10le" if is_deep else _H265.pixels
            return replace(_H265, pixels=pixels, options={**_H265.options, "x265-params": params})
    return {MovieFormat.H264: _H264, MovieFormat.WEBM: _WEBM}[movie_format]


def _spoils_mbtree(width_px: int) -> bool:
    """Tell whether libx264's macroblock tree reads memory that nobody wrote, so that runs differ in what they write.

    Measured with PyAV 18 under MALLOC_PERTURB_: it does unless the width is a multiple of 8 macroblocks of 16 pixels,
    which the common widths from 1280 on are. Without the tree, files are about a third larger.
    """
    return -(-width_px // 16) % 8 != 0


def encode(
    frames: Iterable[NDArray[Any]], path: Path, codec: Codec, frame_rate: Fraction, size_px: tuple[int, int]
) -> int:
    """Write a movie; return the number of its frames.

    Args:
        frames: display colours of shape (height, width, 3), 4 with alpha where the codec has it; uint8 or uint16.
        path: the file.
        codec: see ``codec_for``.
        frame_rate: frames a second.
        size_px: width and height of the movie, see ``Codec.coded_size``: the frames' last column and row are repeated
            up to there.

    Raises:
        av.FFmpegError: the codec does not take such frames.
        OSError: the file cannot be written.
    """
    # bitexact: no random numbers and no dates in the file. faststart: the index in front, for players on the web.
    options = {"fflags": "+bitexact"} | ({} if codec.container == "webm" else {"movflags": "+faststart"})
    reformatter = VideoReformatter()
    count = 0
    with av.open(str(path), "w", format=codec.container, options=options) as container:
        stream = _stream(container, codec, frame_rate, size_px)
        for pixels in frames:
            converted = reformatter.reformat(
                _video_frame(pixels, size_px),
                format=codec.pixels,
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                dst_color_trc=codec.transfer,
                dst_color_primaries=ColorPrimaries.BT709,
                interpolation=_EXACT,
            )
            converted.time_base = 1 / frame_rate
            converted.pts, converted.duration = count, 1
            container.mux(stream.encode(converted))
            count += 1
        container.mux(stream.encode(None))
    return count


def _stream(
    container: av.container.OutputContainer, codec: Codec, frame_rate: Fraction, size_px: tuple[int, int]
) -> av.VideoStream:
    stream = container.add_stream(codec.encoder, rate=frame_rate, options=codec.options)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = size_px
    stream.pix_fmt = codec.pixels
    context = stream.codec_context
    context.time_base = 1 / frame_rate
    context.thread_count = _THREADS
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = codec.transfer
    if codec.tag is not None:
        context.codec_tag = codec.tag
    return stream


def _video_frame(pixels: NDArray[Any], size_px: tuple[int, int]) -> av.VideoFrame:
    height, width, channels = pixels.shape
    if (width, height) != size_px:
        pixels = np.pad(pixels, ((0, size_px[1] - height), (0, size_px[0] - width), (0, 0)), mode="edge")
    if pixels.dtype == np.uint8:
        return av.VideoFrame.from_ndarray(pixels, format="rgba" if channels == 4 else "rgb24")
    scaled = pixels.copy()
    scaled[:, :, :3] = np.round(pixels[:, :, :3] * _WHITE_16)
    return av.VideoFrame.from_ndarray(scaled, format="rgba64le" if channels == 4 else "rgb48le")
