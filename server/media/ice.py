"""ICE-lite: answers connectivity checks, knows which addresses are a peer's and where its media goes.

Driven by: transport.py. Sans-IO, the five verbs. Being lite it sends nothing of its own, so its only proof that the
peer lives is the peer's checks: 15 s without one from the nominated address and we stop sending (RFC 7675 is the full
agent's way to the same end), 30 s without one from anywhere and the transport is over.

A check is one STUN Binding request. What it must be, in the order in which it is tested, cheapest first, so that a
stranger costs one pass over at most 1,500 bytes and, if the stranger knows the user name, one SHA-1:

    well-formed ─> Binding request ─> our user name ─> FINGERPRINT, last ─> MESSAGE-INTEGRITY ─> nothing unknown that
    must be understood ─> peer is controlling ─> transaction not seen from elsewhere ─> the address is the peer's

What lies after MESSAGE-INTEGRITY is cut off before anybody parses it (RFC 8489 section 14.5).

Spec: RFC 8445 sections 2.5, 6.1.1 and 7.3; RFC 8489 (STUN); the codec is aioice's.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from struct import error as StructError
from struct import pack, unpack_from

from aioice import stun

from server.media.parameters import Endpoint, IceParameters

SILENT_AFTER_S = 15.0
"""Browsers check the nominated pair every 2.5 s at most: six were lost."""
GONE_AFTER_S = 30.0
"""RFC 7675 section 5.1 lets consent live for 30 s."""
RIVAL_ALIVE_S = 5.0
"""Two checks at the slowest pace of browsers: heard from within this, the nominated address still works."""
MAX_ADDRESSES = 16
"""Validated at one time: interfaces, families and UDP beside TCP of one device, over two networks."""
MAX_REQUEST_BYTES = 1500
"""Chromium can carry a DTLS flight inside a check; nothing larger than an Ethernet frame is one."""
MAX_ATTRIBUTES = 32
MAX_QUEUED = 64
"""Answers that nobody has taken; the oldest go first."""
REMEMBERED_TRANSACTIONS = 256
"""About ten minutes of a browser's checks."""

_HEADER_BYTES = 20
_BINDING_REQUEST = 0x0001
_USERNAME = 0x0006
_MESSAGE_INTEGRITY = 0x0008
_ERROR_CODE = 0x0009
_UNKNOWN_ATTRIBUTES = 0x000A
_XOR_MAPPED_ADDRESS = 0x0020
_FINGERPRINT = 0x8028
_OPTIONAL = 0x8000
"""Attributes from here on may be ignored by who does not know them (RFC 8489 section 14)."""


class IceDrop(StrEnum):
    """Why a datagram was not a check from our peer."""

    MALFORMED = "malformed"
    NOT_A_REQUEST = "not_a_request"
    UNKNOWN_USER = "unknown_user"
    BAD_FINGERPRINT = "bad_fingerprint"
    NO_INTEGRITY = "no_integrity"
    BAD_INTEGRITY = "bad_integrity"
    UNKNOWN_ATTRIBUTE = "unknown_attribute"
    ROLE_CONFLICT = "role_conflict"
    REPLAYED = "replayed"


@dataclass(frozen=True)
class AddressValidated:
    """The peer proved that it is at this address: DTLS and media from there are welcome."""

    endpoint: Endpoint


@dataclass(frozen=True)
class AddressExpired:
    """No check from there for 30 s, its connection closed, or too many others came."""

    endpoint: Endpoint


@dataclass(frozen=True)
class Nominated:
    """Media goes there from now on; None: nowhere, until the next one."""

    endpoint: Endpoint | None


@dataclass(frozen=True)
class IceTimedOut:
    """No valid check from anywhere for 30 s. The last event."""


IceEvent = AddressValidated | AddressExpired | Nominated | IceTimedOut


def new_credentials(random: Callable[[int], bytes] = secrets.token_bytes) -> IceParameters:
    """Return fresh credentials: 48 random bits of ufrag, 128 of password (RFC 8445 section 5.3 asks for 24 and 128)."""
    return IceParameters(random(6).hex(), random(16).hex())


