"""The farm's HTTP API for Python programs; the command line is built on it."""

from __future__ import annotations

from renderfarm.client.farm_client import FarmClient
from renderfarm.client.replies import JSON, Event, LogSlice, Picture

__all__ = ["JSON", "Event", "FarmClient", "LogSlice", "Picture"]
