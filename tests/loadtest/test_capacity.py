"""The search for the capacity: against servers of which we know what they carry."""

import numpy as np
import pytest

from benchmarks.capacity import LOOK_S, PATIENCE, TRIES, search
from benchmarks.measure import Others, elsewhere
from benchmarks.play import Result
from loadtest.fastgen import BUCKET_S
from loadtest.generator import LoadError, Window


class Imagined:
    """A server that carries what we say.

    Args:
        carries: Rooms, for a short look.
        holds: Rooms, for long.
        generator: Rooms that keep the generator's core busy up to its limit.
        stumbles: Looks, counted from 0, in which packets come late though nothing is too much.
        noisy: The same, and something else is seen to keep the machine busy.
        breaks: At more rooms, somebody does not get in.
    """

    def __init__(self, carries=1000, holds=1000, generator=10_000, stumbles=(), noisy=(), breaks=10_000):
        self.carries, self.holds, self.generator = carries, holds, generator
        self.stumbles, self.noisy, self.breaks = stumbles, noisy, breaks
        self.shown: list[tuple[int, float]] = []

    async def show(self, rooms: int, seconds: float) -> Result:
        self.shown.append((rooms, seconds))
        if rooms > self.breaks:
            raise LoadError("no keys")
        delays = np.zeros(round(0.1 / BUCKET_S) + 1, np.uint32)
        look = len(self.shown) - 1
        much = rooms > (self.carries if seconds <= LOOK_S else self.holds) or look in self.stumbles
        delays[-1 if much or look in self.noisy else 3] = 100
        window = Window(seconds, {"received": 100}, 100, 4 * rooms, delays)  # type: ignore[typeddict-item]
        server, generator = min(1.0, 0.9 * rooms / (self.carries or 1)), 0.85 * rooms / self.generator
        return Result(window, 20.0, server, generator, 0.7 if look in self.noisy else 0.02, 0.0)


@pytest.mark.parametrize("carries", [1, 2, 3, 9, 45, 50, 51, 99, 222, 399])
@pytest.mark.parametrize("first", [15, 50])
async def test_it_finds_what_a_server_carries_and_holds_it(carries, first):
    server = Imagined(carries, carries)
    found = await search(server.show, first, 400, 30.0)
    assert carries - max(1, carries // 50) <= found.rooms <= carries
    assert found.limited_by == "server"
    assert (found.rooms, 30.0) in server.shown
    assert len(server.shown) <= 24


async def test_it_stops_at_the_most():
    server = Imagined()
    found = await search(server.show, 50, 400, 30.0)
    assert (found.rooms, found.limited_by) == (400, "number tried")
    assert len(server.shown) <= 6


async def test_what_is_not_held_is_lowered():
    server = Imagined(200, 175)
    found = await search(server.show, 50, 400, 30.0)
    assert 165 <= found.rooms <= 175
    assert server.shown[-1] == (found.rooms, 30.0)


async def test_at_the_generators_limit_it_is_at_least():
    server = Imagined(generator=120)
    found = await search(server.show, 50, 400, 30.0)
    assert 118 <= found.rooms <= 120
    assert found.limited_by == "generator"


async def test_a_moments_noise_decides_nothing():
    quiet, noisy = Imagined(100, 100), Imagined(100, 100, stumbles=(0, 2))
    assert (await search(noisy.show, 50, 400, 30.0)).rooms == (await search(quiet.show, 50, 400, 30.0)).rooms


async def test_looks_at_a_busy_machine_are_repeated_until_patience_ends():
    quiet, noisy = Imagined(100, 100), Imagined(100, 100, noisy=range(2, 2 + PATIENCE))
    assert (await search(noisy.show, 50, 400, 30.0)).rooms == (await search(quiet.show, 50, 400, 30.0)).rooms
    never = Imagined(100, 100, noisy=range(2, 1000))
    found = await search(never.show, 50, 400, 30.0)
    assert found.rooms == 0
    assert found.limited_by == "something else on the machine"
    assert len(never.shown) <= 60


async def test_people_who_do_not_get_in_end_the_search_not_the_benchmark():
    server = Imagined(breaks=80)
    found = await search(server.show, 50, 400, 30.0)
    assert 79 <= found.rooms <= 80
    assert found.limited_by == "joining"


async def test_a_server_that_carries_nobody_has_no_capacity():
    server = Imagined(0, 0)
    found = await search(server.show, 15, 400, 30.0)
    assert (found.rooms, found.proof) == (0, None)
    assert len(server.shown) <= TRIES * 10


def test_what_others_do_is_told_from_what_we_do():
    """A process that went on, one that began, one that ended, and a host that took its part."""
    before = Others(10.0, 1.0, {7: 3.0, 8: 50.0})
    after = Others(20.0, 2.0, {7: 5.0, 9: 1.0})
    assert elsewhere(before, after) == pytest.approx((2.0 + 1.0 + 1.0) / 10)
