"""What a session keeps of a frame for the next: Blender's render data, where that saves time and there is memory.

A session that holds too much gives up its render data first, then its file, then itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blender_runtime.process import memory_bytes

if TYPE_CHECKING:
    import bpy

#: Preparing a frame must take so many times what keeping is to save, for that to be tried again.
_AGAIN = 2.0
#: And warm frames must save so much less for keeping to be a disappointment: short frames differ by milliseconds.
_MISSED = 0.7
#: The first frame of a process takes longer to prepare than any other. What seems to save less than so many times what
#: it must is compared with a second cold frame.
_SURE = 4.0
#: Frames differ, and a machine may stall: only so many disappointments in a row tell something. After each, the next
#: frame is rendered cold, to compare with.
_MISSES_MAX = 2


class Thrift:
    """Of the file that is open. What was given up for a file stays given up: it would grow back."""

    def __init__(self) -> None:
        self._scene_path = ""
        self._file_keeps = False
        self._wanted = "file"
        self._saving_min = 0.0
        """Share of a frame."""
        self._has_data = False
        """There may be something of an earlier frame."""
        self._frame: int | None = None
        """The latest one."""
        self._cold_preparation_s = 0.0
        self._colds = 0
        """Frames that this process has rendered cold."""
        self._pays = True
        self._saved = 0.0
        """Share of a frame that keeping was found to save when it was given up."""
        self._misses = 0
        self._dropped = False
        self._reopened = False

    def opened(self, scene_path: str) -> None:
        """Begin with a file that was opened just now."""
        self._has_data, self._frame, self._pays, self._misses = False, None, True, 0
        if scene_path != self._scene_path:
            self._scene_path, self._dropped, self._reopened = scene_path, False, False

    def chosen(self, scene: bpy.types.Scene) -> None:
        """Take note of what the file itself wants for the scene that is to be rendered."""
        self._file_keeps = scene.render.use_persistent_data

    def keep(self, scene: bpy.types.Scene, wanted: str, *, is_part: bool, saving_min: float) -> None:
        """Keep render data from now on or not: ``auto`` (where it pays), ``on``, ``off``, or as the ``file`` says.

        For parts of a frame it always pays: what is kept is the same frame's.

        Args:
            saving_min: share of a frame, 0 to 1, that keeping must save to pay.
        """
        self._wanted, self._saving_min = wanted, saving_min
        if not self._pays and self._saved >= saving_min:  # it did not for another task
            self._pays, self._misses = True, 0
        # What is burnt into a picture, its time for example, differs from render to render: it could not be verified.
        keeps = {"off": False, "file": self._file_keeps}.get(wanted, not scene.render.use_stamp)
        keeps = keeps and not self._dropped and (self._pays or is_part or wanted != "auto")
        if scene.render.use_persistent_data != keeps:
            scene.render.use_persistent_data = keeps
            self._has_data = False

    def begin(self, scene: bpy.types.Scene, frame: int, *, is_part: bool) -> None:
        """Get ready for a frame, or a part of one: parts are not verified, so they get no data of other frames."""
        if is_part and self._has_data and frame != self._frame:
            self._throw_away(scene)
        self._frame = frame

    def count_frame(self, scene: bpy.types.Scene, preparation_s: float, took_s: float, *, is_part: bool) -> bool:
        """Note that a frame was rendered; tell whether with what is kept of an earlier one. Only Cycles keeps any.

        Args:
            preparation_s: how much of its time went by before its first samples.
        """
        keeps = bool(scene.render.use_persistent_data) and scene.render.engine == "CYCLES"
        is_reused = keeps and self._has_data
        self._has_data = keeps
        self._colds += not is_reused
        if is_part:
            return False
        if is_reused:
            self._frame = None  # what is kept now is not of this frame only
        if self._wanted == "auto":
            self._weigh(scene, preparation_s, took_s, keeps=keeps, is_reused=is_reused)
        return is_reused

    def _weigh(
        self, scene: bpy.types.Scene, preparation_s: float, took_s: float, *, keeps: bool, is_reused: bool
    ) -> None:
        """Decide whether keeping goes on, by what it has saved, or could."""
        if is_reused:
            saved_s = self._cold_preparation_s - preparation_s
            must_s = self._saving_min * (took_s + saved_s)
            if self._colds == 1 and saved_s < _SURE * must_s:
                self._throw_away(scene)
                return
            if saved_s >= _MISSED * must_s:
                self._misses = 0
                return
            self._misses += 1
            if self._misses >= _MISSES_MAX:
                self._stop_keeping(scene, saved_s, took_s + saved_s)
            else:
                self._throw_away(scene)
            return
        self._cold_preparation_s = preparation_s
        if keeps and preparation_s < self._saving_min * took_s:
            self._stop_keeping(scene, preparation_s, took_s)
        elif preparation_s >= _AGAIN * self._saving_min * took_s and self._misses < _MISSES_MAX:
            self._pays = True

    def _throw_away(self, scene: bpy.types.Scene) -> None:
        scene.render.use_persistent_data = False
        scene.render.use_persistent_data = True
        self._has_data = False

    def _stop_keeping(self, scene: bpy.types.Scene, saved_s: float, cold_s: float) -> None:
        told = f"keeping render data saves {max(0.0, saved_s):.3f} s of {cold_s:.3f} s"
        print(f"renderfarm: {told} a frame: it is not kept", flush=True)
        self._saved = max(0.0, saved_s) / cold_s if cold_s > 0 else 0.0
        self._pays = self._has_data = False
        scene.render.use_persistent_data = False

    def forget(self) -> None:
        """Take note that Blender has freed what it kept, as it does when another engine renders."""
        self._has_data = False

    def must_save(self, memory_max_bytes: int) -> bool:
        """Tell whether the session holds more than it may (0: no limit)."""
        return 0 < memory_max_bytes < memory_bytes()

    def drop_data(self, scene: bpy.types.Scene) -> None:
        """Free what is kept of earlier frames, and keep nothing any more.

        Blender frees it as soon as the option is switched off (measured with 4.5: from 1,678 to 811 MiB at once).
        """
        if not self._dropped:
            print(f"renderfarm: {memory_bytes() >> 20} MiB in use: render data is not kept any more", flush=True)
        self._dropped, self._has_data = True, False
        scene.render.use_persistent_data = False

    def must_end(self) -> bool:
        """Tell whether opening the file anew was tried before, and did not help; it is tried now if not."""
        before, self._reopened = self._reopened, True
        what = "the session ends" if before else "the file is opened anew"
        print(f"renderfarm: {memory_bytes() >> 20} MiB in use: {what}", flush=True)
        return before
