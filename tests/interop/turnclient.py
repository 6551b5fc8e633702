"""A TURN client that does one request at a time, and also the wrong ones: for tests of a real coturn. [IO]

Spec: RFC 8489, RFC 8656. Blocking sockets with a timeout, so that a socket made inside a namespace stays simple.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
import struct
import zlib

_COOKIE = 0x2112A442

BINDING, ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND = 0x001, 0x003, 0x004, 0x008, 0x009
SEND, DATA = 0x016, 0x017
"""Indications, with their class bits."""

_XOR_ADDRESSES = {0x0012: "peer", 0x0016: "relayed", 0x0020: "mapped"}
_UDP, _TCP = 17, 6


class Reply:
    """A parsed answer: `error` is 0 for success; other members are absent (None, "" or b"") when it has none."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.type, _, _, self.transaction = struct.unpack("!HHI12s", data[:20])
        self.error = 0
        self.nonce = self.data = b""
        self.realm = ""
        self.lifetime: int | None = None
        self.addresses: dict[str, tuple[str, int]] = {}
        for kind, value in _attributes(data[20:]):
            if kind in _XOR_ADDRESSES:
                self.addresses[_XOR_ADDRESSES[kind]] = _xor_address(value, self.transaction)
            elif kind == 0x0009:
                self.error = (value[2] & 7) * 100 + value[3]
            elif kind == 0x000D:
                self.lifetime = int.from_bytes(value)
            elif kind == 0x0013:
                self.data = value
            elif kind == 0x0014:
                self.realm = value.decode()
            elif kind == 0x0015:
                self.nonce = value


