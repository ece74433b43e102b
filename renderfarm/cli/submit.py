"""``renderfarm submit``: hand a scene to a running farm and leave."""

from __future__ import annotations

from renderfarm.cli import exit_codes, options
from renderfarm.cli.console import say, show, show_json
from renderfarm.cli.farm_process import require_farm
from renderfarm.cli.scenes import check_scene, packed_scene, upload_scene, wait_inspected
from renderfarm.client import FarmClient
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.settings import Settings


@options.takes_settings
def submit(
    scene: options.Scene,
    settings: RenderSettings,
    name: options.Name = None,
    priority: options.Priority = 50,
    as_json: options.Json = False,
) -> int:
    """Send a scene to the running farm and print the task's id."""
    check_scene(scene)
    url = require_farm(Settings())
    with packed_scene(scene, allow_missing=settings.allow_missing) as package, FarmClient(url) as client:
        asset = wait_inspected(client, upload_scene(client, scene, package))
        task = client.submit_task(
            asset["id"], options.settings_json(settings), name=name or scene.stem, priority=priority
        )
    if as_json:
        show_json(task)
    else:
        say(f"{task['name']} is {task['status']}, {task['frames_total']} frames; its task is")
        show(task["id"])
    return exit_codes.COMPLETED
