"""Every live room, and whose seat a hello opens. Driven by `session.py`, `whip.py`; one room's rules are in `rooms.py`.

A room is live from the first hello that names it until nobody has been connected to it for a while. What several rooms
share is here too: the timers, what is to be written and announced, and which rooms and links have come to their end.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from itertools import count
from typing import Final, Literal, get_args

from server.errors import RefusalError
from server.ids import digest
from server.records import RoomRecord, SeatRecord
from server.signalling.auth import Claims
from server.signalling.messages import IceServer, State
from server.signalling.participants import Participant, Seated
from server.signalling.paths import Paths, PathSettings
from server.signalling.rooms import Effect, Room

MAX_SEATS_PER_LINK: Final = 50
"""Devices that one reusable link seats in one room: it may be passed around, not posted in public."""
FORGET_S: Final = 3600.0
"""How long the end of a room or link is remembered, for hellos that looked it up just before."""
_KEEP_S: Final = 5.0
"""How long a room stays in memory after the last person is "left"."""


class RoomRegistry:
    """Every live room, by id, and what they have in common.

    Args:
        left_after_s: Without a socket for this long, the others see "left".
        path_settings: What all rooms have in common about direct and relayed.
        ice_servers: Makes the ICE servers of one participant, by id.

    Invariants: a room is in `rooms` exactly while somebody is connected to it or was during the last `left_after_s`;
    `by_resume` holds every seat of every live room.
    """

    def __init__(
        self, left_after_s: float, path_settings: PathSettings, ice_servers: Callable[[str], list[IceServer]]
    ) -> None:
        self.left_after_s = left_after_s
        self.path_settings = path_settings
        self.ice_servers = ice_servers
        self.rooms: dict[str, Room] = {}
        self.by_resume: dict[str, Participant] = {}
        self.effects: list[Effect] = []
        self.stale: set[Room] = set()
        self._timers: list[tuple[float, int, Room, Participant | Paths | None]] = []
        self._sequence = count()
        self._ended: dict[str, tuple[float, str]] = {}

    # For hellos ------------------------------------------------------------------------------------------------------

    def live_seat(self, resume_digest: str) -> SeatRecord | None:
        """Return the seat of a live room that this resume secret opens."""
        person = self.by_resume.get(resume_digest)
        return person.seat if person is not None else None

    def open(self, record: RoomRecord, seats: list[SeatRecord], now: float) -> Room:
        """Make a room live with its seats from the store, unless it is already."""
        room = self.rooms.get(record.id)
        if room is None:
            room = self.rooms[record.id] = Room(record, self)
            for seat in seats:
                room.restore(seat, now)
            self.wake_at(now + self.left_after_s + _KEEP_S, room)
        return room

    def enter(
        self,
        claims: Claims,
        session: Seated,
        instance: str,
        resume: str | None,
        take_over: bool,
        invited: bool,
        now: float,
        wall: datetime,
    ) -> tuple[Room, Participant, str] | None:
        """Find or make the seat for a hello whose room is live, and seat the session on it.

        Args:
            claims: What its credentials gave, a moment ago.
            session: What is to sit there.
            instance: The page load.
            resume: The resume secret that it came with.
            take_over: The person answered yes to "continue here?".
            invited: It came with a link or token too, which opens the seat even if the resume secret no longer does.
            now: Monotonic seconds.
            wall: The time of day, UTC.

        Returns:
            The room, the participant and the resume secret of this device; None when the seat is in use elsewhere and
            `take_over` is not said.

        Raises:
            RefusalError: `room_ended`, `link_revoked`, `room_full`, `link_unknown` (the resume secret has been replaced
                since), or why the seat is closed.
        """
        self._refuse_ended(claims)
        room = self.rooms[claims.room.id]
        person = room.participants.get(claims.seat.id) if claims.seat is not None else None
        # Between the look-up and now, another device may have taken the seat, or a clinician closed it.
        if person is not None and resume is not None and person.seat.resume_digest == digest(resume):
            if person.seat.closed:
                raise RefusalError(person.seat.closed)
            room.attach(person, session, instance, now, same_device=True)
            return room, person, resume
        if not invited:
            raise RefusalError("link_unknown")
        person = self._seat_of(room, claims)
        if person is None:
            person = room.create(claims, now, wall)
        elif person.seat.closed:
            raise RefusalError(person.seat.closed)
        elif person.session is not None and not take_over:
            return None
        secret = room.give_resume(person)
        room.attach(person, session, instance, now, same_device=False)
        return room, person, secret

    def enter_device(self, claims: Claims, now: float, wall: datetime) -> tuple[Room, Participant]:
        """Find or make the seat in whose name a device comes (WHIP, WHEP): one for all devices of a link or token.

        A reusable link seats many people, and does not say whose the device is: only clinicians come by it, whom
        nobody has to admit.

        Raises:
            RefusalError: As `enter`, and `not_admitted`.
        """
        self._refuse_ended(claims)
        if not claims.single_use and claims.role != "clinician":
            raise RefusalError("not_admitted")
        room = self.rooms[claims.room.id]
        seats = [person for person in room.participants.values() if person.seat.origin == claims.origin]
        admitted = [person for person in seats if person.seat.admitted and not person.seat.closed]
        if admitted:
            return room, min(admitted, key=lambda person: person.state != "joined")
        if claims.single_use and seats and seats[0].seat.closed:
            raise RefusalError(seats[0].seat.closed)
        if claims.role != "clinician":
            raise RefusalError("not_admitted")
        if len(seats) >= MAX_SEATS_PER_LINK:
            raise RefusalError("room_full")
        person = room.create(claims, now, wall)
        room.give_resume(person)
        return room, person

    def _refuse_ended(self, claims: Claims) -> None:
        for gone in (claims.room.id, claims.origin):
            if gone in self._ended:
                raise RefusalError(self._ended[gone][1])

    @staticmethod
    def _seat_of(room: Room, claims: Claims) -> Participant | None:
        """Return the seat that a device without resume secret gets; None: a new one."""
        seats = [person for person in room.participants.values() if person.seat.origin == claims.origin]
        if claims.single_use:
            return seats[0] if seats else None
        seats = [person for person in seats if not person.seat.closed]
        if len(seats) < MAX_SEATS_PER_LINK:
            return None
        abandoned = [person for person in seats if person.state == "left" and person.session is None]
        if not abandoned:
            raise RefusalError("room_full")
        person = min(abandoned, key=lambda person: (person.seat.admitted, person.since))
        room.vacate(person)
        return person

    # From outside ----------------------------------------------------------------------------------------------------

    def end_room(
        self, room_id: str, by: Literal["clinician", "host", "limit"], actor: str, now: float, reason: str = ""
    ) -> None:
        """End a room, live or not, for everybody in it. The caller has recorded the end in the store."""
        self._ended[room_id] = (now + FORGET_S, "room_ended")
        room = self.rooms.get(room_id)
        if room is not None:
            room.end(by, actor, now, reason)
            self._forget(room, now)

    def drop_link(self, link_id: str, code: str, now: float) -> None:
        """Close every seat that came through a link, and keep it from making new ones."""
        self._ended[link_id] = (now + FORGET_S, code)
        for room in self.rooms.values():
            for person in room.participants.values():
                if person.seat.origin == link_id and not person.seat.closed:
                    room.close_seat(person, "removed", now, code=code)

    def counts(self) -> dict[str, int]:
        """Return how many participants of all live rooms are in each state."""
        total: Counter[str] = Counter(dict.fromkeys(get_args(State), 0))
        for room in self.rooms.values():
            total.update(room.counts())
        return total

    def count_relayed(self) -> int:
        """Return how many rooms with a conversation have their media relayed."""
        return sum(room.paths.path == "relayed" and any(True for _ in room.joined()) for room in self.rooms.values())

    # Time ------------------------------------------------------------------------------------------------------------

    def wake_at(self, at: float, room: Room, what: Participant | Paths | None = None) -> None:
        """Ask for `handle_timer` to look at a participant, at the paths of a room, or at a whole room."""
        heapq.heappush(self._timers, (at, next(self._sequence), room, what))

    def handle_timer(self, now: float) -> None:
        """Do what is due: participants away too long, rooms that nobody needs any more."""
        while self._timers and self._timers[0][0] <= now:
            _, _, room, what = heapq.heappop(self._timers)
            if self.rooms.get(room.record.id) is not room:
                continue
            if isinstance(what, Participant):
                room.handle_timer(what, now)
            elif what is not None:
                what.handle_timer(now)
            elif room.is_empty():
                self._forget(room, now)
            else:
                self.wake_at(now + self.left_after_s + _KEEP_S, room)
        while self._ended:
            gone, (until, _) = next(iter(self._ended.items()))
            if until > now:
                break
            del self._ended[gone]

    def announce(self, now: float) -> None:
        """Tell, in every stale room, what has been gathered."""
        stale, self.stale = self.stale, set()
        for room in stale:
            if self.rooms.get(room.record.id) is room:
                room.announce(now)

    def _forget(self, room: Room, now: float) -> None:
        room.paths.close(now)
        del self.rooms[room.record.id]
        for person in room.participants.values():
            self.by_resume.pop(person.seat.resume_digest, None)
