"""What a server and the cores cost while it is played: read from /proc. [IO]"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICK = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)
"""Of the columns of /proc/stat: idle, iowait."""


@dataclass(frozen=True)
class Reading:
    """At one moment."""

    at: float
    cpu_s: float
    """Of the process: user and system time of all its threads."""
    busy_s: tuple[float, ...]
    """Of each core, whatever it did."""


def read(pid: int) -> Reading:
    """Take one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cores = []
    for line in Path("/proc/stat").read_text().splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name != "cpu":
            cores.append(sum(int(c) for i, c in enumerate(columns[:8]) if i not in _IDLE) / _TICK)
    return Reading(time.monotonic(), (int(fields[11]) + int(fields[12])) / _TICK, tuple(cores))


def busy(before: Reading, after: Reading, core: int) -> float:
    """Return the part of the time between that a core was busy."""
    return (after.busy_s[core] - before.busy_s[core]) / (after.at - before.at)


def memory_kib(pid: int) -> float:
    """Return the unique memory of a process."""
    return float(psutil.Process(pid).memory_full_info().uss) / 1024
