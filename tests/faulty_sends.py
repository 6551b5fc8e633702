"""What a socket loop makes of a kernel that refuses to send, in a process of its own: see test_socketloop_faults.py.

    LD_PRELOAD=faulty_sends.so python -m tests.faulty_sends ERRNO TIMES RUNS_ONLY

Twice, RUN packets of equal size go to one receiver, and one to another; TIMES sends fail the first time. Prints how it
went.
"""

import ctypes
import errno
import json
import socket
import struct
import sys
import time

from pylibsrtp import Policy, Session

from server.media.fastpath.relay import Codec, DropReason, Relay
from server.media.fastpath.socketloop import LoopCount, SocketLoop

KEY = bytes(28)
RUN = 20


def udp() -> socket.socket:
    made = socket.socket(type=socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def main(name: str, times: str, runs_only: str) -> None:
    profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
    protect = Session(policy=Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)).protect
    server, ada, ben, eve = (udp() for _ in range(4))
    relay = Relay(transports=4, sources=4, forwards=64)
    for peer in (ada, ben, eve):
        transport, address = relay.add_transport(), (*peer.getsockname(), "udp")
        relay.allow(transport, address)
        relay.nominate(transport, address)
        relay.set_keys(transport, 7, KEY, KEY)
    source = relay.add_source(0, 0xA0, Codec.OPUS, 96, 48_000)
    for ssrc in range(RUN):
        relay.feed(relay.add_forward(1, 0xB0 + ssrc, 96, Codec.OPUS), source)
    relay.feed(relay.add_forward(2, 0xB0, 96, Codec.OPUS), source)
    loop = SocketLoop(relay, [server.fileno()])
    loop.start()

    def send(seq: int) -> dict[str, object]:
        """Relay one packet; return who got how many of the 21, and in how many messages."""
        before = loop.messages, loop.counts.sum()
        ada.sendto(protect(struct.pack("!BBHII", 0x80, 96, seq, 0, 0xA0) + b"sound"), server.getsockname())
        got = {"ben": 0, "eve": 0}
        deadline = time.monotonic() + 20
        while sum(got.values()) + int(loop.counts.sum() - before[1]) < RUN + 1:
            assert time.monotonic() < deadline, (got, loop.counts)
            for who, peer in (("ben", ben), ("eve", eve)):
                try:
                    peer.recv(2000, socket.MSG_DONTWAIT)
                    got[who] += 1
                except BlockingIOError:
                    pass
        return {**got, "messages": loop.messages - before[0]}

    preloaded = ctypes.CDLL(None)
    for setting, value in (("errno", getattr(errno, name)), ("runs_only", int(runs_only)), ("times", int(times))):
        ctypes.c_int.in_dll(preloaded, f"fault_{setting}").value = value
    first, second = send(1), send(2)
    loop.stop()
    counts = {reason.name: int(loop.counts[reason]) for reason in LoopCount if loop.counts[reason]}
    failed = int(relay.drops[DropReason.SEND_FAILED])
    print(json.dumps({"first": first, "second": second, "counts": counts, "failed": failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
