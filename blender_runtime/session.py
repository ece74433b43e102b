"""The loop inside Blender: read a request, do it, reply, until the farm closes the pipe.

Started as ``python -m blender_runtime.session --requests-fd N --replies-fd M`` by a Python that has ``bpy``, or as
``blender --background --factory-startup --python …/session.py -- --requests-fd N --replies-fd M``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import select
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from blender_runtime.handler import Handler
    from blender_runtime.protocol import Error, ProtocolError, Reply, Request

_READ_BYTES = 2**16


def main(argv: list[str]) -> NoReturn:
    """Serve one farm process, and end with it."""
    parser = argparse.ArgumentParser(description="A Blender session of a render farm.")
    parser.add_argument("--requests-fd", type=int, required=True, help="where requests are read")
    parser.add_argument("--replies-fd", type=int, required=True, help="where replies are written")
    parser.add_argument("--threads", type=int, help="threads to render with; default: as the file says")
    options = parser.parse_args(argv)
    _make_package_importable()
    from blender_runtime import process

    process.die_with_parent(options.requests_fd)
    process.write_output_by_line()
    for fd in (options.requests_fd, options.replies_fd):
        os.set_inheritable(fd, False)

    # Only now, as importing bpy takes seconds in which the parent may die.
    with process.on_cores(options.threads):
        from blender_runtime.handler import Handler

    # Ctrl-C reaches the whole process group; what it means is the parent's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = Replies(options.replies_fd)
    serve(options.requests_fd, replies, Handler(replies.send, options.threads))
    process.remove_temporary_files()
    process.end_now(0)


class Replies:
    """Sends replies whole, from whichever of Blender's threads."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "wb", closefd=False)
        self._lock = threading.Lock()

    def send(self, request_id: int, reply: Reply) -> None:
        """Send a reply.

        Raises:
            BrokenPipeError: the farm is gone.
        """
        from blender_runtime import protocol

        with self._lock:
            self._file.write(protocol.encode(request_id, reply))
            self._file.flush()


class Requests:
    """Receives requests in their order, but for those that are withdrawn before their turn comes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._received = select.poll()
        self._received.register(fd, select.POLLIN)
        self._line = b""
        """The beginning of one."""
        self._waiting: deque[tuple[int, Request | ProtocolError]] = deque()
        self._ended = False

    def __iter__(self) -> Iterator[tuple[int, Request | ProtocolError]]:
        """Give each request with its id, and the reason, with id 0, for what is none; wait for the next."""
        while True:
            while not self._ended and (not self._waiting or self._received.poll(0)):
                self._receive()
            if not self._waiting:
                return
            yield self._waiting.popleft()

    def _receive(self) -> None:
        from blender_runtime import protocol

        try:
            received = os.read(self._fd, _READ_BYTES)
        except ConnectionResetError:  # the farm has gone, with a reply unread
            received = b""
        self._ended = not received
        *lines, self._line = (self._line + received).split(b"\n")
        for line in lines:
            try:
                request_id, request = protocol.decode_request(line)
            except protocol.ProtocolError as error:
                self._waiting.append((0, error))
                continue
            if isinstance(request, protocol.Withdraw):
                self._waiting = deque(one for one in self._waiting if one[0] != request_id)
            else:
                self._waiting.append((request_id, request))


def serve(requests_fd: int, replies: Replies, handler: Handler) -> None:
    """Answer requests until the farm says quit or closes the pipe."""
    from blender_runtime import protocol

    replies.send(0, handler.ready())
    try:
        for request_id, request in Requests(requests_fd):
            _answer(replies, handler, request_id, request)
            if isinstance(request, protocol.Quit):
                return
    except BrokenPipeError:
        return


def _answer(replies: Replies, handler: Handler, request_id: int, request: Request | ProtocolError) -> None:
    from blender_runtime import protocol

    try:
        if isinstance(request, protocol.ProtocolError):
            raise request
        replies.send(request_id, protocol.Result(value=handler.answer(request_id, request)))
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 whatever a file or a script does, the session goes on
        handler.forget_file()
        reply = _as_reply(error)
        print(f"renderfarm: {reply.kind}: {reply.message}", file=sys.stderr)
        replies.send(request_id, reply)


def _as_reply(error: Exception) -> Error:
    from blender_runtime import protocol

    # Blender says some things twice: once in the render, once at its end.
    text = "\n".join(dict.fromkeys(str(error).replace("Error: ", "").splitlines()))
    kind = getattr(error, "kind", None)  # a UnitError of the script's own namespace
    if not isinstance(kind, str):
        text = text if isinstance(error, (RuntimeError, OSError)) and text else f"{type(error).__name__}: {text}"
        kind = _kind(error, text)
        traceback.print_exc()  # a UnitError speaks for itself
    return protocol.Error(kind=kind, message=protocol.one_line(text), traceback=traceback.format_exc())


def _kind(error: Exception, text: str) -> str:
    from blender_runtime import protocol

    if isinstance(error, MemoryError):
        return "out_of_memory"
    return protocol.failure_kind(text, "storage" if isinstance(error, OSError) else "script_error")


def _make_package_importable() -> None:
    """Make ``blender_runtime`` importable, and nothing else of the folder it is in.

    That may be the farm's site-packages, whose libraries are not made for Blender's Python.
    """
    here = Path(__file__).resolve().parent
    if sys.path and Path(sys.path[0]).resolve() == here:
        del sys.path[0]
    if "blender_runtime" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "blender_runtime", here / "__init__.py", submodule_search_locations=[str(here)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["blender_runtime"] = package
        spec.loader.exec_module(package)


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:])
