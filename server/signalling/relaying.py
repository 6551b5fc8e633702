"""One room's use of the media server: whose connection carries what, in which codec, and what is to be negotiated yet.

Driven by `rooms.py` (people) and `whip.py` (devices); told by the media plane what becomes of its transports. Sans-IO:
after every call the caller drains `next_event`.

    offer ──> media_negotiation.py ──> Sfu: transport, publish, subscribe ──> answer, and NeedsOffer to the others

A transport is named `<room>.<number>`, so that a media event finds its room (`room_of`); a source `<transport>:<mid>`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from server.media import events
from server.media.parameters import (
    DtlsParameters,
    HeaderExtension,
    IceParameters,
    LocalParameters,
    SendParameters,
    TrackParameters,
)
from server.signalling.messages import RelayAnswer, RelayOffer, Role, Wishes


class MediaPort(Protocol):
    """What a room needs of the Sfu; media/sfu.py says more."""

    def open_transport(
        self,
        id: str,
        room: str,
        participant: str,
        ice: IceParameters,
        dtls: DtlsParameters,
        extensions: Sequence[HeaderExtension],
        now: float,
    ) -> LocalParameters:
        """Make a transport that answers checks."""

    def restart_ice(self, id: str, ice: IceParameters, now: float) -> LocalParameters:
        """Give it new credentials (RFC 8445 section 9)."""

    def close_transport(self, id: str, now: float) -> None:
        """Forget it with its tracks, at once."""

    def publish(self, transport: str, track: TrackParameters, now: float) -> str:
        """Take what a section sends; again with the same mid: in place of what was said before."""

    def unpublish(self, transport: str, mid: str, now: float) -> None:
        """Take it no longer."""

    def subscribe(self, transport: str, track: TrackParameters, source: str, now: float) -> SendParameters:
        """Send a source in a section; again with the same mid: in place of the one before."""

    def unsubscribe(self, transport: str, mid: str, now: float) -> None:
        """Send it no longer."""

    def prefer(self, transport: str, mid: str, rid: str | None, max_temporal: int = 7, now: float = 0.0) -> None:
        """Ask for a layer; None pauses."""


@dataclass(frozen=True)
class RelayedEvent:
    """Something that the room has to tell its people, or its topology."""


@dataclass(frozen=True)
class NeedsOffer(RelayedEvent):
    """A participant's browser is to offer (`RelayWanted`): sections are missing, or what they carry has changed."""

    participant: str
    audio: int
    video: int
    fresh: bool = False
    """The connection that it has is dead here."""


@dataclass(frozen=True)
class EncodingsWanted(RelayedEvent):
    """Which layers of a browser's camera somebody watches (`Encode`); empty: nobody."""

    participant: str
    rids: tuple[str, ...]


@dataclass(frozen=True)
class SpeakersChanged(RelayedEvent):
    """Who speaks, loudest first."""

    participants: tuple[str, ...]


@dataclass(frozen=True)
class Connected(RelayedEvent):
    """A participant's browser has ICE and DTLS with the media server."""

    participant: str


@dataclass(frozen=True)
class Interrupted(RelayedEvent):
    """Its checks have stopped for 15 s; `Connected` again when they are back."""

    participant: str


@dataclass(frozen=True)
class Failed(RelayedEvent):
    """Its connection is dead and closed here. Unless the reason is `fingerprint`, a fresh one has been asked for."""

    participant: str
    reason: events.TransportFailure


def room_of(event: events.MediaEvent) -> str:
    """Return the room that a media event belongs to."""
    room: str = getattr(event, "room", "")
    transport: str = getattr(event, "transport", "")
    return room or transport.rpartition(".")[0]


class RelayedRoom:
    """What one room does with media.

    Args:
        room: Its id.
        sfu: Where its transports live.
    """

    def __init__(self, room: str, sfu: MediaPort) -> None:
        self._room = room
        self._sfu = sfu
        self._events: deque[RelayedEvent] = deque()

    def enter(self, participant: str, now: float) -> None:
        """Count somebody in: they are in the conversation, and may connect."""

    def leave(self, participant: str, now: float) -> None:
        """Close everything of theirs at once."""

    def close(self, now: float) -> None:
        """Close everything: the room is over."""

    def invite(self, participant: str, now: float, fresh: bool = False) -> None:
        """Ask somebody's browser for its first offer (`NeedsOffer`), or for a fresh connection. Idempotent."""

    def offer(self, participant: str, role: Role, message: RelayOffer, now: float) -> RelayAnswer:
        """Answer the offer of a participant's browser.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: `not_permitted`: not in the conversation, or an observer who would send.
        """
        raise NotImplementedError

    def wish(self, participant: str, message: Wishes, now: float) -> None:
        """Pass on how large somebody shows what they receive."""

    def connected(self, participant: str) -> bool:
        """Whether somebody's browser can be sent media now."""
        return False

    def receive_media_event(self, event: events.MediaEvent, now: float) -> None:
        """Take an event of the media plane whose `room_of` is this room."""

    def next_event(self) -> RelayedEvent | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None
