"""A scene on its way to a farm: checked, packed with its files, uploaded, inspected."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from renderfarm.cli.console import people, printable, say, size
from renderfarm.client import JSON, FarmClient
from renderfarm.domain.blend_header import check_blend
from renderfarm.domain.states import AssetState
from renderfarm.errors import AssetNotReady, InvalidAsset, InvalidInput
from renderfarm.packing import Package, missing_message, pack_project

#: Opening a heavy scene in Blender takes minutes.
INSPECTION_TIMEOUT_S = 900.0
_POLL_S = 0.2


def check_scene(scene: Path) -> None:
    """Raise InvalidAsset unless the file is a whole .blend."""
    if not scene.exists():
        raise InvalidAsset(f"no such file: {scene}")
    if not scene.is_file():
        raise InvalidAsset(f"not a file: {scene}")
    try:
        with scene.open("rb") as stream:
            check_blend(stream)
    except InvalidAsset as error:
        raise InvalidAsset(f"{scene}: {error}") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {scene}: {error.strerror or error}") from error


@contextmanager
def packed_scene(scene: Path, *, allow_missing: bool) -> Iterator[Package]:
    """Find a scene's external files and give what is to be uploaded, which is gone afterwards if it is a zip.

    Raises:
        MissingFiles: some are missing, and ``allow_missing`` is off.
    """
    with tempfile.TemporaryDirectory(prefix="renderfarm-") as folder:
        package = pack_project(scene, Path(folder) / f"{scene.stem}.zip", allow_missing=allow_missing)
        if package.dependencies.missing:
            say(f"Going on without {missing_message(package.dependencies.missing)}")
        yield package


def upload_scene(client: FarmClient, scene: Path, package: Package) -> JSON:
    """Upload a packed scene; return its asset, which may still be pending."""
    files = len(package.dependencies.files)
    what = f"{scene.name}{f' and {files} files' if files else ''}, {size(package.file.stat().st_size)}"
    with _upload_progress(f"Uploading {what}") as on_progress:
        return client.upload_asset(package.file, name=scene.stem, main=package.main, on_progress=on_progress)


@contextmanager
def _upload_progress(message: str) -> Iterator[Callable[[int, int], None] | None]:
    console = people()
    if not console.is_terminal:
        say(f"{message}…")
        yield None
        return
    with console.status(printable(f"{message}…")) as status:
        yield lambda sent, total: status.update(printable(f"{message}… {100 * sent // max(1, total)}%"))


@contextmanager
def working(message: str) -> Iterator[None]:
    """Tell people what takes a while."""
    console = people()
    if not console.is_terminal:
        say(f"{message}…")
        yield
        return
    with console.status(printable(f"{message}…")):
        yield


def wait_inspected(client: FarmClient, asset: JSON) -> JSON:
    """Return the asset once the farm has opened it in Blender.

    Raises:
        InvalidAsset: the farm rejects it.
        AssetNotReady: not within ``INSPECTION_TIMEOUT_S``.
    """
    deadline = time.monotonic() + INSPECTION_TIMEOUT_S
    with working("Waiting for the farm to open the scene"):
        while asset["status"] == AssetState.PENDING:
            if time.monotonic() > deadline:
                raise AssetNotReady(f"the farm has not opened {asset['name']} within {INSPECTION_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)
            asset = client.get_asset(asset["id"])
    if asset["status"] == AssetState.REJECTED:
        raise InvalidAsset(f"the farm rejects {asset['name']}: {asset['error']['message']}")
    if asset["facts"]["has_scripts"]:
        say("The file carries scripts or scripted drivers; the farm does not run them, so what they change is missing.")
    return asset


def own_output_folder(scene: Path, asset: JSON, scene_name: str | None) -> Path:
    """Return the folder that the file's own output path points to, as Blender takes it.

    Raises:
        InvalidInput: it is a path of another system.
    """
    facts = asset["facts"]
    wanted = scene_name or facts["active_scene"]
    written = next((found["output_path"] for found in facts["scenes"] if found["name"] == wanted), "//")
    if "\\" in written or written[1:2] == ":":
        raise InvalidInput(f"the file's output path is of another system ({written}); name a folder with -o")
    beside = scene.absolute().parent
    # What follows the last slash is the beginning of the files' names.
    folder = written.rpartition("/")[0] + "/" if "/" in written else ""
    return beside / folder[2:] if folder.startswith("//") else beside / folder
