"""What a session keeps of a frame for the next: Blender's render data, unless that takes more memory than there is.

A session gives up its render data first, then its file, then itself.
"""

from __future__ import annotations

import bpy

from blender_runtime.process import memory_bytes


class Thrift:
    """Of the file that is open. What was given up for a file stays given up: it would grow back."""

    def __init__(self) -> None:
        self._scene_path = ""
        self._file_keeps = False
        self._frames = 0
        self._dropped = False
        self._reopened = False

    def opened(self, scene_path: str) -> None:
        """Begin with a file that was opened just now."""
        self._frames = 0
        if scene_path != self._scene_path:
            self._scene_path, self._dropped, self._reopened = scene_path, False, False

    def chosen(self, scene: bpy.types.Scene) -> None:
        """Take note of what the file itself wants for the scene that is to be rendered."""
        self._file_keeps = scene.render.use_persistent_data

    def keep(self, scene: bpy.types.Scene, wanted: bool | None) -> None:
        """Keep render data from now on or not; None: as the file says."""
        # What is burnt into a picture, its time for example, differs from render to render: it could not be verified.
        keeps = self._file_keeps if wanted is None else wanted and not scene.render.use_stamp
        keeps = keeps and not self._dropped
        if scene.render.use_persistent_data != keeps:
            scene.render.use_persistent_data = keeps

    def count_frame(self, scene: bpy.types.Scene) -> bool:
        """Note that a frame was rendered; tell whether with what is kept of an earlier one. Only Cycles keeps any."""
        self._frames += 1
        return bool(scene.render.use_persistent_data) and scene.render.engine == "CYCLES" and self._frames > 1

    def must_save(self, memory_max_bytes: int) -> bool:
        """Tell whether the session holds more than it may (0: no limit)."""
        return 0 < memory_max_bytes < memory_bytes()

    def drop_data(self, scene: bpy.types.Scene) -> None:
        """Free what is kept of earlier frames, and keep nothing any more.

        Blender frees it as soon as the option is switched off (measured with 4.5: from 1,678 to 811 MiB at once).
        """
        if not self._dropped:
            print(f"renderfarm: {memory_bytes() >> 20} MiB in use: render data is not kept any more", flush=True)
        self._dropped = True
        scene.render.use_persistent_data = False

    def must_end(self) -> bool:
        """Tell whether opening the file anew was tried before, and did not help; it is tried now if not."""
        before, self._reopened = self._reopened, True
        what = "the session ends" if before else "the file is opened anew"
        print(f"renderfarm: {memory_bytes() >> 20} MiB in use: {what}", flush=True)
        return before
