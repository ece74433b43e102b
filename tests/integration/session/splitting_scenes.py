"""Scenes for splitting frames: a cube, a ball and a monkey of several materials, at 96 x 54."""

from __future__ import annotations

_COMMON = """
layer, cycles = scene.view_layers[0], scene.cycles
scene.render.resolution_x, scene.render.resolution_y = 96, 54
cycles.samples, cycles.denoiser = 32, "OPENIMAGEDENOISE"
bpy.ops.mesh.primitive_plane_add(size=12, location=(0, 0, -1))
plane = bpy.context.object
bpy.ops.mesh.primitive_monkey_add(location=(1.5, -2.5, 0.2))
monkey = bpy.context.object
bpy.ops.mesh.primitive_uv_sphere_add(location=(-2, 1.5, 0.2))
ball = bpy.context.object

def node_tree(owner):
    if bpy.app.version < (5, 0):
        owner.use_nodes = True
    return owner.node_tree

def colour(item, rgb, metallic, roughness):
    material = bpy.data.materials.new(item.name)
    shader = node_tree(material).nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*rgb, 1)
    shader.inputs["Metallic"].default_value = metallic
    shader.inputs["Roughness"].default_value = roughness
    item.data.materials.clear()
    item.data.materials.append(material)
    return material

colour(cube, (0.8, 0.2, 0.1), 0, 0.5)
gold = colour(monkey, (0.9, 0.8, 0.3), 1, 0.2)
colour(ball, (0.1, 0.3, 0.9), 0, 0.5)
floor = colour(plane, (0.5, 0.6, 0.5), 0, 0.5)
light = bpy.data.objects["Light"]
light.data.energy, light.data.shadow_soft_size = 1200, 1.5
world = node_tree(scene.world)
world.nodes["Background"].inputs[0].default_value = (0.2, 0.3, 0.5, 1)

def write(file_format, depth="32"):
    image = scene.render.image_settings
    if hasattr(image, "media_type"):
        image.media_type = "MULTI_LAYER_IMAGE" if file_format.endswith("MULTILAYER") else "IMAGE"
    image.file_format, image.color_depth = file_format, depth

def adapt(threshold=0.05, samples=100):
    cycles.use_adaptive_sampling, cycles.adaptive_threshold, cycles.samples = True, threshold, samples

def compositor():
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group = tree
        return tree, tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("NodeGroupOutput")
    scene.use_nodes = True
    tree = scene.node_tree
    tree.nodes.clear()
    return tree, tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeComposite")

def file_output(tree, socket):
    node = tree.nodes.new("CompositorNodeOutputFile")
    if hasattr(node, "directory"):
        node.directory, node.file_name = "/nowhere", "extra"
        node.format.media_type = "IMAGE"
        node.file_output_items.new("RGBA", "Image")
    else:
        node.base_path = "/nowhere"
    node.format.file_format, node.format.color_depth = "OPEN_EXR", "32"
    tree.links.new(socket, node.inputs[0])

def add_strip():
    editor = scene.sequence_editor_create()
    if bpy.app.version < (5, 0):
        editor.sequences.new_effect("colour", "COLOR", 1, 1, frame_end=10)
    else:
        editor.strips.new_effect("colour", "COLOR", 1, 1, length=10)

def light_group(name):
    bpy.ops.scene.view_layer_add_lightgroup(name=name)
    light.lightgroup = name

def aov(name, rgb):
    layer.aovs.add().name = name
    node = gold.node_tree.nodes.new("ShaderNodeOutputAOV")
    node.aov_name, node.inputs[0].default_value = name, (*rgb, 1)

write("OPEN_EXR_MULTILAYER")
"""

_PASSES = """
for name in ("z", "normal", "mist", "position", "vector", "uv", "object_index", "material_index", "diffuse_direct",
             "diffuse_color", "glossy_indirect", "emit", "environment", "ambient_occlusion", "cryptomatte_object"):
    setattr(layer, f"use_pass_{name}", True)
layer.cycles.denoising_store_passes = True
light_group("key")
aov("my.aov", (0.3, 0.6, 0.9))
second = scene.view_layers.new("Zweite Ébene.2")
second.cycles.use_denoising = False
second.use_pass_cryptomatte_material = second.use_pass_z = True
third = scene.view_layers.new("Third")
third.use_pass_position = True
"""

_DENOISE = "cycles.use_denoising = True\n"

