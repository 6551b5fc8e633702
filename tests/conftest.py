"""Fixtures for every test."""

import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from tests.live import Live, live_server

settings.register_profile("same every time", derandomize=True)  # a run judges the change, not the dice
if "FUZZ_EXAMPLES" not in os.environ:
    settings.load_profile("same every time")


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A running server with one tenant, "clinique"."""
    async with live_server() as server:
        yield server
