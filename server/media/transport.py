"""One peer on the slow path: ICE, then DTLS, then RTCP, and the relay told of each step.

Driven by: sfu.py. Sans-IO, the five verbs, and `receive_rtcp` for what the relay has decrypted.

    datagram ──> demux ──┬─ STUN ──> ice.py ──> address validated ─> relay.allow
                         │                  └─> nominated ────────> relay.nominate, the handshake starts
                         └─ DTLS ──> dtls.py ─> connected ────────> relay.set_keys
                    (only from validated addresses: a stranger's ClientHello would take the handshake over)

Spec: RFC 7983 (demultiplexing), RFC 8445 section 12 (what may be sent when), OWASP ASVS 5.0 17.2.6 (the race).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from server.media.dtls import Certificate, DtlsConnected, DtlsEndpoint, DtlsFailed
from server.media.events import (
    MediaEvent,
    TransportConnected,
    TransportFailed,
    TransportFailure,
    TransportInterrupted,
    TransportResumed,
)
from server.media.fastpath.demux import Kind, classify
from server.media.ice import AddressExpired, AddressValidated, IceLiteAgent, IceTimedOut, Nominated
from server.media.parameters import DtlsParameters, Endpoint, IceParameters, LocalParameters
from server.media.rtp.errors import RtcpParseError
from server.media.rtp.rtcp import UNREAD_FROM_RECEIVERS, RtcpPacket, parse_compound, serialize_compound


class RelayPort(Protocol):
    """What a transport needs of the relay; fastpath/relay.pyi says more. An address is ip, port and `udp` or `tcp`."""

    def add_transport(self) -> int:
        """Take a slot."""

    def remove_transport(self, transport: int) -> None:
        """Give it back, keys and addresses with it."""

    def set_keys(self, transport: int, profile: int, receive_key: bytes, send_key: bytes) -> None:
        """Start SRTP."""

    def allow(self, transport: int, address: tuple[str, int, str]) -> None:
        """Take datagrams from there as this transport's."""

    def forbid(self, transport: int, address: tuple[str, int, str]) -> None:
        """Take none from there any more."""

    def nominate(self, transport: int, address: tuple[str, int, str] | None) -> None:
        """Send there; None: nowhere."""

    def send_rtcp(self, transport: int, data: bytes) -> None:
        """Protect and send a compound packet."""


class TransportDrop(StrEnum):
    """Why a datagram came to nothing here; ICE and DTLS count theirs."""

    UNVALIDATED = "unvalidated"
    """DTLS from an address without a valid check."""
    NOT_OURS = "not_ours"
    """Neither STUN nor DTLS: the relay should not have sent it up."""
    BAD_RTCP = "bad_rtcp"


@dataclass(frozen=True)
class RtcpReceived(MediaEvent):
    """A compound packet, decrypted, and of it in its order what anybody here reads."""

    transport: str
    packets: tuple[RtcpPacket, ...]


