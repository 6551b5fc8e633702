"""Fast path: CPU per packet of the relay in memory and of the socket loop, against a floor without crypto. [IO]

Method and meaning of each figure: README.md.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from pylibsrtp import Policy, Session

from benchmarks.report import Figures, progress
from server.media.fastpath.relay import Address, Codec, Relay
from server.media.fastpath.socketloop import SocketLoop

_KEY = bytes(28)
_GCM = 7
_FRAME = 4
"""Packets of a picture: they arrive together."""
_BODY_BYTES = 1060
"""With header, descriptor, extensions and tag, about 1100."""
_SO_RCVBUFFORCE = 33
"""Linux, <asm-generic/socket.h>."""
_ROOM_BYTES = 128 << 20
"""Of a socket's buffer: everything lies in it before the clock starts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much and how often."""
    parser.add_argument("--packets", type=int, default=20_000, help="packets sent in each run (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=7, help="runs of each (default: %(default)s)")


async def run(arguments: argparse.Namespace) -> Figures:
    """Measure everything in turn, and again: a busy spell of the machine slows all alike."""
    figures = Figures(arguments.runs, {name: version(name) for name in ("pylibsrtp", "numpy", "Cython")})
    with tempfile.TemporaryDirectory() as folder:
        floor = _floor(Path(folder))
        for number in range(arguments.runs + 1):
            measured = _in_memory(arguments.packets // 4)
            for name, publishers, fan_out in (("one_to_one", 32, 1), ("one_to_ten", 4, 10)):
                count = arguments.packets // fan_out
                bare = _loopback(publishers, fan_out, count, floor)
                whole = _loopback(publishers, fan_out, count, _through(gso=True))
                single = _loopback(publishers, fan_out, count, _through(gso=False))
                measured |= {
                    f"{name}.cpu_us_per_packet": ("us", whole),
                    f"{name}.cpu_us_per_packet.without_gso": ("us", single),
                    f"{name}.floor_us_per_packet": ("us", bare),
                    f"{name}.ratio_to_floor": ("x", whole / bare),
                    f"{name}.ratio_to_floor.without_gso": ("x", single / bare),
                }
            if number:  # the first warms up
                for name, (unit, value) in measured.items():
                    figures.add(name, unit, value)
            progress(f"run {number}/{arguments.runs}: " + ", ".join(f"{k} {v:.2f}" for k, (_, v) in measured.items()))
    return figures


class _Publisher:
    """Makes packets of VP8, encrypted beforehand."""

    def __init__(self, number: int) -> None:
        kind = Policy.SSRC_ANY_OUTBOUND
        policy = Policy(key=_KEY, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
        self._session = Session(policy=policy)
        self._random = random.Random(number)
        self._seq = 0
        self.ssrc = 0x1000 + number

    def frame(self) -> list[bytes]:
        """The packets of a picture: of equal size but for a byte, as encoders' packetizers cut them."""
        packets, picture = [], self._seq // _FRAME
        for part in range(_FRAME):
            marker = part == _FRAME - 1
            head = struct.pack("!BBHII", 0x90, marker << 7 | 96, self._seq, picture * 3000, self.ssrc)
            extension = struct.pack("!HHBBBHxxx", 0xBEDE, 2, 0x10, 0x30, 0x41, self._seq)
            descriptor = struct.pack("!BBHBBB", 0x90 if part == 0 else 0x80, 0xE0, 0x8000 | picture, 0, 0, picture > 0)
            body = bytes(_BODY_BYTES - (self._random.random() < 0.5))
            packets.append(self._session.protect(head + extension + descriptor + body))
            self._seq += 1
        return packets


def _relay(publishers: list[tuple[int, Address]], subscribers: list[list[Address]]) -> Relay:
    """A relay in which each publisher is carried to its subscribers."""
    relay = Relay(transports=1024, sources=1024, forwards=4096)

    def join(address: Address) -> int:
        transport = relay.add_transport()
        relay.allow(transport, address)
        relay.nominate(transport, address)
        relay.set_keys(transport, _GCM, _KEY, _KEY)
        ids = {"mid": 1, "abs-send-time": 2, "transport-cc": 4}
        relay.set_extension_ids(transport, ids, ids)
        return transport

    for (ssrc, address), receivers in zip(publishers, subscribers, strict=True):
        source = relay.add_source(join(address), ssrc, Codec.VP8, 96, 90_000)
        for receiver in receivers:
            forward = relay.add_forward(join(receiver), ssrc, 96, Codec.VP8, ssrc + 1, 97, b"0")
            relay.feed(forward, source, at_keyframe=False)
    return relay


def _in_memory(count: int) -> dict[str, tuple[str, float]]:
    """Seconds of `process` with 0, 10 and 30 receivers: what one more packet in, and one more out, costs."""
    seconds = {}
    for fan_out in (0, 10, 30):
        ada: Address = ("192.0.2.1", 1, "udp")
        publisher = _Publisher(0)
        relay = _relay([(publisher.ssrc, ada)], [[("192.0.2.2", port, "udp") for port in range(1, fan_out + 1)]])
        datagrams = [(ada, data) for _ in range(count // _FRAME // 10) for data in publisher.frame()]
        began = time.thread_time()
        for first in range(0, len(datagrams), 64):
            relay.process(datagrams[first : first + 64], 1.0 + first / 1000)
        seconds[fan_out] = (time.thread_time() - began) / len(datagrams)
    return {
        "memory.receive_us": ("us", seconds[0] * 1e6),
        "memory.send_us": ("us", (seconds[30] - seconds[10]) / 20 * 1e6),
    }


_Measure = Callable[[socket.socket, list[tuple[int, Address]], list[list[Address]], int], float]
"""Bound socket with everything received, publishers, subscribers, packets to send -> CPU seconds per packet."""


def _loopback(publishers: int, fan_out: int, count: int, measure: _Measure) -> float:
    """Fill a socket's buffer, let it be forwarded, return CPU microseconds per packet sent."""
    with ExitStack() as stack:
        server = stack.enter_context(_socket(_ROOM_BYTES))
        makers = [_Publisher(number) for number in range(publishers)]
        sockets = [stack.enter_context(_socket(0)) for _ in makers]
        receivers = [[stack.enter_context(_socket(_ROOM_BYTES)) for _ in range(fan_out)] for _ in makers]
        for _ in range(count // _FRAME // publishers):
            for maker, each in zip(makers, sockets, strict=True):
                for packet in maker.frame():
                    each.sendto(packet, server.getsockname())
        sent = count // _FRAME // publishers * publishers * _FRAME * fan_out
        subscribers = [[_address(each) for each in row] for row in receivers]
        origins = [(maker.ssrc, _address(each)) for maker, each in zip(makers, sockets, strict=True)]
        return measure(server, origins, subscribers, sent) * 1e6


def _through(*, gso: bool) -> _Measure:
    """The relay in its socket loop."""

    def measure(
        server: socket.socket, publishers: list[tuple[int, Address]], subscribers: list[list[Address]], count: int
    ) -> float:
        relay = _relay(publishers, subscribers)
        loop = SocketLoop(relay, [server.fileno()], gso=gso)
        loop.start()
        deadline = time.monotonic() + 60
        while relay.transports_view["sent_packets"].sum() < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"lost: {relay.transports_view['sent_packets'].sum()} of {count} left the relay")
            time.sleep(0.01)
        loop.stop()
        if relay.drops.any():
            raise RuntimeError(f"dropped: {relay.drops}")
        return loop.cpu_seconds / count

    return measure


def _floor(folder: Path) -> _Measure:
    """The forwarder of floor.c."""
    built = folder / "floor.so"
    source = Path(__file__).with_name("floor.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", built, source], check=True)
    function = ctypes.CDLL(str(built)).floor_run
    function.restype = ctypes.c_double

    def measure(
        server: socket.socket, publishers: list[tuple[int, Address]], subscribers: list[list[Address]], count: int
    ) -> float:
        addresses = [
            struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(ip) + bytes(8)
            for row in subscribers
            for ip, port, _ in row
        ]
        sent = ctypes.c_long()
        seconds = function(
            server.fileno(), b"".join(addresses), len(addresses), len(subscribers[0]), ctypes.byref(sent)
        )
        if sent.value != count:
            raise RuntimeError(f"lost: {sent.value} of {count} left the floor")
        return float(seconds) / count

    return measure


def _socket(room: int) -> socket.socket:
    """A UDP socket on loopback; with room for so many bytes, which needs CAP_NET_ADMIN."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    if room:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room)
    return made


def _address(bound: socket.socket) -> Address:
    ip, port = bound.getsockname()
    return (ip, port, "udp")
