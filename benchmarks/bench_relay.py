"""Relay: CPU per forwarded packet, capacity of a core and delay of the media server, against Janus and a floor. [IO]

Method and meaning of each figure: README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Protocol

from benchmarks import janus, measure
from benchmarks.floor import Floor
from benchmarks.janus import Janus
from benchmarks.lab import FIRST_LOAD_IP, Lab
from benchmarks.ours import Ours
from benchmarks.report import Figures, percentile, progress
from benchmarks.scenario import CONSULTATIONS, SCENARIOS, Scenario, Seat
from benchmarks.served import Served
from loadtest.generator import Generator, LoadError, Window, bound_socket

GENERATOR_CORE, SERVER_CORE = 0, 1
MAX_LOSS = 0.001
MAX_DELAY_MS = 10.0
MAX_GENERATOR_BUSY = 0.85
"""Above that the generator may be what is measured."""
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


Make = Callable[[Lab, Path, Scenario, int], Server]
SERVERS: dict[str, Make] = {
    "colloque": lambda lab, folder, scenario, rooms: Served(lab, folder, SERVER_CORE),
    "plane": lambda lab, folder, scenario, rooms: Ours(lab, folder, SERVER_CORE),
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
    loss: float

    def __str__(self) -> str:
        delays = "/".join(f"{self.window.delay_ms(part):.2f}" for part in (0.5, 0.95, 0.99))
        rate = self.window.counts["received"] / self.window.seconds
        return (
            f"{self.cpu_us:.2f} us/packet, {rate:.0f} packets/s, loss {self.loss:.3%}, delay {delays} ms, "
            f"cores {self.generator_busy:.0%} load, {self.server_busy:.0%} server"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What against what, how long and how often."""
    parser.add_argument("--against", choices=["janus", "nobody"], default="janus", help="(default: %(default)s)")
    parser.add_argument(
        "--ours",
        choices=["server", "plane"],
        default="server",
        help="the whole server through WHIP and WHEP, or its media plane alone, with one connection for both "
        "directions as our pages have it (default: %(default)s)",
    )
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--scenario", action="append", choices=sorted(SCENARIOS), help="repeatable (default: all of them)"
    )
    parser.add_argument("--rooms", type=int, help="instead of the scenario's own number of rooms")
    parser.add_argument(
        "--capacity-seconds",
        type=float,
        default=30,
        help="of the run that proves a capacity; 0: none (default: %(default)s)",
    )
    parser.add_argument("--most", type=int, default=400, help="consultations to try at most (default: %(default)s)")


async def run(arguments: argparse.Namespace) -> Figures:
    """Measure the servers in turn, then again; then how much each can carry."""
    if arguments.ours == "plane":
        SERVERS["colloque"] = SERVERS["plane"]
    names = ["colloque", *(["janus"] if arguments.against == "janus" else []), "floor"]
    versions = {"pylibsrtp": package_version("pylibsrtp")}
    if "janus" in names:
        versions["janus"] = janus.version()
    figures = Figures(arguments.runs, versions)
    os.sched_setaffinity(0, {GENERATOR_CORE})
    scenarios = [SCENARIOS[name] for name in arguments.scenario or SCENARIOS]
    with Lab() as lab:
        for scenario in scenarios:
            rooms = arguments.rooms or scenario.rooms
            for number in range(arguments.runs + 1):  # the first warms up
                cpu_us = {}
                for name in names:
                    seconds = arguments.seconds if number else min(3.0, arguments.seconds)
                    cpu_us[name] = await _play_again(figures if number else None, lab, name, scenario, rooms, seconds)
                if number:
                    _compare(figures, scenario, cpu_us)
                progress(f"{scenario.name} {number}/{arguments.runs}: {cpu_us}")
        if CONSULTATIONS in scenarios and arguments.capacity_seconds:
            for name in names[:-1]:
                await _capacity(figures, lab, name, arguments.capacity_seconds, arguments.most)
    return figures


async def _play_again(
    figures: Figures | None, lab: Lab, name: str, scenario: Scenario, rooms: int, seconds: float
) -> float:
    """Play, and once more if it comes to nothing: half an hour's figures do not hang on one packet of a handshake."""
    try:
        return await _play(figures, lab, name, scenario, rooms, seconds)
    except LoadError as error:
        progress(f"  again: {error}")
        return await _play(figures, lab, name, scenario, rooms, seconds)


async def _play(figures: Figures | None, lab: Lab, name: str, scenario: Scenario, rooms: int, seconds: float) -> float:
    """Play one scenario to one server; returns its CPU microseconds per packet."""
    async with _played(lab, name, scenario, rooms) as (server, generator):
        before_kib = measure.memory_kib(server.pid) if name != "floor" else 0.0
        joined_ms = await _join(server, generator, scenario, 0, rooms)
        generator.engine.media_on = True
        await asyncio.sleep(SETTLE_S)
        result = await _measure(server, generator, scenario, rooms, seconds)
        progress(f"  {scenario.name}, {rooms} rooms, {name}: {result}")
        if figures is None:
            return result.cpu_us
        suffix = "" if name == "colloque" else f".{name}"
        people = len(joined_ms)
        figures.add(f"{scenario.name}.cpu_us_per_packet{suffix}", "us", result.cpu_us)
        figures.add(f"{scenario.name}.loss{suffix}", "part", result.loss)
        for part, label in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
            figures.add(f"{_delay(scenario)}_{label}_ms{suffix}", "ms", result.window.delay_ms(part))
        if name != "floor":
            kib = (measure.memory_kib(server.pid) - before_kib) / people
            figures.add(f"{scenario.name}.memory_kib_per_participant{suffix}", "KiB", kib)
            figures.add(f"{scenario.name}.join_p50_ms{suffix}", "ms", statistics.median(joined_ms))
            figures.add(f"{scenario.name}.join_p95_ms{suffix}", "ms", percentile(joined_ms, 0.95))
        return result.cpu_us


