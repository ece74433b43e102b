"""A farm that renders nothing: the HTTP API's shapes over a thread, so that the command line has somebody to talk to.

Each look at a task's status finishes one frame. Also runs as a program, in the place of ``python -m serve_app``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from renderfarm.domain.frames import parse_frames

JSON = dict[str, Any]
NOW = "2026-01-02T03:04:05Z"
SCRIPT = "import bpy  # the unit's script\n"
BLENDER_LOG = b"Blender 4.5.15\nFra:1 Sample 1/4\nFra:1 Sample 4/4\nSaved\n"


@dataclass
class FakeFarm:
    """What the farm is to do, and what was asked of it."""

    fails: bool = False
    """Tasks fail after their first frame."""
    stands_still: bool = False
    """Frames are never finished."""
    rejects: str | None = None
    """Why assets are rejected."""
    output_path: str = "//render/"
    scene_name: str = "Scene"
    requests: list[str] = field(default_factory=list)
    submitted: list[JSON] = field(default_factory=list)
    uploads: list[bytes] = field(default_factory=list)
    tasks: dict[str, JSON] = field(default_factory=dict)
    findings: list[JSON] = field(default_factory=list)
    """What a check finds."""
    blind: bool = False
    """A check cannot look into the cache."""
    checks: list[dict[str, list[str]]] = field(default_factory=list)
    """How it was asked to look."""
    dead: list[str] = field(default_factory=list)
    """Ids of dead letters."""
    flaws: list[JSON] = field(default_factory=list)
    """What looks wrong with any task's frames; see ``flaw_of``."""
    previews: list[dict[str, list[str]]] = field(default_factory=list)
    """How a frame was to be seen; it gets brighter each time."""
    in_parts: bool = False
    """Frames are rendered in parts."""
    has_lost_log: bool = False
    """It cannot show any execution log."""
    lost_looks: int = 0
    """So many looks at a task's status are answered as by a Ray Serve that knows no routes yet."""
    on_cancel: Callable[[], None] = lambda: None
    """Called before a task is cancelled."""
    makes_movie: bool = False
    """The first of all outputs is a movie."""

    def __enter__(self) -> FakeFarm:
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    # --- what it says ---------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        always = {"/healthz": {"status": "ok"}, "/api/nodes": {"items": [NODE]}}
        if path in always:
            return 200, always[path]
        if path == "/api/check":
            self.checks.append(query)
            return 200, check_report(self.findings, mend=method == "POST", blind=self.blind)
        if path.startswith("/api/dead-letters"):
            return self._dead(method, query, body)
        if path.startswith("/api/assets"):
            return self._asset(method, body)
        if path == "/api/tasks":
            return self._tasks(method, query, body)
        if path.endswith("/status") and self.lost_looks:
            self.lost_looks -= 1
            return 404, b"Path '/api' not found. Ping http://.../-/routes for available routes."
        match = re.fullmatch(r"/api/tasks/([^/]+)(?:/(.*))?", path)
        if match is None or match[1] not in self.tasks:
            return problem(404, "not_found", f"no task {match[1] if match else path}")
        return self._task(method, self.tasks[match[1]], match[2] or "", query, body)

    def _dead(self, method: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        if method == "GET":
            more = {"topic": "task", "key": "t1", "reason": "no such topic", "died_at": NOW}
            return 200, {"items": [{"id": id_, **more} for id_ in self.dead[: int(query["limit"][0])]]}
        wanted = json.loads(body)["ids"] if body else list(self.dead)
        if body and not set(wanted) & set(self.dead):
            return problem(404, "not_found", f"no dead letter {wanted[0]}")
        self.dead = [id_ for id_ in self.dead if id_ not in wanted]
        return 200, {"replayed": len(wanted)}

    def _asset(self, method: str, body: bytes) -> tuple[int, Any]:
        status, error, facts = "pending", None, None
        if method == "POST":
            self.uploads.append(body)
            return 201, {"id": "a1", "name": "scene", "status": status, "error": None, "facts": None}
        if self.rejects is not None:
            status, error = "rejected", {"kind": "bad_file", "message": self.rejects}
        else:
            status = "ready"
            scene = {"name": self.scene_name, "output_path": self.output_path}
            facts = {"active_scene": self.scene_name, "scenes": [scene], "has_scripts": False}
        return 200, {"id": "a1", "name": "scene", "status": status, "error": error, "facts": facts}

    def _tasks(self, method: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        if method == "GET":
            wanted = query.get("status", [])
            items = [task for task in self.tasks.values() if not wanted or task["status"] in wanted]
            return 200, {"items": items, "total": len(items) + 1, "limit": 50, "offset": 0}
        order = json.loads(body)
        self.submitted.append(order)
        if order["settings"].get("camera") == "Nobody":
            return problem(422, "invalid_settings", "no camera named 'Nobody'; there is: Camera")
        task = self.add_task(order["name"], order["settings"].get("frames") or "1-3")
        return 201, task

    def add_task(self, name: str = "scene", frames: str = "1-3") -> JSON:
        wanted = parse_frames(frames)
        task: JSON = {
            "id": f"t{len(self.tasks) + 1}",
            "name": name,
            "status": "running",
            "progress": 0.0,
            "frames_done": 0,
            "frames_total": len(wanted),
            "units_total": len(wanted),
            "priority": 50,
            "render_seconds": 12.5,
            "error": None,
            "created_at": NOW,
            "revision": 1,
            "frames": wanted,
        }
        self.tasks[task["id"]] = task
        return task

    def _task(self, method: str, task: JSON, what: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any]:
        if what == "preview":
            self.previews.append(query)
            return 200, ppm(int(query["width"][0]), min(int(query["height"][0]), 36), 40 * len(self.previews))
        fixed = {
            "": task,
            "units": {"items": units_of(task, self.in_parts), "total": 1, "limit": 100, "offset": 0},
            "flaws": {"items": self.flaws, "total": len(self.flaws), "limit": 1000, "offset": 0},
            "contact-sheet": SHEET,
            "units/u1/script": SCRIPT.encode(),
            "units/u1/log": BLENDER_LOG,
        }
        if what in fixed:
            return 200, fixed[what]
        if what in ("cancel", "pause", "resume", "retry"):
            return self._change(task, what, body)
        if what == "status":
            return 200, self._status(task)
        if what == "log" and not self.has_lost_log:
            after = int(query["after"][0])
            entries = [entry for entry in LOG if entry["id"] > after]
            return 200, {"items": entries, "next_after": entries[-1]["id"] if entries else after}
        return self._output(task, what, query)

    def _output(self, task: JSON, what: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if what == "outputs":
            offset = int(query["offset"][0])
            items = [MOVIE] if self.makes_movie and task["frames_done"] else []
            items += [output_of(frame) for frame in task["frames"][: task["frames_done"]]]
            return 200, {"items": items[offset:], "total": len(items), "limit": 1000, "offset": offset}
        match = re.fullmatch(r"outputs/o(-?\d+)", what)
        return (200, picture(int(match[1]))) if match else problem(404, "not_found", f"nothing at {what}")

    def _status(self, task: JSON) -> JSON:
        if task["status"] == "running" and not self.stands_still:
            task["frames_done"] += 1
            task["revision"] += 1
            if task["frames_done"] == task["frames_total"]:
                task["status"] = "completed"
            elif self.fails:
                task["status"], task["error"] = "failed", {"kind": "script_error", "message": "no such\nnode"}
        task["progress"] = 100.0 * task["frames_done"] / task["frames_total"]
        names = ("status", "progress", "frames_done", "frames_total", "error", "revision")
        return {"task_id": task["id"], "eta_seconds": 7.0, **{name: task[name] for name in names}}

    def _change(self, task: JSON, step: str, body: bytes) -> tuple[int, Any]:
        if task["status"] in ("completed", "cancelled") and step != "retry":
            return problem(409, "illegal_transition", f"cannot {step} a {task['status']} task")
        if step == "cancel":
            self.on_cancel()
        after = {"cancel": "cancelled", "pause": "paused", "resume": "running", "retry": "queued"}
        task["status"] = after[step]
        if step == "retry":
            task["retried"] = json.loads(body or b"{}")
        return 200, task


def check_report(findings: list[JSON], *, mend: bool, blind: bool) -> JSON:
    told = [{**finding, "repaired": mend and finding["repairable"]} for finding in findings]
    repaired = sum(finding["repaired"] for finding in told)
    return {
        "findings": told,
        "repaired": repaired,
        "remaining": len(told) - repaired,
        "looked_at": {"tasks": 3, "running_units": 1},
        "not_looked_at": {"stale_status": "Redis does not answer"} if blind else {},
        "more": [],
        "seconds": 2.5,
    }


def units_of(task: JSON, in_parts: bool = False) -> list[JSON]:
    unit: JSON = {"id": "u1", "kind": "render", "camera": None, "frames": "2", "frames_done": 0, "status": "running"}
    if in_parts:
        unit["part"] = {"x0_px": 0, "y0_px": 0, "x1_px": 320, "y1_px": 45}
    more = {"worker_id": "node-1:0", "progress": 40.0, "progress_note": "Sample 13/32", "attempt": 1, "error": None}
    return [unit | more]


SHEET = b"a contact sheet"


def ppm(width: int, height: int, value: int) -> bytes:
    return b"P6\n%d %d\n255\n" % (width, height) + bytes([value, 0, 0]) * (width * height)


def flaw_of(frame: int, kind: str, message: str = "it is wrong", camera: str | None = None) -> JSON:
    return {
        "frame": frame,
        "camera": camera,
        "output_id": f"o{frame}",
        "name": f"{frame:04}.png",
        "kind": kind,
        "message": message,
    }


def picture(frame: int) -> bytes:
    return b"picture of frame %d" % frame


def output_of(frame: int) -> JSON:
    data = picture(frame)
    return {
        "id": f"o{frame}",
        "unit_id": "u1",
        "frame": frame,
        "camera": None,
        "role": "picture",
        "name": f"{frame:04}.png",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "media_type": "image/png",
        "render_seconds": 1.25,
        "committed_at": NOW,
    }


MOVIE = output_of(0) | {"frame": 1, "role": "movie", "name": "0001-0003.mp4", "render_seconds": 0.0}

NODE = {
    "node": "node-1",
    "address": "127.0.0.1",
    "labels": {},
    "gpus": 0,
    "memory_bytes": 8 * 2**30,
    "workers": [
        {
            "id": "node-1:0",
            "status": "busy",
            "blender_versions": ["4.5.15"],
            "threads": 8,
            "gpus": 0,
            "unit_id": "u1",
            "open_scene": "a1",
            "set_aside_until": None,
            "set_aside_reason": None,
            "last_seen_at": NOW,
        }
    ],
}

LOG: list[JSON] = [
    {
        "id": 1,
        "at": NOW,
        "event": "task.state",
        "old": None,
        "new": "queued",
        "reason": "submitted",
        "actor": "user:local",
    },
    {"id": 2, "at": NOW, "event": "unit.state", "old": "ready", "new": "running", "reason": "", "actor": "scheduler"},
    {"id": 3, "at": NOW, "event": "task.split", "old": None, "new": None, "reason": "too small", "actor": "scheduler"},
    {
        "id": 4,
        "at": NOW,
        "event": "task.state",
        "old": "running",
        "new": "completed",
        "reason": "",
        "actor": "worker:1",
    },
]
for _entry in LOG:
    _entry.update(unit_id=None, attempt=None, revision=_entry["id"])


def problem(status: int, code: str, detail: str) -> tuple[int, JSON]:
    return status, {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a command that is interrupted in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _handler_of(farm: FakeFarm) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if url.path.endswith("/events") and self.headers.get("Last-Event-ID") == "3":
                self.send_response(204)
                self.end_headers()
                return
            if url.path.endswith("/events"):
                self._send(
                    200, b'id: 3\nevent: task.state\ndata: {"id":3,"task_id":"t1","unit_id":null,"revision":3}\n\n'
                )
                return
            status, answer = farm.answer(self.command, url.path, parse_qs(url.query), body)
            self._send(status, answer if isinstance(answer, bytes) else json.dumps(answer).encode(), url.path)

        do_GET = do_POST = _handle  # noqa: N815  names that http.server looks for

        def _send(self, status: int, data: bytes, path: str = "/events") -> None:
            kinds = {"/events": "text/event-stream", "/log": "text/plain", "/script": "text/x-python"}
            kind = next((kind for end, kind in kinds.items() if path.endswith(end)), "application/json")
            if status >= 400:
                kind = "application/problem+json"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in (
                ("Attempt", "1"),
                ("Offset", "0"),
                ("Next-Offset", str(len(data))),
                ("Complete", "true"),
            ):
                self.send_header(f"X-Log-{name}", value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


def serve() -> None:
    """Be a farm's process: print where it is, and serve until standard input ends."""
    import os
    from pathlib import Path

    data = Path(sys.argv[sys.argv.index("--data") + 1]) if "--data" in sys.argv else Path.cwd()
    if os.environ.get("FAKE_FARM") == "fails":
        print(json.dumps({"event": "failed", "error": "no Blender here"}), flush=True)
        sys.exit(1)
    if os.environ.get("FAKE_FARM") == "dies":
        print("something broke in Ray", file=sys.stderr, flush=True)
        os._exit(7)
    with FakeFarm(stands_still=os.environ.get("FAKE_FARM") == "stands still") as farm:
        print("noise on standard output")
        print(json.dumps({"event": "ready", "url": farm.url, "pid": os.getpid(), "data": str(data)}), flush=True)
        if os.environ.get("FAKE_FARM") == "leaves":
            while not farm.tasks:
                threading.Event().wait(0.02)
            os._exit(9)
        while sys.stdin.buffer.read(1024):
            continue
