"""The server, whose media worker relays a captured batch as fast as a core can, beside what it has to do otherwise.

    python -m tests.saturated serve ...

The batch is of transports that only the relay knows, so that the slow path meets it where it meets all media: at the
relay's mutex, and on the worker's thread. That has the first core; the others are for all the rest.
"""

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Sequence
from unittest.mock import patch

from server.__main__ import main
from server.media import worker
from server.media.fastpath.relay import Codec, Relay
from server.media.fastpath.replay import Replay
from server.media.fastpath.socketloop import SocketLoop
from server.media.worker import MediaWorker
from tests.relayed import vp8

KEY = bytes(28)
GCM = 7
PUBLISHERS, RECEIVERS, PACKETS = 16, 4, 8
"""Rooms of five in which one speaks; each sends so many packets of a picture at a time."""


def cores() -> tuple[set[int], set[int]]:
    """Return the first core that this process may use, and the others; of one only, that one."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


def occupied(relay: Relay, stack: contextlib.ExitStack) -> Replay:
    """Let a relay have work without end, sending to sockets that nobody reads."""
    sinks = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(RECEIVERS)]
    receivers = []
    for sink in sinks:
        sink.bind(("127.0.0.1", 0))
        address = (*sink.getsockname(), "udp")
        receivers.append(_join(relay, address))
        relay.nominate(receivers[-1], address)
    packets = []
    for number in range(PUBLISHERS):
        origin = ("192.0.2.1", 1 + number, "udp")
        source = relay.add_source(_join(relay, origin), 1 + number, Codec.VP8, 96, 90_000)
        packets += [
            (origin, struct.pack("!BBHII", 0x80, 96, part, 0, 1 + number) + vp8(body=bytes(1060), start=part == 0))
            for part in range(PACKETS)
        ]
        for receiver in receivers:
            forward = relay.add_forward(receiver, 0x100 + number, 96, Codec.VP8, mid=b"0")
            relay.feed(forward, source, at_keyframe=False)
    return Replay(packets, GCM, KEY)


def _join(relay: Relay, address: tuple[str, int, str]) -> int:
    transport = relay.add_transport()
    relay.allow(transport, address)
    relay.set_keys(transport, GCM, KEY, KEY)
    return transport


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:

        def loop(relay: Relay, udp: Sequence[int], tcp: Sequence[int]) -> SocketLoop:
            return SocketLoop(relay, udp, tcp, replay=occupied(relay, stack))

        def start(self: MediaWorker) -> None:
            first, others = cores()
            os.sched_setaffinity(0, first)  # the thread that is started inherits it
            started(self)
            os.sched_setaffinity(0, others)

        started = MediaWorker.start
        with patch.object(worker, "SocketLoop", loop), patch.object(MediaWorker, "start", start):
            status = main(sys.argv[1:])
    sys.exit(status)
