"""One room: which track feeds which, keyframes asked back, what somebody watches, who speaks.

Driven by: sfu.py. Sans-IO. A room is all that a Router sees, so nothing can cross to another: a source is looked up
here, among the tracks of the same room, and nowhere else.
"""

from __future__ import annotations

from collections import deque

from server.media.downtrack import DownTrack
from server.media.events import EncodingsWanted, MediaEvent, SpeakersChanged, TrackStarted, TrackStopped
from server.media.speakers import SpeakerOrder
from server.media.uptrack import UpEncoding, UpTrack

UNWATCHED_AFTER_S = 2.0
"""Until the publisher is told to stop an encoding: a tile that is scrolled past and back costs no keyframe."""


class Router:
    """The tracks of one room.

    Args:
        room: Its id.
    """

    def __init__(self, room: str) -> None:
        self.room = room
        self.transports: set[str] = set()
        self.keyframes_due: set[UpEncoding] = set()
        """Whose keyframe was asked for too soon after the last one; the Sfu comes back for them."""
        self.waiting: set[DownTrack] = set()
        """Receivers that are to choose again soon."""
        self.wanted_due: dict[str, float] = {}
        """When to tell a publisher that fewer of its encodings are watched, by source."""
        self._sources: dict[str, UpTrack] = {}
        self._receivers: dict[str, list[DownTrack]] = {}
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._speakers = SpeakerOrder()
        self._voices: dict[str, int] = {}
        self._loudness: dict[str, float] = {}
        self._events: deque[MediaEvent] = deque()

    def next_event(self) -> MediaEvent | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None

    # Tracks come and go.

    def publish(self, up: UpTrack, now: float) -> None:
        """Feed a track to everybody who waits for it."""
        self._sources[up.id] = up
        if up.kind == "audio":
            self._voices[up.participant] = self._voices.get(up.participant, 0) + 1
            if self._speakers.add(up.participant):
                self._tell_speakers()
        for down in self._receivers.get(up.id, ()):
            self._choose(down, down.attach(up, now), now)
        self._watch(up, now)

    def unpublish(self, up: UpTrack, now: float) -> None:
        """Forward it no longer. Its receivers stay, for when it comes back."""
        del self._sources[up.id]
        self._wanted.pop(up.id, None)
        self.wanted_due.pop(up.id, None)
        self.keyframes_due.difference_update(up.encodings)
        for down in self._receivers.get(up.id, ()):
            down.attach(None, now)
            self.waiting.discard(down)
        self._stopped(up)
        if up.kind == "audio":
            self._voices[up.participant] -= 1
            if not self._voices[up.participant]:
                del self._voices[up.participant]
                self._loudness.pop(up.participant, None)
                self._speakers.remove(up.participant)
                self._tell_speakers()

    def subscribe(self, down: DownTrack, now: float) -> None:
        """Feed it, if what it waits for is there."""
        self._receivers.setdefault(down.source, []).append(down)
        up = self._sources.get(down.source)
        if up is not None:
            self._choose(down, down.attach(up, now), now)
            self._watch(up, now)

    def unsubscribe(self, down: DownTrack, now: float) -> None:
        """Feed it no longer."""
        receivers = self._receivers[down.source]
        receivers.remove(down)
        self.waiting.discard(down)
        if not receivers:
            del self._receivers[down.source]
        up = self._sources.get(down.source)
        if up is not None:
            self._watch(up, now)

    def prefer(self, down: DownTrack, rid: str | None, max_temporal: int, now: float) -> None:
        """Carry another layer, as soon as it is there."""
        self._choose(down, down.prefer(rid, max_temporal, now), now)
        up = self._sources.get(down.source)
        if up is not None:
            self._watch(up, now)

    # What the relay has noticed.

    def restarted(self, up: UpTrack, now: float) -> None:
        """A source of the track is a new one: feed it again to everybody."""
        for down in self._receivers.get(up.id, ()):
            self._choose(down, down.attach(up, now), now)

    def switched(self, down: DownTrack, slot: int, now: float) -> None:
        """A receiver has begun with another encoding: the one before it may be of no more use."""
        down.switched(slot)
        up = self._sources.get(down.source)
        if up is not None:
            self._watch(up, now)

    def want_keyframe(self, encoding: UpEncoding, now: float) -> None:
        """Somebody cannot begin, or has lost a picture."""
        if not encoding.want_keyframe(now):
            self.keyframes_due.add(encoding)

    def flapped(self, up: UpTrack, now: float) -> None:
        """Encodings have begun or ceased to come: siblings may have to stand in for them, or may be released."""
        if len(up.encodings) > 1:
            for down in self._receivers.get(up.id, ()):
                self._choose(down, down.choose(now), now)
            self._watch(up, now)

    def live(self, encoding: UpEncoding, is_live: bool) -> None:
        """Media of an encoding has begun or ceased to be decodable."""
        encoding.live = is_live
        up = encoding.track
        if not any(each.live for each in up.encodings):
            self._stopped(up)
        elif not up.live:
            up.live = True
            self._events.append(TrackStarted(up.transport_id, up.id))

    def hear(self, up: UpTrack, loudness: float) -> None:
        """Note who speaks, until `listen` compares them."""
        self._loudness[up.participant] = max(loudness, self._loudness.get(up.participant, 0.0))

    def listen(self, now: float) -> None:
        """Let who was heard since the last call change the order of speakers."""
        if self._speakers.order and self._speakers.hear(self._loudness, now):
            self._tell_speakers()
        self._loudness.clear()

    @property
    def is_busy(self) -> bool:
        """Whether `handle_timer` has something to come back for."""
        return bool(self.waiting or self.keyframes_due or self.wanted_due)

    # The clockwork.

    def handle_timer(self, now: float) -> None:
        """Choose again, ask for keyframes that were asked for too soon, release encodings that nobody watches."""
        for down in list(self.waiting):
            self._choose(down, down.choose(now), now)
        self.keyframes_due = {each for each in self.keyframes_due if not each.ask_again(now)}
        for source in [source for source, at in self.wanted_due.items() if now >= at]:
            del self.wanted_due[source]
            self._tell_wanted(self._sources[source])

    def _choose(self, down: DownTrack, needed: UpEncoding | None, now: float) -> None:
        """Do what a receiver's choice of an encoding asks for."""
        if needed is not None:
            self.want_keyframe(needed, now)
        if down.is_waiting:
            self.waiting.add(down)
        else:
            self.waiting.discard(down)

    def _watched(self, up: UpTrack) -> tuple[str, ...]:
        wanted: set[UpEncoding] = set()
        for down in self._receivers.get(up.id, ()):
            wanted |= down.wanted
        return tuple(each.rid for each in up.encodings if each in wanted)

    def _watch(self, up: UpTrack, now: float) -> None:
        """Tell the publisher what is watched: at once what is missing, later what is too much. Sound always is."""
        if up.kind != "video":
            return
        watched, told = self._watched(up), self._wanted.get(up.id)
        if told is None or not set(watched) <= set(told):
            self.wanted_due.pop(up.id, None)
            self._tell_wanted(up)
        elif watched == told:
            self.wanted_due.pop(up.id, None)
        else:
            self.wanted_due.setdefault(up.id, now + UNWATCHED_AFTER_S)

    def _tell_wanted(self, up: UpTrack) -> None:
        watched = self._watched(up)
        if watched != self._wanted.get(up.id):
            self._wanted[up.id] = watched
            self._events.append(EncodingsWanted(up.transport_id, up.mid, watched))

    def _tell_speakers(self) -> None:
        self._events.append(SpeakersChanged(self.room, tuple(self._speakers.order)))

    def _stopped(self, up: UpTrack) -> None:
        if up.live:
            up.live = False
            self._events.append(TrackStopped(up.transport_id, up.id))
