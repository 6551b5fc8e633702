"""Who speaks: an order in which the one who speaks now is first, then who spoke last, and so on.

Driven by: router.py. Sans-IO. Nobody moves for a cough or a "yes": to come first one has to be clearly louder than who
is first, or to speak while that one is silent, for a while. Nobody else changes places, so that pictures stay where
they are.
"""

from __future__ import annotations

from collections.abc import Mapping

CLEARLY_LOUDER = 6.0
"""dB over who is first: what people hear as clearly louder, and above the ripple of speech after smoothing."""
TAKES_OVER_AFTER_S = 0.6
"""Longer than a cough or an "mhm", shorter than what one notices as late."""


class SpeakerOrder:
    """The order of one room."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self._challenger: str | None = None
        self._since = 0.0

    def add(self, participant: str) -> bool:
        """Put somebody last. False: they are there already."""
        if participant in self.order:
            return False
        self.order.append(participant)
        return True

    def remove(self, participant: str) -> None:
        """Take somebody out."""
        self.order.remove(participant)
        if self._challenger == participant:
            self._challenger = None

    def hear(self, loudness: Mapping[str, float], now: float) -> bool:
        """Take who speaks at this moment, and how loud in dB. True: the order has changed."""
        if not loudness:
            self._challenger = None
            return False
        loudest = max(loudness, key=loudness.__getitem__)
        first = self.order[0]
        if loudest == first or (first in loudness and loudness[loudest] < loudness[first] + CLEARLY_LOUDER):
            self._challenger = None
            return False
        if loudest != self._challenger:
            self._challenger, self._since = loudest, now
            return False
        if now < self._since + TAKES_OVER_AFTER_S:
            return False
        self._challenger = None
        self.order.remove(loudest)
        self.order.insert(0, loudest)
        return True
