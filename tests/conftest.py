"""Fixtures for every test."""

from collections.abc import AsyncIterator

import pytest

from tests.live import Live, live_server


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A running server with one tenant, "clinique"."""
    async with live_server() as server:
        yield server
