"""One client's state machine: which message in which state from which role, how many, and when silence is death.

Driven by `websocket.py`: `receive` and `handle_timer` change the machine; after each, the driver drains `next_event` of
this session, and `outbox` and `ending` of every session in `touched` (what one person says goes to others). Nothing
here knows of sockets or clocks: `now` is monotonic seconds.

    NEW ──hello──> HELLO ──welcome──> ARRIVED, WAITING, ADMITTED, JOINED, LEFT   (the seat's state, see rooms.py)
                   │   ^                                       │
             occupied  hello (takeOver)                 whatever ends it
                   v   │                                       v
                  OCCUPIED ───────────────────────────────> CLOSED

A hello needs the store, so it has two phases: `receive` emits `HelloReceived`, and the driver answers with `welcome`,
`occupied` or `end`. The tables below say all there is to say about order and permission:

* before a seat, anything out of order ends the connection (`bad_order`);
* on a seat, a second hello does too, but anything else is answered by a `problem` and the connection goes on: a
  clinician's order (send back, remove) may cross it on the wire, and that is nobody's fault.

Cost: `receive` of a relayed message is one decode, two table look-ups and the checks of `negotiation.py`.
Memory: the outbox is drained after each call; what is not yet sent is bounded by the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from server.config import SignallingConfig
from server.errors import InvalidStateError, ProtocolError, RefusalError
from server.records import Language
from server.signalling import messages
from server.signalling.auth import Claims
from server.signalling.messages import (
    CLOSE_CODES,
    VERSION,
    Admit,
    Candidate,
    ClientMessage,
    Describe,
    Distrust,
    EndRoom,
    Hello,
    IceServers,
    Join,
    Leave,
    Message,
    MoveFailed,
    MoveReady,
    Occupied,
    PathReport,
    Ping,
    Pong,
    Problem,
    Ready,
    RefreshIceServers,
    Refuse,
    Refused,
    RelayOffer,
    Remove,
    SendBack,
    ServerMessage,
    SetLanguage,
    SetMedia,
    Tell,
    Transfer,
    Welcome,
    Wishes,
)
from server.signalling.participants import Participant
from server.signalling.registry import RoomRegistry
from server.signalling.rooms import Room


class Phase(StrEnum):
    """Where a session is; from ARRIVED to LEFT it is the state of its seat, by the same name as on the wire."""

    NEW = "new"
    HELLO = "hello"
    OCCUPIED = "occupied"
    ARRIVED = "arrived"
    WAITING = "waiting"
    ADMITTED = "admitted"
    JOINED = "joined"
    LEFT = "left"
    CLOSED = "closed"


_ALWAYS: Final[frozenset[type[Message]]] = frozenset({Pong, SetLanguage, SetMedia})

ORDERS: Final[frozenset[type[Message]]] = frozenset({Admit, Refuse, SendBack, Remove, Transfer, Tell, EndRoom})
"""What only a clinician may send, from ADMITTED on."""

_MEDIA: Final[frozenset[type[Message]]] = frozenset(
    {Describe, Candidate, Distrust, RelayOffer, Wishes, PathReport, MoveReady, MoveFailed}
)
"""What the conversation itself consists of."""

ACCEPTS: Final[dict[str, AbstractSet[type[Message]]]] = {
    Phase.NEW: frozenset({Hello}),
    Phase.HELLO: frozenset(),
    Phase.OCCUPIED: frozenset({Hello, Pong}),
    Phase.ARRIVED: _ALWAYS | {Ready, Leave},
    Phase.WAITING: _ALWAYS | {Ready, Leave},
    Phase.ADMITTED: _ALWAYS | ORDERS | {Ready, Join, Leave, RefreshIceServers},
    Phase.JOINED: _ALWAYS | ORDERS | _MEDIA | {Join, Leave, RefreshIceServers},
    Phase.LEFT: _ALWAYS | {Ready, Join},
    Phase.CLOSED: frozenset(),
}
"""Which messages are in order in which phase."""

_RETRY: Final = frozenset({"rate_limited", "too_many_connections", "dead", "slow_reader", "hello_timeout", "internal"})
"""Endings after which the same secret may be tried again."""

_BYTES_PER_TOKEN: Final[dict[type[Message], int]] = {Describe: 512, Candidate: 512, RelayOffer: 2048}
"""How many bytes of a large message count as one message more. What goes on to another page must not fill that page's
queue: a full bucket of descriptions is 200 KiB, less than a slow reader is allowed (`max_queued_bytes`). An offer to
the media server comes back as an answer to who made it, and costs the time of reading it."""

_PING: Final = Ping()


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """To be resolved by `auth.py`, then answered with `welcome`, `occupied` or `end`."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """A clinician wants this participant in that room: mint a link there, then call `transfer`, or `problem`."""

    participant: str
    room: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """A clinician ends the room: record it, then call `RoomRegistry.end_room`: nobody is told what is not so."""

    room: str
    participant: str
    reason: str


Event = HelloReceived | TransferRequested | EndRequested


class Session:
    """The state machine of one WebSocket.

    Args:
        config: Timings and rates.
        registry: The live rooms.
        sentence: (language, code) -> the sentence for people.
        touched: Sessions with something to drain put themselves here; shared by all sessions of one driver.
        now: When the socket opened.
    """

    __slots__ = (
        "_bucket_at", "_config", "_events", "_next_ping_at", "_opened_at", "_phase", "_sentence", "_tokens", "_touched",
        "ending", "heard_at", "language", "outbox", "participant", "registry", "room",
    )  # fmt: skip

    def __init__(
        self,
        config: SignallingConfig,
        registry: RoomRegistry,
        sentence: Callable[[str, str], str],
        touched: list[Session],
        now: float,
    ) -> None:
        self._config = config
        self._sentence = sentence
        self._touched = touched
        self._phase = Phase.NEW
        self._events: deque[Event] = deque()
        self._opened_at = self._bucket_at = self.heard_at = now
        self._next_ping_at = 0.0
        self._tokens = float(config.message_burst)
        self.registry = registry
        self.room: Room | None = None
        self.participant: Participant | None = None
        self.language: Language = "fr"
        self.outbox: list[ServerMessage] = []
        self.ending: str = ""
        """The code to close the socket with, once `outbox` is sent; empty while it goes on."""

    @property
    def phase(self) -> str:
        """The phase, as in `Phase`."""
        return self.participant.state if self.participant is not None else self._phase

    # Driven by the socket --------------------------------------------------------------------------------------------

    def receive(self, data: bytes | str, now: float) -> ClientMessage | None:
        """Take one message. Return it when it was in order, for the driver's statistics."""
        if self._phase is Phase.CLOSED or not self._take_token(now):
            return None
        self.heard_at = now
        try:
            message = messages.decode(data)
        except ProtocolError as error:
            self.end(error.code)
            return None
        kind = type(message)
        if kind in _BYTES_PER_TOKEN and not self._take_token(now, len(data) / _BYTES_PER_TOKEN[kind]):
            return None
        person, room = self.participant, self.room
        if person is None or room is None:
            self._before_seat(message, kind)
            return message
        if kind is Hello:
            self.end("bad_order")
        elif kind in ORDERS and person.seat.role != "clinician":
            self.problem("not_permitted", kind)
        elif kind not in ACCEPTS[person.state]:
            self.problem("bad_order", kind)
        else:
            try:
                _HANDLERS[kind](self, room, person, message, now)
            except (RefusalError, ProtocolError) as error:
                self.problem(error.code, kind)
        return message

    def heartbeat(self, now: float) -> None:
        """Take a sign of life that is no message of the protocol (a WebSocket ping); it counts for the rate."""
        if self._phase is not Phase.CLOSED and self._take_token(now):
            self.heard_at = now

    def closed(self, now: float) -> None:
        """The socket is gone; the seat waits for the next one."""
        if self.room is not None and self.participant is not None:
            self.room.detach(self.participant, self, now)
        self._phase, self.room, self.participant = Phase.CLOSED, None, None

    def get_timer(self) -> float | None:
        """Return when `handle_timer` is next wanted, None when it is not."""
        if self._phase is Phase.CLOSED:
            return None
        if self._phase is Phase.NEW:
            return self._opened_at + self._config.hello_timeout_s
        if self._phase is Phase.HELLO:
            return self.heard_at + self._config.dead_after_s
        return min(self._next_ping_at, self.heard_at + self._config.dead_after_s)

    def handle_timer(self, now: float) -> None:
        """Ping, or give up on a client that is silent."""
        if self._phase is Phase.NEW:
            if now >= self._opened_at + self._config.hello_timeout_s:
                self.end("hello_timeout")
        elif self._phase is Phase.HELLO:
            self.heard_at = now  # it is we who are slow
        elif self._phase is not Phase.CLOSED:
            if now >= self.heard_at + self._config.dead_after_s:
                self.end("dead")
            elif now >= self._next_ping_at:
                self._next_ping_at = now + self._config.ping_interval_s
                self.send(_PING)

    def excuse(self, stalled_s: float, now: float) -> None:
        """Take off the client's silence the seconds in which nobody listened."""
        self.heard_at = min(now, self.heard_at + stalled_s)

    def next_event(self) -> Event | None:
        """Return the next thing that needs the store."""
        return self._events.popleft() if self._events else None

    # Answers of the driver -------------------------------------------------------------------------------------------

    def welcome(self, claims: Claims, hello: Hello, now: float, wall: datetime) -> bool:
        """Seat the client whose hello was resolved; its room is live. Return False when it was asked "continue here?".

        Raises:
            RefusalError: See `RoomRegistry.enter`.
        """
        self._expect(Phase.HELLO)
        self.language = hello.language or claims.tenant.language
        invited = hello.secret is not None
        found = self.registry.enter(claims, self, hello.instance, hello.resume, hello.take_over, invited, now, wall)
        self.heard_at, self._next_ping_at = now, now + self._config.ping_interval_s
        if found is None:
            self._phase = Phase.OCCUPIED
            self.send(Occupied())
            return False
        self.room, self.participant, resume = found
        self._phase = Phase.ARRIVED
        seat, record = self.participant.seat, self.room.record
        self.send(
            Welcome(
                version=VERSION,
                id=seat.id,
                role=seat.role,
                name=seat.name,
                state=self.participant.state,
                resume=resume,
                language=self.language,
                room=record.id,
                ping_interval_ms=round(self._config.ping_interval_s * 1000),
                dead_after_ms=round(self._config.dead_after_s * 1000),
                room_topology=record.topology,
            )
        )
        self.room.brief(self.participant, now)
        return True

    def transfer(self, target: str, secret: str, now: float) -> bool:
        """Carry out a `TransferRequested` with the secret of the new link; False if it is too late for that."""
        if self.room is None or self.participant is None:
            return False
        try:
            self.room.transfer(self.participant, target, secret, now)
        except RefusalError as error:
            self.problem(error.code, Transfer)
            return False
        return True

    def problem(self, code: str, about: type[Message]) -> None:
        """Say that a message was not carried out."""
        self.send(Problem(code=code, message=self._sentence(self.language, code), re=messages.tag(about)))

    # Seated (rooms.py) -----------------------------------------------------------------------------------------------

    def send(self, message: ServerMessage) -> None:
        """Put a message in the outbox."""
        if self._phase is Phase.CLOSED:
            return
        if not self.outbox:
            self._touched.append(self)
        self.outbox.append(message)

    def end(self, code: str, reason: str = "", last: ServerMessage | None = None) -> None:
        """Say `last`, or why it is refused, then have the socket closed with the code. Only the first call counts."""
        if self._phase is Phase.CLOSED:
            return
        if last is None:
            text = self._sentence(self.language, code)
            last = Refused(code=code, message=text, reason=reason, retry=code in _RETRY)
        self.send(last)
        self._phase, self.ending = Phase.CLOSED, code
        assert code in CLOSE_CODES, code

    # Inside ----------------------------------------------------------------------------------------------------------

    def _before_seat(self, message: ClientMessage, kind: type[Message]) -> None:
        if kind not in ACCEPTS[self._phase]:
            self.end("bad_order")
        elif isinstance(message, Hello):
            if message.language is not None:
                self.language = message.language
            if message.version != VERSION:
                self.end("version_unsupported")
            elif message.secret is None and message.resume is None:
                self.end("bad_message")
            else:
                self._phase = Phase.HELLO
                self._events.append(HelloReceived(message))

    def _take_token(self, now: float, tokens: float = 1.0) -> bool:
        """Token bucket: `message_burst` deep, refilled at `messages_per_second`."""
        config = self._config
        filled = self._tokens + (now - self._bucket_at) * config.messages_per_second
        self._tokens = min(config.message_burst, filled) - tokens
        self._bucket_at = now
        if self._tokens >= 0.0:
            return True
        self.end("rate_limited")
        return False

    def _expect(self, phase: Phase) -> None:
        if self._phase is not phase:
            raise InvalidStateError(f"in {self._phase}, not {phase}")


