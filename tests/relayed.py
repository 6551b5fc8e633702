"""Peers of a relay in memory, with SRTP sessions of their own, and the packets that they exchange."""

import itertools
import struct
from dataclasses import dataclass, field

from pylibsrtp import Policy, Session

from server.media.fastpath.relay import Address, Codec, DropReason, EventKind, Relay

GCM, SHA1_80 = 7, 1
PROFILES = {
    SHA1_80: (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
    2: (Policy.SRTP_PROFILE_AES128_CM_SHA1_32, 30),
    GCM: (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    8: (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
}
BINDING_REQUEST = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
CLIENT_HELLO = b"\x16\xfe\xff" + bytes(20)
IDS_IN = {"mid": 1, "transport-cc": 3, "audio-level": 4, "dependency-descriptor": 5, "rid": 6, "rrid": 8}
IDS_OUT = {"mid": 9, "abs-send-time": 2, "transport-cc": 7, "audio-level": 1, "dependency-descriptor": 12}


def session(key: bytes, profile: int, *, inbound: bool) -> Session:
    kind = Policy.SSRC_ANY_INBOUND if inbound else Policy.SSRC_ANY_OUTBOUND
    return Session(policy=Policy(key=key, ssrc_type=kind, srtp_profile=PROFILES[profile][0]))


@dataclass
class Rtp:
    """A packet in the clear."""

    ssrc: int
    seq: int
    payload: bytes
    timestamp: int = 0
    payload_type: int = 96
    marker: bool = False
    elements: dict[int, bytes] = field(default_factory=dict)
    padding: int = 0

    def __bytes__(self) -> bytes:
        extension = b"".join(bytes([key << 4 | len(value) - 1]) + value for key, value in self.elements.items())
        extension += bytes(-len(extension) % 4)
        head = struct.pack(
            "!BBHII",
            0x80 | 0x20 * bool(self.padding) | 0x10 * bool(extension),
            self.marker << 7 | self.payload_type,
            self.seq & 0xFFFF,
            self.timestamp & 0xFFFFFFFF,
            self.ssrc,
        )
        if extension:
            head += struct.pack("!HH", 0xBEDE, len(extension) // 4) + extension
        tail = bytes(self.padding - 1) + bytes([self.padding]) if self.padding else b""
        return head + self.payload + tail

    @classmethod
    def parse(cls, data: bytes) -> "Rtp":
        """Of a packet without contributing sources, which is what the relay sends."""
        first, second, seq, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        assert first & 0xCF == 0x80
        at, elements = 12, {}
        if first & 0x10:
            profile, words = struct.unpack_from("!HH", data, at)
            end = at + 4 + 4 * words
            at += 4
            while at < end:
                if data[at] == 0:
                    at += 1
                    continue
                if profile == 0xBEDE:
                    key, size, at = data[at] >> 4, (data[at] & 15) + 1, at + 1
                else:
                    assert profile == 0x1000
                    key, size, at = data[at], data[at + 1], at + 2
                elements[key] = data[at : at + size]
                at += size
            assert at == end
        padding = data[-1] if first & 0x20 else 0
        payload = data[at : len(data) - padding]
        return cls(ssrc, seq, payload, timestamp, second & 0x7F, bool(second & 0x80), elements, padding)


class Peer:
    """A browser as far as the relay can tell: an address and two SRTP sessions."""

    ports = itertools.count(40_000)

    def __init__(self, relay: Relay, profile: int = GCM, ip: str = "192.0.2.1") -> None:
        self.relay = relay
        self.address: Address = (ip, next(self.ports), "udp")
        self.transport = relay.add_transport()
        size = PROFILES[profile][1]
        self.key, other = (number.to_bytes(2) * (size // 2) for number in (self.transport + 1, 60_000))
        self._protect = session(self.key, profile, inbound=False)
        self._unprotect = session(other, profile, inbound=True)
        relay.allow(self.transport, self.address)
        relay.nominate(self.transport, self.address)
        relay.set_keys(self.transport, profile, self.key, other)
        relay.set_extension_ids(self.transport, IDS_IN, IDS_OUT)

    def protect(self, packet: Rtp) -> bytes:
        return self._protect.protect(bytes(packet))

    def protect_rtcp(self, packet: bytes) -> bytes:
        return self._protect.protect_rtcp(packet)

    def send(self, *packets: Rtp, now: float = 1.0) -> list[tuple[Address, bytes]]:
        return self.relay.process([(self.address, self.protect(packet)) for packet in packets], now)

    def decrypt(self, sent: list[tuple[Address, bytes]]) -> list[Rtp]:
        """What of this is for us, decrypted: each only once, as a receiver's replay protection has it."""
        return [Rtp.parse(self._unprotect.unprotect(data)) for address, data in sent if address == self.address]

    def decrypt_rtcp(self, sent: list[tuple[Address, bytes]]) -> list[bytes]:
        return [self._unprotect.unprotect_rtcp(data) for address, data in sent if address == self.address]


def vp8(
    picture: int | None = None, *, key: bool = False, tl0: int | None = None, tid: int | None = None,
    sync: bool = False, start: bool = True, wide: bool = True, body: bytes = b"body",
) -> bytes:  # fmt: skip
    """A VP8 payload (RFC 7741): descriptor, first byte of the header, and something behind."""
    head = bytes([0x80 | 0x10 * start])
    head += bytes([0x80 * (picture is not None) | 0x40 * (tl0 is not None) | 0x20 * (tid is not None)])
    if picture is not None:
        head += struct.pack("!H", 0x8000 | picture) if wide else bytes([picture])
    if tl0 is not None:
        head += bytes([tl0])
    if tid is not None:
        head += bytes([tid << 6 | 0x20 * sync])
    return head + bytes([not key]) + body


def ids_of(packet: Rtp) -> tuple[int, int]:
    """Picture id of 15 bits and TL0PICIDX of a payload that `vp8` made with both."""
    return struct.unpack_from("!H", packet.payload, 2)[0] & 0x7FFF, packet.payload[4]


def drops(relay: Relay, reason: DropReason) -> int:
    return int(relay.drops[reason])


def dropped(relay: Relay) -> dict[DropReason, int]:
    return {reason: int(relay.drops[reason]) for reason in DropReason if relay.drops[reason]}


def events(relay: Relay, *kinds: EventKind) -> list[tuple[int, int, Address, bytes, float]]:
    return [event for event in relay.take_events() if not kinds or event[0] in kinds]


@dataclass
class Call:
    """One sends, the other receives."""

    relay: Relay
    ada: Peer
    ben: Peer
    source: int
    forward: int

    def send(self, *packets: Rtp, now: float = 1.0) -> list[Rtp]:
        return self.ben.decrypt(self.ada.send(*packets, now=now))

    def video(self, seq: int, payload: bytes, now: float = 1.0, timestamp: int = 0) -> list[Rtp]:
        return self.send(Rtp(0xA0, seq, payload, timestamp), now=now)


def call(relay: Relay, codec: Codec = Codec.VP8, profile: int = GCM) -> Call:
    ada, ben = Peer(relay, profile), Peer(relay, profile)
    source = relay.add_source(ada.transport, 0xA0, codec, 96, 90_000, rtx_ssrc=0xA1, rtx_payload_type=97)
    forward = relay.add_forward(ben.transport, 0xB0, 100, codec, rtx_ssrc=0xB1, rtx_payload_type=101, mid=b"v1")
    relay.feed(forward, source)
    return Call(relay, ada, ben, source, forward)


def rtx(seq: int, original: int, payload: bytes, **more: object) -> Rtp:
    return Rtp(0xA1, seq, original.to_bytes(2) + payload, payload_type=97, **more)  # type: ignore[arg-type]