def _delay(scenario: Scenario) -> str:
    """Of consultations, `delay` alone is the delay at half load."""
    return f"{scenario.name}.delay" if scenario is not CONSULTATIONS else f"{scenario.name}.light_delay"


def _compare(figures: Figures, scenario: Scenario, cpu_us: dict[str, float]) -> None:
    for name in cpu_us:
        if name != "colloque":
            ratio = cpu_us["colloque"] / cpu_us[name]
            figures.add(f"{scenario.name}.cpu_us_per_packet.ratio_to_{name}", "x", ratio)


async def _capacity(figures: Figures, lab: Lab, name: str, seconds: float, most: int) -> None:
    """Find the largest number of consultations that a core carries, prove it, and look at half of it."""
    suffix = "" if name == "colloque" else f".{name}"
    async with _played(lab, name, CONSULTATIONS, most) as (server, generator):
        generator.engine.media_on = True
        rooms, good, bad, step = 0, 0, most + 1, 25 if name == "colloque" else 10
        limited_by = "the number tried"

        async def passes(count: int, for_s: float) -> Result | None:
            """Play so many; None if that is too much."""
            nonlocal rooms, limited_by
            if count > rooms:
                await _join(server, generator, CONSULTATIONS, rooms, count)
                rooms = count
            generator.engine.set_active(4 * count)
            await asyncio.sleep(SETTLE_S)
            result = await _measure(server, generator, CONSULTATIONS, count, for_s)
            progress(f"  capacity, {count} rooms, {name}: {result}")
            if result.generator_busy > MAX_GENERATOR_BUSY:
                limited_by = "the generator"
                return None
            if result.loss > MAX_LOSS or result.window.delay_ms(0.99) > MAX_DELAY_MS:
                limited_by = "the server"
                return None
            return result

        while bad - good > max(1, good // 50):
            count = min(good + step, most) if bad > most else (good + bad) // 2
            try:
                passed = await passes(count, min(5.0, seconds))
            except LoadError as error:
                progress(f"  capacity, {count} rooms, {name}: {error}")
                passed, limited_by = None, "joining"
            good, bad = (count, bad) if passed else (good, count)
            if good == most:
                break
        while good and not (proof := await passes(good, seconds)):
            good = good * 95 // 100
        progress(
            f"  capacity of {name}: {'at least ' if limited_by != 'the server' else ''}{good}, limited by {limited_by}"
        )
        figures.add(f"consultations.per_core{suffix}", "rooms", good)
        figures.add(f"consultations.per_core.limited_by_server{suffix}", "1: yes", float(limited_by == "the server"))
        if not good:
            return
        assert proof
        figures.add(f"consultations.per_core.packets_per_s{suffix}", "1/s", proof.window.counts["received"] / seconds)
        figures.add(f"consultations.per_core.cpu_us_per_packet{suffix}", "us", proof.cpu_us)
        figures.add(f"consultations.per_core.delay_p99_ms{suffix}", "ms", proof.window.delay_ms(0.99))
        generator.engine.set_active(4 * (good // 2))
        await asyncio.sleep(SETTLE_S)
        half = await _measure(server, generator, CONSULTATIONS, good // 2, seconds)
        progress(f"  half of it, {good // 2} rooms, {name}: {half}")
        for part, label in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
            figures.add(f"consultations.delay_{label}_ms{suffix}", "ms", half.window.delay_ms(part))


@asynccontextmanager
async def _played(lab: Lab, name: str, scenario: Scenario, rooms: int) -> AsyncIterator[tuple[Server, Generator]]:
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


async def _join(server: Server, generator: Generator, scenario: Scenario, first: int, end: int) -> list[float]:
    """Let the rooms from `first` to before `end` fill, some people at a time; returns how long each took, in ms."""
    seats = [seat for room in scenario.seats(end) for seat in room if seat.room >= first]
    took: dict[int, float] = {}
    places = asyncio.Semaphore(1 if server.name == "floor" else JOINS_AT_A_TIME)

    async def step(seat: Seat, enter: Callable[[Generator, Seat], Awaitable[None]]) -> None:
        async with places:
            began = time.monotonic()
            await enter(generator, seat)
            took[seat.number] = took.get(seat.number, 0.0) + (time.monotonic() - began) * 1e3

    for enter in (server.join, server.receive):
        await asyncio.gather(*(step(seat, enter) for seat in seats))
    return list(took.values())


async def _measure(server: Server, generator: Generator, scenario: Scenario, rooms: int, seconds: float) -> Result:
    """Look at it for a while."""
    before = measure.read(server.pid)
    generator.open_window()
    await asyncio.sleep(seconds)
    after = measure.read(server.pid)
    window = generator.window()
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
        max(window.loss, missing if silent else 0.0),
    )
