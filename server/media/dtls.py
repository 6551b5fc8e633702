"""DTLS for SRTP keys: one handshake over memory BIOs, the peer known by its fingerprint, keys exported, little else.

Driven by: transport.py, which lets nothing in from an address that ICE has not validated. Sans-IO, the five verbs.

We are the server wherever the peer lets us choose: then the SRTP profile is the first of *our* list that the peer
offers (browsers as servers choose AES-CM with SHA-1, which costs the fast path twice as much). The fingerprint is
checked while the handshake runs, so a wrong certificate ends it with an alert and the peer knows as well.

Only DTLS 1.2: it has forward secrecy through ECDHE, all browsers speak it, and OpenSSL knows no other that is safe.

**Retransmission.** OpenSSL has its own timer, which reads the real clock and starts at one second. Ours is a number
like every other: the last flight is kept and sent again, byte for byte, first after 250 ms. DTLS receivers drop the
records that they had, so that a repetition costs nothing but bytes. When OpenSSL's timer has run out too, it answers
with fresh records, and those replace the flight.

Spec: RFC 6347 (DTLS 1.2), RFC 5763 and 5764 (DTLS-SRTP), RFC 8122 (fingerprints), RFC 8827 section 6.5 (suites).
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from functools import cached_property
from struct import unpack_from
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL, crypto

from server.errors import InvalidStateError
from server.media.events import TransportFailure
from server.media.parameters import Endpoint, Fingerprint, SrtpProfile

MTU_BYTES = 1200
"""UDP payload of a flight's datagrams: what fits through every tunnel, as libwebrtc has it."""
HANDSHAKE_TIMEOUT_S = 20.0
"""Four times what a handshake takes at 10 % loss; ICE has proven the path before it starts."""
RETRANSMIT_FIRST_S = 0.25
"""Above the round trip of nearly every access network; doubled each time (RFC 6347 section 4.2.4.1)."""
RETRANSMIT_MAX_S = 2.0
MAX_DATAGRAM_BYTES = 2048
"""Received: no path that WebRTC crosses carries more in one piece."""
MAX_HANDSHAKE_DATAGRAMS = 256
"""Received before the keys are there: a handshake takes 4 to 20, repetitions included."""
MAX_REPEATS_ASKED = 8
"""Our last flight, or our alert, may be lost: a peer that goes on with its handshake gets it again."""
CERTIFICATE_LIFETIME = timedelta(days=30)
CERTIFICATE_ROTATION = timedelta(days=1)
"""New transports get a new certificate daily; those that exist keep theirs."""

_DTLS_1_2 = 0xFEFD
_RECORD_HEADER_BYTES = 13
_CIPHERS = ":".join(
    f"ECDHE-{authentication}-{suite}"
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for authentication in ("ECDSA", "RSA")  # a peer that we are the client of may have an RSA certificate
)
_HANDSHAKE_RECORDS = (b"\x14", b"\x16")  # change cipher spec, handshake
_EXPORTER_LABEL = b"EXTRACTOR-dtls_srtp"  # RFC 5764 section 4.2

_PROFILES = {
    # name in OpenSSL: number, key bytes, salt bytes; the first that both have is taken (FASTPATH: GCM is the cheapest)
    b"SRTP_AEAD_AES_128_GCM": (SrtpProfile.AEAD_AES_128_GCM, 16, 12),
    b"SRTP_AEAD_AES_256_GCM": (SrtpProfile.AEAD_AES_256_GCM, 32, 12),
    b"SRTP_AES128_CM_SHA1_80": (SrtpProfile.AES128_CM_SHA1_80, 16, 14),
}

_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    # strongest first: only the strongest that the peer announces counts (RFC 8122 section 5)
    "sha-512": hashes.SHA512(),
    "sha-384": hashes.SHA384(),
    "sha-256": hashes.SHA256(),
}


class DtlsDrop(StrEnum):
    """Why a datagram did not reach OpenSSL."""

    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    OVER = "over"


@dataclass(frozen=True)
class DtlsConnected:
    """The peer is who its fingerprint says; keys are key and salt in one, as the relay takes them."""

    profile: SrtpProfile
    receive_key: bytes = field(repr=False)
    send_key: bytes = field(repr=False)


@dataclass(frozen=True)
class DtlsFailed:
    """No handshake, or the end of one. The last event."""

    reason: TransportFailure


DtlsEvent = DtlsConnected | DtlsFailed


