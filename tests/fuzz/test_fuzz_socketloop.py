"""Bytes on TCP connections to the socket loop, from strangers and from peers: dropped, passed up, or the end of one."""

import contextlib
import itertools
import select
import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.media.fastpath.relay import Relay
from server.media.fastpath.socketloop import LoopCount, SocketLoop
from tests.fuzz import fuzz
from tests.fuzz.test_fuzz_relay import KEY, VALID, mutations

SECONDS = 20
STUN = len(VALID[0]).to_bytes(2) + VALID[0]
ADDRESSES = itertools.count(2)


class Victim:
    """A loop that runs on from example to example."""

    def __init__(self, relay: Relay, loop: SocketLoop, port: int) -> None:
        self.relay, self.loop, self.port = relay, loop, port

    def connect(self) -> socket.socket:
        """From an address of its own each time, so that no port runs out."""
        number = next(ADDRESSES)
        ip = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        client = socket.create_connection(("127.0.0.1", self.port), SECONDS, (ip, 0))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def until_passed_up(self, origin: tuple[str, int, str]) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            if any(event[2] == origin for event in self.relay.take_events()):
                return
            assert time.monotonic() < deadline, dict(zip(LoopCount, self.loop.counts, strict=True))
            select.select([self.loop.events_fd], [], [], 0.01)


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    relay = Relay(transports=4, sources=4, forwards=4)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        loop = SocketLoop(relay, [], [listener.fileno()])
        loop.start()
        try:
            yield Victim(relay, loop, listener.getsockname()[1])
        finally:
            loop.stop()


frames = (mutations | st.binary(max_size=1600)).map(lambda data: len(data).to_bytes(2) + data)
writes = st.lists(st.lists(frames | st.binary(max_size=6), max_size=6).map(b"".join), max_size=4)


@fuzz
@given(writes=writes, allowed=st.booleans(), polite=st.booleans())
def test_any_bytes_on_a_connection(victim, writes, allowed, polite):
    with victim.connect() as client:
        transport = victim.relay.add_transport()
        origin = (*client.getsockname()[:2], "tcp")
        if allowed:
            victim.relay.allow(transport, origin)
            victim.relay.nominate(transport, origin)
            victim.relay.set_keys(transport, 7, KEY, KEY)
        with contextlib.suppress(ConnectionError):
            if polite:
                client.sendall(STUN)
            for data in writes:
                client.sendall(data)
                victim.relay.send(origin, data[:1500])
        with victim.connect() as another:
            another.sendall(STUN)
            victim.until_passed_up((*another.getsockname()[:2], "tcp"))
        victim.relay.remove_transport(transport)
    victim.relay.take_events()
