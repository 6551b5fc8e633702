"""Figures of a benchmark: gathered sample by sample, printed, and written with where they come from. [IO]"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("aiohttp", "uvloop", "msgspec", "SQLAlchemy")


class Figures:
    """Samples by name, one per run; what is written is their median, least and greatest.

    Args:
        runs: How often each figure was measured.
        versions: Of what was measured besides Python and our packages, for instance the browser.
    """

    def __init__(self, runs: int, versions: Mapping[str, str] | None = None) -> None:
        self.runs = runs
        self.versions = dict(versions or {})
        self._samples: dict[str, tuple[str, list[float]]] = {}
        self._load = os.getloadavg()[0]

    def add(self, name: str, unit: str, *samples: float) -> None:
        """Note what was measured."""
        self._samples.setdefault(name, (unit, []))[1].extend(samples)

    def lines(self) -> Iterator[str]:
        """The figures, for people."""
        for name, figure in self.tree().items():
            spread = "" if figure["min"] == figure["max"] else f"   ({figure['min']:g} to {figure['max']:g})"
            yield f"{name:44} {figure['median']:g} {figure['unit']}{spread}"

    def tree(self) -> dict[str, dict[str, Any]]:
        """The figures, as they are written."""
        return {
            name: {
                "median": _rounded(statistics.median(samples)),
                "min": _rounded(min(samples)),
                "max": _rounded(max(samples)),
                "unit": unit,
            }
            for name, (unit, samples) in self._samples.items()
        }

    @property
    def load_before(self) -> float:
        """What else the machine was doing: runnable tasks, mean of the minute before the first sample."""
        return round(self._load, 2)


def write(path: Path, benchmark: str, figures: Figures) -> None:
    """Write the result in the format of `benchmarks/results`."""
    result = {
        "benchmark": benchmark,
        "commit": _commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**_machine(), "load_before": figures.load_before},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            **figures.versions,
        },
        "runs": figures.runs,
        "figures": figures.tree(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"written to {path}", file=sys.stderr)


def progress(text: str) -> None:
    """Say what is going on, on standard error: the figures alone go to standard output."""
    print(text, file=sys.stderr, flush=True)


def percentile(samples: Sequence[float], part: float) -> float:
    """Return the sample below which this part of all samples lies (nearest rank).

    Args:
        samples: At least one.
        part: 0.95 for the 95th percentile.
    """
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, round(part * len(ordered) + 0.5) - 1))]


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def _commit() -> str:
    """The commit measured; `-dirty` when the server or the pages differ from it."""
    git = ["git", "-C", str(_ROOT)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    changed = subprocess.run(
        [*git, "status", "--porcelain", "server", "web/static", "loadtest", "benchmarks"], capture_output=True
    )
    lines = [line for line in changed.stdout.decode().splitlines() if not line.endswith(".json")]
    return commit + ("-dirty" if lines else "")


def _machine() -> dict[str, Any]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