def local_ufrag(data: bytes) -> str | None:
    """Return our ufrag out of a check's user name, to find whose it is. Nothing is authenticated by that.

    Returns:
        None if the datagram is no well-formed STUN message with a user name.
    """
    attributes = _scan(data)
    name = _username(data, attributes) if attributes else None
    return name.partition(":")[0] if name is not None else None


class IceLiteAgent:
    """One peer's checks. At most 16 addresses, 64 answers and 256 transaction ids are kept.

    A restart adds a second pair of credentials; the first serves on until a check with the second nominates, so the
    path that carries media is never without an answer.

    Args:
        local: What our answer announces.
        remote: What the peer's offer announces; None as long as it is unknown: any peer name is taken then.
        now: The 30 s for the first check start here.
    """

    def __init__(self, local: IceParameters, remote: IceParameters | None, now: float) -> None:
        self.drops: Counter[IceDrop] = Counter()
        self._generations = [(local, remote)]
        self._addresses: OrderedDict[Endpoint, _Checked] = OrderedDict()
        self._transactions: OrderedDict[bytes, Endpoint] = OrderedDict()
        self._selected: Endpoint | None = None
        self._silent = True
        self._over = False
        self._checked_at = now
        self._events: deque[IceEvent] = deque()
        self._outgoing: deque[tuple[bytes, Endpoint]] = deque(maxlen=MAX_QUEUED)

    # State, for transport.py and the Sfu.

    @property
    def ufrags(self) -> tuple[str, ...]:
        """Ours that are answered now, oldest first."""
        return tuple(local.ufrag for local, _ in self._generations)

    @property
    def nominated(self) -> Endpoint | None:
        """Where media may be sent at this moment."""
        return None if self._silent else self._selected

    def is_validated(self, endpoint: Endpoint) -> bool:
        """Tell whether a valid check came from there within 30 s."""
        return endpoint in self._addresses

    def restart(self, local: IceParameters, remote: IceParameters | None) -> None:
        """Answer checks under new credentials too (RFC 8445 section 9); the latest before them stay for the while."""
        self._generations = [self._generations[-1], (local, remote)]

    def forget(self, endpoint: Endpoint) -> None:
        """Drop an address at once: its TCP connection is closed."""
        if self._addresses.pop(endpoint, None) is not None:
            self._expired(endpoint)

    # The five verbs.

    def receive_datagram(self, data: bytes, addr: Endpoint, now: float) -> None:
        """Answer a check, or drop what is none and count why."""
        if self._over:
            return
        drop = self._check(data, addr, now)
        if drop is not None:
            self.drops[drop] += 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Endpoint]]:
        """Take the answers."""
        taken = list(self._outgoing)
        self._outgoing.clear()
        return taken

    def next_event(self) -> IceEvent | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        if self._over:
            return None
        deadlines = [self._checked_at + GONE_AFTER_S]
        deadlines += [checked.at + GONE_AFTER_S for checked in self._addresses.values()]
        if not self._silent and self._selected is not None:
            deadlines.append(self._addresses[self._selected].at + SILENT_AFTER_S)
        return min(deadlines)

    def handle_timer(self, now: float) -> None:
        """Stop sending to who is silent, forget addresses, give up."""
        if self._over:
            return
        selected = self._addresses.get(self._selected) if self._selected else None
        if selected is not None and not self._silent and now >= selected.at + SILENT_AFTER_S:
            self._silent = True
            self._events.append(Nominated(None))
        for endpoint in [e for e, checked in self._addresses.items() if now >= checked.at + GONE_AFTER_S]:
            del self._addresses[endpoint]
            self._expired(endpoint)
        if now >= self._checked_at + GONE_AFTER_S:
            self._over = True
            self._events.append(IceTimedOut())

    # One check.

    def _check(self, data: bytes, addr: Endpoint, now: float) -> IceDrop | None:
        attributes = _scan(data)
        if attributes is None:
            return IceDrop.MALFORMED
        if unpack_from("!H", data)[0] != _BINDING_REQUEST:
            return IceDrop.NOT_A_REQUEST
        transaction = data[8:_HEADER_BYTES]
        generation = self._generation(_username(data, attributes))
        if generation is None:
            return IceDrop.UNKNOWN_USER  # no answer: other transports share the port, and strangers learn nothing
        key = self._generations[generation][0].pwd.encode()
        if not _has_fingerprint(data, attributes):
            return IceDrop.BAD_FINGERPRINT
        integrity = next((a for a in attributes if a.type == _MESSAGE_INTEGRITY), None)
        if integrity is None:
            return self._refuse(IceDrop.NO_INTEGRITY, 400, "Bad Request", transaction, addr, None)
        message = _signed_part(data, integrity)
        if message is None:
            return IceDrop.MALFORMED
        if not message.check_message_integrity(key):
            return self._refuse(IceDrop.BAD_INTEGRITY, 401, "Unauthorized", transaction, addr, None)
        unknown = _unknown(attributes, integrity)
        if unknown:
            reason = "Unknown Attribute"
            return self._refuse(IceDrop.UNKNOWN_ATTRIBUTE, 420, reason, transaction, addr, key, unknown)
        if "ICE-CONTROLLED" in message.attributes:  # a lite agent never controls (RFC 8445 section 6.1.1)
            return self._refuse(IceDrop.ROLE_CONFLICT, 487, "Role Conflict", transaction, addr, key)
        if self._transactions.setdefault(transaction, addr) != addr:
            return IceDrop.REPLAYED  # captured on the way and sent again from elsewhere, to draw media there
        while len(self._transactions) > REMEMBERED_TRANSACTIONS:
            self._transactions.popitem(last=False)
        mapped = stun.pack_xor_address((addr.ip, addr.port), transaction)
        self._answer(stun.Class.RESPONSE, transaction, [(_XOR_MAPPED_ADDRESS, mapped)], key, addr)
        nominates = "USE-CANDIDATE" in message.attributes
        self._validated(addr, int(message.attributes.get("PRIORITY", 0)), nominates, generation, now)
        return None

    def _generation(self, username: str | None) -> int | None:
        if username is None:
            return None
        ours, _, theirs = username.partition(":")
        for index, (local, remote) in enumerate(self._generations):
            if ours == local.ufrag and (remote is None or theirs == remote.ufrag):
                return index
        return None

    def _validated(self, addr: Endpoint, priority: int, nominates: bool, generation: int, now: float) -> None:
        self._checked_at = now
        checked = self._addresses.get(addr)
        if checked is None:
            self._make_room()
            self._addresses[addr] = _Checked(now, priority, eager=nominates)
            self._events.append(AddressValidated(addr))
        else:
            checked.at = now
            checked.priority = priority
        self._addresses.move_to_end(addr)
        if nominates and (addr == self._selected or self._prevails(addr, now)):
            self._generations = self._generations[generation:]
            if addr != self._selected or self._silent:
                self._select(addr)
        elif addr == self._selected and self._silent:
            self._select(addr)

    def _prevails(self, addr: Endpoint, now: float) -> bool:
        """Tell whether a nomination moves media there.

        RFC 8445 has one nomination per stream, libwebrtc nominates again when it changes networks, and the last one
        counts. Agents of RFC 5245 nominate every pair from its first check, and the best one counts: such an eager
        address prevails only over a worse one, or over one that has gone quiet.
        """
        rival = self._addresses.get(self._selected) if self._selected else None
        challenger = self._addresses[addr]
        if rival is None or self._silent or not challenger.eager:
            return True
        return challenger.priority >= rival.priority or now > rival.at + RIVAL_ALIVE_S

    def _select(self, addr: Endpoint) -> None:
        self._selected = addr
        self._silent = False
        self._events.append(Nominated(addr))

    def _make_room(self) -> None:
        """Of too many addresses the one that was checked longest ago goes, never the one that media goes to."""
        if len(self._addresses) >= MAX_ADDRESSES:
            oldest = next(endpoint for endpoint in self._addresses if endpoint != self._selected)
            del self._addresses[oldest]
            self._expired(oldest)

    def _expired(self, endpoint: Endpoint) -> None:
        if endpoint == self._selected:
            self._selected = None
            if not self._silent:
                self._silent = True
                self._events.append(Nominated(None))
        self._events.append(AddressExpired(endpoint))

    def _refuse(
        self,
        drop: IceDrop,
        code: int,
        reason: str,
        transaction: bytes,
        addr: Endpoint,
        key: bytes | None,
        unknown: Sequence[int] = (),
    ) -> IceDrop:
        attributes = [(_ERROR_CODE, stun.pack_error_code((code, reason)))]
        if unknown:
            attributes.append((_UNKNOWN_ATTRIBUTES, pack(f"!{len(unknown)}H", *unknown)))
        self._answer(stun.Class.ERROR, transaction, attributes, key, addr)
        return drop

    def _answer(
        self,
        message_class: stun.Class,
        transaction: bytes,
        attributes: Sequence[tuple[int, bytes]],
        key: bytes | None,
        addr: Endpoint,
    ) -> None:
        """Queue an answer, signed where the request was: never more than three times as long as the request."""
        head = pack("!HHI12s", stun.Method.BINDING | message_class, 0, stun.COOKIE, transaction)
        message = head + b"".join(_attribute(kind, value) for kind, value in attributes)
        if key is not None:
            message += _attribute(_MESSAGE_INTEGRITY, stun.message_integrity(message, key))
        message += _attribute(_FINGERPRINT, pack("!I", stun.message_fingerprint(message)))
        self._outgoing.append((stun.set_body_length(message, len(message) - _HEADER_BYTES), addr))


