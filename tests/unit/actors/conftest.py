"""A worker whose Blender is a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.actors.fake_blender import BLENDERS, Bench, FakeSession, Gates
from tests.unit.pictures import png


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("actors.worker.BlenderSession", FakeSession)
    monkeypatch.setattr("actors.worker.find_blenders", lambda _paths: BLENDERS)
    monkeypatch.setattr(FakeSession, "all", [], raising=False)
    monkeypatch.setattr(FakeSession, "gates", Gates(), raising=False)
    monkeypatch.setattr(FakeSession, "refusal", None, raising=False)
    monkeypatch.setattr(FakeSession, "crashes_at", set(), raising=False)
    monkeypatch.setattr(FakeSession, "fails_at", {}, raising=False)
    monkeypatch.setattr(FakeSession, "file_name", None, raising=False)
    monkeypatch.setattr(FakeSession, "picture", png(), raising=False)
    monkeypatch.setattr(FakeSession, "fresh_picture", png(), raising=False)
    monkeypatch.setattr(FakeSession, "odd_pictures", {}, raising=False)
    bench = Bench(tmp_path)
    yield bench
    bench.close()
