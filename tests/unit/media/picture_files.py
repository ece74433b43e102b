"""Pictures for tests, written with OpenImageIO."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
from numpy.typing import NDArray

_TYPES = {"uint8": oiio.UINT8, "uint16": oiio.UINT16, "float16": oiio.HALF, "float32": oiio.FLOAT}
_NAMES = {1: ("Y",), 2: ("Y", "A"), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}


def write(
    path: Path,
    pixels: NDArray[Any],
    names: tuple[str, ...] | None = None,
    *,
    compression: str | None = None,
    is_premultiplied: bool = False,
) -> Path:
    """Write pixels of shape (height, width, channels) in their own depth, alpha as it is; return the path."""
    attributes: dict[str, Any] = {"oiio:UnassociatedAlpha": int(not is_premultiplied)}
    if compression is not None:
        attributes["compression"] = compression
    return write_parts(path, [(pixels, names or _NAMES[pixels.shape[2]])], attributes)


def write_parts(
    path: Path, parts: list[tuple[NDArray[Any], tuple[str, ...]]], attributes: dict[str, Any] | None = None
) -> Path:
    """Write a file of several parts, as Blender 5 writes layers: the pixels and the channels of each."""
    specs = [_spec(pixels, names, attributes or {}) for pixels, names in parts]
    output: Any = oiio.ImageOutput.create(str(path))
    if len(specs) == 1:
        assert output.open(str(path), specs[0]), output.geterror()
    else:
        assert output.open(str(path), tuple(specs)), output.geterror()
    for index, (pixels, _) in enumerate(parts):
        if index:
            assert output.open(str(path), specs[index], "AppendSubimage"), output.geterror()
        assert output.write_image(np.ascontiguousarray(pixels)), output.geterror()
    assert output.close(), output.geterror()
    return path


def _spec(pixels: NDArray[Any], names: tuple[str, ...], attributes: dict[str, Any]) -> Any:
    height, width, count = pixels.shape
    spec = oiio.ImageSpec(width, height, count, _TYPES[pixels.dtype.name])
    spec.channelnames = names
    if len(names) > 1:
        spec.attribute("oiio:subimagename", names[0].rpartition(".")[0])
    for name, value in attributes.items():
        spec.attribute(name, value)
    return spec


def grey(level: float, height_px: int = 18, width_px: int = 32) -> NDArray[np.uint8]:
    """Return an even picture, 8 bits."""
    return np.full((height_px, width_px, 3), round(level * 255), np.uint8)


def blender_config() -> Path:
    """Return the colour configuration of the Blender that tests run with."""
    spec = importlib.util.find_spec("bpy")
    assert spec is not None
    assert spec.origin is not None
    (config,) = Path(spec.origin).parent.glob("*/datafiles/colormanagement/config.ocio")
    return config
