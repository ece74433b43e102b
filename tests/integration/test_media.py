"""What Blender itself writes, opened, shown and judged by ``renderfarm.media``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from renderfarm.domain.facts import ViewSettings
from renderfarm.domain.flaws import FlawKind
from renderfarm.media.comparing import difference
from renderfarm.media.display import Display, colours_over_black, display_colours
from renderfarm.media.flaws import picture_flaws
from renderfarm.media.pictures import open_picture
from tests.unit.media.picture_files import blender_config, write

#: View, look, exposure and gamma: every view of the sRGB display, looks of each kind, and what else there is to set.
VIEWS = [
    ("Standard", "None", 0.0, 1.0),
    ("Khronos PBR Neutral", "None", 0.0, 1.0),
    ("AgX", "None", 0.0, 1.0),
    ("Filmic", "None", 0.0, 1.0),
    ("Filmic Log", "None", 0.0, 1.0),
    ("False Color", "None", 0.0, 1.0),
    ("Raw", "None", 1.0, 1.0),
    ("AgX", "AgX - Punchy", 0.0, 1.0),
    ("AgX", "AgX - Medium High Contrast", 1.5, 1.0),
    ("AgX", "AgX - Greyscale", 0.0, 1.3),
    ("Filmic", "Very High Contrast", -1.0, 1.0),
    ("Standard", "High Contrast", 0.0, 1.0),
    ("Standard", "None", 0.7, 0.8),
]

#: With a Python that is Blender: ``run(edit)`` executes statements that see ``bpy``, ``scene`` and ``folder``.
_RUN = """
import json, os, sys, traceback
import bpy
job = json.load(sys.stdin)
status = 0
try:
    bpy.ops.wm.read_factory_settings()
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 4, False
    scene.render.resolution_x, scene.render.resolution_y = 64, 36
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    image = scene.render.image_settings

    def use(file_format, mode="RGBA", depth=None):
        if hasattr(image, "media_type"):  # since Blender 5.0
            image.media_type = "MULTI_LAYER_IMAGE" if file_format.endswith("MULTILAYER") else "IMAGE"
        image.file_format, image.color_mode = file_format, mode
        if depth:
            image.color_depth = depth

    def render(name):
        scene.render.filepath = job["folder"] + "/" + name
        bpy.ops.render.render(write_still=True)

    exec(job["edit"], {"bpy": bpy, "scene": scene, "use": use, "render": render, **job})
except BaseException:
    traceback.print_exc()
    status = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)
"""


def in_blender(folder: Path, edit: str, **values: object) -> None:
    job = {"folder": str(folder), "edit": edit, **values}
    done = subprocess.run(
        [sys.executable, "-c", _RUN], input=json.dumps(job), capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


# --- colours ----------------------------------------------------------------------------------------------------

_SAVE_ALL = """
scene.render.dither_intensity = 0
for name in ("opaque", "veiled"):
    picture = bpy.data.images.load(f"{folder}/{name}.exr")
    for index, (view, look, exposure, gamma) in enumerate(views):
        settings = scene.view_settings
        settings.view_transform, settings.look = view, "None"
        settings.look, settings.exposure, settings.gamma = look, exposure, gamma
        for mode in ("RGBA", "RGB"):
            for depth in ("8", "16"):
                use("PNG", mode, depth)
                picture.save_render(f"{folder}/{name}_{index}_{mode}_{depth}.png", scene=scene)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two linear pictures, and what Blender makes of them through each view."""
    folder = tmp_path_factory.mktemp("views")
    random = np.random.default_rng(1)
    light = (2 ** random.uniform(-12, 6, (60, 80, 3))).astype(np.float32)
    light[:10] = light[:10, :, :1]
    light[10:20] *= (1, 0, 1)
    light[20:25] -= 0.01
    for name, alpha in (("opaque", np.ones((60, 80, 1))), ("veiled", random.uniform(0.1, 1, (60, 80, 1)))):
        write(folder / f"{name}.exr", np.concatenate([light * alpha, alpha], axis=2).astype(np.float32))
    in_blender(folder, _SAVE_ALL, views=VIEWS)
    return folder


@pytest.mark.parametrize("index", range(len(VIEWS)), ids=[f"{view} {look}" for view, look, *_ in VIEWS])
@pytest.mark.parametrize("name", ["opaque", "veiled"])
def test_light_is_shown_as_blender_shows_it(saved: Path, name: str, index: int) -> None:
    view, look, exposure, gamma = VIEWS[index]
    display = Display(
        config=blender_config(), settings=ViewSettings(view=view, look=look, exposure=exposure, gamma=gamma)
    )
    picture = open_picture(saved / f"{name}.exr")
    # Without alpha, Blender lays the picture over black.
    for mode, shown in (
        ("RGBA", display_colours(picture, display)),
        ("RGB", colours_over_black(picture, display)),
    ):
        for depth, most in ((8, 0.6), (16, 16)):
            theirs = open_picture(saved / f"{name}_{index}_{mode}_{depth}.png").colours(premultiplied=False)
            assert np.abs(shown - theirs).max() * (2**depth - 1) <= most, f"{mode} {depth}"


# --- formats ----------------------------------------------------------------------------------------------------

_WRITE_ALL = """
scene.render.film_transparent = True
layer = scene.view_layers[0]
layer.use_pass_z = layer.use_pass_normal = layer.use_pass_cryptomatte_object = True
scene.view_layers.new("a second")
scene.view_layers["a second"].use = False
scene.render.dither_intensity = 0
for file_format, name, depths in (("PNG", "png", "8 16"), ("TIFF", "tif", "8 16"), ("OPEN_EXR", "exr", "32")):
    for depth in depths.split():
        for mode in ("RGBA", "RGB", "BW"):
            use(file_format, mode, depth)
            render(f"{mode}_{depth}.{name}")
