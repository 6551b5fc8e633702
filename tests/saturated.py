"""The server, with a thread beside its event loop that relays a captured batch as fast as a core can.

    python -m tests.saturated serve ...     SIGUSR1: relay; SIGUSR2: rest

After each signal a line on standard output: `saturated N after R rounds` or `idle N ...`, N counting the signals, R the
times that the batch was relayed.
"""

import contextlib
import itertools
import signal
import socket
import struct
import sys
from types import FrameType

from server.__main__ import main
from server.media.fastpath.relay import Codec, Relay
from server.media.fastpath.replay import Replay
from server.media.fastpath.socketloop import SocketLoop
from tests.relayed import vp8

KEY = bytes(28)
GCM = 7
PUBLISHERS, RECEIVERS, PACKETS = 16, 4, 8
"""Rooms of five in which one speaks; each sends so many packets of a picture at a time."""


def saturating(stack: contextlib.ExitStack) -> tuple[Relay, SocketLoop, Replay]:
    """A loop that will never rest, sending to sockets that nobody reads."""
    sockets = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(1 + RECEIVERS)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    relay = Relay(transports=256, sources=256, forwards=256)
    packets = []
    for number in range(PUBLISHERS):
        origin = ("192.0.2.1", 1 + number, "udp")
        source = relay.add_source(_join(relay, origin), 1 + number, Codec.VP8, 96, 90_000)
        packets += [
            (origin, struct.pack("!BBHII", 0x80, 96, part, 0, 1 + number) + vp8(body=bytes(1060), start=part == 0))
            for part in range(PACKETS)
        ]
        for sink in sockets[1:] if number == 0 else ():
            relay.nominate(_join(relay, (*sink.getsockname(), "udp")), (*sink.getsockname(), "udp"))
        for receiver in range(1, 1 + RECEIVERS):
            forward = relay.add_forward(receiver, 0x100 * receiver + number, 96, Codec.VP8, mid=b"0")
            relay.feed(forward, source, at_keyframe=False)
    replay = Replay(packets, GCM, KEY)
    return relay, SocketLoop(relay, [sockets[0].fileno()], replay=replay), replay


def _join(relay: Relay, address: tuple[str, int, str]) -> int:
    transport = relay.add_transport()
    relay.allow(transport, address)
    relay.set_keys(transport, GCM, KEY, KEY)
    return transport


def _obey(loop: SocketLoop, replay: Replay) -> None:
    """Take the two signals, in the main thread: the event loop wakes up for them."""
    numbers = itertools.count(1)

    def switch(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR2:
            loop.stop()
        elif not loop.running:
            loop.start()
        state = "saturated" if loop.running else "idle"
        print(f"{state} {next(numbers)} after {replay.rounds} rounds", flush=True)

    signal.signal(signal.SIGUSR1, switch)
    signal.signal(signal.SIGUSR2, switch)


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        _, worker, batch = saturating(stack)
        _obey(worker, batch)
        status = main(sys.argv[1:])
        worker.stop()
    sys.exit(status)