#: Every one of these is split into tiles, and must be the whole render to the last bit.
TILED = {
    "plain": "cycles.samples = 100",
    "adaptive": "adapt()",
    "denoised": _DENOISE + "layer.use_pass_cryptomatte_object = True",
    "adaptive_denoised": _DENOISE + "adapt()",
    **{
        f"denoised_{prefilter}_{passes}".lower(): _DENOISE
        + f"adapt(); cycles.denoising_prefilter = {prefilter!r}; cycles.denoising_input_passes = {passes!r}"
        for prefilter, passes in (
            ("NONE", "RGB"),
            ("NONE", "RGB_ALBEDO_NORMAL"),
            ("FAST", "RGB_ALBEDO"),
            ("FAST", "RGB_ALBEDO_NORMAL"),
        )
    },
    # Few pixels stop at the same sample as their neighbours: each seam has many chances to show.
    "noisy": """
adapt(0.1, 512)
cycles.use_animated_seed = True
scene.render.resolution_x, scene.render.resolution_y = 160, 136
light.data.energy, light.data.shadow_soft_size = 600, 0.05
world.nodes["Background"].inputs[0].default_value = (0.02, 0.02, 0.02, 1)
floor.node_tree.nodes["Principled BSDF"].inputs["Metallic"].default_value = 1
""",
    "denoised_quickly": _DENOISE + "adapt(); cycles.denoising_quality = 'FAST'",
    "layers_and_passes": _DENOISE + "adapt(samples=20)\n" + _PASSES,
    "layers_and_passes_plain": _PASSES,
    "transparent": _DENOISE + "adapt(); scene.render.film_transparent = True",
    "exposed": "adapt(); cycles.film_exposure = 1.7",
    "shadow_catcher": "adapt(); plane.is_shadow_catcher = True; scene.render.film_transparent = True",
    "counted": "cycles.samples = 64; layer.cycles.pass_debug_sample_count = True\n" + _DENOISE,
    "small_cycles_tiles": _DENOISE + "adapt(); cycles.use_auto_tile, cycles.tile_size = True, 32",
    "small_cycles_tiles_plain": "cycles.use_auto_tile, cycles.tile_size = True, 24",
    "blurred": _DENOISE
    + """
adapt()
scene.render.use_motion_blur = True
scene.camera.data.dof.use_dof = True
scene.camera.data.dof.focus_object, scene.camera.data.dof.aperture_fstop = cube, 0.5
cycles.rolling_shutter_type = "TOP"
""",
    "panorama": """
scene.camera.data.type = "PANO"
owner = scene.camera.data if hasattr(scene.camera.data, "panorama_type") else scene.camera.data.cycles
owner.panorama_type = "EQUIRECTANGULAR"
""",
    # Since Blender 5.0, volumes look at the pixels around by default.
    "volume": """
if hasattr(cycles, "volume_biased"):
    cycles.volume_biased = True
fog = world.nodes.new("ShaderNodeVolumePrincipled")
fog.inputs["Density"].default_value = 0.05
world.links.new(fog.outputs[0], world.nodes["World Output"].inputs["Volume"])
""",
    "window_coordinates": """
tree = floor.node_tree
place, noise = tree.nodes.new("ShaderNodeTexCoord"), tree.nodes.new("ShaderNodeTexNoise")
tree.links.new(place.outputs["Window"], noise.inputs["Vector"])
tree.links.new(noise.outputs["Color"], tree.nodes["Principled BSDF"].inputs["Base Color"])
""",
    "adaptive_subdivision": """
modifier = monkey.modifiers.new("Subdivision", "SUBSURF")
if hasattr(modifier, "use_adaptive_subdivision"):
    modifier.use_adaptive_subdivision = True
else:
    cycles.feature_set = "EXPERIMENTAL"
    monkey.cycles.use_adaptive_subdivision = True
cycles.dicing_rate, cycles.offscreen_dicing_scale = 2, 16
monkey.location.x -= 2
monkey.scale = (2, 2, 2)
""",
    "culled": """
scene.render.use_simplify = cycles.use_camera_cull = True
cycles.camera_cull_margin = 0
for item in scene.objects:
    item.cycles.use_camera_cull = True
""",
    "small_percentage": "scene.render.resolution_x, scene.render.resolution_y = 301, 173\n"
    "scene.render.resolution_percentage = 33",
    "png": _DENOISE + "adapt(); write('PNG', '8')",
    "png_16": _DENOISE + "adapt(); write('PNG', '16'); scene.view_settings.exposure = 0.5",
    "jpeg": _DENOISE + "adapt(); write('JPEG', '8'); scene.view_settings.view_transform = 'Standard'",
    "exr_of_its_own_colours": "adapt(); write('OPEN_EXR'); image = scene.render.image_settings\n"
    "image.color_management = 'OVERRIDE'; image.linear_colorspace_settings.name = 'ACEScg'",
    "stamped": "write('PNG', '8'); render = scene.render; render.use_stamp = True\n"
    "render.use_stamp_render_time = render.use_stamp_date = render.use_stamp_memory = False",
    "composited": _DENOISE
    + """
adapt()
write("PNG", "16")
layer.use_pass_z = layer.use_pass_normal = True
tree, passes, output = compositor()
glare, blur, depth = (tree.nodes.new(f"CompositorNode{name}") for name in ("Glare", "Blur", "Normalize"))
mix = tree.nodes.new("CompositorNodeAlphaOver")
if hasattr(blur, "size_x"):
    blur.size_x = blur.size_y = 4
else:
    blur.inputs["Size"].default_value = (4, 4)
tree.links.new(passes.outputs["Image"], glare.inputs[0])
tree.links.new(glare.outputs[0], blur.inputs[0])
tree.links.new(passes.outputs["Depth"], depth.inputs[0])
tree.links.new(blur.outputs[0], mix.inputs[1])
tree.links.new(depth.outputs[0], mix.inputs[2])
tree.links.new(blur.outputs[0], output.inputs[0])
file_output(tree, mix.outputs[0])
""",
    "composited_multilayer": _DENOISE
    + """
layer.use_pass_cryptomatte_object = True
tree, passes, output = compositor()
matte = tree.nodes.new("CompositorNodeCryptomatteV2")
matte.matte_id = "Suzanne"
tree.links.new(passes.outputs["Image"], matte.inputs[0])
tree.links.new(matte.outputs[0], output.inputs[0])
""",
}

