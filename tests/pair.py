"""Two machines in one thread: signalling sessions and their rooms in memory, with numbers for time.

    desk = Desk()
    clinician, patient = desk.call()              # both in the conversation
    patient.say(Leave())
    assert clinician.hear() == [PeerLeft(...)]    # what arrived since the last time

`Desk` plays the driver: it resolves hellos from `Claims` that the test gives, and drains after every mutation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from server.config import SignallingConfig
from server.errors import RefusalError
from server.ids import digest, new_id
from server.records import Role, RoomRecord, SeatRecord, Tenant
from server.signalling.auth import Claims
from server.signalling.messages import (
    Admit,
    Hello,
    IceServer,
    Join,
    Message,
    Problem,
    Ready,
    Refused,
    ServerMessage,
    Welcome,
)
from server.signalling.participants import Participant
from server.signalling.paths import MediaSource, PathSettings
from server.signalling.registry import RoomRegistry
from server.signalling.rooms import Effect, Fact, Room
from server.signalling.session import EndRequested, HelloReceived, Session, TransferRequested

M = TypeVar("M", bound=Message)

WALL = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TENANT = Tenant("clinique", "Clinique du Parc")


class Client:
    """The other end of one session."""

    def __init__(self, desk: Desk, session: Session) -> None:
        self.desk = desk
        self.session = session
        self._heard: list[ServerMessage] = []
        self.all: list[ServerMessage] = []
        """Everything that ever arrived."""
        self.closed = ""
        """The code that the socket was closed with."""
        self.resume: str | None = None

    def hear(self) -> list[ServerMessage]:
        """Take what arrived since the last time."""
        heard, self._heard = self._heard, []
        return heard

    @property
    def id(self) -> str:
        return self.seat.id

    @property
    def seat(self) -> Participant:
        assert self.session.participant is not None
        return self.session.participant

    def last(self, kind: type[M]) -> M:
        """Return the latest message of this kind."""
        return next(message for message in reversed(self.all) if isinstance(message, kind))

    def receive(self, message: ServerMessage) -> None:
        assert not self.closed, f"{message} after the end"
        self._heard.append(message)
        self.all.append(message)

    def say(self, *said: Message) -> list[ServerMessage]:
        """Send messages; return what came back to this client."""
        self.hear()  # what came before is not the answer
        for message in said:
            self.send(msgspec.json.encode(message))
        return self.hear()

    def send(self, data: bytes | str) -> None:
        """Send bytes."""
        self.session.receive(data, self.desk.now)
        self.desk.settle(self)

    def drop(self) -> None:
        """Lose the socket, once."""
        self.session.closed(self.desk.now)
        self.desk.settle(self)
        if self in self.desk.clients:
            self.desk.clients.remove(self)


@dataclass
class Link:
    """An invitation as the tests know it: what the store and `auth.py` would make of its secret."""

    room: RoomRecord
    role: Role = "patient"
    name: str = "Ada"
    single_use: bool = True
    origin: str = ""

    def __post_init__(self) -> None:
        self.origin = self.origin or new_id()


class Desk:
    """A server without sockets: one registry, its sessions, and a clock that the test moves."""

    def __init__(self, media: MediaSource | None = None, **config: Any) -> None:
        self.config = SignallingConfig(**config)
        self.now = 1000.0
        self.touched: list[Session] = []
        self.registry = RoomRegistry(
            self.config.left_after_s,
            PathSettings(self.config.max_in_conversation, media=media),
            lambda participant: [IceServer(urls=["turn:t"], username=participant, credential="c")],
        )
        self.clients: list[Client] = []
        self.effects: list[Effect] = []
        self.stored: dict[str, SeatRecord] = {}
        self.transfers: list[tuple[Session, TransferRequested]] = []
        self.room = self.new_room()
        self.link = Link(self.room)
        """What the next hello stands for."""

    @staticmethod
    def new_room() -> RoomRecord:
        return RoomRecord(new_id(), TENANT.slug, "", "auto", WALL, None, "")

    # Clients ---------------------------------------------------------------------------------------------------------

    def socket(self) -> Client:
        """Open a socket."""
        session = Session(
            self.config, self.registry, lambda language, code: f"{language}:{code}", self.touched, self.now
        )
        client = Client(self, session)
        self.clients.append(client)
        return client

    def hello(
        self,
        link: Link | None = None,
        *,
        resume: str | None = None,
        instance: str = "page",
        take_over: bool = False,
        on: Client | None = None,
    ) -> Client:
        """Open a socket and say hello with a link, as a genuine credential."""
        client = on or self.socket()
        self.link = link or Link(self.room)
        client.send(
            msgspec.json.encode(
                Hello(version=1, tenant=TENANT.slug, instance=instance, secret="s", resume=resume, take_over=take_over)
            )
        )
        return client

    def clinician(self, **link: Any) -> Client:
        return self.hello(Link(**{"room": self.room, "role": "clinician", "name": "Dr Martin", **link}))

    def patient(self, **link: Any) -> Client:
        return self.hello(Link(**{"room": self.room, **link}))

    def waiting(self, **link: Any) -> Client:
        client = self.patient(**link)
        client.send(msgspec.json.encode(Ready()))
        self.announce()
        return client

    def joined(self, clinician: Client, **link: Any) -> Client:
        """Bring somebody into the conversation."""
        client = self.waiting(**link)
        clinician.say(Admit(participant=client.id))
        client.say(Join())
        self.announce()
        return client

    def call(self) -> tuple[Client, Client]:
        """Return a clinician and a patient in the conversation, everything heard so far taken."""
        clinician = self.clinician()
        clinician.say(Join())
        patient = self.joined(clinician)
        for client in (clinician, patient):
            client.hear()
        return clinician, patient

    # The driver ------------------------------------------------------------------------------------------------------

    def settle(self, client: Client | None = None) -> None:
        """Do what the driver does after each mutation."""
        if client is not None:
            while (event := client.session.next_event()) is not None:
                self._carry_out(client, event)
        by_session = {client.session: client for client in self.clients}
        for session in self.touched:
            for message in session.outbox:
                by_session[session].receive(message)
            session.outbox.clear()
            if session.ending:
                by_session[session].closed = session.ending
        self.touched.clear()
        for effect in self.registry.effects:
            self.effects.append(effect)
            if isinstance(effect, SeatRecord):
                self.stored[effect.id] = effect
        self.registry.effects.clear()
        for client in self.clients:
            if client.resume is None and any(isinstance(message, Welcome) for message in client.all):
                client.resume = client.last(Welcome).resume

    def _carry_out(self, client: Client, event: HelloReceived | TransferRequested | EndRequested) -> None:
        session = client.session
        match event:
            case HelloReceived(hello):
                link = self.link
                seat = self.registry.live_seat(digest(hello.resume)) if hello.resume else None
                seats = [seat for seat in self.stored.values() if seat.room == link.room.id]
                if seat is None and hello.resume:
                    seat = next((seat for seat in seats if seat.resume_digest == digest(hello.resume)), None)
                claims = Claims(TENANT, link.room, link.origin, link.role, link.name, link.single_use, seat)
                self.registry.open(link.room, seats, self.now)
                try:
                    session.welcome(claims, hello, self.now, WALL)
                except RefusalError as refusal:
                    session.end(refusal.code)
            case TransferRequested():
                self.transfers.append((session, event))
            case EndRequested(room, participant, reason):
                self.registry.end_room(room, "clinician", participant, self.now, reason)

    def announce(self) -> None:
        """Let what was gathered be told."""
        self.registry.announce(self.now)
        self.settle()

    def pass_time(self, seconds: float, *, answering: Callable[[Client], bool] = lambda _: True) -> None:
        """Move the clock in steps of 50 ms, as the ticker does; clients answer pings unless `answering` says no."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            for client in list(self.clients):
                at = client.session.get_timer()
                if at is not None and at <= self.now:
                    client.session.handle_timer(self.now)
                    self.settle()
                    if not client.closed and answering(client):
                        client.send('{"type":"pong"}')
            self.registry.handle_timer(self.now)
            self.announce()
            for client in [client for client in self.clients if client.closed]:
                client.drop()

    def restart(self) -> Desk:
        """Return the server that comes after this one, with what was stored."""
        other = Desk()
        other.config, other.stored, other.room = self.config, dict(self.stored), self.room
        return other

    def facts(self, *kinds: str) -> list[tuple[str, str, str, str]]:
        """Return (kind, actor, subject, detail) of the audit trail so far, of these kinds."""
        return [
            (fact.kind, fact.actor, fact.subject, fact.detail)
            for fact in self.effects
            if isinstance(fact, Fact) and (not kinds or fact.kind in kinds)
        ]

    def live(self) -> Room:
        """Return the live room."""
        return self.registry.rooms[self.room.id]


def codes(heard: list[Any]) -> list[str]:
    """Return what the problems and refusals among these messages are called."""
    return [message.code for message in heard if isinstance(message, (Problem, Refused))]
