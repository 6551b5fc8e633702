"""The load generator and `colloque serve` on loopback: what the relay benchmark plays, in two rooms."""

import asyncio
from collections.abc import Callable

import pytest

from benchmarks.scenario import Scenario
from benchmarks.served import NO_LIMITS, Rooms
from loadtest.generator import Generator, LoadError, bound_socket
from tests.live import live_server

MEDIA = NO_LIMITS["media"] | {"addresses": "127.0.0.1", "bind": "127.0.0.1", "port": 0}


async def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


@pytest.mark.parametrize(
    "scenario",
    [Scenario("consultations", 2, 0, 2), Scenario("conferences", 3, 0, 1), Scenario("fanout", 1, 3, 2)],
    ids=lambda s: s.name,
)
async def test_everybody_receives_everybody_else(scenario):
    people = [seat for room in scenario.seats(scenario.rooms) for seat in room]
    async with live_server(http=NO_LIMITS["http"], media=MEDIA) as live:
        with Generator(bound_socket(), "127.78.0.1", len(people)) as generator:
            rooms = Rooms(live.store, live.tenant.slug, live.port)
            await asyncio.gather(*(rooms.join(generator, seat) for seat in people))
            await asyncio.gather(*(rooms.receive(generator, seat) for seat in people))
            generator.engine.media_on = True
            streams = scenario.streams_per_room * scenario.rooms
            await until(lambda: sum(received > 25 for _, _, received, _ in generator.engine.streams()) == streams)
            await until(lambda: generator.engine.counts()["feedback_received"] > 0)
            window = generator.window()
            rooms.check()
            rooms.close()
    assert window.streams == streams
    assert window.loss == 0
    assert window.counts["undecipherable"] == window.counts["stray"] == window.counts["refused"] == 0
    assert window.counts["sampled"] > 0
    assert window.counts["checks_answered"] <= window.counts["checks_sent"]


async def test_who_is_not_let_in_and_who_is_lost_is_told():
    (room,) = Scenario("consultation", 2, 0, 1).seats(1)
    one, other = room
    async with live_server(media=MEDIA | {"max_in_conversation": 1}) as live:
        with Generator(bound_socket(), "127.79.0.1", 2) as generator:
            rooms = Rooms(live.store, live.tenant.slug, live.port)
            await rooms.join(generator, one)
            rooms.check()
            with pytest.raises(LoadError, match="room_full"):
                await rooms.join(generator, other)
            live.process.terminate()
            await live.process.wait()
            await until(lambda: _lost(rooms))


def _lost(rooms: Rooms) -> bool:
    try:
        rooms.check()
    except LoadError:
        return True
    return False