class Certificate:
    """Our identity towards peers: a P-256 key and a certificate that it signed itself.

    The key is on no disk and says nothing about us; the fingerprint in the SDP is what makes it ours.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def generate(cls, at: datetime) -> Certificate:
        """Make one that is valid from a day before `at` (clocks differ) for thirty days."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(8))])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(at - timedelta(days=1))
            .not_valid_after(at + CERTIFICATE_LIFETIME)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """SHA-256, for `a=fingerprint`."""
        return fingerprint(self._certificate, "sha-256")

    @cached_property
    def context(self) -> SSL.Context:
        """What all handshakes with this certificate share."""
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_max_proto_version(_DTLS_1_2)
        context.set_options(SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # else every peer's session stays in memory
        context.set_cipher_list(_CIPHERS.encode())
        context.set_tlsext_use_srtp(b":".join(_PROFILES))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
        context.use_certificate(self._certificate)
        context.use_privatekey(self._key)
        return context


class Certificates:
    """The certificate of new transports, changed once a day."""

    def __init__(self) -> None:
        self._current: Certificate | None = None
        self._made_at: datetime | None = None

    def current(self, at: datetime) -> Certificate:
        """Return the certificate to use for a transport that is made now."""
        if self._current is None or self._made_at is None or at >= self._made_at + CERTIFICATE_ROTATION:
            self._current, self._made_at = Certificate.generate(at), at
        return self._current


def fingerprint(certificate: x509.Certificate, algorithm: str) -> Fingerprint:
    """Return a certificate's fingerprint as SDP writes it.

    Raises:
        InvalidStateError: The algorithm is none of sha-256, sha-384, sha-512.
    """
    if algorithm not in _DIGESTS:
        raise InvalidStateError(f"no such fingerprint algorithm: {algorithm}")
    return Fingerprint(algorithm, certificate.fingerprint(_DIGESTS[algorithm]).hex(":").upper())


def is_announced(certificate: x509.Certificate, announced: tuple[Fingerprint, ...]) -> bool:
    """Tell whether a certificate is one that the SDP announced, by the strongest digest that the SDP uses.

    Digests that we do not know, and the broken ones (sha-1, md5), announce nothing.
    """
    for algorithm in _DIGESTS:
        values = {entry.value.upper() for entry in announced if entry.algorithm.lower() == algorithm}
        if values:
            return fingerprint(certificate, algorithm).value in values
    return False


class _State(Enum):
    HANDSHAKE = auto()
    CONNECTED = auto()
    OVER = auto()


class DtlsEndpoint:
    """One handshake and what little comes after it. OpenSSL holds at most one flight of each side.

    Args:
        certificate: Ours.
        announced: The peer's fingerprints, from its SDP.
        role: Ours.
    """

    def __init__(
        self, certificate: Certificate, announced: tuple[Fingerprint, ...], role: Literal["client", "server"]
    ) -> None:
        self.drops: Counter[DtlsDrop] = Counter()
        self._announced = announced
        self._is_server = role == "server"
        self._state = _State.HANDSHAKE
        self._mismatch = False
        self._peer: Endpoint | None = None
        self._received = 0
        self._deadline: float | None = None
        self._flight: list[bytes] = []
        self._repeat_at: float | None = None
        self._repeat_after = RETRANSMIT_FIRST_S
        self._repeats_asked = 0
        self._sent_at = 0.0
        self._events: deque[DtlsEvent] = deque()
        self._outgoing: list[bytes] = []
        self._connection = SSL.Connection(certificate.context, None)
        self._connection.set_ciphertext_mtu(MTU_BYTES)
        self._connection.set_app_data(self)
        if self._is_server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()

    def start(self, addr: Endpoint, now: float) -> None:
        """Begin: the path to `addr` works. A client opens the handshake, a server starts to wait for it."""
        if self._deadline is not None:
            raise InvalidStateError("the handshake has begun")
        self._begin(addr, now)
        if not self._is_server:
            self._advance(now)

    @property
    def begun(self) -> bool:
        """Whether `start` was called or a datagram came."""
        return self._deadline is not None

    def move(self, addr: Endpoint) -> None:
        """Send there from now on: the peer's path has changed."""
        self._peer = addr

    def close(self, now: float) -> None:
        """Say goodbye (close_notify), once, without waiting for the answer."""
        if self._state is _State.CONNECTED:
            with suppress(SSL.Error):
                self._connection.shutdown()
            self._take_output(now)
        self._over()

    # The five verbs.

    def receive_datagram(self, data: bytes, addr: Endpoint, now: float) -> None:
        """Take one datagram from an address that ICE has validated. Bytes from the network never raise."""
        if len(data) > MAX_DATAGRAM_BYTES:
            self.drops[DtlsDrop.TOO_LARGE] += 1
        elif self._state is _State.OVER:
            self.drops[DtlsDrop.OVER] += 1
            self._repeat_if_asked(data, now)
        elif self._state is _State.HANDSHAKE and self._received >= MAX_HANDSHAKE_DATAGRAMS:
            self.drops[DtlsDrop.TOO_MANY] += 1
        elif data:
            if self._deadline is None:
                self._begin(addr, now)
            self._received += 1
            was_connected = self._state is _State.CONNECTED
            self._connection.bio_write(data)
            self._advance(now)
            if was_connected and not self._outgoing:
                self._repeat_if_asked(data, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Endpoint]]:
        """Take what is to be sent."""
        if self._peer is None:
            return []
        taken = [(data, self._peer) for data in self._outgoing]
        self._outgoing.clear()
        return taken

    def next_event(self) -> DtlsEvent | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        if self._state is not _State.HANDSHAKE or self._deadline is None:
            return None
        return self._deadline if self._repeat_at is None else min(self._deadline, self._repeat_at)

    def handle_timer(self, now: float) -> None:
        """Send the last flight again, or give up."""
        if self._state is not _State.HANDSHAKE or self._deadline is None:
            return
        if now >= self._deadline:
            self._fail(TransportFailure.DTLS_TIMEOUT)
        elif self._repeat_at is not None and now >= self._repeat_at:
            repeat_after = min(2 * self._repeat_after, RETRANSMIT_MAX_S)
            self._outgoing.clear()
            self._advance(now)
            if not self._outgoing:  # OpenSSL's own timer has not run out
                self._outgoing += self._flight
            self._repeat_after = repeat_after
            self._repeat_at = now + repeat_after

    # What drives OpenSSL.

    def _begin(self, addr: Endpoint, now: float) -> None:
        self._deadline = now + HANDSHAKE_TIMEOUT_S
        if self._peer is None:
            self._peer = addr

    def _advance(self, now: float) -> None:
        """Let OpenSSL read what it was given, then take what it wrote."""
        try:
            if self._state is _State.HANDSHAKE:
                self._connection.do_handshake()
                self._connected()
            while True:  # alerts, a repeated last flight; application data has no meaning here
                self._connection.recv(MAX_DATAGRAM_BYTES)
        except SSL.WantReadError:
            self._take_output(now)
        except SSL.ZeroReturnError:
            self._take_output(now)
            self._fail(TransportFailure.CLOSED)
        except SSL.Error:
            self._take_output(now)
            if self._mismatch:
                self._fail(TransportFailure.FINGERPRINT)
            else:
                connected = self._state is _State.CONNECTED
                self._fail(TransportFailure.CLOSED if connected else TransportFailure.DTLS_REFUSED)

    def _repeat_if_asked(self, data: bytes, now: float) -> None:
        """Answer a handshake that should be over with what ended it: the peer has missed that.

        OpenSSL does so itself, but only for fresh records: a byte-for-byte repetition like ours it takes for a replay.
        """
        due = now >= self._sent_at + RETRANSMIT_FIRST_S / 2
        if due and data[:1] in _HANDSHAKE_RECORDS and self._repeats_asked < MAX_REPEATS_ASKED:
            self._repeats_asked += 1
            self._sent_at = now
            self._outgoing += self._flight

    def _connected(self) -> None:
        profile = self._connection.get_selected_srtp_profile()
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        if certificate is None or not is_announced(certificate, self._announced):
            # _verify has refused it already; this holds if OpenSSL should ever not have asked.
            self._fail(TransportFailure.FINGERPRINT)
        elif profile not in _PROFILES:
            self._fail(TransportFailure.DTLS_REFUSED)
        else:
            number, key_bytes, salt_bytes = _PROFILES[profile]
            material = self._connection.export_keying_material(_EXPORTER_LABEL, 2 * (key_bytes + salt_bytes))
            keys, salts = material[: 2 * key_bytes], material[2 * key_bytes :]
            client = keys[:key_bytes] + salts[:salt_bytes]
            server = keys[key_bytes:] + salts[salt_bytes:]
            self._state = _State.CONNECTED
            self._repeat_at = None
            receive, send = (client, server) if self._is_server else (server, client)
            self._events.append(DtlsConnected(number, receive, send))

    def _take_output(self, now: float) -> None:
        """Take what OpenSSL wrote as the flight to repeat. Memory BIOs have no datagrams: cut them at records."""
        try:
            output = self._connection.bio_read(1 << 16)
        except SSL.Error:
            return  # nothing there
        datagrams = _datagrams(output)
        self._sent_at = now
        self._outgoing += datagrams
        if datagrams != self._flight:
            self._flight = datagrams
            self._repeat_after = RETRANSMIT_FIRST_S
        if self._state is _State.HANDSHAKE:
            self._repeat_at = now + self._repeat_after

    def _fail(self, reason: TransportFailure) -> None:
        if self._state is not _State.OVER:
            self._over()
            self._events.append(DtlsFailed(reason))

    def _over(self) -> None:
        self._state = _State.OVER
        self._repeat_at = None

    def verify(self, certificate: x509.Certificate) -> bool:
        """Tell OpenSSL, in the middle of the handshake, whether the peer is the one that was announced."""
        self._mismatch = not is_announced(certificate, self._announced)
        return not self._mismatch


def _verify(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
    """Judge the peer's own certificate by its fingerprint alone: who signed it, and when, says nothing (RFC 8827)."""
    endpoint = connection.get_app_data()
    assert isinstance(endpoint, DtlsEndpoint)
    if depth > 0:
        return True
    try:
        return endpoint.verify(certificate.to_cryptography())
    except ValueError:  # OpenSSL could read it, the stricter parser cannot
        return False


def _datagrams(records: bytes) -> list[bytes]:
    """Pack whole records into as few datagrams of at most an MTU as they need."""
    datagrams: list[bytes] = []
    at = 0
    while at < len(records):
        end = at + _RECORD_HEADER_BYTES + unpack_from("!H", records, at + 11)[0]
        record = records[at:end]
        if datagrams and len(datagrams[-1]) + len(record) <= MTU_BYTES:
            datagrams[-1] += record
        else:
            datagrams.append(record)
        at = end
    return datagrams
