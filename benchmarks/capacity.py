"""How many rooms a core carries: searched with short looks, proven with a long one. [IO]

    few rooms ─> as many as the cores promise ─> ... ─> too many ─> halve what is between ─> prove ─> less ─> prove

Driven by: bench_relay.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

from benchmarks.lab import Lab
from benchmarks.play import SETTLE_S, Result, Server, join, played, watch
from benchmarks.report import progress
from benchmarks.scenario import Scenario
from loadtest.generator import Generator, LoadError

MAX_LOSS = 0.001
MAX_DELAY_MS = 10.0
MAX_GENERATOR_BUSY = 0.85
"""Above that the generator may be what is measured."""
LOOK_S = 5.0
"""Of a search."""
TRIES = 2
"""Of a number that seems too much: what else the machine does for a moment must not decide."""
QUIET = 0.1
"""Cores. When something else takes more of them, that a number is too much says nothing."""
PATIENCE = 12
"""Looks in all that may come to nothing for that reason; from then on they count."""

Limit = Literal["", "server", "generator", "joining", "something else on the machine", "number tried"]
Show = Callable[[int, float], Awaitable[Result]]


@dataclass(frozen=True)
class Capacity:
    """What was found."""

    rooms: int
    limited_by: Limit
    """What more were too much for. Unless that is the server, read "at least"."""
    proof: Result | None
    """Of this number of rooms; None where not one was carried."""


def limit(result: Result) -> Limit:
    """Return what these rooms were too much for; empty if for nothing."""
    fails = result.loss > MAX_LOSS or result.window.delay_ms(0.99) > MAX_DELAY_MS
    void = result.generator_busy > MAX_GENERATOR_BUSY
    if (fails or void) and result.elsewhere > QUIET:
        return "something else on the machine"
    return "generator" if void else "server" if fails else ""


async def search(show: Show, first: int, most: int, seconds: float) -> Capacity:
    """Find the largest number of rooms that passes.

    Args:
        show: Plays so many rooms for so many seconds.
        first: Rooms to begin with.
        most: Rooms to try.
        seconds: Of the proof.
    """
    limited_by: Limit = "number tried"
    patience = PATIENCE

    async def passes(count: int, for_s: float) -> Result | None:
        nonlocal limited_by, patience
        tries, found = 0, limited_by
        while tries < TRIES:
            try:
                result = await show(count, for_s)
            except LoadError as error:
                progress(f"    not played: {error}")
                found, tries = "joining", tries + 1
                continue
            if not (found := limit(result)):
                return result
            progress(f"    limited by: {found}")
            if found == "something else on the machine" and patience:
                patience -= 1
            else:
                tries += 1
        limited_by = found
        return None

    good, bad, count = 0, most + 1, min(first, most)
    while bad - good > max(1, good // 50):
        if passed := await passes(count, min(LOOK_S, seconds)):
            good = count
        else:
            bad = count
        count = min(_promised(passed, good, first), most) if passed and bad > most else (good + bad) // 2
    less = 5
    while good:
        if proof := await passes(good, seconds):
            return Capacity(good, limited_by, proof)
        good, less = good * (100 - less) // 100, min(2 * less, 100)
    return Capacity(0, limited_by, None)


def _promised(result: Result, rooms: int, step: int) -> int:
    """Return how many rooms to try next: what the cores would be full with, if each cost as much as these.

    Packets get cheaper the more there are at a time, so that this comes near from below; twice as many at most.
    """
    load = max(result.server_busy, result.generator_busy / MAX_GENERATOR_BUSY, 0.01)
    return min(max(int(rooms / load), rooms + max(1, step // 5)), 2 * rooms)


class Stage:
    """A server with people in it, of whom as many send as are wanted. Use as a context manager.

    Whoever has joined stays. What goes wrong ends server and generator; the next look begins with new ones.

    Args:
        lab, name: Where, and which server.
        scenario: The rooms' shape.
        most: Rooms that there may be.
    """

    def __init__(self, lab: Lab, name: str, scenario: Scenario, most: int) -> None:
        self._lab = lab
        self._name = name
        self._scenario = scenario
        self._most = most
        self._open = AsyncExitStack()
        self._played: tuple[Server, Generator] | None = None
        self._rooms = 0

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def show(self, rooms: int, seconds: float) -> Result:
        """Play so many rooms.

        Raises:
            LoadError: Somebody did not get in or was lost, or the generator lost packets itself.
        """
        try:
            server, generator = await self._joined(rooms)
            generator.engine.set_active(rooms * self._scenario.senders_per_room)
            await asyncio.sleep(SETTLE_S)
            result = await watch(server, generator, self._scenario, rooms, seconds)
        except LoadError:
            await self._end()
            raise
        progress(f"  {rooms} rooms, {self._name}, {seconds:g} s: {result}")
        return result

    async def _joined(self, rooms: int) -> tuple[Server, Generator]:
        if self._played is None:
            self._played = await self._open.enter_async_context(
                played(self._lab, self._name, self._scenario, self._most)
            )
        server, generator = self._played
        generator.engine.set_active(0)
        generator.engine.media_on = True
        if rooms > self._rooms:
            took_ms = await join(server, generator, self._scenario, self._rooms, rooms)
            progress(f"  {len(took_ms)} people have joined {self._name}, {sum(took_ms) / len(took_ms):.0f} ms each")
            self._rooms = rooms
        return server, generator

    async def _end(self) -> None:
        await self._open.aclose()
        self._played, self._rooms = None, 0
