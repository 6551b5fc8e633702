"""What one room remembers of its connections to the media server, and what it asks of the Sfu. No behaviour here,
except what a connection knows alone.

Used by: `relaying.py` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from server.media.parameters import (
    CodecParameters,
    DtlsParameters,
    HeaderExtension,
    IceParameters,
    LocalParameters,
    SendParameters,
    TrackParameters,
)
from server.signalling.media_negotiation import Offer, OfferedSection
from server.signalling.messages import Rid

MAX_SENDING: Final = 2
"""Sections that one connection publishes: a browser's microphone and camera; two pictures of a device, or its sound."""


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


@dataclass
class Source:
    """One track that somebody publishes."""

    id: str
    participant: str
    kind: str
    codec: str
    """What its packets are: `opus` or `red`; of video, the room's."""
    device: bool
    """Over WHIP, not from their browser."""


@dataclass
class Connection:
    """One transport: a browser's, or a device's over WHIP or WHEP."""

    transport: str
    participant: str
    name: str
    """The browser's own name for it; empty: a device."""
    offer: Offer
    local: LocalParameters
    number: int
    efficient: frozenset[str] = frozenset()
    flavours: frozenset[str] | None = None
    """What its video can carry; None: it has none, or nothing in common with the others."""
    flavour: str | None = None
    """What its last answer said."""
    only: str = ""
    """WHEP: the one participant that it watches; empty: all others."""
    bundled: OfferedSection | None = None
    """The first section that its last answer accepted, which has our candidates; None: it accepted none."""
    version: int = 0
    alive: bool = False
    sources: dict[str, Source] = field(default_factory=dict)
    """What it publishes, by mid."""
    carried: dict[str, str] = field(default_factory=dict)
    """Which source each of its receiving sections carries."""
    told: dict[str, str] = field(default_factory=dict)
    """The same, as its last answer said."""
    wishes: dict[str, Rid | None] = field(default_factory=dict)

    def taken(self, picked: Mapping[str, Sequence[CodecParameters]]) -> dict[str, OfferedSection]:
        """Return what is taken of what it offers to send: of a browser one section of each kind, of a device two.

        What it publishes already comes first.

        Args:
            picked: The codecs of each usable section, by mid; without any, it is not taken.
        """
        offered = [section for section in self.offer.sections if section.sends and picked[section.mid]]
        offered.sort(key=lambda section: section.mid not in self.sources)
        if self.name:
            offered = [*{section.kind: section for section in reversed(offered)}.values()]
        return {section.mid: section for section in offered[:MAX_SENDING]}


@dataclass
class Person:
    """Somebody in the conversation."""

    browser: Connection | None = None
    devices: dict[str, Connection] = field(default_factory=dict)
    invited: bool = False
    """Their browser has been asked for an offer, and has not made one yet."""
    asked_at: float = float("-inf")
    """When it was last asked for another offer on the connection that it has."""
    question: tuple[object, ...] = ()
    """Why they were asked for another offer last: the same reason is not asked about twice."""

    def connections(self) -> list[Connection]:
        """Return all of theirs."""
        return [*([self.browser] if self.browser else []), *self.devices.values()]
