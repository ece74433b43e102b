"""``renderfarm submit``: hand a scene to a running farm and leave."""

from __future__ import annotations

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import say, show, show_json
from renderfarm.cli.farm_process import require_farm
from renderfarm.cli.scenes import check_scene, packed_scene, upload_scene, working
from renderfarm.client import FarmClient
from renderfarm.domain.render_settings import Device, RenderSettings
from renderfarm.settings import Settings


def submit(
    scene: options.Scene,
    frames: options.Frames = None,
    camera: options.Camera = None,
    scene_name: options.SceneName = None,
    view_layer: options.ViewLayer = None,
    engine: options.EngineName = None,
    samples: options.Samples = None,
    resolution: options.Resolution = None,
    percent: options.Percent = None,
    image_format: options.Format = None,
    device: options.DeviceName = Device.AUTO,
    blender: options.BlenderVersion = None,
    frame_timeout: options.FrameTimeout = None,
    allow_missing: options.AllowMissing = False,
    name: options.Name = None,
    priority: options.Priority = 50,
    as_json: options.Json = False,
) -> int:
    """Send a scene to the running farm and print the task's id."""
    width_px, height_px = options.parse_resolution(resolution)
    settings = RenderSettings(
        frames=frames,
        camera=camera,
        scene=scene_name,
        view_layer=view_layer,
        engine=engine,
        samples=samples,
        resolution_x_px=width_px,
        resolution_y_px=height_px,
        percent=percent,
        format=image_format,
        device=device,
        blender=blender,
        allow_missing=allow_missing,
        frame_timeout_s=frame_timeout,
    )
    check_scene(scene)
    url = require_farm(Settings())
    with packed_scene(scene, allow_missing=allow_missing) as package, FarmClient(url) as client:
        asset = upload_scene(client, scene, package)
        with working("Waiting for the farm to open the scene"):
            task = client.submit_task(
                asset["id"], options.settings_json(settings), name=name or scene.stem, priority=priority
            )
    if as_json:
        show_json(task)
    else:
        say(f"{task['name']}: {task['frames_total']} frames in {task['units_total']} units; its task is")
        show(task["id"])
    return exit_codes.COMPLETED
