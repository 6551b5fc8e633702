"""Who sits in which room, and what they send: what bench_relay.py plays to every server alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from loadtest.generator import Generator
from loadtest.sdp import PAYLOAD_TYPES, Section


@dataclass(frozen=True)
class Seat:
    """One participant."""

    room: int
    number: int
    """Of the participants of all rooms, from 0."""
    publishes: bool
    receives: tuple[Seat, ...] = ()
    """Whom; they know nothing of their own receivers here."""

    def ssrc(self, kind: Literal["audio", "video"]) -> int:
        """Of what they send."""
        return 0x20000000 + 2 * self.number + (kind == "video")


@dataclass(frozen=True)
class Scenario:
    """Rooms of one shape.

    Args:
        name: As in the figures.
        publishers, receivers: In a room; each receiver receives every publisher but itself. Of consultations the two
            publishers are the receivers.
        rooms: How many are played where the CPU per packet is measured: as many as make about 11,000 packets a second.
    """

    name: str
    publishers: int
    receivers: int
    rooms: int

    def seats(self, rooms: int) -> Iterator[list[Seat]]:
        """Return the rooms, one after the other."""
        number = 0
        for room in range(rooms):
            publishers = [Seat(room, number + i, True) for i in range(self.publishers)]
            number += self.publishers
            if self.receivers:
                yield publishers + [Seat(room, number + i, False, tuple(publishers)) for i in range(self.receivers)]
                number += self.receivers
            else:
                yield [
                    Seat(
                        room,
                        own.number,
                        True,
                        tuple(Seat(room, other.number, True) for other in publishers if other is not own),
                    )
                    for own in publishers
                ]

    @property
    def senders_per_room(self) -> int:
        """Streams sent, sound and picture each one."""
        return 2 * self.publishers

    @property
    def streams_per_room(self) -> int:
        """Received, sound and picture each one."""
        return 2 * self.publishers * (self.receivers or self.publishers - 1)


CONSULTATIONS = Scenario("consultations", 2, 0, 30)
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        CONSULTATIONS,
        Scenario("fanout10", 1, 10, 6),
        Scenario("fanout30", 1, 30, 2),
        Scenario("fanout60", 1, 60, 1),
    )
}


def add_media(generator: Generator, leg: int, seat: Seat, section: Section) -> None:
    """Let a seat send what a section was negotiated for."""
    extensions = section.extensions
    generator.engine.add_sender(
        leg,
        seat.ssrc(section.kind),
        section.payload_type or PAYLOAD_TYPES[section.kind],
        section.kind == "video",
        mid=section.mid.encode(),
        mid_id=extensions.get("mid", 0),
        wide_id=extensions.get("wide", 0),
        sent_id=extensions.get("sent", 0) if section.kind == "video" else 0,
        level_id=extensions.get("level", 0) if section.kind == "audio" else 0,
    )
