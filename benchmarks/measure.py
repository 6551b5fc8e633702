"""What a server and the cores cost while it is played: read from /proc. [IO]"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)
"""Of the columns of /proc/stat: idle, iowait."""
_KTHREADD = "2"
"""Parent of the kernel's threads, which work for whoever sends and receives."""
_STOLEN = 7
"""The column of what the host gave to other machines."""


@dataclass(frozen=True)
class Reading:
    """At one moment."""

    at: float
    cpu_s: float
    """Of the process: user and system time of all its threads."""
    busy_s: tuple[float, ...]
    """Of each core, whatever it did."""


@dataclass(frozen=True)
class Others:
    """What everything but the server and its load has done up to one moment."""

    at: float
    stolen_s: float
    """By other machines of the host."""
    busy_s: dict[int, float]
    """Of each other process but the kernel's own threads, by its id."""


def read(pid: int) -> Reading:
    """Take one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cores = [sum(ticks for i, ticks in enumerate(row) if i not in _IDLE) / _TICK for row in _cores()[1:]]
    return Reading(time.monotonic(), (int(fields[11]) + int(fields[12])) / _TICK, tuple(cores))


def others(pid: int) -> Others:
    """See what is not a server's process, nor this one, which is its load. Takes some milliseconds."""
    own = {pid, os.getpid()}
    busy_s = {other: spent for other, spent in _processes() if other not in own}
    return Others(time.monotonic(), _cores()[0][_STOLEN] / _TICK, busy_s)


def _cores() -> list[list[int]]:
    """The rows of /proc/stat: all cores together, then each; user, nice, system, idle ... stolen."""
    lines = Path("/proc/stat").read_text().splitlines()
    return [[int(column) for column in line.split()[1:9]] for line in lines if line.startswith("cpu")]


def _processes() -> Iterator[tuple[int, float]]:
    """User and system time of all processes, all their threads."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[1] != _KTHREADD:
                    yield int(folder.name), (int(fields[11]) + int(fields[12])) / _TICK


def busy(before: Reading, after: Reading, core: int) -> float:
    """Return the part of the time between that a core was busy."""
    return (after.busy_s[core] - before.busy_s[core]) / (after.at - before.at)


def elsewhere(before: Others, after: Others) -> float:
    """Return how many cores the time between went to anything but the server and its load.

    What a process did that began and ended in between is not seen.
    """
    spent_s = sum(spent - before.busy_s.get(pid, 0.0) for pid, spent in after.busy_s.items())
    return (spent_s + after.stolen_s - before.stolen_s) / (after.at - before.at)


def memory_kib(pid: int) -> float:
    """Return the unique memory of a process."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1024
