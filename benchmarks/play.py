"""Playing a scenario to a server: start it, let people join, look at it for a while. [IO]

Driven by: bench_relay.py, capacity.py.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import measure
from benchmarks.floor import Floor
from benchmarks.janus import Janus
from benchmarks.lab import FIRST_LOAD_IP, Lab
from benchmarks.scenario import Scenario, Seat
from benchmarks.served import Served
from loadtest.generator import Generator, LoadError, Window, bound_socket

GENERATOR_CORE, SERVER_CORE = 0, 1
JOINS_AT_A_TIME = 8
SETTLE_S = 2.0
"""From the first packet: keyframes asked for and sent, queues as they will be."""


class Server(Protocol):
    """What can be played."""

    name: str

    @property
    def pid(self) -> int: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def join(self, generator: Generator, seat: Seat) -> None:
        """Let somebody in; those who publish can be received afterwards."""

    async def receive(self, generator: Generator, seat: Seat) -> None:
        """Let them receive who their seat says, where that takes a step of its own."""

    def check(self) -> None:
        """Raise `LoadError` when it has ended, or has lost somebody."""


Make = Callable[[Lab, Path, Scenario, int], Server]
SERVERS: dict[str, Make] = {
    "colloque": lambda lab, folder, scenario, rooms: Served(lab, folder, SERVER_CORE),
    "janus": lambda lab, folder, scenario, rooms: Janus(lab, folder, SERVER_CORE),
    "floor": lambda lab, folder, scenario, rooms: Floor(lab, folder, SERVER_CORE, scenario, rooms),
}


@dataclass(frozen=True)
class Result:
    """Of one window."""

    window: Window
    cpu_us: float
    """Of the server, by packet forwarded."""
    server_busy: float
    generator_busy: float
    elsewhere: float
    """Cores that something else was busy with: figures of such a time are worth less."""
    loss: float

    def __str__(self) -> str:
        delays = "/".join(f"{self.window.delay_ms(part):.2f}" for part in (0.5, 0.95, 0.99))
        rate = self.window.counts["received"] / self.window.seconds
        return (
            f"{self.cpu_us:.2f} us/packet, {rate:.0f} packets/s, loss {self.loss:.3%}, delay {delays} ms, "
            f"cores {self.generator_busy:.0%} load, {self.server_busy:.0%} server, "
            f"{self.elsewhere:.0%} something else"
        )


@asynccontextmanager
async def played(lab: Lab, name: str, scenario: Scenario, rooms: int) -> AsyncIterator[tuple[Server, Generator]]:
    """A server that runs, and a generator that plays nobody yet."""
    with tempfile.TemporaryDirectory() as folder:
        server = SERVERS[name](lab, Path(folder), scenario, rooms)
        await server.start()
        try:
            with lab.load_side():
                bound = bound_socket()
            legs = 2 * rooms * (scenario.publishers + scenario.receivers)  # one each way
            with Generator(bound, FIRST_LOAD_IP, legs) as generator:
                yield server, generator
        finally:
            await server.stop()


async def join(server: Server, generator: Generator, scenario: Scenario, first: int, end: int) -> list[float]:
    """Let the rooms from `first` to before `end` fill, some people at a time; returns how long each took, in ms.

    Raises:
        LoadError: Somebody does not get in.
    """
    seats = [seat for room in scenario.seats(end) for seat in room if seat.room >= first]
    took: dict[int, float] = {}
    places = asyncio.Semaphore(1 if server.name == "floor" else JOINS_AT_A_TIME)

    async def step(seat: Seat, enter: Callable[[Generator, Seat], Awaitable[None]]) -> None:
        async with places:
            began = time.monotonic()
            await enter(generator, seat)
            took[seat.number] = took.get(seat.number, 0.0) + (time.monotonic() - began) * 1e3

    for enter in (server.join, server.receive):
        steps = [asyncio.create_task(step(seat, enter)) for seat in seats]
        try:
            await asyncio.gather(*steps)
        finally:
            for task in steps:
                task.cancel()
    return list(took.values())


async def watch(server: Server, generator: Generator, scenario: Scenario, rooms: int, seconds: float) -> Result:
    """Look at it for a while.

    Raises:
        LoadError: It forwards nothing, has ended or has lost somebody, or the generator lost packets itself.
    """
    others = measure.others(server.pid)
    before = measure.read(server.pid)
    generator.open_window()
    await asyncio.sleep(seconds)
    after = measure.read(server.pid)
    window = generator.window()
    server.check()
    received, sent = window.counts["received"], window.counts["sent"]
    if not received:
        raise LoadError(f"{server.name} forwards nothing: {dict(window.counts)}")
    # What sequence numbers cannot tell: streams of which nothing arrives at all.
    missing = 1 - received / (sent * (scenario.receivers or scenario.publishers - 1))
    silent = scenario.streams_per_room * rooms - window.streams
    return Result(
        window,
        (after.cpu_s - before.cpu_s) / received * 1e6,
        measure.busy(before, after, SERVER_CORE),
        measure.busy(before, after, GENERATOR_CORE),
        measure.elsewhere(others, measure.others(server.pid)),
        max(window.loss, missing if silent else 0.0),
    )