class Transport:
    """One bundled ICE + DTLS + SRTP association. Holds one slot of the relay until `close`.

    Args:
        id: Names it in events; the participant's, in the Sfu.
        relay: What is programmed.
        certificate: Ours, towards this peer.
        local: What our answer announces for ICE.
        remote: What the peer's offer announces.
        peer: The peer's fingerprints and DTLS role; we are the server unless the peer insists on being it.
        now: The time for the first check starts here.
    """

    def __init__(
        self,
        id: str,
        relay: RelayPort,
        certificate: Certificate,
        local: IceParameters,
        remote: IceParameters | None,
        peer: DtlsParameters,
        now: float,
    ) -> None:
        self.id = id
        self.drops: Counter[TransportDrop] = Counter()
        self.ice = IceLiteAgent(local, remote, now)
        self.dtls = DtlsEndpoint(certificate, peer.fingerprints, "client" if peer.role == "server" else "server")
        self.slot = relay.add_transport()
        self._local = local
        self._own = DtlsParameters((certificate.fingerprint,), "client" if peer.role == "server" else "server")
        self._relay = relay
        self._addresses: set[Endpoint] = set()
        self._keyed = False
        self._connected = False
        self._interrupted = False
        self._over = False
        self._closed = False
        self._events: deque[MediaEvent] = deque()

    # For the Sfu.

    @property
    def connected(self) -> bool:
        """Whether media can flow, a pause for lack of checks aside."""
        return self._connected and not self._over

    def all_drops(self) -> Counter[str]:
        """Count what came to nothing here, in ICE and in DTLS, by reason."""
        found = Counter({str(reason): number for reason, number in self.drops.items()})
        found.update({f"ice_{reason}": number for reason, number in self.ice.drops.items()})
        found.update({f"dtls_{reason}": number for reason, number in self.dtls.drops.items()})
        return found

    def parameters(self, candidates: Sequence[Endpoint]) -> LocalParameters:
        """Return what the answer says about this transport."""
        return LocalParameters(self._local, self._own, tuple(candidates))

    def restart_ice(self, local: IceParameters, remote: IceParameters | None, now: float) -> None:
        """Take new credentials of both sides; media goes on along the old path until the peer nominates a new one."""
        self._local = local
        self.ice.restart(local, remote)

    def disconnected(self, endpoint: Endpoint, now: float) -> None:
        """Forget an address whose TCP connection has closed."""
        self.ice.forget(endpoint)
        self._drain(now)

    def send_rtcp(self, packets: Sequence[RtcpPacket]) -> None:
        """Send a compound packet, protected by the relay; nothing if the peer cannot be sent to at this moment."""
        if self.connected and self.ice.nominated is not None:
            self._relay.send_rtcp(self.slot, serialize_compound(packets))

    def close(self, now: float) -> None:
        """Say goodbye to the peer and give the relay's slot back. The last datagrams are still to be taken."""
        if not self._closed:
            self._closed = self._over = True
            self.dtls.close(now)
            self._relay.remove_transport(self.slot)

    # The five verbs.

    def receive_datagram(self, data: bytes, addr: Endpoint, now: float) -> None:
        """Take one STUN or DTLS datagram. Bytes from the network never raise."""
        if self._closed:
            return
        match classify(data):
            case Kind.STUN:
                self.ice.receive_datagram(data, addr, now)
                self._hold(addr)
            case Kind.DTLS if self.ice.is_validated(addr):
                self.dtls.receive_datagram(data, addr, now)
            case Kind.DTLS:
                self.drops[TransportDrop.UNVALIDATED] += 1
            case _:
                self.drops[TransportDrop.NOT_OURS] += 1
        self._drain(now)

    def receive_rtcp(self, data: bytes, now: float) -> None:
        """Take one RTCP packet that the relay has authenticated and decrypted."""
        if not self.connected:
            return
        try:
            packets = parse_compound(data, UNREAD_FROM_RECEIVERS)
        except RtcpParseError:
            self.drops[TransportDrop.BAD_RTCP] += 1
        else:
            if packets:
                self._events.append(RtcpReceived(self.id, tuple(packets)))

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Endpoint]]:
        """Take answers to checks, and DTLS."""
        return self.ice.datagrams_to_send(now) + self.dtls.datagrams_to_send(now)

    def next_event(self) -> MediaEvent | None:
        """Take the oldest event: of `events.py`, or `RtcpReceived`."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        if self._closed:
            return None
        timers = [timer for timer in (self.ice.get_timer(), self.dtls.get_timer()) if timer is not None]
        return min(timers, default=None)

    def handle_timer(self, now: float) -> None:
        """Let ICE and DTLS act on the time."""
        if not self._closed:
            self.ice.handle_timer(now)
            self.dtls.handle_timer(now)
            self._drain(now)

    # From one machine to the next.

    def _hold(self, addr: Endpoint) -> None:
        """Claim an address again with every check: another peer's check, its source forged, may have taken it away.

        A lite agent cannot ask back whether a peer is where its packets say (RFC 8445 section 19.2).
        """
        if addr in self._addresses and not self._over:
            self._relay.allow(self.slot, addr)
            if addr == self.ice.nominated:
                self._relay.nominate(self.slot, addr)

    def _drain(self, now: float) -> None:
        while (ice_event := self.ice.next_event()) is not None:
            match ice_event:
                case AddressValidated(endpoint):
                    if not (self._over and self._keyed):
                        self._addresses.add(endpoint)
                        self._relay.allow(self.slot, endpoint)
                case AddressExpired(endpoint):
                    if endpoint in self._addresses:
                        self._addresses.remove(endpoint)
                        self._relay.forbid(self.slot, endpoint)
                case Nominated(endpoint):
                    self._on_nominated(endpoint, now)
                case IceTimedOut():
                    self._fail(TransportFailure.TIMEOUT)
        while (dtls_event := self.dtls.next_event()) is not None:
            match dtls_event:
                case DtlsConnected(profile, receive_key, send_key):
                    self._keyed = True
                    self._relay.set_keys(self.slot, profile, receive_key, send_key)
                    self._connect()
                case DtlsFailed(reason):
                    self._fail(reason)

    def _on_nominated(self, endpoint: Endpoint | None, now: float) -> None:
        if self._over:
            return
        if endpoint is not None:
            self._relay.allow(self.slot, endpoint)
        self._relay.nominate(self.slot, endpoint)
        if endpoint is None:
            if self._connected:
                self._interrupted = True
                self._events.append(TransportInterrupted(self.id))
            return
        if self._interrupted:
            self._interrupted = False
            self._events.append(TransportResumed(self.id))
        self.dtls.move(endpoint)
        if not self.dtls.begun:
            self.dtls.start(endpoint, now)
        self._connect()

    def _connect(self) -> None:
        """Both halves are there: a path and keys."""
        if self._keyed and not self._connected and self.ice.nominated is not None:
            self._connected = True
            self._events.append(TransportConnected(self.id))

    def _fail(self, reason: TransportFailure) -> None:
        if self._over:
            return
        self._over = True
        self._relay.nominate(self.slot, None)
        if self._keyed:  # without keys no media passes, and the peer may still need to hear our alert
            for endpoint in self._addresses:
                self._relay.forbid(self.slot, endpoint)
            self._addresses.clear()
        self._events.append(TransportFailed(self.id, reason))
