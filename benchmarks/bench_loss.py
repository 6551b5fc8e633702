"""Loss: 2 % and 10 % of the packets lost each way: what is repaired, what is seen; relayed and direct. [IO]

Method and meaning of each figure: README.md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.report import Figures, progress
from server.records import Topology
from tests.interop import alone
from tests.interop.loss import Seen, lossy_call

PARTS = (0.02, 0.10)
_TOPOLOGIES: dict[str, Topology] = {"relayed": "relay-only", "direct": "direct-only"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and how long."""
    parser.add_argument("--runs", type=int, default=3, help="calls of each kind (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="of loss in each call (default: %(default)s)")


async def run(arguments: argparse.Namespace) -> Figures:
    """Call and lose, relayed and direct in turns."""
    figures = Figures(arguments.runs)
    with tempfile.TemporaryDirectory(prefix="colloque-bench-") as folder, alone.running(Path(folder)) as server:
        for number in range(arguments.runs):
            for part in PARTS:
                for name, topology in _TOPOLOGIES.items():
                    seen = await lossy_call(server, topology, part, arguments.seconds)
                    progress(f"{number + 1}/{arguments.runs} {name} {part:.0%}: {seen}")
                    _add(figures, f"{name}.{part * 100:.0f}_percent", seen)
    return figures


def _add(figures: Figures, name: str, seen: Seen) -> None:
    for side, way in (("up", seen.up), ("down", seen.down)):
        figures.add(f"{name}.{side}.lost_packets", "packets", way.lost)
        figures.add(f"{name}.{side}.repaired", "of 1", way.repaired)
        figures.add(f"{name}.{side}.frames_per_second", "1/s", way.frames_per_second)
        figures.add(f"{name}.{side}.freezes", "freezes", way.freezes)
        figures.add(f"{name}.{side}.frozen_part", "of 1", way.frozen_part)
        figures.add(f"{name}.{side}.gap_ms", "ms", way.gap_s * 1000)
