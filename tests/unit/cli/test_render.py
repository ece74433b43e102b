"""``renderfarm render`` and ``submit``, against a farm that runs."""

from __future__ import annotations

import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from renderfarm.cli import farm_process, options
from renderfarm.cli.farm_process import interruptible
from renderfarm.client import FarmClient
from renderfarm.domain.facts import MissingFile
from renderfarm.errors import InvalidSettings
from tests.unit.cli.conftest import Cli, blend_bytes, make_scene
from tests.unit.cli.fake_farm import FakeFarm, picture


def test_render_fetches_every_frame(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    ended = cli("render", scene, "-f", "1-2,7", "-o", tmp_path / "out", "--json")
    assert ended.code == 0
    assert (ended.json["task_id"], ended.json["status"], ended.json["error"]) == ("t1", "completed", None)
    assert [output["frame"] for output in ended.json["outputs"]] == [1, 2, 7]
    for output in ended.json["outputs"]:
        assert Path(output["path"]).read_bytes() == picture(output["frame"])
        assert output.keys() == {"frame", "role", "camera", "path", "sha256", "render_seconds"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0001.png", "0002.png", "0007.png"}


def test_plain_lines_where_there_is_no_terminal(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    ended = cli("render", scene, "-o", tmp_path / "out")
    assert ended.out == ""
    assert ended.err.count("frame ") == 3
    assert f"3 of 3 frames are in {tmp_path / 'out'}" in ended.err


def test_what_became_of_the_wish_to_split_is_told(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    ended = cli("render", scene, "-o", tmp_path / "out", "--split", "tiles:4")
    assert "--split tiles:4: too small" in ended.err
    assert "--split" not in cli("render", scene, "-o", tmp_path / "out").err


def test_a_farm_that_cannot_tell_of_the_wish_to_split(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.has_lost_log = True
    ended = cli("render", scene, "-o", tmp_path / "out", "--split", "tiles:4")
    assert ended.code == 0
    assert "--split tiles:4: whether it was done is not known: " in ended.err


def test_a_movie_is_no_frame(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.makes_movie = True
    ended = cli("render", scene, "-o", tmp_path / "out")
    assert ended.err.count(": frame ") == 3
    assert f": movie  {tmp_path / 'out' / '0001-0003.mp4'}" in ended.err
    assert f"3 of 3 frames are in {tmp_path / 'out'}" in ended.err
    listed = cli("render", scene, "-o", tmp_path / "again", "--json").json["outputs"]
    assert [output["role"] for output in listed] == ["picture"] * 3 + ["movie"]
    table = cli("outputs", "t1").out.splitlines()
    assert next(line for line in table if "0001-0003.mp4" in line).split()[:2] == ["–", "–"]


def test_every_option_reaches_the_farm(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    ended = cli(
        *("render", scene, "-o", tmp_path / "out", "--frames", "-2-1", "--camera", "all", "--scene", "Scene"),
        *("--view-layer", "Front", "--engine", "CYCLES", "--samples", 16, "--resolution", "64x32", "--percent", 50),
        *(
            "--format",
            "open_exr",
            "--device",
            "cpu",
            "--persistent-data",
            "file",
            "--split",
            "tiles:4",
            "--flawed",
            "retry",
            "--movie",
            "webm",
            "--blender",
            "4.5",
            "--name",
            "My task",
            "--priority",
            70,
        ),
        *("--frame-timeout", 90, "--allow-missing"),
    )
    assert ended.code == 0
    assert farm.submitted == [
        {
            "asset_id": "a1",
            "name": "My task",
            "priority": 70,
            "settings": {
                "frames": "-2-1",
                "camera": "all",
                "scene": "Scene",
                "view_layer": "Front",
                "engine": "cycles",
                "samples": 16,
                "resolution_x_px": 64,
                "resolution_y_px": 32,
                "percent": 50,
                "format": "OPEN_EXR",
                "device": "cpu",
                "persistent_data": "file",
                "split": "tiles:4",
                "flawed": "retry",
                "movie": "webm",
                "blender": "4.5",
                "allow_missing": True,
                "frame_timeout_s": 90.0,
            },
        }
    ]


def test_what_is_not_given_is_left_to_the_file(cli: Cli, farm: FakeFarm, scene: Path) -> None:
    assert cli("submit", scene).out == "t1\n"
    order = farm.submitted[0]
    assert (order["name"], order["settings"]) == (
        "scene",
        {
            "device": "auto",
            "persistent_data": "auto",
            "split": "auto",
            "flawed": "flag",
            "allow_missing": False,
        },
    )


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ("//render/shot_", "render"),
        ("//", "."),
        ("//shot_", "."),
        ("", "."),
        ("frames/a/", "frames/a"),
        ("/ABS/deep/", "/ABS/deep"),
        ("//../beside/", "../beside"),
    ],
)
def test_default_output_folder_is_the_files_own(
    cli: Cli, farm: FakeFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, folder: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    scene = make_scene(project / "scene.blend", monkeypatch)
    farm.output_path = written.replace("/ABS", str(tmp_path / "abs"))
    ended = cli("render", scene, "-f", "1", "--json")
    expected = project / folder.replace("/ABS", str(tmp_path / "abs")) / "0001.png"
    assert Path(ended.json["outputs"][0]["path"]).samefile(expected)


def test_external_files_travel_in_a_zip(
    cli: Cli, farm: FakeFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path / "shot.blend", monkeypatch, files=(tmp_path / "wood.png",))
    assert cli("submit", scene, "--json").json["id"] == "t1"
    upload = farm.uploads[0]
    assert b'filename="shot.zip"' in upload
    assert b"the zip" in upload
    assert b'name="main"\r\n\r\nshot/shot.blend' in upload


# --- failure -------------------------------------------------------------------------------------------------


def test_failed_task(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.fails = True
    ended = cli("render", scene, "-o", tmp_path / "out", "--json")
    assert ended.code == 1
    assert "error: scene: no such node\n" in ended.err
    assert ended.json["status"] == "failed"
    assert ended.json["error"]["kind"] == "script_error"
    assert [output["frame"] for output in ended.json["outputs"]] == [1]


NOISE = bytes(range(256)) * 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (NOISE, "not a .blend file"),
        (blend_bytes()[:60], "truncated"),
    ],
)
@pytest.mark.parametrize("command", ["render", "submit"])
def test_bad_file(cli: Cli, tmp_path: Path, content: bytes | None, message: str, command: str) -> None:
    scene = tmp_path / "bad.blend"
    if content is not None:
        scene.write_bytes(content)
    ended = cli(command, scene, "--json")
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert ended.json["error"]["kind"] == "invalid_asset"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-f", ""], "empty"),
        (["-f", "5-1"], "runs backwards"),
        (["-f", "1-99999999"], "beyond Blender's frames"),
        (["--resolution", "1920"], "not a resolution"),
        (["--resolution", "1x1"], "width must be between"),
        (["--percent", "0"], "percent must be between"),
        (["--samples", "x"], "--samples"),
        (["--format", "GIF"], "--format"),
        (["--engine", "luxcore"], "'--engine': 'luxcore' is not one of"),
        (["--frame-timeout", "0"], "positive"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_usage(cli: Cli, scene: Path, arguments: list[str], message: str) -> None:
    ended = cli("render", scene, *arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert message in ended.err


def test_unwritable_output_folder_is_found_first(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = cli("render", scene, "-o", tmp_path / "file" / "out")
    assert ended.code == 2
    assert "error: cannot write" in ended.err
    assert farm.requests == []


def test_unwritable_folder_of_the_files_own_is_found_before_anything_is_queued(
    cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    farm.output_path = "//file/out/"
    assert cli("render", scene).code == 2
    assert farm.submitted == []


def test_a_task_without_files_leaves_no_folder(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    assert cli("render", scene, "-o", tmp_path / "out", "--camera", "Nobody").code == 2
    assert not (tmp_path / "out").exists()


def test_output_path_of_another_system(cli: Cli, farm: FakeFarm, scene: Path) -> None:
    farm.output_path = "C:\\render\\"
    ended = cli("render", scene)
    assert ended.code == 2
    assert "name a folder with -o" in ended.err


MISSING = (MissingFile(path="//wood.png", used_by='Image "wood"'),)


def test_missing_files_are_an_error(cli: Cli, farm: FakeFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene(tmp_path / "scene.blend", monkeypatch, missing=MISSING)
    ended = cli("render", scene, "-o", tmp_path / "out")
    assert (ended.code, ended.err) == (2, 'error: 1 missing file: //wood.png (Image "wood")\n')
    assert farm.requests == []


def test_missing_files_can_be_allowed(
    cli: Cli, farm: FakeFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(tmp_path / "scene.blend", monkeypatch, missing=MISSING)
    ended = cli("render", scene, "-o", tmp_path / "out", "--allow-missing")
    assert ended.code == 0
    assert "Going on without 1 missing file: //wood.png" in ended.err
    assert farm.submitted[0]["settings"]["allow_missing"] is True


def test_rejected_asset(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.rejects = "the file was saved by Blender 9.9, newer than any available here: 4.5.15"
    ended = cli("render", scene, "-o", tmp_path / "out")
    assert ended.code == 2
    assert "newer than any" in ended.err
    assert farm.submitted == []


def test_the_farms_refusal_is_told_in_its_words(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    ended = cli("render", scene, "-o", tmp_path / "out", "--camera", "Nobody", "--json")
    assert ended.code == 2
    assert "error: no camera named 'Nobody'; there is: Camera\n" in ended.err
    assert ended.json["error"]["kind"] == "invalid_settings"


def test_interrupt_cancels_the_task(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.stands_still = True

    def interrupt_when_running() -> None:
        while not any("status" in request for request in farm.requests):
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt_when_running, daemon=True).start()
    ended = cli("render", scene, "-o", tmp_path / "out", "--json")
    assert ended.code == 130
    assert (ended.json["status"], ended.json["error"]["kind"]) == ("cancelled", "interrupted")
    assert farm.tasks["t1"]["status"] == "cancelled"


def test_signals_that_come_together_are_one() -> None:
    """As ``timeout -s INT`` sends them, to the process and to its group: the cancel goes through."""
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_second_interrupt_leaves_before_the_farm_has_cancelled(
    cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm_process, "_ONE_WISH_S", 0.0)
    farm.stands_still = True
    left = threading.Event()

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        left.wait(10)

    def interrupt_when_running() -> None:
        while not any("status" in request for request in farm.requests):
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    farm.on_cancel = interrupt
    threading.Thread(target=interrupt_when_running, daemon=True).start()
    ended = cli("render", scene, "-o", tmp_path / "out", "--json")
    left.set()
    assert ended.code == 130
    assert (ended.json["task_id"], ended.json["status"]) == ("t1", None)
    assert "task t1 may run on; cancel it with: renderfarm cancel t1" in ended.err


def test_a_farm_that_has_no_routes_yet_is_waited_for(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.lost_looks = 2
    assert cli("render", scene, "-o", tmp_path / "out").code == 0


def test_a_farm_that_stays_away_leaves_the_task(cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path) -> None:
    farm.lost_looks = 1000
    ended = cli("render", scene, "-o", tmp_path / "out", "--json")
    assert ended.code == 3
    assert "answered 404 Not Found: no farm is there, or it is not up yet" in ended.err
    assert "Task t1 goes on; fetch its files with: renderfarm outputs t1" in ended.err
    assert (ended.json["task_id"], ended.json["status"]) == ("t1", None)
    assert ended.json["error"]["kind"] == "farm_unavailable"


def test_a_full_disk_leaves_the_files_with_the_farm(
    cli: Cli, farm: FakeFarm, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FarmClient, "download_output", fill)
    ended = cli("render", scene, "-o", tmp_path / "out", "--json")
    assert ended.code == 2
    assert "error: no room left to write" in ended.err
    assert "fetch its files with: renderfarm outputs t1" in ended.err
    assert (ended.json["task_id"], ended.json["error"]["kind"]) == ("t1", "storage_full")


@pytest.mark.parametrize("text", ["1920", "x", "1920x", "1920 x 1080 x 3", "-1x5", "1.5x2", "١x٢"])
def test_resolution_is_width_times_height(text: str) -> None:
    with pytest.raises(InvalidSettings, match="not a resolution"):
        options.parse_resolution(text)
    assert options.parse_resolution("1920X1080") == (1920, 1080)
    assert options.parse_resolution(None) == (None, None)
