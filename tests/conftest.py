"""What all tests share: hypothesis runs the same examples everywhere, and a slow machine is no failure."""

from __future__ import annotations

import signal

from hypothesis import settings

settings.register_profile("farm", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("farm")

# A shell that starts us in the background lets us, and all we start, ignore Ctrl-C; tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
