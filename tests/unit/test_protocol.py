"""The session's line protocol."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blender_runtime import protocol
from blender_runtime.protocol import ProtocolError, decode_reply, decode_request, encode
from renderfarm.domain.failures import FailureKind

# Names in files may hold lone surrogates: that is how Python carries bytes that are not UTF-8.
TEXT = st.text(st.characters())
IDS = st.integers(0, 2**31)


@given(
    IDS,
    st.one_of(
        *(
            st.builds(cls, **({"value": st.just({"a": [1, None]})} if cls is protocol.Result else {}))
            for cls in get_args(protocol.Reply)
        )
    ).filter(lambda reply: reply == reply),
)
def test_every_reply_comes_back_as_it_was(request_id: int, reply: protocol.Reply) -> None:
    line = encode(request_id, reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == (request_id, reply)


@given(IDS, st.one_of(*(st.builds(cls) for cls in get_args(protocol.Request))))
def test_every_request_comes_back_as_it_was(request_id: int, request: protocol.Request) -> None:
    assert decode_request(encode(request_id, request)) == (request_id, request)


@given(TEXT)
def test_hostile_text_stays_on_its_line(text: str) -> None:
    line = encode(1, protocol.Inspect(scene_path=text, log_path="x\ny"))
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    assert line.isascii()
    assert decode_request(line) == (1, protocol.Inspect(scene_path=text, log_path="x\ny"))


PING = {"id": 1, "type": "Ping"}
FRAME = {
    "id": 1,
    "type": "FrameDone",
    "frame": 1,
    "files": ["a"],
    "render_seconds": 1,
    "warm": False,
    "preparation_seconds": 0.0,
    "devices": [],
    "memory_bytes": 0,
}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"1",
        b'{"id": 1}',
        b'{"id": 1, "type": "Nonsense"}',
        b'{"id": 1, "type": ["Ping"]}',
        b'{"type": "Ping"}',
        b'{"id": "1", "type": "Ping"}',
        b'{"id": true, "type": "Ping"}',
        json.dumps(PING | {"extra": 1}).encode(),
        json.dumps({"id": 1, "type": "Inspect", "scene_path": "x"}).encode(),
        json.dumps({"id": 1, "type": "Inspect", "scene_path": 3, "log_path": "x"}).encode(),
        json.dumps({"id": 1, "type": "Inspect", "scene_path": None, "log_path": "x"}).encode(),
        encode(1, protocol.Result(value={})),
    ],
)
def test_what_is_no_request_is_an_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_request(line)


@pytest.mark.parametrize(
    "wrong", [{"frame": True}, {"frame": 1.5}, {"files": "a"}, {"files": [1]}, {"render_seconds": "1"}]
)
def test_fields_have_their_types(wrong: dict[str, object]) -> None:
    assert decode_reply(json.dumps(FRAME).encode())[0] == 1
    with pytest.raises(ProtocolError, match="FrameDone"):
        decode_reply(json.dumps(FRAME | wrong).encode())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("System is out of GPU memory", FailureKind.OUT_OF_MEMORY),
        ("Out of memory in CUDA queue enqueue", FailureKind.OUT_OF_MEMORY),
        ("Calloc returns null: len=99 in image", FailureKind.OUT_OF_MEMORY),
        ("Malloc returns null: len=99", FailureKind.OUT_OF_MEMORY),
        ("std::bad_alloc", FailureKind.OUT_OF_MEMORY),
        ("[Errno 28] No space left on device", FailureKind.STORAGE),
        ("Could not write image: /x/0001.png", FailureKind.STORAGE),
        ("Render error (Permission denied) cannot save: '/x'", FailureKind.STORAGE),
        ("Found no Cycles device of the specified type", FailureKind.DEVICE),
        ("Failed to create CUDA context (Unknown error)", FailureKind.DEVICE),
        (
            "Failed to load HIP kernel from '/x/kernel_gfx1030.fatbin' (hipErrorSharedObjectInitFailed)",
            FailureKind.DEVICE,
        ),
        ("Failed loading render kernel, see console for errors", FailureKind.DEVICE),
        ("Illegal address in CUDA queue copy_from_device (integrator_shade_surface)", FailureKind.DEVICE),
        ("Unknown error in cuMemcpyDtoH_v2( (char *)mem.host_pointer, mem.device_pointer, size)", FailureKind.DEVICE),
        ("OPTIX_ERROR_LAUNCH_FAILURE in optixLaunch(pipeline, cuda_stream_) (queue.cpp:99)", FailureKind.DEVICE),
        ("oneAPI unknown kernel execution error: got runtime exception", FailureKind.DEVICE),
        ("Failed to save the picture of a context", FailureKind.CRASH),
        ("Cannot render, no camera", FailureKind.CRASH),
        ("", FailureKind.CRASH),
    ],
)
def test_kinds_are_read_from_blenders_words(text: str, kind: FailureKind) -> None:
    assert protocol.failure_kind(text, FailureKind.CRASH) == kind


@given(TEXT)
def test_messages_are_one_line(text: str) -> None:
    line = protocol.one_line(text)
    assert len(line) <= 500
    assert line.splitlines() in ([], [line])