@dataclass
class _Checked:
    """What the checks from one address said."""

    at: float
    priority: int
    eager: bool
    """Its first check nominated already: an agent of RFC 5245, or a peer whose NAT gave it a new address."""


@dataclass(frozen=True)
class _Attribute:
    type: int
    start: int
    """Of its header."""
    length: int
    """Of its value, without padding."""

    @property
    def end(self) -> int:
        return self.start + 4 + self.length + -self.length % 4


def _scan(data: bytes) -> list[_Attribute] | None:
    """List the attributes without reading their values; None if the message is no STUN, or too much of it."""
    if not _HEADER_BYTES <= len(data) <= MAX_REQUEST_BYTES:
        return None
    _, length, cookie = unpack_from("!HHI", data)
    if cookie != stun.COOKIE or length != len(data) - _HEADER_BYTES or length % 4:
        return None
    attributes: list[_Attribute] = []
    at = _HEADER_BYTES
    while at < len(data):
        if len(attributes) == MAX_ATTRIBUTES:
            return None
        kind, value_length = unpack_from("!HH", data, at)
        attribute = _Attribute(kind, at, value_length)
        if attribute.end > len(data):
            return None
        attributes.append(attribute)
        at = attribute.end
    return attributes


def _username(data: bytes, attributes: Sequence[_Attribute]) -> str | None:
    for attribute in attributes:
        if attribute.type == _MESSAGE_INTEGRITY:
            return None
        if attribute.type == _USERNAME:
            start = attribute.start + 4
            return data[start : start + attribute.length].decode("utf-8", "replace")
    return None


def _has_fingerprint(data: bytes, attributes: Sequence[_Attribute]) -> bool:
    """Tell whether the last attribute is a right FINGERPRINT (RFC 8445 section 7.1; RFC 8489 section 14.7)."""
    last = attributes[-1]
    if last.type != _FINGERPRINT or last.length != 4:
        return False
    found: int = unpack_from("!I", data, last.start + 4)[0]
    return found == stun.message_fingerprint(data[: last.start])


def _signed_part(data: bytes, integrity: _Attribute) -> stun.Message | None:
    signed = data[: integrity.end]
    try:
        return stun.parse_message(stun.set_body_length(signed, len(signed) - _HEADER_BYTES))
    except (ValueError, StructError):  # the codec lets struct.error through for a value of the wrong length
        return None


def _unknown(attributes: Sequence[_Attribute], integrity: _Attribute) -> list[int]:
    signed = attributes[: attributes.index(integrity)]
    return sorted({a.type for a in signed if a.type < _OPTIONAL and a.type not in stun.ATTRIBUTES_BY_TYPE})


def _attribute(kind: int, value: bytes) -> bytes:
    return pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)
