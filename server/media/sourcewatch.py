"""What has changed in the relay's table of sources: one look at whole columns, instead of a question to every track.

Driven by: clockwork.py, every 50 ms. Sans-IO. Costs a few tens of microseconds a look for a thousand sources; what it
returns is short, because media that flows does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SILENT_S = 3.0
"""Without packets a stream is muted or gone: Opus with DTX sends every 0.4 s, Chromium a still screen each second."""
STALE_S = 0.7
"""Without packets a simulcast layer whose siblings go on is off. A layer of 5 frames a second, two lost, is not."""
REPAIRING_S = 1.5
"""After a loss is noticed, requests for it go on: 10 tries at a good round trip."""
LOUD = 127 - 55
"""Of `loudness`: -55 dBov is soft speech close to a microphone, and above most rooms."""


@dataclass(frozen=True)
class Changes:
    """Slots of sources."""

    live: list[int]
    """Media that a decoder can begin with has begun to come."""
    silent: list[int]
    """It comes no more."""
    flapped: list[int]
    """Packets have begun or ceased to come."""
    renamed: list[tuple[int, int]]
    """They have an SSRC that we have not been told of: slot and SSRC."""
    lossy: list[int]
    """Something is missing that may still be had."""


class SourceWatch:
    """The last look at the sources. Holds 36 bytes for each slot of the table.

    Args:
        view: `Relay.sources_view`.
    """

    def __init__(self, view: NDArray[np.void]) -> None:
        self._view = view
        self._video = np.zeros(len(view), bool)
        self._watched = np.zeros(len(view), bool)
        self._live = np.zeros(len(view), bool)
        self._fresh = np.zeros(len(view), bool)
        self._since = np.zeros(len(view))
        self._lost = np.zeros(len(view), np.int64)
        self._ssrc = np.zeros(len(view), np.int64)
        self._repair_until = np.zeros(len(view))
        self._used = 0

    def add(self, slot: int, is_video: bool, ssrc: int) -> None:
        """Watch a slot from now on; it is taken for silent. An SSRC that is not known yet is 0."""
        self._used = max(self._used, slot + 1)
        self._watched[slot] = True
        self._video[slot] = is_video
        self._live[slot] = self._fresh[slot] = False
        self._since[slot] = 0.0
        self.restart(slot, ssrc)

    def restart(self, slot: int, ssrc: int) -> None:
        """It has another SSRC, and its counters have begun again."""
        self._ssrc[slot] = ssrc
        self._lost[slot] = 0
        self._repair_until[slot] = 0.0

    def silence(self, slot: int, now: float) -> None:
        """Take it for silent until something comes after this moment: its sender has said goodbye."""
        self._since[slot] = now
        self._live[slot] = False

    def remove(self, slot: int) -> None:
        """Watch it no longer."""
        self._watched[slot] = False

    def is_fresh(self, slot: int) -> bool:
        """Tell whether packets were coming at the last look."""
        return bool(self._fresh[slot])

    def look(self, now: float) -> Changes:
        """Compare the table with the last look."""
        n = self._used
        rows, watched, video = self._view[:n], self._watched[:n], self._video[:n]
        received_at = rows["received_at"]
        has_received = watched & (rows["packets"] > 0)
        decodable = has_received & (~video | (rows["keyframes"] > 0))
        live = decodable & (received_at > np.maximum(self._since[:n], now - SILENT_S))
        fresh = has_received & (received_at > now - STALE_S)
        renamed = watched & (rows["ssrc"] != self._ssrc[:n]) & (rows["ssrc"] != 0)
        lost = rows["lost"]
        more_lost = watched & video & (lost > self._lost[:n])
        self._repair_until[:n][more_lost] = now + REPAIRING_S
        changes = Changes(
            np.flatnonzero(live & ~self._live[:n]).tolist(),
            np.flatnonzero(watched & ~live & self._live[:n]).tolist(),
            np.flatnonzero(watched & (fresh != self._fresh[:n])).tolist(),
            [(slot, int(rows[slot]["ssrc"])) for slot in np.flatnonzero(renamed).tolist()],
            np.flatnonzero(watched & (self._repair_until[:n] > now)).tolist(),
        )
        self._live[:n] = live
        self._fresh[:n] = fresh
        self._lost[:n] = lost
        return changes

    def loud(self) -> list[tuple[int, float]]:
        """Return the slots that carry speech now, and how loud each is (RFC 6464, turned round: 127 is the loudest)."""
        n = self._used
        rows = self._view[:n]
        heard = self._fresh[:n] & ~self._video[:n] & (rows["loudness"] > LOUD)
        return [(slot, float(self._view[slot]["loudness"])) for slot in np.flatnonzero(heard).tolist()]
