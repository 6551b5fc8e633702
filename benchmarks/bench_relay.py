"""Relay: CPU per forwarded packet, capacity of a core and delay of the media server, against Janus and a floor. [IO]

Method and meaning of each figure: README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from importlib.metadata import version as package_version

from benchmarks import capacity, janus, measure
from benchmarks.lab import Lab
from benchmarks.play import GENERATOR_CORE, SETTLE_S, Result, join, played, watch
from benchmarks.report import Figures, percentile, progress
from benchmarks.scenario import CONSULTATIONS, SCENARIOS, Scenario
from benchmarks.wsclient import allow_files
from loadtest.generator import LoadError

_FIRST = {"colloque": 50, "janus": 15}
"""Consultations that a search for the capacity begins with."""
_PARTS = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What against what, how long and how often."""
    parser.add_argument("--against", choices=["janus", "nobody"], default="janus", help="(default: %(default)s)")
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
    names = ["colloque", *(["janus"] if arguments.against == "janus" else []), "floor"]
    versions = {"pylibsrtp": package_version("pylibsrtp")}
    if "janus" in names:
        versions["janus"] = janus.version()
    figures = Figures(arguments.runs, versions)
    allow_files(4 * arguments.most + 500)
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
    async with played(lab, name, scenario, rooms) as (server, generator):
        before_kib = measure.memory_kib(server.pid) if name != "floor" else 0.0
        joined_ms = await join(server, generator, scenario, 0, rooms)
        generator.engine.media_on = True
        await asyncio.sleep(SETTLE_S)
        result = await watch(server, generator, scenario, rooms, seconds)
        progress(f"  {scenario.name}, {rooms} rooms, {name}: {result}")
        if figures is None:
            return result.cpu_us
        suffix = "" if name == "colloque" else f".{name}"
        people = len(joined_ms)
        figures.add(f"{scenario.name}.cpu_us_per_packet{suffix}", "us", result.cpu_us)
        figures.add(f"{scenario.name}.loss{suffix}", "part", result.loss)
        figures.add(f"{scenario.name}.elsewhere{suffix}", "cores", result.elsewhere)
        for part, label in _PARTS:
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
    async with capacity.Stage(lab, name, CONSULTATIONS, most) as stage:
        found = await capacity.search(stage.show, _FIRST[name], most, seconds)
        by_server = found.limited_by == "server"
        progress(
            f"  capacity of {name}: {'' if by_server else 'at least '}{found.rooms}, limited by: {found.limited_by}"
        )
        figures.add(f"consultations.per_core{suffix}", "rooms", found.rooms)
        figures.add(f"consultations.per_core.limited_by_server{suffix}", "1: yes", float(by_server))
        if found.proof is None:
            return
        rate = found.proof.window.counts["received"] / found.proof.window.seconds
        figures.add(f"consultations.per_core.packets_per_s{suffix}", "1/s", rate)
        figures.add(f"consultations.per_core.cpu_us_per_packet{suffix}", "us", found.proof.cpu_us)
        figures.add(f"consultations.per_core.server_busy{suffix}", "cores", found.proof.server_busy)
        figures.add(f"consultations.per_core.generator_busy{suffix}", "cores", found.proof.generator_busy)
        figures.add(f"consultations.per_core.elsewhere{suffix}", "cores", found.proof.elsewhere)
        figures.add(f"consultations.per_core.delay_p99_ms{suffix}", "ms", found.proof.window.delay_ms(0.99))
        half = await _half(stage, max(1, found.rooms // 2), seconds)
        for part, label in _PARTS:
            figures.add(f"consultations.delay_{label}_ms{suffix}", "ms", half.window.delay_ms(part))


async def _half(stage: capacity.Stage, rooms: int, seconds: float) -> Result:
    """Look at half load; once more if it comes to nothing."""
    try:
        return await stage.show(rooms, seconds)
    except LoadError as error:
        progress(f"  again: {error}")
        return await stage.show(rooms, seconds)
