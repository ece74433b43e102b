"""``renderfarm render`` on a machine without a farm: it starts one, and takes it down after."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

RENDER = [sys.executable, "-c", "import sys; from renderfarm.cli import run; sys.exit(run(sys.argv[1:]))", "render"]


def _ours(marker: str) -> list[str]:
    """Return the command lines of processes that carry a variable of this test in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RENDERFARM_TEST_MARKER") == marker:
                found.append(" ".join(process.cmdline()) or process.name())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_from_a_scene_to_pictures_with_one_command(scenes: dict[str, Path], tmp_path: Path) -> None:
    marker = str(tmp_path)
    environment = os.environ | {
        "RENDERFARM_DATA": str(tmp_path / "data"),
        "RENDERFARM_RUNTIME": str(tmp_path / "runtime"),
        "RENDERFARM_TEST_MARKER": marker,
    }
    folders = set(Path(tempfile.gettempdir()).glob("renderfarm-ray-*"))
    done = subprocess.run(
        [*RENDER, scenes["cameras"], "-f", "1-2", "-o", tmp_path / "out", "--camera", "all", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["status"], result["error"]) == ("completed", None)
    names = {f"{camera}/shot_{frame:04d}.png" for camera in ("Camera", "Left", "Right") for frame in (1, 2)}
    assert {str(Path(output["path"]).relative_to(tmp_path / "out")) for output in result["outputs"]} == names
    for output in result["outputs"]:
        assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]
        assert output["render_seconds"] > 0
    assert _ours(marker) == []
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert set(Path(tempfile.gettempdir()).glob("renderfarm-ray-*")) <= folders
