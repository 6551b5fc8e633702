"""One aiohttp WebSocket per participant: read, decode, drive a `Session`, write. [IO]

    socket ─> handle ─> Session.receive ─> (rooms.py) ─> _drain ─> sockets of everybody concerned
                 └─ next_event: hello, transfer, end ─> auth.py, store.py ─> back into the Session

One task per socket reads; nobody else's socket is ever waited for. A message to many is encoded once, what one turn of
the event loop has for a socket is written at once, and a reader who lets `max_queued_bytes` pile up is cut off. One
ticker looks after the timers of all connections, from one heap: idle, a connection costs a heap entry and a write and a
read in 1.5 s.

Spec: RFC 6455; SECURITY.md rows 7, 13, 14, 15, 16.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import heapq
import random
import struct
from collections import Counter
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Final, Literal, get_args

import structlog
from aiohttp import WebSocketError, WSCloseCode, WSMsgType, hdrs, web

from server.clock import now as clock_now
from server.clock import wall_now
from server.errors import RefusalError
from server.httpguard import Proxies, client_block
from server.ids import shorten
from server.records import AuditEvent, SeatRecord
from server.redact import describe
from server.signalling.auth import Door
from server.signalling.limits import AddressLimits
from server.signalling.messages import (
    CLOSE_CODES,
    MAX_MESSAGE_BYTES,
    ClientMessage,
    GoingAway,
    IceServer,
    Join,
    Message,
    Ping,
    Problem,
    ServerMessage,
    Transfer,
    encode,
    tag,
)
from server.signalling.paths import PathSettings
from server.signalling.registry import RoomRegistry
from server.signalling.relaying import room_of
from server.signalling.session import Event, HelloReceived, Phase, Session, TransferRequested

if TYPE_CHECKING:
    from server.catalogue import Catalogue
    from server.config import Config
    from server.media.events import MediaEvent
    from server.metrics import Metrics
    from server.signalling.paths import MediaSource
    from server.signalling.turn import IceServerSource
    from server.store import Store

_TICK_S: Final = 0.05
"""How late a timer may be."""
_STALL_S: Final = 0.25
"""A tick this late: the process did not read its sockets meanwhile, so the silence is ours and not the clients'."""
_ANNOUNCE_S: Final = 0.05
"""How long changes to the clinicians' list and to places in the waiting room are gathered."""
_CLOSE_S: Final = 2.0
"""How long the other end has to answer a close, before its connection is dropped."""
_TRANSFER_LINK: Final = timedelta(hours=1)
"""A transferred participant uses the new link at once; later, their resume secret."""
_RETURN_PER_S: Final = 500
"""After a restart, clients are asked to come back spread over this many a second."""

_OPCODE_TEXT, _OPCODE_CLOSE, _OPCODE_PONG = 0x1, 0x8, 0xA

_log = structlog.get_logger()


class Connection:
    """What the driver knows of one socket."""

    __slots__ = ("abort_at", "address", "armed_at", "frames", "queued_bytes", "session", "transport")

    def __init__(self, session: Session, transport: asyncio.Transport, address: str) -> None:
        self.session = session
        self.transport = transport
        self.address = address
        self.frames: list[bytes] = []
        """To be written in this turn of the event loop."""
        self.queued_bytes = 0
        """These, and what the transport has not yet sent."""
        self.armed_at: float | None = None
        """When the ticker looks at it next."""
        self.abort_at: float | None = None
        """Set once a close frame is sent."""

    def deadline(self) -> float | None:
        """Return when the ticker is wanted."""
        return self.abort_at if self.abort_at is not None else self.session.get_timer()


