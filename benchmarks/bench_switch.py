"""Switch: what two people notice when their room moves between direct and relayed, at two Chromium. [IO]

Method and meaning of each figure: README.md.
"""

from __future__ import annotations

import argparse
import asyncio

from benchmarks.report import Figures, percentile, progress
from server.signalling.messages import Path
from tests.switches import Switch, switched_call

_SETTLE_S = 4.0
"""Before the first switch, until the rate of the picture has risen to what it needs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often to switch."""
    parser.add_argument("--runs", type=int, default=20, help="switches each way (default: %(default)s)")


async def run(arguments: argparse.Namespace) -> Figures:
    """Move one call to and fro."""
    switches: dict[Path, list[Switch]] = {"relayed": [], "direct": []}
    async with switched_call() as call:
        figures = Figures(arguments.runs, {"chromium": call.version})
        await asyncio.sleep(_SETTLE_S)
        for number in range(arguments.runs + 1):
            for to, done in switches.items():
                switch = await call.switch(to)
                if number == 0:
                    continue  # the browsers load their codecs
                done.append(switch)
                progress(
                    f"to {to} {number}/{arguments.runs}: {switch.picture_gap_ms:.0f} ms without a new picture, "
                    f"{switch.sound_gap_ms:.0f} ms without sound, rate kept {switch.rate_kept:.2f}"
                )
    both = [switch for done in switches.values() for switch in done]
    figures.add("video_gap_max_ms", "ms", max(switch.picture_gap_ms for switch in both))
    figures.add("audio_gap_max_ms", "ms", max(switch.sound_gap_ms for switch in both))
    for to, done in switches.items():
        gaps = [switch.picture_gap_ms for switch in done]
        figures.add(f"to_{to}.video_gap_ms", "ms", *gaps)
        figures.add(f"to_{to}.video_gap_p95_ms", "ms", percentile(gaps, 0.95))
        figures.add(f"to_{to}.audio_gap_ms", "ms", *(switch.sound_gap_ms for switch in done))
        figures.add(f"to_{to}.ready_ms", "ms", *(switch.ready_ms for switch in done))
        figures.add(f"to_{to}.rate_kept", "", *(switch.rate_kept for switch in done))
        figures.add(f"to_{to}.size_kept", "", *(switch.size_kept for switch in done))
    figures.add("steady.video_gap_ms", "ms", *(switch.steady_picture_gap_ms for switch in both))
    figures.add("steady.audio_gap_ms", "ms", *(switch.steady_sound_gap_ms for switch in both))
    return figures
