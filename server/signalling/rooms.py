"""Live rooms: who is in them, who waits, who may do what to whom. Driven by `session.py`; `registry.py` has them all.

A *participant* is a seat in a room that is live in memory; a *session* is the socket that sits on it, if any. The seat
outlives sockets: it moves along `MOVES` and is written to the store when something durable about it changes.

        hello ──> arrived ──ready──> waiting ──admit──> admitted ──join──> joined
                    │  └──admit, then ready ──────────────^  ^ └─sendBack─┐  │ ^
                    └──────────leave, 60 s offline──> left ──┘            └──│─┘ waiting <──sendBack── joined
                                                        (back: admitted if they were, otherwise arrived)

Nothing is sent from here. Messages go to the outboxes of the sessions they concern, facts for the store to `effects`,
and the driver drains both after every call ("mutate, then drain"). What changes slowly and concerns many (the
clinicians' list, places in the waiting room) is gathered: the room is marked in `stale` and `announce` tells once.

Cost: a relayed signal touches two participants; everything else is linear in the people of one room. Memory: about
1 KiB per participant, of rooms that somebody is or was connected to during the last minute; `registry.py` lets go of
the others. The file is long, but one thing: the rules of one room, which are read together.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from server.audit import SERVER, AuditKind
from server.errors import RefusalError
from server.ids import digest, new_id
from server.records import RoomRecord, SeatRecord
from server.signalling.auth import Claims
from server.signalling.messages import (
    Candidate,
    Describe,
    Distrust,
    IceServer,
    Path,
    PathReport,
    Peer,
    PeerCandidate,
    PeerChanged,
    PeerDescribed,
    PeerDistrusts,
    PeerJoined,
    PeerLeft,
    RelayOffer,
    RoomEnded,
    ServerMessage,
    StateChanged,
    Told,
    TrackState,
    Transferred,
    Visitor,
    Visitors,
)
from server.signalling.negotiation import check_candidate, check_description
from server.signalling.participants import RANK, Participant, Seated
from server.signalling.paths import Paths, PathSettings

Why = Literal["left", "timeout", "removed", "sentBack", "transferred"]


@dataclass(frozen=True, slots=True)
class Fact:
    """A line for the audit trail; the driver adds the time."""

    tenant: str
    room: str
    kind: AuditKind
    actor: str
    subject: str = ""
    detail: str = ""


Effect = Fact | SeatRecord


class Commons(Protocol):
    """What a room shares with all others: `RoomRegistry`."""

    left_after_s: float
    path_settings: PathSettings
    ice_servers: Callable[[str], list[IceServer]]
    by_resume: dict[str, Participant]
    effects: list[Effect]
    stale: set[Room]

    def wake_at(self, at: float, room: Room, what: Participant | Paths | None = None) -> None:
        """Have a participant, the paths or the whole room looked at."""


class Room:
    """One consultation that is live in this process.

    Made by `RoomRegistry.open`. Every method that a participant causes raises `RefusalError` with the code of the
    `problem` to answer; then nothing has changed.
    """

    def __init__(self, record: RoomRecord, registry: Commons) -> None:
        self.record = record
        self.participants: dict[str, Participant] = {}
        self._registry = registry
        self.paths = Paths(record.id, record.topology, registry.path_settings, self)
        """Where media goes, of the people in the conversation."""

    # Coming and going ------------------------------------------------------------------------------------------------

    def restore(self, seat: SeatRecord, now: float) -> Participant:
        """Put a seat of the store back in its place, empty."""
        person = self.participants[seat.id] = Participant(seat, "left", now)
        self._registry.by_resume[seat.resume_digest] = person
        return person

    def create(self, claims: Claims, now: float, wall: datetime) -> Participant:
        """Make a new seat for these claims; a clinician is admitted from the start."""
        admitted = claims.role == "clinician"
        seat = SeatRecord(
            id=new_id(),
            room=self.record.id,
            origin=claims.origin,
            role=claims.role,
            name=claims.name,
            resume_digest="",
            admitted=admitted,
            closed="",
            created_at=wall,
        )
        person = self.participants[seat.id] = Participant(seat, "admitted" if admitted else "arrived", now)
        self._fact("participant.arrived", person.id, detail=seat.role)
        return person

    def give_resume(self, person: Participant) -> str:
        """Give the seat to a new device: its resume secret is made, and the one before opens nothing any more."""
        secret = new_id()
        if person.seat.resume_digest:
            self._fact("participant.taken_over", person.id)
        self._registry.by_resume.pop(person.seat.resume_digest, None)
        self._save(person, resume_digest=digest(secret))
        self._registry.by_resume[person.seat.resume_digest] = person
        return secret

    def vacate(self, person: Participant) -> None:
        """Somebody else gets an abandoned seat: that its last owner was admitted is nothing to them."""
        if person.role != "clinician" and person.seat.admitted:
            self._save(person, admitted=False)

    def attach(self, person: Participant, session: Seated, instance: str, now: float, *, same_device: bool) -> None:
        """Seat a session; whoever sat there is told `taken_over`. A new device chooses camera and microphone first.

        On a bad network the hello of a socket that the page has given up may arrive after that of the next, and win.
        So a socket of the same page is told `dead`, after which it comes back by itself.
        """
        previous, person.session = person.session, session
        same_page = same_device and instance == person.instance
        if previous is not None:
            previous.end("dead" if same_page else "taken_over")
        person.instance = instance
        if same_device and person.state in ("joined", "left"):
            self._fact("participant.resumed", person.id)
        if person.state == "left":
            person.move("admitted" if person.seat.admitted else "arrived", now)
        elif person.state == "joined" and same_device and not person.by_device:
            self.paths.attach(person.id, now, same_page=same_page)
            self._tell_peers(person, PeerChanged)
        elif person.state == "joined":
            self._part(person, "left", now)
            person.move("admitted", now)
        self._registry.stale.add(self)

    def brief(self, person: Participant, now: float) -> None:
        """Tell a participant who was just welcomed the rest: place, peers, ICE servers, paths, the clinicians' list."""
        if person.state != "arrived":
            self._tell_state(person)
        self.paths.flush(now)
        if person.is_host:
            self._registry.stale.add(self)

    def detach(self, person: Participant, session: Seated, now: float) -> None:
        """A socket closed. Its seat, if it still has it, waits for `left_after_s` before the others see "left"."""
        if person.session is not session:
            return
        person.session = None
        if person.state == "left":
            return
        person.gone_at = now + self._registry.left_after_s
        self._registry.wake_at(person.gone_at, self, person)
        if person.state == "joined":
            self._fact("participant.reconnecting", person.id)
            self._tell_peers(person, PeerChanged)
            self.paths.detach(person.id, now)
        self._registry.stale.add(self)

    def handle_timer(self, person: Participant, now: float) -> None:
        """Call a participant left who has been away too long."""
        if person.connection != "online" and person.state != "left" and now >= person.gone_at:
            self._leave(person, "timeout", now)

    # What a participant may do ---------------------------------------------------------------------------------------

    def ready(self, person: Participant, now: float) -> None:
        """Go to the waiting room, or past it when already admitted. Said again, it repeats the answer."""
        if person.seat.admitted:
            if person.state != "admitted":
                person.move("admitted", now)
        elif person.state != "waiting":
            person.move("waiting", now)
            self._fact("participant.waiting", person.id)
        self._tell_state(person)
        self._registry.stale.add(self)

    def join(self, person: Participant, microphone: TrackState, camera: TrackState, now: float) -> None:
        """Enter the conversation, or come back to wait for it. Said again, it repeats the answer.

        Raises:
            RefusalError: `room_full`.
        """
        if not person.seat.admitted:
            self.ready(person, now)
            return
        if person.state == "joined":
            self.set_media(person, microphone, camera)
            self._tell_state(person)
            return
        if sum(1 for _ in self.joined()) >= self.paths.capacity:
            raise RefusalError("room_full")
        person.microphone, person.camera = microphone, camera
        if person.state == "left":
            person.move("admitted", now)
        person.move("joined", now)
        self.paths.enter(person.id, now, by_device=person.by_device)
        self._tell_state(person)
        self._tell_peers(person, PeerJoined)
        self.paths.flush(now)
        self._fact("participant.joined", person.id)
        self._registry.stale.add(self)

    def join_device(self, person: Participant, now: float) -> None:
        """Let somebody be in the conversation by a device, if they are not with their page.

        Raises:
            RefusalError: `not_joined`, their page is open and not in the conversation yet; `room_full`.
        """
        if person.state == "joined":
            return
        if person.session is not None:
            raise RefusalError("not_joined")
        if person.state == "arrived":
            person.move("admitted", now)
        person.by_device = True
        try:
            self.join(person, "off", "off", now)
        except RefusalError:
            person.by_device = False
            raise

    def leave(self, person: Participant, now: float) -> None:
        """Hang up; the seat is kept."""
        self._leave(person, "left", now)
        self._tell_state(person)

    def set_media(self, person: Participant, microphone: TrackState, camera: TrackState) -> None:
        """Note what microphone and camera do, and tell the others in the conversation."""
        if (microphone, camera) == (person.microphone, person.camera):
            return
        person.microphone, person.camera = microphone, camera
        if person.state == "joined":
            self._tell_peers(person, PeerChanged)

    def relay_candidate(self, sender: Participant, message: Candidate) -> None:
        """Pass a candidate on, unchanged.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: `unknown_participant`.
        """
        target = self._peer(sender, message.to)
        check_candidate(message.candidate)
        if target.session is not None:
            target.session.send(
                PeerCandidate(sender=sender.seat.id, instance=sender.instance, candidate=message.candidate)
            )

    def relay_description(self, sender: Participant, message: Describe) -> None:
        """Pass an offer or answer on, unchanged.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: `unknown_participant`; `not_permitted` when an observer would send.
        """
        target = self._peer(sender, message.to)
        check_description(message.description, sender.seat.role)
        target.tell(PeerDescribed(sender=sender.id, instance=sender.instance, description=message.description))

    def relay_distrust(self, sender: Participant, message: Distrust) -> None:
        """Tell a peer that its certificate was refused.

        Raises:
            RefusalError: `unknown_participant`.
        """
        self._peer(sender, message.to).tell(PeerDistrusts(sender=sender.id, instance=sender.instance))

    def report_path(self, sender: Participant, message: PathReport, now: float) -> None:
        """Take what somebody says about the direct connection to a peer.

        Raises:
            RefusalError: `unknown_participant`.
        """
        self._peer(sender, message.to)
        self.paths.report(sender.id, message, now)

    # What a clinician may do -----------------------------------------------------------------------------------------

    def admit(self, by: Participant, target_id: str, now: float) -> None:
        """Let a visitor in. One who still chooses devices is admitted as soon as they are ready."""
        target = self._visitor(target_id)
        if target.seat.admitted:
            return
        self._save(target, admitted=True)
        self._fact("participant.admitted", by.id, target.id)
        if target.state == "waiting":
            target.move("admitted", now)
            self._tell_state(target)
        self._registry.stale.add(self)

    def refuse(self, by: Participant, target_id: str, reason: str, now: float) -> None:
        """Turn a visitor away for good, with a reason."""
        target = self._visitor(target_id)
        if target.state == "joined":
            raise RefusalError("not_permitted")
        self._fact("participant.refused", by.id, target.id)
        self.close_seat(target, "refused", now, reason=reason)

    def send_back(self, by: Participant, target_id: str, reason: str, now: float) -> None:
        """Return a participant to the waiting room; they need to be admitted again."""
        target = self._visitor(target_id)
        if not target.seat.admitted:
            return
        self._save(target, admitted=False)
        self._fact("participant.sent_back", by.id, target.id)
        if target.state == "joined":
            self._part(target, "sentBack", now)
        if target.state in ("joined", "admitted"):
            target.move("waiting", now)
            self._tell_state(target, reason)
        self._registry.stale.add(self)

    def remove(self, by: Participant, target_id: str, reason: str, now: float) -> None:
        """Put somebody out for good, with a reason."""
        target = self._visitor(target_id)
        self._fact("participant.removed", by.id, target.id)
        self.close_seat(target, "removed", now, reason=reason)

    def may_transfer(self, target_id: str) -> Participant:
        """Return whom a clinician wants to send to another room.

        Raises:
            RefusalError: `unknown_participant` (also when they are not connected: nobody could tell them where to go)
                or `not_permitted`.
        """
        target = self._visitor(target_id)
        if target.session is None:
            raise RefusalError("unknown_participant")
        return target

    def transfer(self, by: Participant, target_id: str, secret: str, now: float) -> None:
        """Send somebody to another room with the secret of a new link there."""
        target = self.may_transfer(target_id)
        self._fact("participant.transferred", by.id, target.id)
        self.close_seat(target, "transferred", now, last=Transferred(secret=secret))

    def tell(self, by: Participant, target_id: str, text: str) -> None:
        """Say a sentence to somebody who is not yet in the conversation."""
        target = self._visitor(target_id)
        if target.session is None or target.state == "joined":
            raise RefusalError("unknown_participant")
        target.session.send(Told(text=text))

    # Ends ------------------------------------------------------------------------------------------------------------

    def close_seat(
        self,
        target: Participant,
        closed: Literal["refused", "removed", "transferred"],
        now: float,
        *,
        code: str = "",
        reason: str = "",
        last: ServerMessage | None = None,
    ) -> None:
        """Close a seat for good, and the socket on it, which is told `last` or a refusal with `code` (or `closed`)."""
        if target.state == "joined":
            self._part(target, "transferred" if closed == "transferred" else "removed", now, closed)
        if target.state != "left":
            target.move("left", now)
        self._save(target, closed=closed, admitted=False)
        session, target.session = target.session, None
        if session is not None:
            session.end(code or closed, reason, last)
        self._registry.stale.add(self)

    def end(self, by: Literal["clinician", "host", "limit"], actor: str, now: float, reason: str = "") -> None:
        """End the consultation for everybody."""
        self.paths.close(now)
        for person in self.joined():
            self._fact("participant.left", person.id, detail="room_ended")
        if by != "host":  # the API has written that down itself
            self._fact("room.ended", actor, detail=by)
        last = RoomEnded(by=by, reason=reason)
        for person in self.participants.values():
            session, person.session = person.session, None
            if session is not None:
                session.end("room_ended", last=last)

    # Views -----------------------------------------------------------------------------------------------------------

    def joined(self) -> Iterator[Participant]:
        """Yield who is in the conversation, also those who are reconnecting."""
        return (person for person in self.participants.values() if person.state == "joined")

    def waiting(self) -> list[Participant]:
        """Return who is in the waiting room, the next one first."""
        return sorted((p for p in self.participants.values() if p.state == "waiting"), key=lambda p: p.since)

    def counts(self) -> dict[str, int]:
        """Return how many participants are in each state."""
        return Counter(person.state for person in self.participants.values() if not person.seat.closed)

    def is_empty(self) -> bool:
        """Whether nobody is connected or expected back shortly."""
        return all(person.session is None and person.state == "left" for person in self.participants.values())

    def announce(self, now: float) -> None:
        """Tell the clinicians who is not in the conversation, and those who wait their place, where it changed."""
        expected = False
        hosts = [person for person in self.participants.values() if person.is_host]
        if hosts:
            expected = True
            message = Visitors(visitors=[self._visitor_view(p, now) for p in self._visitors()])
            for host in hosts:
                host.tell(message)
        for place, person in enumerate(self.waiting(), 1):
            if person.session is not None and person.told not in ((place, expected), None):
                self._tell_waiting(person, place, expected)

    def _visitors(self) -> Iterator[Participant]:
        for person in self.participants.values():
            if person.state != "joined" and person.role != "clinician" and not person.seat.closed:
                yield person

    @staticmethod
    def _visitor_view(person: Participant, now: float) -> Visitor:
        state = "admitted" if person.seat.admitted and person.state == "arrived" else person.state
        assert state != "joined"
        return Visitor(
            id=person.id,
            role=person.role,
            name=person.seat.name,
            state=state,
            connection=person.connection,
            since_ms=max(0, round((now - person.since) * 1000)),
        )

    def _peer_view(self, person: Participant, seen_by: Participant) -> Peer:
        polite = (RANK[seen_by.role], seen_by.id) > (RANK[person.role], person.id)
        return Peer(
            id=person.id,
            role=person.role,
            name=person.seat.name,
            connection=person.connection,
            microphone=person.microphone,
            camera=person.camera,
            instance=person.instance,
            polite=polite,
            direct=self.paths.direct(person.id, seen_by.id),
        )

    # What the paths ask (Conversation) -------------------------------------------------------------------------------

    def tell_person(self, participant: str, message: ServerMessage) -> None:
        """Send to whoever sits on a seat; to nobody otherwise."""
        self.participants[participant].tell(message)

    def relink(self, pairs: Iterable[frozenset[str]]) -> None:
        """Tell both of each pair that they are to hold a direct connection now, or not any more."""
        for pair in pairs:
            one, other = (self.participants[participant] for participant in pair)
            one.tell(PeerChanged(peer=self._peer_view(other, one)))
            other.tell(PeerChanged(peer=self._peer_view(one, other)))

    def path_moved(self, path: Path, reason: str) -> None:
        """Write down that media goes another way."""
        self._fact("path.moved", SERVER, detail=f"{path}:{reason}")

    def relay_refused(self, participant: str) -> None:
        """Tell somebody that the media server refuses their certificate."""
        session = self.participants[participant].session
        if session is not None:
            session.problem("relay_untrusted", RelayOffer)

    def devices_changed(self, participant: str, number: int, now: float) -> None:
        """Let somebody go who was here by their devices alone, when the last of these is gone."""
        person = self.participants[participant]
        if person.by_device and person.state == "joined" and not number:
            self._leave(person, "left", now)

    def wake_paths_at(self, at: float) -> None:
        """Have the paths looked at."""
        self._registry.wake_at(at, self, self.paths)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _peer(self, sender: Participant, target_id: str) -> Participant:
        target = self.participants.get(target_id)
        if target is None or target.state != "joined" or target is sender:
            raise RefusalError("unknown_participant")
        return target

    def _visitor(self, target_id: str) -> Participant:
        """Return somebody whom a clinician may command: not another clinician."""
        target = self.participants.get(target_id)
        if target is None or target.seat.closed:
            raise RefusalError("unknown_participant")
        if target.role == "clinician":
            raise RefusalError("not_permitted")
        return target

    def _leave(self, person: Participant, why: Literal["left", "timeout"], now: float) -> None:
        if person.state == "joined":
            self._part(person, why, now)
        else:
            self._fact("participant.left", person.id, detail=why)
        person.move("left", now)
        self._registry.stale.add(self)

    def _part(self, person: Participant, why: Why, now: float, detail: str = "") -> None:
        """Stop somebody's media, and tell the conversation that they are no longer in it. The caller moves them."""
        if person.by_device:  # the end of their devices is no second leave; they may come back with a page
            person.by_device, person.gone_at = False, now + self._registry.left_after_s
            self._registry.wake_at(person.gone_at, self, person)
        self.paths.leave(person.id, now)
        self._fact("participant.left", person.id, detail=detail or why)
        message = PeerLeft(id=person.id, why=why)
        for other in self.joined():
            if other is not person:
                other.tell(message)
        self.paths.flush(now)

    def _tell_peers(self, person: Participant, kind: type[PeerJoined] | type[PeerChanged]) -> None:
        for other in self.joined():
            if other is not person and other.session is not None:
                other.session.send(kind(peer=self._peer_view(person, other)))

    def _tell_state(self, person: Participant, reason: str = "") -> None:
        state = person.state
        if person.session is None:
            return
        if state == "waiting":
            place = self.waiting().index(person) + 1
            self._tell_waiting(person, place, any(p.is_host for p in self.participants.values()), reason)
        elif state == "admitted":
            person.session.send(StateChanged(state=state, ice_servers=self._registry.ice_servers(person.id)))
        elif state == "joined":
            peers = [self._peer_view(other, person) for other in self.joined() if other is not person]
            servers = self._registry.ice_servers(person.id)
            person.session.send(StateChanged(state=state, peers=peers, ice_servers=servers, path=self.paths.path))
            self.paths.greet(person.id)
        else:
            person.session.send(StateChanged(state=state, reason=reason))

    @staticmethod
    def _tell_waiting(person: Participant, place: int, expected: bool, reason: str = "") -> None:
        person.told = (place, expected)
        person.tell(StateChanged(state="waiting", place=place, expected=expected, reason=reason))

    def _save(self, person: Participant, **changes: Any) -> None:
        person.seat = dataclasses.replace(person.seat, **changes)
        self._registry.effects.append(person.seat)

    def _fact(self, kind: AuditKind, actor: str, subject: str = "", detail: str = "") -> None:
        self._registry.effects.append(Fact(self.record.tenant, self.record.id, kind, actor, subject, detail))
