"""What has to be looked at again and again for all tracks of a worker: feedback, losses, layers, speakers.

Driven by: sfu.py, every `TICK_S`. Sans-IO. Costs a look at the relay's table of sources, and then what has changed.
"""

from __future__ import annotations

from server.media.downtrack import DownTrack
from server.media.fastpath.relay import Relay
from server.media.guard import Guard
from server.media.peer import Peer
from server.media.router import Router
from server.media.sourcewatch import SourceWatch
from server.media.uptrack import UpEncoding, UpTrack

TICK_S = 0.05
"""A keyframe that was asked for too soon, or a NACK, waits no longer."""
FEEDBACK_EVERY_S = 0.1
"""Of transport-cc: libwebrtc's usual pace."""
SPEAKERS_EVERY = 4
"""Ticks: 0.2 s."""
COMPARE_EVERY = 20
"""Ticks between two looks at what all forwards carry: events that tell of it may have found the queue full."""


class Clockwork:
    """Every encoding that a worker receives, by its slot in the relay, and every forward.

    Args:
        relay: Where they are.
        guard: Around what is done for each.
    """

    def __init__(self, relay: Relay, guard: Guard) -> None:
        self.encodings: dict[int, tuple[Peer, UpEncoding]] = {}
        self.forwards: dict[int, tuple[Router, DownTrack]] = {}
        """Every forward, by its slot."""
        self.watch = SourceWatch(relay.sources_view)
        self._relay = relay
        self._guard = guard
        self._ticks = 0
        self._heard: set[Router] = set()

    def add(self, peer: Peer, encoding: UpEncoding) -> None:
        """Look after an encoding."""
        self.encodings[encoding.slot] = (peer, encoding)
        self.watch.add(encoding.slot, encoding.track.kind == "video", encoding.ssrc or 0)

    def remove(self, slot: int, encoding: UpEncoding) -> None:
        """Look after an encoding no longer. Another one that has its slot meanwhile is not touched."""
        known = self.encodings.get(slot)
        if known is not None and known[1] is encoding:
            del self.encodings[slot]
            self.watch.remove(slot)

    def bound(self, slot: int, ssrc: int) -> None:
        """Take note of an encoding's SSRC, unless it is known."""
        peer, encoding = self.encodings[slot]
        if encoding.ssrc != ssrc:
            peer.bound(encoding, ssrc)
            self.watch.restart(slot, ssrc)

    def tick(self, now: float) -> set[Router]:
        """Do all of it once. Returns the rooms in which something has changed."""
        self._ticks += 1
        self._relay.feedback(now, FEEDBACK_EVERY_S)
        self._relay.reports(now)
        changes = self.watch.look(now)
        for slot, ssrc in changes.renamed:
            with self._guard:
                self.bound(slot, ssrc)
        for slot in changes.lossy:
            peer, encoding = self.encodings[slot]
            with self._guard:
                encoding.repair(now, peer.round_trip_s)
        changed = self._flap(changes.flapped, now)
        for slots, is_live in ((changes.live, True), (changes.silent, False)):
            for slot in slots:
                peer, encoding = self.encodings[slot]
                with self._guard:
                    peer.router.live(encoding, is_live)
                changed.add(peer.router)
        if self._ticks % SPEAKERS_EVERY == 0:
            changed |= self._listen(now)
        if self._ticks % COMPARE_EVERY == 0:
            changed |= self._compare(now)
        return changed

    def _compare(self, now: float) -> set[Router]:
        """Make up for switches that nobody was told of."""
        changed: set[Router] = set()
        slots = list(self.forwards)
        for slot, source in zip(slots, self._relay.forwards_view["source"][slots].tolist(), strict=True):
            router, down = self.forwards[slot]
            if down.awaits(source):
                with self._guard:
                    router.switched(down, source, now)
                changed.add(router)
        return changed

    def _flap(self, slots: list[int], now: float) -> set[Router]:
        """Tell of encodings that have begun or ceased to come, all of a track at once."""
        flapped: dict[UpTrack, Router] = {}
        for slot in slots:
            peer, encoding = self.encodings[slot]
            encoding.fresh = self.watch.is_fresh(slot)
            flapped[encoding.track] = peer.router
        for up, router in flapped.items():
            with self._guard:
                router.flapped(up, now)
        return set(flapped.values())

    def _listen(self, now: float) -> set[Router]:
        """Let rooms know who speaks; one that falls silent is told so too, or a cough would go on till the next."""
        heard: set[Router] = set()
        for slot, loudness in self.watch.loud():
            peer, encoding = self.encodings[slot]
            peer.router.hear(encoding.track, loudness)
            heard.add(peer.router)
        listening, self._heard = heard | self._heard, heard
        for router in listening:
            with self._guard:
                router.listen(now)
        return listening
