"""`python -m benchmarks NAME [--json FILE]`: run one benchmark and print its figures. [IO]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import uvloop

from benchmarks import bench_fastpath, bench_join, bench_loss, bench_relay, bench_signalling, bench_switch
from benchmarks.report import Figures, write


class Benchmark(Protocol):
    """What each `bench_*.py` is: its docstring's first line is the help."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    async def run(self, arguments: argparse.Namespace) -> Figures: ...


BENCHMARKS: dict[str, Benchmark] = {
    "signalling": bench_signalling,
    "join": bench_join,
    "fastpath": bench_fastpath,
    "relay": bench_relay,
    "switch": bench_switch,
    "loss": bench_loss,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, measure, print, and write when asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Colloque on this machine.")
    choices = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, benchmark in BENCHMARKS.items():
        summary = (benchmark.__doc__ or "").splitlines()[0].removesuffix(" [IO]")
        choice = choices.add_parser(name, help=summary, description=summary)
        choice.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
        benchmark.add_arguments(choice)
    arguments = parser.parse_args(argv)
    figures = uvloop.run(BENCHMARKS[arguments.benchmark].run(arguments))
    for line in figures.lines():
        print(line)
    if arguments.json:
        write(arguments.json, arguments.benchmark, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
