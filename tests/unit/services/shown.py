"""Tasks with real pictures, for tests of what is made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest
from numpy.typing import NDArray

from renderfarm.domain.flaws import Flaw, Glance
from renderfarm.domain.leases import Lease, RenderedFile
from renderfarm.domain.models import Output
from renderfarm.domain.parts import OVERSCAN_PX, SampleRange, Tile
from renderfarm.services import results
from tests.unit.pictures import write_exr
from tests.unit.services.story import Story

#: Of the scene that stories tell of.
WIDTH_PX, HEIGHT_PX = 320, 180
PASSES = ("ViewLayer.Combined.R", "ViewLayer.Combined.G", "ViewLayer.Combined.B", "ViewLayer.Combined.A")


@dataclass
class Shown:
    """A story whose frames are real files."""

    story: Story
    folder: Path

    def commit(
        self, lease: Lease, frame: int, content: bytes, *, name: str | None = None, glance: Glance | None = None
    ) -> Output:
        """Commit a frame of one file."""
        source = self.folder / "file"
        source.write_bytes(content)
        digest = self.story.farm.objects.put(source)
        file = RenderedFile(name=name or f"{frame:04d}.png", digest=digest, size_bytes=len(content), glance=glance)
        [outputs] = results.commit_frames(self.story.farm, [self.story.frame_commit(lease, frame, file)])
        assert outputs is not None
        return outputs[0]

    def seen(self, lease: Lease, frame: int, value: int, *flaws: Flaw) -> Output:
        """Commit a frame that was looked at: grey all over."""
        return self.commit(lease, frame, b"%d" % value, glance=Glance(impression=bytes([value]) * 576, flaws=flaws))

    def commit_part(self, lease: Lease, whole: NDArray[np.float32]) -> Output:
        """Commit the part of a linear picture, shape (height, width, 4), that a lease's unit is about."""
        unit = self.story.begin(lease).unit
        pixels = whole
        if isinstance(unit.part, Tile):
            # As with adaptive sampling: with a rim, whose pixels are nobody's.
            region = unit.part.grown(OVERSCAN_PX, WIDTH_PX, HEIGHT_PX)
            pixels = whole[HEIGHT_PX - region.y1_px : HEIGHT_PX - region.y0_px].copy()
            top = region.y1_px - unit.part.y1_px
            pixels[:top] = pixels[top + unit.part.y1_px - unit.part.y0_px :] = (9, 0, 0, 1)
        else:
            assert isinstance(unit.part, SampleRange)
        path = write_exr(self.folder / "part.exr", pixels, PASSES)
        return self.commit(lease, unit.frames[0], path.read_bytes(), name=f"{unit.frames[0]:04d}.exr")

    def count_fetches(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Return a list to which every digest is added that is fetched from now on."""
        fetched: list[str] = []
        fetch = self.story.farm.objects.fetch

        def noted(digest: str, target: Path) -> None:
            fetched.append(digest)
            fetch(digest, target)

        monkeypatch.setattr(self.story.farm.objects, "fetch", noted)
        return fetched


def decoded(content: bytes, folder: Path, suffix: str) -> NDArray[np.uint8]:
    """Return a picture's pixels."""
    path = folder / f"decoded{suffix}"
    path.write_bytes(content)
    source = oiio.ImageInput.open(str(path))
    assert source is not None, oiio.geterror()
    pixels = source.read_image(0, 0, 0, 3, oiio.UINT8)
    source.close()
    return np.asarray(pixels)