#: Every one of these is split into ranges of samples.
RANGED = {
    "ranges": "",
    "ranges_transparent": "cycles.samples = 50; scene.render.film_transparent = True",
    "ranges_blue_noise": "cycles.sampling_pattern = 'BLUE_NOISE'",
    "ranges_scrambled": "cycles.sampling_pattern, cycles.scrambling_distance = 'TABULATED_SOBOL', 0.3",
    "ranges_of_passes": """
for name in ("normal", "mist", "uv", "diffuse_color", "glossy_color", "emit", "environment", "ambient_occlusion"):
    setattr(layer, f"use_pass_{name}", True)
layer.cycles.denoising_store_passes = layer.cycles.pass_debug_sample_count = True
layer.cycles.use_pass_volume_direct = True
light_group("key")
aov("my.aov", (0.3, 0.6, 0.9))
scene.render.use_motion_blur = True
cycles.film_exposure = 1.7
""",
}

DENOISED_RANGES = {"ranges_denoised": _DENOISE}

#: What keeps a scene from being split, and a word of the reason: for tiles, then for ranges of samples.
REFUSED = {
    "views": ("scene.render.use_multiview = True", "several views", "several views"),
    "freestyle": ("scene.render.use_freestyle = True", "Freestyle", "Freestyle"),
    "grease_pencil": ("bpy.ops.object.grease_pencil_add(type='MONKEY')", "Grease Pencil", "Grease Pencil"),
    "region": ("scene.render.use_border = True", "a region", "a region"),
    "render_time": ("scene.render.use_stamp = True", "render time", "render time"),
    "strips": ("add_strip()", "video sequencer", "video sequencer"),
    "other_scene": (
        "tree, passes, output = compositor()\npasses.scene = bpy.data.scenes.new('Other')",
        "scene 'Other'",
        "scene 'Other'",
    ),
    "guiding": ("cycles.use_guiding = True", "path guiding", "path guiding"),
    "time_limit": ("cycles.time_limit = 10", "time limit", "time limit"),
    "long_name": (
        "layer.name = 'A view layer with a name that is as long as Blender takes it'",
        "too long",
        "too long",
    ),
    "counted_adaptively": (
        "adapt(); layer.cycles.pass_debug_sample_count = True",
        "Debug Sample Count",
        "Debug Sample",
    ),
    "exposed_denoised": (_DENOISE + "cycles.film_exposure = 1.7", "exposure", "exposure"),
    "catcher_denoised": (_DENOISE + "plane.is_shadow_catcher = True", "shadow catchers", "shadow catchers"),
    "odd_samples": (_DENOISE + "cycles.samples = 100", "a power of two can", "a power of two can"),
    "odd_layer": (_DENOISE + "layer.samples = 100", "no power of two", "no power of two"),
    "adaptive_ranges": ("adapt()", None, "adaptive sampling decides"),
    "subset": ("cycles.use_sample_subset = True", None, "subset of its samples"),
    "layer_samples": ("layer.samples = 16", None, "number of samples of its own"),
    "catcher": ("plane.is_shadow_catcher = True", None, "shadow catchers"),
    "depth": ("layer.use_pass_z = True", None, "the pass Depth"),
    "cryptomatte": ("layer.use_pass_cryptomatte_object = True", None, "the pass CryptoObject00"),
    "direct": ("layer.use_pass_diffuse_direct = True", None, "the pass Diff"),
}


def edits() -> dict[str, str]:
    """Return the change that makes each scene, by name."""
    own = TILED | RANGED | DENOISED_RANGES | {name: edit for name, (edit, _, _) in REFUSED.items()}
    return {name: _COMMON + edit for name, edit in own.items()}
