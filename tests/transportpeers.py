"""The other end of a transport, in memory: checks of a full ICE agent, other DTLS stacks, a relay that records.

None of it uses the code under test: checks are built with aioice's codec, DTLS peers with pyOpenSSL directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from struct import unpack_from

from aioice import stun
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from server.media.parameters import DtlsParameters, Endpoint, Fingerprint, IceParameters

WALL = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LOCAL = IceParameters("ours", "o" * 24)
REMOTE = IceParameters("theirs", "t" * 24)
HOME = Endpoint("192.0.2.1", 40_000)
MOBILE = Endpoint("198.51.100.7", 50_000)
STRANGER = Endpoint("203.0.113.66", 60_000)
BROWSER_SUITES = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"


def check(
    local: IceParameters = LOCAL,
    remote: IceParameters = REMOTE,
    *,
    nominate: bool = False,
    priority: int = 1,
    role: str = "ICE-CONTROLLING",
    key: str | None = None,
) -> bytes:
    """A connectivity check as a browser sends it to us; `key` signs it with another password."""
    message = request(local, remote, nominate=nominate, priority=priority, role=role)
    message.add_message_integrity((key or local.pwd).encode())
    return bytes(message)


def request(
    local: IceParameters = LOCAL,
    remote: IceParameters = REMOTE,
    *,
    nominate: bool = False,
    priority: int = 1,
    role: str = "ICE-CONTROLLING",
) -> stun.Message:
    """The same, not signed yet."""
    attributes = {"USERNAME": f"{local.ufrag}:{remote.ufrag}", role: 1, "PRIORITY": priority}
    if nominate:
        attributes["USE-CANDIDATE"] = None
    return stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes=attributes)


def self_signed(key, at: datetime = WALL) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, at, at + timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa2048() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class DtlsPeer:
    """Another stack's DTLS: OpenSSL with its own settings."""

    def __init__(
        self,
        key=None,
        *,
        server: bool = False,
        suites: str = BROWSER_SUITES,
        profiles: bytes = b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM",
        versions: tuple[int, int] = (0xFEFD, 0xFEFD),
    ) -> None:
        key = key or p256()
        self.certificate = self_signed(key)
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_cipher_list(suites.encode())
        context.set_min_proto_version(versions[0])
        context.set_max_proto_version(versions[1])
        if profiles:
            context.set_tlsext_use_srtp(profiles)
        context.set_options(SSL.OP_NO_QUERY_MTU)
        context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        context.use_certificate(self.certificate)
        context.use_privatekey(key)
        self.connection = SSL.Connection(context, None)
        self.connection.set_ciphertext_mtu(1200)
        if server:
            self.connection.set_accept_state()
        else:
            self.connection.set_connect_state()
        self.connected = False
        self.error: SSL.Error | None = None
        self.role = "server" if server else "client"

    @property
    def parameters(self) -> DtlsParameters:
        return DtlsParameters((self.fingerprint("sha-256"),), "server" if self.role == "server" else "auto")

    def fingerprint(self, algorithm: str) -> Fingerprint:
        digest = {"sha-256": hashes.SHA256(), "sha-384": hashes.SHA384(), "sha-512": hashes.SHA512()}[algorithm]
        return Fingerprint(algorithm, self.certificate.fingerprint(digest).hex(":"))

    def feed(self, datagrams: Iterable[bytes] = ()) -> list[bytes]:
        """Take datagrams one by one; return what comes out, a datagram a record."""
        sent = []
        for data in [b"", *datagrams]:
            if data:
                self.connection.bio_write(data)
            try:
                if not self.connected:
                    self.connection.do_handshake()
                    self.connected = True
                self.connection.recv(2048)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                pass
            except SSL.Error as error:
                self.error = self.error or error
            sent += self._output()
        return sent

    def close(self) -> list[bytes]:
        with suppress(SSL.Error):
            self.connection.shutdown()
        return self._output()

    def _output(self) -> list[bytes]:
        try:
            output = self.connection.bio_read(1 << 16)
        except SSL.Error:
            return []
        records = []
        while output:
            length = 13 + unpack_from("!H", output, 11)[0]
            records.append(output[:length])
            output = output[length:]
        return records

    def keys(self, key_bytes: int, salt_bytes: int) -> tuple[bytes, bytes]:
        """Of client and server, key and salt (RFC 5764 section 4.2)."""
        material = self.connection.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (key_bytes + salt_bytes))
        cuts = [0, key_bytes, 2 * key_bytes, 2 * key_bytes + salt_bytes, 2 * (key_bytes + salt_bytes)]
        client, server, client_salt, server_salt = (material[a:b] for a, b in pairwise(cuts))
        return client + client_salt, server + server_salt


class RecordingRelay:
    """What a relay would have been told."""

    def __init__(self) -> None:
        self.slots: set[int] = set()
        self.allowed: set[Endpoint] = set()
        self.nominated: list[Endpoint | None] = []
        """Without repetitions."""
        self.keys: list[tuple[int, bytes, bytes]] = []
        self.rtcp: list[bytes] = []

    def add_transport(self) -> int:
        slot = len(self.slots) + 7
        self.slots.add(slot)
        return slot

    def remove_transport(self, transport: int) -> None:
        self.slots.remove(transport)

    def set_keys(self, transport: int, profile: int, receive_key: bytes, send_key: bytes) -> None:
        assert transport in self.slots
        self.keys.append((profile, receive_key, send_key))

    def allow(self, transport: int, address) -> None:
        assert transport in self.slots
        self.allowed.add(address)

    def forbid(self, transport: int, address) -> None:
        assert transport in self.slots
        self.allowed.remove(address)

    def nominate(self, transport: int, address) -> None:
        assert transport in self.slots
        assert address is None or address in self.allowed
        if self.nominated[-1:] != [address]:
            self.nominated.append(address)

    def send_rtcp(self, transport: int, data: bytes) -> None:
        assert transport in self.slots
        self.rtcp.append(data)


def drain(machine, kinds: type | tuple[type, ...] = object) -> list:
    """Take a machine's events, of some kinds or all."""
    events = []
    while (event := machine.next_event()) is not None:
        events.append(event)
    return [event for event in events if isinstance(event, kinds)]


def exchange(ours, peer: DtlsPeer, now: float, addr: Endpoint = HOME, first: Callable[[], list[bytes]] | None = None):
    """Let one of our machines and a DTLS peer talk until both are silent."""
    to_us = first() if first else peer.feed()
    for _ in range(20):
        for data in to_us:
            ours.receive_datagram(data, addr, now)
        to_us = peer.feed([data for data, _ in ours.datagrams_to_send(now)])
        if not to_us:
            return
    raise AssertionError("they never fall silent")
