"""The load generator and our media plane on loopback: what the relay benchmark plays, in two rooms and one process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import media_server
from benchmarks.ours import Ours
from benchmarks.scenario import Scenario
from loadtest.generator import Generator, bound_socket
from server.config import MediaConfig
from server.media.worker import MediaPlane


class InProcess(Ours):
    """Our media plane, asked directly."""

    def __init__(self, plane: MediaPlane) -> None:
        self._plane = plane

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return media_server.answer(self._plane, request)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


@pytest.mark.parametrize(
    "scenario", [Scenario("consultations", 2, 0, 2), Scenario("fanout", 1, 3, 2)], ids=lambda s: s.name
)
async def test_everybody_receives_everybody_else(scenario):
    plane = MediaPlane(MediaConfig(addresses=("127.0.0.1",), bind=("127.0.0.1",), port=0, workers=1))
    await plane.start()
    try:
        with Generator(bound_socket(), "127.78.0.1") as generator:
            server, rooms = InProcess(plane), list(scenario.seats(scenario.rooms))
            await asyncio.gather(*(server.join(generator, seat) for room in rooms for seat in room))
            assert plane.statistics().transports == sum(len(room) for room in rooms)
            generator.engine.media_on = True
            streams = scenario.streams_per_room * scenario.rooms
            await until(lambda: sum(received > 25 for _, _, received, _ in generator.engine.streams()) == streams)
            await until(lambda: generator.engine.counts()["feedback_received"] > 0)
            window = generator.window()
    finally:
        await plane.stop()
    assert window.streams == streams
    assert window.loss == 0
    assert window.counts["undecipherable"] == window.counts["stray"] == window.counts["refused"] == 0
    assert window.counts["sampled"] > 0
    assert window.counts["checks_answered"] <= window.counts["checks_sent"]
