"""Fixtures for every test."""

import os
from collections.abc import AsyncIterator, Generator

import pytest
from hypothesis import settings

from tests.live import Live, live_server
from tests.turns import turn

settings.register_profile("same every time", derandomize=True)  # a run judges the change, not the dice
if "FUZZ_EXAMPLES" not in os.environ:
    settings.load_profile("same every time")

SLOW = ("interop", "web")
"""Folders of tests that start browsers."""


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    """A running server with one tenant, "clinique"."""
    async with live_server() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files first that take longest, so that several workers come to the end together.

    Before all others those with tests that have the machine to themselves: while all workers are at these, nobody waits
    who could do something else, and none has another's browsers to wait for. Within a file the order stays.
    """
    alone = {item.path for item in items if item.get_closest_marker("alone") is not None}
    items.sort(key=lambda item: (item.path not in alone, item.path.parent.name not in SLOW, str(item.path)))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the test's turn when several workers run; outside of what its timeout measures."""
    if "PYTEST_XDIST_WORKER" not in os.environ or item.config.cache is None:
        return (yield)
    with turn(item.config.cache.mkdir("turns"), alone=item.get_closest_marker("alone") is not None):
        return (yield)
