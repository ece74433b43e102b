"""Movies, decoded again: how many frames, how fast, and in which colours."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from renderfarm.domain.facts import ViewSettings
from renderfarm.domain.movies import MovieFormat
from renderfarm.errors import BadPicture, InvalidSettings
from renderfarm.media.display import Display, srgb_encoded
from renderfarm.media.gifs import gif_rate
from renderfarm.media.movies import encode_movie
from tests.unit.media.picture_files import blender_config, grey, write

H264, H265, PRORES, WEBM, GIF = MovieFormat
_FILM_RATE = Fraction(24000, 1001)
_PATCHES = np.array(
    [
        (0, 0, 0),
        (255, 255, 255),
        (128, 128, 128),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (200, 120, 60),
        (20, 40, 60),
        (235, 16, 128),
    ]
)
_PATCH_PX, _WIDTH, _HEIGHT = 16, 144, 64


def frame(index: int, depth: str = "uint8") -> NDArray[Any]:
    """Return a frame: patches, below them a ramp from 20 to 50 %, below that a white mark that moves."""
    pixels = np.zeros((_HEIGHT, _WIDTH, 3))
    pixels[:24] = np.repeat(_PATCHES, _PATCH_PX, axis=0)[None] / 255
    pixels[24:] = ramp()[None, :, None]
    pixels[56:, index * 8 : index * 8 + 8] = 1
    stored: NDArray[Any] = np.round(pixels * np.iinfo(depth).max).astype(depth)
    return stored


def ramp() -> NDArray[np.float64]:
    return np.linspace(0.2, 0.5, _WIDTH)


def frames(folder: Path, count: int, depth: str = "uint8") -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [write(folder / f"{index:04}.png", frame(index, depth)) for index in range(count)]


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def colours(shown: av.VideoFrame) -> NDArray[np.float64]:
    """Return the colours of a decoded frame as a player shows them, from 0 to 255, by the frame's own marks."""
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    is_deep = shown.format.components[0].bits > 8
    marks = {} if shown.format.is_rgb else {"src_colorspace": shown.colorspace, "src_color_range": shown.color_range}
    rgb = VideoReformatter().reformat(
        shown, format="rgb48le" if is_deep else "rgb24", dst_color_range=ColorRange.JPEG, interpolation=exact, **marks
    )
    return rgb.to_ndarray() / (257 if is_deep else 1)


def at_s(shown: av.VideoFrame) -> Fraction:
    assert shown.pts is not None
    assert shown.time_base is not None
    return shown.pts * shown.time_base


def mark(shown: av.VideoFrame) -> int:
    """Return where the white mark of a decoded frame is."""
    return int(colours(shown)[60, :, 1].reshape(-1, 8).mean(axis=1).argmax())


@pytest.fixture(scope="module", params=["uint8", "uint16"])
def depth(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=list(MovieFormat))
def kind(request: pytest.FixtureRequest) -> MovieFormat:
    return MovieFormat(request.param)