# -- what each message of a seated client does ------------------------------------------------------------------------

_Handler = Callable[[Session, Room, Participant, Any, float], None]


def _set_language(session: Session, message: SetLanguage) -> None:
    session.language = message.language


def _transfer(session: Session, room: Room, message: Transfer) -> None:
    room.may_transfer(message.participant)
    session._events.append(TransferRequested(message.participant, message.room))


def _nothing(*_: object) -> None:
    """A pong has done its work by arriving."""


_HANDLERS: Final[dict[type[Message], _Handler]] = {
    Candidate: lambda _, room, person, m, now: room.relay_candidate(person, m),
    Describe: lambda _, room, person, m, now: room.relay_description(person, m),
    Distrust: lambda _, room, person, m, now: room.relay_distrust(person, m),
    RelayOffer: lambda _, room, person, m, now: room.paths.offer(person.id, person.role, m, now),
    Wishes: lambda _, room, person, m, now: room.paths.wish(person.id, m, now),
    PathReport: lambda _, room, person, m, now: room.report_path(person, m, now),
    MoveReady: lambda _, room, person, m, now: room.paths.move_ready(person.id, m, now),
    MoveFailed: lambda _, room, person, m, now: room.paths.move_failed(person.id, m, now),
    Pong: _nothing,
    SetMedia: lambda _, room, person, m, now: room.set_media(person, m.microphone, m.camera),
    RefreshIceServers: lambda session, room, person, m, now: session.send(
        IceServers(ice_servers=session.registry.ice_servers(person.id))
    ),
    Ready: lambda _, room, person, m, now: room.ready(person, now),
    Join: lambda _, room, person, m, now: room.join(person, m.microphone, m.camera, now),
    Leave: lambda _, room, person, m, now: room.leave(person, now),
    SetLanguage: lambda session, room, person, m, now: _set_language(session, m),
    Admit: lambda _, room, person, m, now: room.admit(person, m.participant, now),
    Refuse: lambda _, room, person, m, now: room.refuse(person, m.participant, m.reason, now),
    SendBack: lambda _, room, person, m, now: room.send_back(person, m.participant, m.reason, now),
    Remove: lambda _, room, person, m, now: room.remove(person, m.participant, m.reason, now),
    Tell: lambda _, room, person, m, now: room.tell(person, m.participant, m.text),
    Transfer: lambda session, room, person, m, now: _transfer(session, room, m),
    EndRoom: lambda session, room, person, m, now: session._events.append(
        EndRequested(room.record.id, person.id, m.reason)
    ),
}
