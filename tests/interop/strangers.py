"""What somebody sends to the media port who has no business there, and what a wiretap there makes possible. [IO]

Needs root: the wiretap reads loopback, and forged packets bear another's address.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_ETH_P_IP = 0x0800
_COOKIE = b"\x21\x12\xa4\x42"
CLIENT_HELLO = bytes.fromhex("16feff0000000000000000004c010000400000000000000040fefd") + bytes(62)
"""Of DTLS 1.2, as far as its record and handshake headers go."""
FATAL_ALERT = bytes.fromhex("15fefd000000000000000500020228")
CLOSE_NOTIFY = bytes.fromhex("15fefd000000000000000600020100")


def _rtp(dice: random.Random) -> bytes:
    head = struct.pack("!BBHII", 0x80, dice.choice((96, 97, 111)), dice.getrandbits(16), dice.getrandbits(32), 0xA0)
    return head + dice.randbytes(dice.randrange(20, 1100))


def _bad_rtp(dice: random.Random) -> bytes:
    """A header that announces more than there is."""
    return bytes([0x9F, 96]) + dice.randbytes(dice.randrange(10, 60))


def _rtcp(dice: random.Random) -> bytes:
    kind, words = dice.randrange(200, 207), dice.randrange(1, 8)
    return struct.pack("!BBH", 0x81, kind, words) + dice.randbytes(4 * words)


def _bad_rtcp(dice: random.Random) -> bytes:
    return struct.pack("!BBH", 0x81, 201, 0x4000) + dice.randbytes(12)


def _stun(dice: random.Random) -> bytes:
    """A check for somebody who is not there."""
    user = dice.randbytes(6).hex().encode()
    attributes = struct.pack("!HH", 6, len(user)) + user + struct.pack("!HH", 8, 20) + dice.randbytes(20)
    return struct.pack("!HH", 1, len(attributes)) + _COOKIE + dice.randbytes(12) + attributes


def _bad_stun(dice: random.Random) -> bytes:
    cookie = dice.choice((_COOKIE, dice.randbytes(4)))
    return struct.pack("!HH", 1, dice.randrange(1, 65_000, 2)) + cookie + dice.randbytes(dice.randrange(8, 40))


def _dtls(dice: random.Random) -> bytes:
    return dice.choice((CLIENT_HELLO, FATAL_ALERT, b"\x16\xfe\xfd" + dice.randbytes(60), b"\x17" + dice.randbytes(4)))


def _sctp(dice: random.Random) -> bytes:
    """An INIT chunk from port 5000 to port 5000, bare: of no kind that shares the port (RFC 7983)."""
    return struct.pack("!HHII", 5000, 5000, 0, dice.getrandbits(32)) + b"\x01\x00\x00\x14" + dice.randbytes(16)


def _anything(dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(1, 1300))


KINDS: dict[str, tuple[Callable[[random.Random], bytes], frozenset[str]]] = {
    "rtp": (_rtp, frozenset({"address_not_allowed"})),
    "bad rtp": (_bad_rtp, frozenset({"rtp_truncated", "address_not_allowed"})),
    "rtcp": (_rtcp, frozenset({"address_not_allowed"})),
    "bad rtcp": (_bad_rtcp, frozenset({"rtcp_truncated"})),
    "stun": (_stun, frozenset({"unknown_user", "stranger_queue_full"})),
    "bad stun": (_bad_stun, frozenset({"stun_truncated", "stun_bad_cookie", "stun_bad_length"})),
    "dtls": (_dtls, frozenset({"address_not_allowed", "dtls_truncated"})),
    "sctp": (_sctp, frozenset({"unknown_protocol"})),
    "anything": (
        _anything,
        frozenset({
            "unknown_protocol", "address_not_allowed", "rtp_truncated", "rtcp_truncated", "stun_truncated",
            "stun_bad_cookie", "stun_bad_length", "dtls_truncated", "turn_channel", "turn_channel_truncated",
        }),
    ),
}  # fmt: skip
"""What is sent, and as what it may be counted."""


def flood(to: tuple[str, int], kind: str, number: int, per_second: float) -> None:
    """Send so many of one kind, at a pace at which no socket buffer overflows."""
    dice, make = random.Random(kind), KINDS[kind][0]
    with socket.socket(type=socket.SOCK_DGRAM) as stranger:
        began = time.monotonic()
        for sent in range(number):
            stranger.sendto(make(dice), to)
            ahead = sent / per_second - (time.monotonic() - began)
            if ahead > 0.005:
                time.sleep(ahead)


@contextlib.contextmanager
def racing(to: tuple[str, int], data: bytes = CLIENT_HELLO) -> Iterator[list[int]]:
    """Within, a stranger sends the same datagram a thousand times a second; the list holds how many so far."""
    sent, over = [0], threading.Event()

    def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            while not over.wait(0.001):
                stranger.sendto(data, to)
                sent[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


class Captured(NamedTuple):
    """A UDP datagram and between whom it went."""

    source: tuple[str, int]
    to: tuple[str, int]
    data: bytes


def capture(port: int, number: int, wanted: Callable[[bytes], bool]) -> list[Captured]:
    """Listen on loopback until so many wanted datagrams have gone to a UDP port.

    Raises:
        TimeoutError: None came for 5 s.
    """
    found: list[Captured] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)) as wire:
        wire.bind(("lo", _ETH_P_IP))
        wire.settimeout(5)
        while len(found) < number:
            packet, (_, _, direction, *_) = wire.recvfrom(65_536)
            if direction == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_UDP:  # each comes by twice
                continue
            head = 4 * (packet[0] & 15)
            source, to = struct.unpack_from("!HH", packet, head)
            data = packet[head + 8 :]
            if to == port and data and wanted(data):
                ends = (socket.inet_ntoa(packet[12:16]), source), (socket.inet_ntoa(packet[16:20]), to)
                found.append(Captured(*ends, data))
    return found


def is_srtp(data: bytes) -> bool:
    """Whether a datagram is RTP, not RTCP (RFC 5761 section 4)."""
    return 128 <= data[0] <= 191 and not 192 <= data[1] <= 223


def forge(packets: Sequence[Captured], pause_s: float = 0.0005) -> None:
    """Send datagrams from the addresses that they name, whoever has those."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as wire:
        for number, ((source_ip, source), (ip, port), data) in enumerate(packets):
            udp = struct.pack("!HHHH", source, port, 8 + len(data), 0) + data
            addresses = socket.inet_aton(source_ip) + socket.inet_aton(ip)
            head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), number & 0xFFFF, 0, 64, socket.IPPROTO_UDP, 0)
            wire.sendto(head + addresses + udp, (ip, 0))
            time.sleep(pause_s)