use("OPEN_EXR_MULTILAYER", depth="32")
render("layers.exr")
use("WEBP")
image = scene.render.image_settings
image.quality = 100
render("RGBA_8.webp")
use("JPEG", "RGB")
image.quality = 100
render("RGB_8.jpg")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one picture in each of Blender's formats."""
    folder = tmp_path_factory.mktemp("formats")
    in_blender(folder, _WRITE_ALL)
    return folder


def test_blenders_display_formats_are_one_picture(written: Path) -> None:
    exact = open_picture(written / "RGBA_16.png")
    alpha = exact.alpha()
    assert alpha is not None
    assert ((alpha > 0) & (alpha < 1)).mean() > 0.02  # edges
    for name in ("RGBA_8.png", "RGBA_8.tif", "RGBA_16.tif", "RGBA_8.webp"):
        other = open_picture(written / name)
        own_alpha = other.alpha()
        assert own_alpha is not None
        assert np.abs(own_alpha - alpha).max() < 0.003, name
        near = 0.1 if name.endswith("webp") else 0.003
        apart = np.abs(other.colours(premultiplied=True) - exact.colours(premultiplied=True))
        assert apart.max() < near, name
    black = open_picture(written / "RGB_16.png").colours(premultiplied=False)
    for name, near in (("RGB_8.png", 0.003), ("RGB_8.tif", 0.003), ("RGB_16.tif", 1e-4), ("RGB_8.jpg", 0.1)):
        assert np.abs(open_picture(written / name).colours(premultiplied=False) - black).max() < near, name


def test_blenders_grey_is_grey(written: Path) -> None:
    for name in ("BW_8.png", "BW_16.png", "BW_8.tif", "BW_16.tif", "BW_32.exr"):
        picture = open_picture(written / name)
        assert picture.channels == ("Y",), name
        assert picture.floats().max() > 0.1


def test_the_beauty_of_layers_is_the_plain_picture(written: Path) -> None:
    plain, layers = open_picture(written / "RGBA_32.exr"), open_picture(written / "layers.exr")
    assert (plain.is_linear, plain.is_premultiplied) == (layers.is_linear, layers.is_premultiplied) == (True, True)
    np.testing.assert_array_equal(plain.pixels, layers.pixels)


def test_one_picture_written_twice_differs_in_nothing(written: Path, tmp_path: Path) -> None:
    in_blender(tmp_path, _WRITE_ALL)
    for name in ("RGBA_8.png", "RGBA_16.tif", "RGB_8.jpg", "RGBA_32.exr", "layers.exr"):
        found = difference(written / name, tmp_path / name)
        assert found.is_identical, f"{name}: {found}"


# --- flaws ------------------------------------------------------------------------------------------------------

_FLAWED = """
def material(name, colour=None, unlit=False):
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    nodes, links = made.node_tree.nodes, made.node_tree.links
    shader = nodes.new("ShaderNodeEmission") if unlit else nodes["Principled BSDF"]
    links.new(shader.outputs[0], nodes["Material Output"].inputs["Surface"])
    source = shader.inputs["Color" if unlit else "Base Color"]
    if colour:
        source.default_value = (*colour, 1)
    else:
        picture = bpy.data.images.new("wood", 8, 8)
        picture.source, picture.filepath = "FILE", "//nowhere/wood.png"
        texture = nodes.new("ShaderNodeTexImage")
        texture.image = picture
        links.new(texture.outputs["Color"], source)
    return made

cube, lamp = bpy.data.objects["Cube"], bpy.data.objects["Light"]
bpy.ops.mesh.primitive_plane_add(size=20, location=(0, 0, -1))

def render_all(name):
    use("OPEN_EXR", "RGB", "32")
    render(f"{name}.exr")
    for view in ("Standard", "Filmic", "AgX"):
        scene.view_settings.view_transform = view
        use("PNG", "RGB", "8")
        bpy.data.images["Render Result"].save_render(f"{folder}/{name}_{view}.png", scene=scene)

for name, made in (
    ("lit", material("lit")),
    ("unlit", material("unlit", unlit=True)),
    ("honest", material("honest", (1, 0.2, 0.55))),
    ("orchid", material("orchid", (0.7, 0.16, 0.67))),
):
    cube.data.materials.clear()
    cube.data.materials.append(made)
    render_all(name)
lamp.hide_render = True
scene.world = None
render_all("dark")
"""


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures of a cube, with and without its texture, and one without light."""
    folder = tmp_path_factory.mktemp("flawed")
    in_blender(folder, _FLAWED)
    return folder


@pytest.mark.parametrize("view", [None, "Standard", "Filmic", "AgX"])
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("lit", [FlawKind.PINK]),
        ("unlit", [FlawKind.PINK]),
        ("honest", []),
        ("orchid", []),
        ("dark", [FlawKind.BLACK]),
    ],
)
def test_what_is_wrong_is_seen(flawed: Path, name: str, kinds: list[FlawKind], view: str | None) -> None:
    if view is None:
        found = picture_flaws(flawed / f"{name}.exr")
    else:
        display = Display(config=blender_config(), settings=ViewSettings(view=view))
        found = picture_flaws(flawed / f"{name}_{view}.png", display)
    assert [flaw.kind for flaw in found] == kinds
