"""What a person at a page really sees and hears of the others: where it stood still, where it was silent. [IO]

    page = await browser.new_page(bypass_csp=True)     # the recorder is no script of ours
    presented = await Presented.begin(page)
    ...                                         # something that nobody should notice
    seen = await presented.take()
    assert seen.picture_gap_ms() <= 300 and seen.sound_gap_ms() <= 100

For Chromium with the films and tones of `tests/media.py`: a picture counts when the number in its pixels is another one
than before; the tone beeps, so its own pauses are no gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

from playwright.async_api import Page

from tests import media

_SCRIPT = Path(__file__).with_suffix(".js")
_SILENT = 0.004
"""Loudness, RMS, below which nothing is heard: 20 dB under the tone."""
_BEEP_MS, _PAUSE_MS = media.BEEP_S * 1000, media.PAUSE_S * 1000
_PAUSE_SLACK_MS = 60
"""Echo control and Opus lengthen and shorten a pause by this much."""


@dataclass(frozen=True)
class Seen:
    """What was presented while somebody watched."""

    pictures: list[tuple[float, str, int, int]]
    """When (milliseconds of the page), whose, how wide, and the number in it."""
    loudness: list[float]
    quantum_ms: float

    def picture_gap_ms(self, peer: str | None = None) -> float:
        """Return the longest time without a new picture (of one peer)."""
        fresh: list[float] = []
        last = None
        for at, whose, _, number in self.pictures:
            if peer in (None, whose) and number != last:
                fresh.append(at)
                last = number
        return max((after - before for before, after in pairwise(fresh)), default=float("inf"))

    def sound_gap_ms(self) -> float:
        """Return the longest silence that is no pause of the tone, or by which a pause was too long."""
        runs = [
            (silent, len(list(values)) * self.quantum_ms)
            for silent, values in groupby(self.loudness, key=lambda value: value < _SILENT)
        ]
        gaps = [
            _unexplained(length, after=before)
            for (_, before), (silent, length) in pairwise(runs[:-1])
            if silent  # and neither the first nor the last run, which are cut
        ]
        return max(gaps, default=0.0)

    def sounding(self) -> float:
        """Return which part of the time something was heard."""
        return sum(value >= _SILENT for value in self.loudness) / max(len(self.loudness), 1)


def _unexplained(silence_ms: float, after: float) -> float:
    """Return what of a silence the tone's own pause does not explain.

    After a whole beep a pause is due, and is shorter where the sound goes on by a way that takes less time.
    """
    if abs(silence_ms - _PAUSE_MS) <= _PAUSE_SLACK_MS or (
        silence_ms < _PAUSE_MS and after >= _BEEP_MS - _PAUSE_SLACK_MS
    ):
        return 0.0
    return silence_ms - _PAUSE_MS if silence_ms > _PAUSE_MS else silence_ms


class Presented:
    """The recorder in one page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @classmethod
    async def begin(cls, page: Page, selector: str = "[data-view=call] .tile video") -> Presented:
        """Begin to note what the videos of `selector` present, and all sound of the page."""
        await page.evaluate(_SCRIPT.read_text())
        await page.evaluate(
            "([selector, columns, rows, source]) => __presented.start(selector, columns, rows, source)",
            [selector, media.COLUMNS, media.ROWS, _SCRIPT.read_text()],
        )
        return cls(page)

    async def take(self) -> Seen:
        """Return what was noted since the last time."""
        pictures, loudness, quantum_ms = await self._page.evaluate(
            "[__presented.pictures.splice(0), __presented.loudness.splice(0), __presented.quantumMs]"
        )
        return Seen([tuple(picture) for picture in pictures], loudness, quantum_ms)