@pytest.fixture(scope="module")
def movie(kind: MovieFormat, depth: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a movie of 18 frames at 23.976 frames a second."""
    folder = tmp_path_factory.mktemp("movie")
    target = folder / f"movie{kind.suffix}"
    paths = frames(folder / "frames", 18, depth)
    made = encode_movie(iter(paths), target, movie_format=kind, frame_rate=_FILM_RATE)
    assert (made.frames, made.width_px, made.height_px) == (18, _WIDTH, _HEIGHT)
    assert made.duration_s == pytest.approx(18 * 1001 / 24000)
    assert sorted(path.name for path in folder.iterdir()) == ["frames", target.name]
    return target


# --- time -------------------------------------------------------------------------------------------------------


def test_every_frame_is_there_once_in_order(movie: Path) -> None:
    assert [mark(shown) for shown in decoded(movie)] == list(range(18))


def test_the_speed_is_exact(movie: Path, kind: MovieFormat) -> None:
    # WebM counts milliseconds, GIF hundredths of a second.
    tick = {WEBM: Fraction(1, 1000), GIF: Fraction(1, 100)}.get(kind, Fraction(0))
    with av.open(str(movie)) as container:
        stream = container.streams.video[0]
        shown = [at_s(picture) for picture in container.decode(stream)]
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(18 / _FILM_RATE, abs=float(tick) + 1e-6)
        if kind is not GIF:
            assert stream.average_rate == _FILM_RATE
    for index, time_s in enumerate(shown):
        assert abs(time_s - index / _FILM_RATE) <= tick / 2


@pytest.mark.parametrize(
    ("rate", "shown", "count"),
    [(12, 12, 12), (50, 50, 12), (60, 30, 6), (Fraction(60000, 1001), Fraction(30000, 1001), 6), (120, 40, 4)],
)
def test_a_gif_leaves_out_what_browsers_would_slow_down(
    tmp_path: Path, rate: Fraction | int, shown: Fraction | int, count: int
) -> None:
    paths, target = frames(tmp_path / "frames", 12), tmp_path / "a.gif"
    made = encode_movie(paths, target, movie_format=GIF, frame_rate=Fraction(rate))
    assert gif_rate(Fraction(rate)) == shown
    pictures = decoded(target)
    assert made.frames == len(pictures) == count
    assert made.duration_s == pytest.approx(12 / rate)
    assert [mark(picture) for picture in pictures] == list(range(0, 12, 12 // count))
    assert min(np.diff([float(at_s(picture)) for picture in pictures])) > 0.0199


@pytest.mark.parametrize("rate", [Fraction(1, 3), Fraction(1), Fraction(25, 2), Fraction(240)])
def test_odd_speeds_are_kept(tmp_path: Path, rate: Fraction) -> None:
    paths = frames(tmp_path / "frames", 6)
    for kind in (H264, PRORES):
        target = tmp_path / f"a{kind.suffix}"
        encode_movie(paths, target, movie_format=kind, frame_rate=rate)
        with av.open(str(target)) as container:
            assert container.streams.video[0].average_rate == rate
            assert container.duration is not None
            assert container.duration / 1e6 == pytest.approx(6 / rate, abs=1e-5)


# --- colours ----------------------------------------------------------------------------------------------------


def test_codec_and_depth_are_those_of_the_format(movie: Path, kind: MovieFormat, depth: str) -> None:
    deep = depth == "uint16"
    expected = {
        H264: ("h264", "yuv420p", "avc1"),
        H265: ("hevc", "yuv420p10le" if deep else "yuv420p", "hvc1"),
        PRORES: ("prores", "yuv422p10le", "apch"),
        WEBM: ("vp9", "yuv420p", None),
        GIF: ("gif", "bgra", None),
    }[kind]
    with av.open(str(movie)) as container:
        context = container.streams.video[0].codec_context
        pixels = next(container.decode(video=0)).format.name
        tag = context.codec_tag if expected[2] else None
        assert (context.codec.canonical_name, pixels, tag) == expected


def test_colours_are_marked(movie: Path, kind: MovieFormat) -> None:
    if kind is GIF:  # it knows sRGB only
        assert decoded(movie)[0].format.is_rgb
        return
    # ITU-T H.273: primaries BT.709 are 1, the transfer of BT.709 is 1, that of sRGB 13, the matrix of BT.709 1.
    shown = decoded(movie)[5]
    assert (shown.color_range, shown.color_primaries, shown.colorspace) == (ColorRange.MPEG, 1, Colorspace.ITU709)
    assert shown.color_trc == (1 if kind is PRORES else 13)


def test_flat_colours_are_those_of_the_frames(movie: Path) -> None:
    shown = colours(decoded(movie)[9])[12, _PATCH_PX // 2 :: _PATCH_PX]
    assert np.abs(shown - _PATCHES).max() <= 3


def test_black_and_white_are_the_ends_of_the_limited_range(movie: Path, kind: MovieFormat) -> None:
    if kind is GIF:
        return
    shown = decoded(movie)[9]
    plane = shown.planes[0]
    is_deep = shown.format.components[0].bits > 8
    luma = np.frombuffer(bytes(plane), np.uint16 if is_deep else np.uint8).reshape(plane.height, -1)
    scale = 4 if is_deep else 1
    assert luma[12, 8] == pytest.approx(16 * scale, abs=scale)
    assert luma[12, 24] == pytest.approx(235 * scale, abs=scale)


def test_a_ramp_has_no_bands(movie: Path, kind: MovieFormat, depth: str) -> None:
    shown = colours(decoded(movie)[9])[40, 4:-4]
    # An ordered dither goes above and below.
    near = 6 if kind is GIF else 2.5
    assert np.abs(shown - ramp()[4:-4, None] * 255).max() <= near
    levels = len(np.unique(shown[:, 1].round(3)))
    # 70 of 255 for 8 bits, limited to 219 in video.
    assert levels >= (100 if depth == "uint16" and kind in (H265, PRORES) else 40)


# --- alpha ------------------------------------------------------------------------------------------------------


def veil(depth: str) -> NDArray[Any]:
    """Return one colour, ever more opaque to the right."""
    pixels = np.empty((32, 64, 4))
    pixels[:, :, :3] = np.array((200, 100, 40)) / 255
    pixels[:, :, 3] = np.linspace(0, 1, 64)
    stored: NDArray[Any] = np.round(pixels * np.iinfo(depth).max).astype(depth)
    return stored


@pytest.mark.parametrize("kind", [H264, H265, WEBM, GIF])
def test_transparent_frames_are_laid_over_black(tmp_path: Path, kind: MovieFormat, depth: str) -> None:
    path = write(tmp_path / "a.png", veil(depth))
    encode_movie([path] * 3, tmp_path / "a.x", movie_format=kind, frame_rate=Fraction(24))
    shown = colours(decoded(tmp_path / "a.x")[1])[16]
    expected = np.linspace(0, 1, 64)[:, None] * (200, 100, 40)
    assert np.abs(shown - expected).max() <= 8


def test_prores_keeps_alpha_beside_the_colours(tmp_path: Path, depth: str) -> None:
    path = write(tmp_path / "a.png", veil(depth))
    encode_movie([path] * 3, tmp_path / "a.mov", movie_format=PRORES, frame_rate=Fraction(24))
    shown = decoded(tmp_path / "a.mov")[1]
    assert shown.format.name.startswith("yuva444p")
    rgba = shown.to_ndarray(format="rgba")[16].astype(int)
    assert np.abs(rgba[:, 3] - np.linspace(0, 255, 64)).max() <= 2
    assert np.abs(rgba[:, :3] - (200, 100, 40)).max() <= 3


def test_prores_of_opaque_frames_has_no_alpha_unless_it_is_wanted(tmp_path: Path) -> None:
    opaque = write(tmp_path / "a.png", np.full((32, 64, 4), (90, 80, 70, 255), np.uint8))
    encode_movie([opaque] * 2, tmp_path / "a.mov", movie_format=PRORES, frame_rate=Fraction(24))
    assert decoded(tmp_path / "a.mov")[0].format.name == "yuv422p10le"
    later = [opaque, write(tmp_path / "b.png", veil("uint8"))]
    encode_movie(later, tmp_path / "b.mov", movie_format=PRORES, frame_rate=Fraction(24), keeps_alpha=True)
    first, second = decoded(tmp_path / "b.mov")
    assert first.to_ndarray(format="rgba")[16, 16, 3] == 255
    assert second.to_ndarray(format="rgba")[16, 0, 3] == 0
    encode_movie(later[::-1], tmp_path / "c.mov", movie_format=PRORES, frame_rate=Fraction(24), keeps_alpha=False)
    assert decoded(tmp_path / "c.mov")[0].format.name == "yuv422p10le"


# --- frames -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_view", [True, False])
def test_light_is_seen_through_the_scenes_view(tmp_path: Path, with_view: bool) -> None:
    light = np.full((32, 64, 4), (0.6, 0.2, 0.05, 1), np.float16)
    path = write(tmp_path / "a.exr", light)
    display = Display(config=blender_config(), settings=ViewSettings(view="AgX")) if with_view else None
    encode_movie([path] * 2, tmp_path / "a.mp4", movie_format=H265, frame_rate=Fraction(24), display=display)
    linear = light[:1, :1, :3].astype(np.float32)
    expected = srgb_encoded(linear) if display is None else display.encode(linear)
    shown = decoded(tmp_path / "a.mp4")[1]
    assert shown.format.name == "yuv420p10le"
    assert np.abs(colours(shown)[16, 32] - expected[0, 0] * 255).max() <= 2


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.webp"])
def test_frames_may_have_any_format(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, np.full((32, 64, 3), (200, 100, 40), np.uint8))
    encode_movie([path] * 2, tmp_path / "a.mp4", movie_format=H264, frame_rate=Fraction(24))
    assert np.abs(colours(decoded(tmp_path / "a.mp4")[1]) - (200, 100, 40)).max() <= 5


def test_odd_sizes_become_even_by_repeating_the_edge(tmp_path: Path, kind: MovieFormat) -> None:
    pixels = np.full((35, 65, 3), (40, 90, 140), np.uint8)
    pixels[-1], pixels[:, -1] = (250, 250, 250), (250, 250, 250)
    path = write(tmp_path / "a.png", pixels)
    made = encode_movie([path] * 2, tmp_path / "a.x", movie_format=kind, frame_rate=Fraction(24))
    shown = colours(decoded(tmp_path / "a.x")[1])
    assert shown.shape[:2] == (made.height_px, made.width_px) == ((35, 65) if kind is GIF else (36, 66))
    assert np.abs(shown[10, 20] - (40, 90, 140)).max() <= 3
    assert np.abs(shown[-1, 20] - 250).max() <= 6
    assert np.abs(shown[10, -1] - 250).max() <= 6


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_frames_are_a_movie(tmp_path: Path, kind: MovieFormat, count: int) -> None:
    paths = frames(tmp_path / "frames", count)
    for _ in range(3):  # libx265 once in a while gave the last ones no time
        encode_movie(paths, tmp_path / "a.x", movie_format=kind, frame_rate=Fraction(25))
        pictures = decoded(tmp_path / "a.x")
        assert [mark(picture) for picture in pictures] == list(range(count))
        assert [at_s(picture) for picture in pictures] == [Fraction(index, 25) for index in range(count)]


def test_frames_are_read_one_after_the_other(tmp_path: Path, kind: MovieFormat) -> None:
    def passing() -> Iterator[Path]:
        for index in range(60):
            path = write(tmp_path / f"{index}.png", grey(index / 60, 32, 32))
            yield path
            path.unlink()

    made = encode_movie(passing(), tmp_path / "a.x", movie_format=kind, frame_rate=Fraction(24))
    assert made.frames == 60


def test_the_same_frames_give_the_same_bytes(tmp_path: Path, kind: MovieFormat, depth: str) -> None:
    # 144 pixels are a width at which libx264's macroblock tree would give other bytes now and then.
    paths = frames(tmp_path / "frames", 18, depth)
    found = set()
    for _ in range(4):
        encode_movie(paths, tmp_path / "a.x", movie_format=kind, frame_rate=_FILM_RATE)
        found.add((tmp_path / "a.x").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("kind", [H264, H265, PRORES])
def test_the_index_is_in_front(tmp_path: Path, kind: MovieFormat) -> None:
    encode_movie(frames(tmp_path / "f", 6), tmp_path / "a.x", movie_format=kind, frame_rate=Fraction(24))
    written = (tmp_path / "a.x").read_bytes()
    assert written.index(b"moov") < written.index(b"mdat")


# --- what makes no movie ----------------------------------------------------------------------------------------


def test_no_frames_make_no_movie(tmp_path: Path, kind: MovieFormat) -> None:
    with pytest.raises(InvalidSettings):
        encode_movie([], tmp_path / "a.x", movie_format=kind, frame_rate=Fraction(24))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [0, -24])
def test_no_speed_makes_no_movie(tmp_path: Path, rate: int) -> None:
    with pytest.raises(InvalidSettings):
        encode_movie([], tmp_path / "a.x", movie_format=H264, frame_rate=Fraction(rate))


def test_a_broken_frame_leaves_what_was_there(tmp_path: Path, kind: MovieFormat) -> None:
    paths = frames(tmp_path / "frames", 4)
    paths[3].write_bytes(paths[3].read_bytes()[:-40])
    target = tmp_path / "a.x"
    target.write_bytes(b"earlier")
    with pytest.raises(BadPicture, match=r"^0003\.png is truncated"):
        encode_movie(paths, target, movie_format=kind, frame_rate=Fraction(24))
    assert target.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.x", "frames"]


def test_frames_of_two_sizes_make_no_movie(tmp_path: Path) -> None:
    paths = [write(tmp_path / "1.png", grey(0.5, 32, 64)), write(tmp_path / "2.png", grey(0.5, 64, 64))]
    with pytest.raises(BadPicture, match=r"^2\.png is 64 x 64, the frames before are 64 x 32$"):
        encode_movie(paths, tmp_path / "a.mp4", movie_format=H264, frame_rate=Fraction(24))


def test_a_size_that_the_encoder_does_not_take_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", grey(0.5, 4, 4))
    with pytest.raises(InvalidSettings, match="h265 does not take frames of 4 x 4"):
        encode_movie([path], tmp_path / "a.mp4", movie_format=H265, frame_rate=Fraction(24))
