"""The script generator: what names and settings say stays data."""

from __future__ import annotations

import ast
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderfarm.domain.render_settings import Device, Engine, ImageFormat
from renderfarm.domain.unit_spec import UnitSpec
from renderfarm.services.unit_script import generate_script

NAMES = st.none() | st.text(st.characters(), max_size=80)
SPECS = st.builds(
    UnitSpec,
    scene_file=st.text(min_size=1, max_size=40),
    scene=NAMES,
    view_layer=NAMES,
    camera=NAMES,
    frames=st.lists(st.integers(-1000, 1000), max_size=5).map(tuple),
    folder=st.text(max_size=20),
    unit_id=st.text(max_size=20),
    task_id=st.text(max_size=20),
)


def plain(**changes: object) -> UnitSpec:
    fields: dict[str, object] = dict.fromkeys(UnitSpec.__dataclass_fields__)
    fields |= {
        "scene_file": "scene.blend",
        "frames": (1,),
        "device": Device.AUTO,
        "folder": "",
        "unit_id": "u",
        "task_id": "t",
    }
    return UnitSpec(**(fields | changes))  # type: ignore[arg-type]


def unit_in(script: str) -> dict[str, object]:
    """Return the unit's data by reading the script's syntax, running nothing."""
    (line,) = [node for node in ast.parse(script).body if isinstance(node, ast.AnnAssign)]
    call = line.value
    assert isinstance(line.target, ast.Name)
    assert line.target.id == "UNIT"
    assert isinstance(call, ast.Call)
    assert ast.unparse(call.func) == "json.loads"
    (argument,) = call.args
    assert isinstance(argument, ast.Constant)
    assert isinstance(argument.value, str)
    unit = json.loads(argument.value)
    assert isinstance(unit, dict)
    return unit


def shape(script: str) -> str:
    """Return the script's syntax tree without the unit's data."""
    tree = ast.parse(script)
    tree.body = [node for node in tree.body if not isinstance(node, ast.AnnAssign)]
    return ast.dump(tree)


@given(SPECS)
def test_data_never_become_code(spec: UnitSpec) -> None:
    script = generate_script(spec)
    assert unit_in(script) == json.loads(json.dumps(asdict(spec)))
    assert shape(script) == shape(generate_script(plain()))


@pytest.mark.parametrize(
    "name",
    [
        "'",
        '"',
        "\\",
        "'''; import os; os.system('true') #",
        '"""\nimport os\n"""',
        "line\nbreak\r\u2028\u2029\x00",
        'UNIT: dict[str, Any] = json.loads("{}")\n',
        "{0} %s {unit}",
        "Ω 🎥 \udcff",
    ],
)
def test_hostile_names(name: str) -> None:
    script = generate_script(plain(camera=name, scene=name, view_layer=name, scene_file=name, folder=name))
    unit = unit_in(script)
    assert {unit[key] for key in ("camera", "scene", "view_layer", "scene_file", "folder")} == {name}
    assert shape(script) == shape(generate_script(plain()))


def test_settings_are_written_as_their_values() -> None:
    unit = unit_in(
        generate_script(plain(engine=Engine.EEVEE, format=ImageFormat.OPEN_EXR, device=Device.GPU, samples=8))
    )
    assert (unit["engine"], unit["format"], unit["device"], unit["samples"]) == ("eevee", "OPEN_EXR", "gpu", 8)


def test_the_script_needs_nothing_but_blender() -> None:
    tree = ast.parse(generate_script(plain()))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {
        "__future__",
        "_cycles",
        "argparse",
        "bpy",
        "collections.abc",
        "contextlib",
        "json",
        "math",
        "os",
        "pathlib",
        "re",
        "sys",
        "tempfile",
        "typing",
    }
