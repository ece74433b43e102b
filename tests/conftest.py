"""What all tests share: hypothesis runs the same examples everywhere, and a slow machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("farm", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("farm")
