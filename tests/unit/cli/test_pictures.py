"""What a task's pictures look like, on the command line and in a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from renderfarm.cli import display, following, still
from renderfarm.cli.display import LiveDisplay, PlainDisplay
from renderfarm.cli.fetching import Outputs
from renderfarm.cli.half_blocks import HalfBlocks, room_px
from renderfarm.client import FarmClient
from renderfarm.errors import BadPicture
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_farm import SHEET, FakeFarm, flaw_of, ppm

BLACK = flaw_of(12, "black", "the picture is all black")
OUTLIER = flaw_of(40, "outlier", "the picture is unlike the frames before and after it")


# --- flaws ---------------------------------------------------------------------------------------------------


def test_flaws(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    assert (cli("flaws", "t1").out, cli("flaws", "t1").err) == ("", "Nothing looks wrong.\n")
    farm.flaws = [BLACK, OUTLIER]
    assert [line.split()[:4] for line in cli("flaws", "t1").out.splitlines()[1:]] == [
        ["12", "–", "0012.png", "black"],
        ["40", "–", "0040.png", "outlier"],
    ]
    assert cli("flaws", "t1", "--json").json == {"items": [BLACK, OUTLIER], "total": 2}
    assert cli("flaws", "nope").err == "error: no task nope\n"


def test_watching_ends_with_what_looks_wrong(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    farm.flaws = [BLACK, OUTLIER]
    assert cli("watch", "t1").err.splitlines()[-1] == (
        "2 frames look wrong: 12 (all black), 40 (unlike its neighbours); see renderfarm flaws t1"
    )
    assert cli("watch", "t1", "--json").json["flaws"] == [BLACK, OUTLIER]


def test_rendering_ends_with_what_looks_wrong(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.flaws = [flaw_of(1, "pink", camera="Top"), flaw_of(1, "not_a_number", camera="Top")]
    ended = cli("render", scene, "-o", tmp_path / "out", "--json")
    assert ended.err.splitlines()[-1] == (
        "1 frame looks wrong: 1 from Top (pink as a missing texture, not a number); see renderfarm flaws t1"
    )
    assert ended.json["flaws"] == farm.flaws


def test_of_many_only_some_are_named(cli: Cli, farm: FakeFarm) -> None:
    farm.add_task()
    farm.flaws = [flaw_of(frame, "black") for frame in range(1, 9)]
    assert (
        "8 frames look wrong: 1 (all black), 2 (all black), 3 (all black), 4 (all black), 5 (all black), and 3 more;"
        in cli("watch", "t1").err
    )


def test_a_farm_that_does_not_know_of_flaws(cli: Cli, farm: FakeFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    farm.add_task()
    answer = farm.answer
    monkeypatch.setattr(
        farm, "answer", lambda method, path, *rest: answer(method, path.replace("flaws", "flows"), *rest)
    )
    ended = cli("watch", "t1", "--json")
    assert (ended.code, ended.json["flaws"]) == (0, [])
    assert "Whether frames look wrong is not known" in ended.err


# --- the contact sheet ---------------------------------------------------------------------------------------


def test_contact_sheet(cli: Cli, farm: FakeFarm, tmp_path: Path) -> None:
    farm.add_task()
    assert cli("contact-sheet", "t1").code == 0
    assert Path("t1.jpg").read_bytes() == SHEET
    named = tmp_path / "sheet.JPG"
    assert cli("contact-sheet", "t1", "-o", named, "--camera", "Top", "--json").json == {
        "task_id": "t1",
        "path": str(named),
    }
    assert named.read_bytes() == SHEET


@pytest.mark.parametrize(("name", "message"), [("sheet.png", "is a JPEG"), ("no/sheet.jpg", "cannot write")])
def test_contact_sheet_to_nowhere(cli: Cli, farm: FakeFarm, name: str, message: str) -> None:
    farm.add_task()
    ended = cli("contact-sheet", "t1", "-o", name)
    assert ended.code == 2
    assert message in ended.err


# --- a picture in a terminal ---------------------------------------------------------------------------------


Colours = Literal["standard", "truecolor"]


def terminal(width: int = 80, height: int = 40, colours: Colours = "truecolor") -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=colours)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_two_pixels_a_character() -> None:
    console = terminal()
    red, green, blue, white = b"\xff\0\0", b"\0\xff\0", b"\0\0\xff", b"\xff\xff\xff"
    console.print(HalfBlocks(b"P6\n2 3\n255\n" + red + green + blue + white + red + red), end="")
    assert shown(console) == (
        "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m\x1b[38;2;0;255;0;48;2;255;255;255m▀\x1b[0m\n"
        "\x1b[38;2;255;0;0m▀▀\x1b[0m\n"
    )


@pytest.mark.parametrize("data", [b"", b"P3\n1 1\n255\n0 0 0", ppm(4, 4, 1)[:-1], ppm(4, 4, 1) + b"x"])
def test_what_is_no_ppm(data: bytes) -> None:
    with pytest.raises(BadPicture):
        HalfBlocks(data)


def test_there_is_room_on_a_large_terminal_only() -> None:
    assert room_px(terminal(80, 24), 4) == (79, 40)
    assert room_px(terminal(300, 90), 4) == (80, 172)
    assert room_px(terminal(30, 24), 4) is None
    assert room_px(terminal(80, 10), 4) is None
    assert room_px(terminal(colours="standard"), 4) is None
    assert room_px(Console(file=io.StringIO(), width=80, height=40), 4) is None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal, and nobody who waits."""
    console = terminal()
    monkeypatch.setattr(still, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(following, "POLL_S", 0.0)
    monkeypatch.setattr(display, "people", lambda: console)
    return console


def test_a_still_fills_in(farm: FakeFarm, quick: Console) -> None:
    farm.add_task()
    farm.in_parts = True
    with FarmClient(farm.url) as client, LiveDisplay("still") as live:
        following.follow_task(client, "t1", live, Outputs(client, "t1", None))
    assert [(query["frame"], query["width"], query["height"]) for query in farm.previews] == [
        (["2"], ["79"], ["72"])
    ] * 3
    # The last look is at the whole picture.
    assert "38;2;120;0;0;48;2;120;0;0m" + "▀" * 79 in shown(quick)


def test_nothing_is_asked_where_nothing_can_be_shown(farm: FakeFarm, quick: Console) -> None:
    farm.add_task()
    farm.in_parts = True
    with FarmClient(farm.url) as client, PlainDisplay("still") as plain:
        following.follow_task(client, "t1", plain, Outputs(client, "t1", None))
    farm.add_task()
    farm.in_parts = False
    with FarmClient(farm.url) as client, LiveDisplay("whole frames") as live:
        following.follow_task(client, "t2", live, Outputs(client, "t2", None))
    assert farm.previews == []


def test_a_preview_that_fails_harms_nobody(farm: FakeFarm, quick: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    farm.add_task()
    farm.in_parts = True
    monkeypatch.setattr("tests.unit.cli.fake_farm.ppm", lambda *_: b"no picture")
    with FarmClient(farm.url) as client, LiveDisplay("still") as live:
        ended = following.follow_task(client, "t1", live, Outputs(client, "t1", None))
    assert ended["status"] == "completed"
    assert "▀" not in shown(quick)
