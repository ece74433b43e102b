"""The script generator: from a unit's spec to a Python script that any Blender can run.

The script is ``blender_runtime/render_unit.py`` itself with one line replaced. The spec enters it as JSON inside
a string literal, so that no name in a scene or a setting can ever become code.
"""

from __future__ import annotations

import functools
from importlib import resources

from renderfarm.domain.unit_spec import UnitSpec

_LINE = 'UNIT: dict[str, Any] = json.loads("{}")\n'


def generate_script(spec: UnitSpec) -> str:
    """Return the self-contained script of a render unit."""
    head, tail = _template()
    return f"{head}UNIT: dict[str, Any] = json.loads({spec.to_json()!r})\n{tail}"


@functools.cache
def _template() -> tuple[str, str]:
    """Return the template's text before and after the line to replace."""
    text = (resources.files("blender_runtime") / "render_unit.py").read_text(encoding="utf-8")
    head, line, tail = text.partition(_LINE)
    if not line or _LINE in tail:
        raise RuntimeError("render_unit.py must have exactly one line for the unit's data")
    return head, tail