class SignallingEndpoint:
    """The route `/ws`, and the live rooms behind it (`LiveRooms` of `server/api.py`)."""

    def __init__(
        self,
        config: Config,
        store: Store,
        ice: IceServerSource,
        catalogue: Catalogue,
        metrics: Metrics,
        media: MediaSource | None = None,
    ) -> None:
        self._config = config
        self._limits = config.signalling
        self._store = store
        self._ice = ice
        self._catalogue = catalogue
        self._metrics = metrics
        self._door = Door(store)
        self._proxies = Proxies(config.http.trusted_proxies)
        self._addresses = AddressLimits(
            config.http.max_connections_per_address, config.http.max_joins_per_address_per_minute
        )
        self._paths = PathSettings(self._limits.max_in_conversation, config.media.max_in_conversation, media)
        self.registry = RoomRegistry(self._limits.left_after_s, self._paths, self._ice_servers)
        self._touched: list[Session] = []
        self._connections: dict[Session, Connection] = {}
        self._timers: list[tuple[float, int, Connection]] = []
        self._sequence = count()
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_at = 0.0
        self._announcing: asyncio.TimerHandle | None = None
        self._encoded: tuple[ServerMessage, bytes] = (Ping(), b"")
        self._unwritten: list[Connection] = []
        self._writing: asyncio.Handle | None = None
        self._counts: Counter[type[Message]] = Counter()
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        kinds: dict[str, tuple[type[Message], ...]] = {"in": get_args(ClientMessage), "out": get_args(ServerMessage)}
        self._counters = {
            kind: metrics.messages.labels(direction, tag(kind)) for direction in kinds for kind in kinds[direction]
        }
        metrics.sockets.set_function(lambda: len(self._connections))
        metrics.rooms.set_function(lambda: len(self.registry.rooms))
        metrics.relayed_rooms.set_function(self.registry.count_relayed)
        for state in self.registry.counts():
            metrics.participants.labels(state).set_function(functools.partial(self._count_state, state))

    # The host's orders (LiveRooms) -----------------------------------------------------------------------------------

    def end_room(self, room_id: str, by: Literal["host"]) -> None:
        """End a room for everybody in it; the caller has already recorded the end in the store."""
        self.registry.end_room(room_id, by, by, clock_now())
        self._drain()

    def drop_link(self, link_id: str, code: str) -> None:
        """Close the seats that came through a link, with this code; the caller has recorded the revocation."""
        self.registry.drop_link(link_id, code, clock_now())
        self._drain()

    def counts(self, room_id: str) -> dict[str, int]:
        """Return how many participants of a room are in each state; empty when nobody is connected."""
        room = self.registry.rooms.get(room_id)
        return dict(room.counts()) if room is not None else {}

    def hold_relayed(self, room_id: str, wanted: bool) -> Literal["held", "not_live", "one_path"]:
        """Have a live room carried by the media server until told otherwise, or as the server sees fit."""
        room = self.registry.rooms.get(room_id)
        if room is None:
            return "not_live"
        possible = room.paths.hold("policy", wanted, clock_now())
        self._drain()
        return "held" if possible else "one_path"

    # The media plane -------------------------------------------------------------------------------------------------

    def receive_media_event(self, event: MediaEvent) -> None:
        """Take what the media plane tells, in the event loop; an event of a room that is over is late."""
        room = self.registry.rooms.get(room_of(event))
        if room is not None:
            room.paths.receive_media_event(event, clock_now())
            self._drain()

    def settle(self) -> None:
        """Hand on what somebody else's call to the rooms has brought about (`whip.py`)."""
        self._start_ticker()
        self._drain()

    # One socket ------------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one participant's WebSocket until it closes.

        Raises:
            web.HTTPForbidden: From a page that is not ours, before the upgrade.
        """
        if request.headers.get(hdrs.ORIGIN) != self._own_origin(request):
            raise web.HTTPForbidden
        if self._closing:
            raise web.HTTPServiceUnavailable
        socket: web.WebSocketResponse[Literal[False]] = web.WebSocketResponse(
            timeout=_CLOSE_S,
            autoclose=False,
            autoping=False,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES + 1,
            decode_text=False,
        )
        await socket.prepare(request)
        if request.transport is None:
            return socket
        address = client_block(
            self._proxies.client(request.remote or "", ",".join(request.headers.getall(hdrs.X_FORWARDED_FOR, ())))
        )
        session = Session(self._limits, self.registry, self._sentence, self._touched, clock_now())
        connection = self._connections[session] = Connection(session, request.transport, address)
        self._idle.clear()
        self._start_ticker()
        try:
            if not self._addresses.connect(address):
                session.end("too_many_connections")
                self._drain()
            self._arm(connection)
            await self._read(socket, connection)
        finally:
            session.closed(clock_now())
            del self._connections[session]
            self._addresses.disconnect(address)
            self._metrics.closes.labels(session.ending or "closed").inc()
            self._drain()
            self._write()
            if connection.transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(_CLOSE_S, connection.transport.abort)
            if not self._connections:
                self._idle.set()
        return socket

    async def shutdown(self) -> None:
        """Tell everybody when to come back, close, and wait until they are gone (at most a few seconds)."""
        self._closing = True
        spread_ms = 500 + 1000 * len(self._connections) // _RETURN_PER_S
        for session in list(self._connections):
            session.end("going_away", last=GoingAway(retry_after_ms=500 + random.randrange(spread_ms)))
        self._drain()
        try:
            async with asyncio.timeout(2 * _CLOSE_S):
                await self._idle.wait()
        except TimeoutError:
            for connection in self._connections.values():
                connection.transport.abort()
        for timer in (self._ticker, self._announcing):
            if timer is not None:
                timer.cancel()

    async def _read(self, socket: web.WebSocketResponse[Literal[False]], connection: Connection) -> None:
        session = connection.session
        while True:
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                self._receive(session, message.data)
                while (event := session.next_event()) is not None:
                    await self._carry_out(connection, event)
            elif message.type is WSMsgType.PING:
                session.heartbeat(clock_now())
                if not connection.transport.is_closing() and connection.abort_at is None:
                    connection.transport.write(_frame(_OPCODE_PONG, message.data))
                self._drain()
            elif message.type is WSMsgType.PONG:
                session.heartbeat(clock_now())
                self._drain()
            elif message.type is WSMsgType.BINARY:
                session.end("bad_message")
                self._drain()
            else:
                if message.type is WSMsgType.ERROR and isinstance(message.data, WebSocketError):
                    code = "too_large" if message.data.code == WSCloseCode.MESSAGE_TOO_BIG else "bad_message"
                    session.ending = session.ending or code
                return

    def _receive(self, session: Session, data: bytes) -> None:
        now = clock_now()
        try:
            message = session.receive(data, now)
        except Exception as error:
            _log.error("signalling.failed", **describe(error))
            session.end("internal")
            message = None
        self._drain()
        if message is not None:
            self._counts[type(message)] += 1
            if type(message) is Join:
                self._metrics.join_seconds.observe(clock_now() - now)

    async def _carry_out(self, connection: Connection, event: Event) -> None:
        """Do what needs the store, then tell the machines."""
        session = connection.session
        try:
            if isinstance(event, HelloReceived):
                await self._hello(connection, event)
            elif isinstance(event, TransferRequested):
                await self._transfer(session, event)
            else:
                await self._store.end_room(event.room, "clinician", wall_now())
                self.registry.end_room(event.room, "clinician", event.participant, clock_now(), event.reason)
        except Exception as error:
            _log.error("signalling.failed", **describe(error))
            session.end("internal")
        self._drain()
        self._arm(connection)

    async def _hello(self, connection: Connection, event: HelloReceived) -> None:
        session, hello = connection.session, event.hello
        result = "welcome"
        try:
            if not self._addresses.hello(connection.address, clock_now()):
                raise RefusalError("rate_limited")
            claims = await self._door.resolve(hello, wall_now(), self.registry.live_seat)
            seats = [] if claims.room.id in self.registry.rooms else await self._store.seats(claims.room.id)
            if session.phase is Phase.CLOSED:
                return
            self.registry.open(claims.room, seats, clock_now())
            if not session.welcome(claims, hello, clock_now(), wall_now()):
                result = "occupied"
        except RefusalError as refusal:
            session.end(refusal.code, refusal.reason)
            result = refusal.code
        self._metrics.hellos.labels(result).inc()
        participant = session.participant
        _log.info("signalling.hello", result=result, participant=shorten(participant.id) if participant else "")

    async def _transfer(self, session: Session, event: TransferRequested) -> None:
        room = await self._store.room(event.room)
        here, by = session.room, session.participant
        if here is None or by is None:
            return
        known = room is not None and room.tenant == here.record.tenant and room.ended_at is None
        if room is None or not known or room.id == here.record.id:
            session.problem("unknown_room", Transfer)
            return
        seat = here.participants[event.participant].seat
        now, expires_at = wall_now(), wall_now() + _TRANSFER_LINK
        link, secret = await self._store.mint_link(room, seat.role, seat.name, None, expires_at, True, now)
        if session.transfer(event.participant, secret, clock_now()):
            self._store.append(AuditEvent(now, room.tenant, room.id, "link.minted", by.id, link.id, "transfer"))
        else:
            await self._store.revoke_link(link.id, now)

    # Draining --------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Hand on what the machines have to say, to sockets and to the store."""
        for session in self._touched:
            connection = self._connections.get(session)
            if connection is not None:
                self._queue(connection)
            session.outbox.clear()
        self._touched.clear()
        if self._unwritten and self._writing is None:
            self._writing = asyncio.get_running_loop().call_soon(self._write)
        if self.registry.effects:
            at = wall_now()
            for effect in self.registry.effects:
                if isinstance(effect, SeatRecord):
                    self._store.save_seat(effect)
                else:
                    self._store.append(AuditEvent(at, *dataclasses.astuple(effect)))
            self.registry.effects.clear()
        if self.registry.stale and self._announcing is None:
            self._announcing = asyncio.get_running_loop().call_later(_ANNOUNCE_S, self._announce)

    def _queue(self, connection: Connection) -> None:
        """Empty a session's outbox into frames for its socket; close it when the session has ended."""
        session, frames = connection.session, connection.frames
        if connection.abort_at is not None:
            return
        if not frames:
            self._unwritten.append(connection)
            connection.queued_bytes = connection.transport.get_write_buffer_size()
        for message in session.outbox:
            if message is not self._encoded[0]:
                self._encoded = message, _frame(_OPCODE_TEXT, encode(message))
            frames.append(self._encoded[1])
            connection.queued_bytes += len(self._encoded[1])
            self._counts[type(message)] += 1
            if type(message) is Problem:
                self._metrics.problems.labels(message.code).inc()
        if connection.queued_bytes > self._limits.max_queued_bytes:
            frames.clear()
            session.end("slow_reader")
        if session.ending:
            reason = session.ending.encode()
            frames.append(_frame(_OPCODE_CLOSE, CLOSE_CODES[session.ending].to_bytes(2, "big") + reason))
            connection.abort_at = clock_now() + _CLOSE_S
            self._arm(connection)
            if session.ending != "going_away":
                _log.info("signalling.ended", code=session.ending)

    def _write(self) -> None:
        """Write the frames of each socket at once: a system call costs more than all the rest of a message."""
        self._writing = None
        for connection in self._unwritten:
            if not connection.transport.is_closing():
                connection.transport.write(b"".join(connection.frames))
            connection.frames.clear()
        self._unwritten.clear()

    def _announce(self) -> None:
        self._announcing = None
        self.registry.announce(clock_now())
        self._drain()

    # Time ------------------------------------------------------------------------------------------------------------

    def _arm(self, connection: Connection) -> None:
        """Have the ticker look at a connection in time. An entry of the heap that is not `armed_at` is void."""
        deadline = connection.deadline()
        if deadline != connection.armed_at and deadline is not None:
            heapq.heappush(self._timers, (deadline, next(self._sequence), connection))
        connection.armed_at = deadline

    def _start_ticker(self) -> None:
        if self._ticker is None:
            self._schedule_tick(clock_now())

    def _schedule_tick(self, now: float) -> None:
        self._tick_at = now + _TICK_S
        self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        now = clock_now()
        stalled_s = now - self._tick_at
        if stalled_s > _STALL_S:
            for session in self._connections:
                session.excuse(stalled_s, now)
        self._schedule_tick(now)
        while self._timers and self._timers[0][0] <= now:
            at, _, connection = heapq.heappop(self._timers)
            if connection.armed_at != at or connection.session not in self._connections:
                continue
            connection.armed_at = None
            if connection.abort_at is not None:
                connection.transport.abort()
                continue
            connection.session.handle_timer(now)
            self._arm(connection)
        self.registry.handle_timer(now)
        self._addresses.forget(now)
        for kind, number in self._counts.items():
            self._counters[kind].inc(number)
        self._counts.clear()
        for (reason, outcome), number in self._paths.moves.items():
            self._metrics.moves.labels(reason, outcome).inc(number)
        self._paths.moves.clear()
        self._drain()

    # What the machines are given -------------------------------------------------------------------------------------

    def _own_origin(self, request: web.Request) -> str:
        """Return the only origin that may open a WebSocket here: where our own pages are."""
        if self._config.http.public_url:
            return self._config.public_origin
        return f"{request.scheme}://{request.host}"

    def _ice_servers(self, participant: str) -> list[IceServer]:
        return self._ice.for_participant(participant, wall_now())

    def _sentence(self, language: str, code: str) -> str:
        return self._catalogue.sentence(language, "error." + code)

    def _count_state(self, state: str) -> int:
        return self.registry.counts()[state]


def _frame(opcode: int, payload: bytes) -> bytes:
    """Return one unmasked, unfragmented frame (RFC 6455 section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65_536:
        return struct.pack("!BBH", 0x80 | opcode, 126, length) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, length) + payload