def _attributes(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(body) >= 4:
        kind, length = struct.unpack("!HH", body[:4])
        found.append((kind, body[4 : 4 + length]))
        body = body[4 + (length + 3) // 4 * 4 :]
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _xor(data: bytes, transaction: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, struct.pack("!I", _COOKIE) + transaction, strict=False))


def _xor_address(value: bytes, transaction: bytes) -> tuple[str, int]:
    port = struct.unpack("!H", value[2:4])[0] ^ _COOKIE >> 16
    return str(ipaddress.ip_address(_xor(value[4:], transaction))), port


def peer_attribute(address: str, port: int, transaction: bytes) -> bytes:
    """XOR-PEER-ADDRESS, of the family that `address` has as written: `::ffff:10.0.0.1` is IPv6."""
    ip = ipaddress.ip_address(address)
    body = struct.pack("!BBH", 0, 1 if ip.version == 4 else 2, port ^ _COOKIE >> 16) + _xor(ip.packed, transaction)
    return _attribute(0x0012, body)


def message(kind: int, attributes: bytes = b"", *, transaction: bytes = b"", key: bytes = b"") -> bytes:
    """Serialise a STUN message; with `key`, sign it (MESSAGE-INTEGRITY)."""
    transaction = transaction or os.urandom(12)
    length = len(attributes) + (24 if key else 0)
    data = struct.pack("!HHI12s", kind, length, _COOKIE, transaction) + attributes
    return data + _attribute(0x0008, hmac.digest(key, data, "sha1")) if key else data


def fingerprinted(data: bytes) -> bytes:
    """Add FINGERPRINT (RFC 8489 section 14.7)."""
    data = data[:2] + struct.pack("!H", len(data) - 20 + 8) + data[4:]
    return data + _attribute(0x8028, struct.pack("!I", zlib.crc32(data) ^ 0x5354554E))


class TurnClient:
    """One five-tuple towards one TURN server.

    Args:
        connection: A connected UDP socket, or a TCP or TLS one.
    """

    def __init__(self, connection: socket.socket, username: str = "", credential: str = "") -> None:
        self._socket = connection
        self._socket.settimeout(2.0)
        self._stream = connection.type == socket.SOCK_STREAM
        self.username, self.credential = username, credential
        self._nonce, self._realm = b"", ""
        self.relayed: tuple[str, int] | None = None
        self.lifetime: int | None = None

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.send(data)

    def receive(self, timeout_s: float = 2.0) -> bytes:
        """Return the next STUN message or ChannelData.

        Raises:
            TimeoutError: Nothing came.
        """
        self._socket.settimeout(timeout_s)
        if not self._stream:
            return self._socket.recv(65_536)
        head = self._exactly(4)
        length = struct.unpack("!H", head[2:])[0]
        return head + self._exactly(length + 16 if head[0] < 0x40 else (length + 3) // 4 * 4)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            if not more:
                raise ConnectionError("closed by the server")
            data += more
        return data

    def exchange(self, data: bytes, timeout_s: float = 2.0) -> Reply:
        """Send a request, return its answer, passing over what else comes."""
        self.send(data)
        while True:
            reply = Reply(self.receive(timeout_s))
            if reply.transaction == data[8:20]:
                return reply

    def request(self, kind: int, attributes: bytes = b"", transaction: bytes = b"") -> Reply:
        """Send a request with long-term credentials, fetching realm and nonce as needed (RFC 8489 section 9.2)."""
        for _ in range(3):
            transaction = transaction or os.urandom(12)
            reply = self.exchange(
                message(kind, attributes + self._identity(), transaction=transaction, key=self._key())
            )
            if reply.error == 438 or (reply.error == 401 and not self._nonce):
                self._nonce, self._realm = reply.nonce, reply.realm
                continue
            break
        return reply

    def _identity(self) -> bytes:
        if not self._nonce:
            return b""
        parts = ((0x0006, self.username.encode()), (0x0014, self._realm.encode()), (0x0015, self._nonce))
        return b"".join(_attribute(kind, value) for kind, value in parts)

    def _key(self) -> bytes:
        if not self._nonce:
            return b""
        return hashlib.md5(f"{self.username}:{self._realm}:{self.credential}".encode()).digest()

    def allocate(self, *, ipv6: bool = False, transport: int = _UDP) -> Reply:
        """Ask for a relayed address."""
        attributes = _attribute(0x0019, bytes([transport, 0, 0, 0]))
        if ipv6:
            attributes += _attribute(0x0017, bytes([2, 0, 0, 0]))
        reply = self.request(ALLOCATE, attributes)
        self.relayed, self.lifetime = reply.addresses.get("relayed"), reply.lifetime
        return reply

    def allocate_tcp(self) -> Reply:
        """Ask for a relayed TCP address (RFC 6062)."""
        return self.allocate(transport=_TCP)

    def permit(self, address: str, port: int = 9) -> Reply:
        """CreatePermission towards a peer."""
        transaction = os.urandom(12)
        return self.request(CREATE_PERMISSION, peer_attribute(address, port, transaction), transaction)

    def bind_channel(self, address: str, port: int = 9, channel: int = 0x4000) -> Reply:
        """ChannelBind towards a peer."""
        transaction = os.urandom(12)
        number = _attribute(0x000C, struct.pack("!HH", channel, 0))
        return self.request(CHANNEL_BIND, number + peer_attribute(address, port, transaction), transaction)

    def refresh(self, lifetime_s: int) -> Reply:
        """Refresh the allocation; 0 ends it."""
        return self.request(REFRESH, _attribute(0x000D, struct.pack("!I", lifetime_s)))

    def relay(self, data: bytes, address: str, port: int) -> None:
        """Send indication: data to a peer, through the relay."""
        transaction = os.urandom(12)
        attributes = peer_attribute(address, port, transaction) + _attribute(0x0013, data)
        self.send(message(SEND, attributes, transaction=transaction))

    def relayed_data(self, timeout_s: float = 2.0) -> bytes:
        """Return what the next Data indication carries.

        Raises:
            TimeoutError: Nothing came.
        """
        while True:
            reply = Reply(self.receive(timeout_s))
            if reply.type == DATA:
                return reply.data

    def close(self) -> None:
        """Close the socket; the server keeps a UDP allocation until its lifetime ends."""
        self._socket.close()
