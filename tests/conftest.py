"""What all tests share: hypothesis runs the same examples everywhere, and a slow machine is no failure."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

from tests import servers

settings.register_profile("farm", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("farm")

# A shell that starts us in the background lets us, and all we start, ignore Ctrl-C; tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The settings of whoever runs the tests are not the tests'.
os.environ["RENDERFARM_CONFIG"] = os.devnull


def pytest_configure(config: pytest.Config) -> None:
    """Find the servers before the work is shared out, so that all of a run's processes use the same."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        for find in (servers.mysql_url, servers.amqp_url, servers.redis_url):
            find()
        servers.redis_url()


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    servers.close()
