"""ICE-TCP in the socket loop, between real sockets on loopback: frames, limits, full queues, ends."""

import itertools
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pylibsrtp import Policy, Session

from server.errors import InvalidStateError
from server.media.fastpath.relay import Codec, DropReason, EventKind, Relay
from server.media.fastpath.socketloop import LoopCount, SocketLoop
from tests.relayed import BINDING_REQUEST, vp8

KEY = bytes(28)
SECONDS = 20
AUDIO, VIDEO = 0xA0, 0xA1
PARTS = 8
"""Packets of a picture."""


class Client:
    """A peer on TCP."""

    def __init__(self, address: tuple, room: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family)
        if room:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.socket.settimeout(SECONDS)
        self.socket.connect(address[:2])
        self.address = (*self.socket.getsockname()[:2], "tcp")
        kinds = Policy.SSRC_ANY_INBOUND, Policy.SSRC_ANY_OUTBOUND
        profile = Policy.SRTP_PROFILE_AEAD_AES_128_GCM
        self._in, self._out = (Session(policy=Policy(key=KEY, ssrc_type=kind, srtp_profile=profile)) for kind in kinds)

    def send(self, *datagrams: bytes) -> None:
        self.socket.sendall(b"".join(len(data).to_bytes(2) + data for data in datagrams))

    def receive(self) -> bytes:
        size = int.from_bytes(self._read(2))
        return self._read(size)

    def _read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            more = self.socket.recv(size - len(got))
            assert more, "the connection ended"
            got += more
        return got

    def unread(self) -> bool:
        """Whether something can be read now."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def protect(self, packet: bytes) -> bytes:
        return self._out.protect(packet)

    def unprotect(self, packet: bytes) -> bytes:
        return self._in.unprotect(packet)

    def ended(self) -> bool:
        """Wait for the end of the stream; what comes before is thrown away."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionError:
            pass
        return True


class Place:
    """A relay in a running loop, with a port for both families."""

    def __init__(self, relay: Relay, loop: SocketLoop, listeners: list[socket.socket]) -> None:
        self.relay = relay
        self.loop = loop
        self.addresses = [each.getsockname() for each in listeners]
        self.clients: list[Client] = []

    def connect(self, ip: str = "127.0.0.1", **more: Any) -> Client:
        client = Client(self.addresses[":" in ip], **more)
        self.clients.append(client)
        return client

    def join(self, client: Client) -> int:
        """What the slow path does after the checks."""
        client.send(BINDING_REQUEST)
        assert self.events(1)[0][2] == client.address
        transport = self.relay.add_transport()
        self.relay.allow(transport, client.address)
        self.relay.nominate(transport, client.address)
        self.relay.set_keys(transport, 7, KEY, KEY)
        return transport

    def events(self, count: int) -> list:
        got: list = []
        while len(got) < count:
            assert select.select([self.loop.events_fd], [], [], SECONDS)[0], f"{len(got)} events of {count}"
            os.read(self.loop.events_fd, 8)
            got += self.relay.take_events()
        return got

    def count(self, reason: LoopCount) -> int:
        return int(self.loop.counts[reason])

    def until(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < deadline, dict(zip(LoopCount, self.loop.counts, strict=True))


@contextmanager
def place(ips: tuple[str, ...] = ("127.0.0.1", "::1"), **settings: Any) -> Iterator[Place]:
    listeners = []
    for ip in ips:
        listener = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
        if ":" in ip:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((ip, 0))
        listener.listen(64)
        listeners.append(listener)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    relay = Relay(transports=16, sources=16, forwards=64)
    loop = SocketLoop(relay, [udp.fileno()], [each.fileno() for each in listeners], **settings)
    made = Place(relay, loop, listeners)
    loop.start()
    try:
        yield made
    finally:
        loop.stop()
        for each in [*listeners, udp, *(client.socket for client in made.clients)]:
            each.close()


def rtp(ssrc: int, seq: int, payload: bytes, timestamp: int = 0, payload_type: int = 96) -> bytes:
    return struct.pack("!BBHII", 0x80, payload_type, seq & 0xFFFF, timestamp, ssrc) + payload


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_stun_goes_up_and_the_answer_comes_back(ip):
    with place() as here:
        client = here.connect(ip)
        client.send(BINDING_REQUEST)
        ((kind, transport, origin, data, _),) = here.events(1)
        assert (kind, transport, origin, data) == (EventKind.STUN, -1, client.address, BINDING_REQUEST)
        here.relay.send(origin, b"answer")
        assert client.receive() == b"answer"
        assert here.loop.connections == 1


def test_media_is_carried_between_tcp_peers_however_the_stream_is_cut():
    with place() as here:
        ada, ben = here.connect(), here.connect("::1")
        source = here.relay.add_source(here.join(ada), AUDIO, Codec.OPUS, 96, 48_000)
        here.relay.feed(here.relay.add_forward(here.join(ben), 0xB0, 96, Codec.OPUS), source)
        payloads = [bytes([number]) * (number * 11) for number in range(1, 121)]
        frames = [ada.protect(rtp(AUDIO, seq, payload)) for seq, payload in enumerate(payloads)]
        stream = b"".join(len(frame).to_bytes(2) + frame for frame in frames)
        cuts = itertools.cycle([1, 2, 3, 700, 5000, 1, 40_000])
        while stream:
            cut = next(cuts)
            ada.socket.sendall(stream[:cut])
            stream = stream[cut:]
        assert [ben.unprotect(ben.receive())[12:] for _ in payloads] == payloads


def test_a_frame_too_long_is_passed_over():
    with place() as here:
        client = here.connect()
        here.join(client)
        client.send(bytes(1501), bytes(65_535), b"", BINDING_REQUEST)
        assert [event[0] for event in here.events(1)] == [EventKind.STUN]
        assert here.relay.drops[DropReason.TOO_LONG] == 2
        assert here.relay.drops[DropReason.EMPTY] == 1


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n" + bytes(30_000), b"\x00\x00", b"\x00\x0d\x16" + bytes(12), b"\xff\xff"]
)
def test_who_does_not_begin_with_stun_is_closed(first):
    with place() as here:
        client = here.connect()
        client.socket.sendall(first)
        assert client.ended()
        here.until(lambda: here.count(LoopCount.CLOSED_NOT_STUN) == 1)
        assert here.loop.connections == 0
        assert not here.relay.take_events()


def test_a_stranger_is_closed_in_time_and_a_peer_is_not():
    with place(stranger_s=0.2) as here:
        peer, stranger, silent = here.connect(), here.connect(), here.connect()
        transport = here.join(peer)
        stranger.send(BINDING_REQUEST)
        assert stranger.ended() and silent.ended()
        assert here.count(LoopCount.CLOSED_NO_ADDRESS) == 2
        peer.send(BINDING_REQUEST)
        assert here.events(2)[-1][1] == transport
        here.relay.remove_transport(transport)
        assert peer.ended()
        assert here.count(LoopCount.CLOSED_NO_ADDRESS) == 3
        assert not here.relay.take_events(), "nobody is told of a stranger"


def test_a_stranger_may_not_send_much():
    with place() as here:
        client = here.connect()
        with pytest.raises(ConnectionError):
            for _ in range(100_000):
                client.send(BINDING_REQUEST)
        here.until(lambda: here.count(LoopCount.CLOSED_TOO_MUCH) == 1)
        assert len(here.relay.take_events()) <= 16_384 // len(BINDING_REQUEST)


def test_the_slow_path_is_told_when_a_peer_has_gone():
    with place() as here:
        closed, reset = here.connect(), here.connect()
        transports = [here.join(closed), here.join(reset)]
        closed.socket.close()
        assert here.events(1)[0][:4] == (EventKind.DISCONNECTED, transports[0], closed.address, b"")
        reset.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.socket.close()
        assert here.events(1)[0][:4] == (EventKind.DISCONNECTED, transports[1], reset.address, b"")
        assert (here.count(LoopCount.CLOSED_BY_PEER), here.count(LoopCount.CLOSED_BROKEN)) == (1, 1)
        here.relay.send(closed.address, b"anybody there?")
        here.until(lambda: here.count(LoopCount.NOT_CONNECTED) == 1)


def test_a_full_table_takes_newcomers_for_strangers_and_for_nobody_else():
    with place(connections=2) as here:
        peer, stranger, newcomer = here.connect(), here.connect(), None
        here.join(peer)
        here.until(lambda: here.loop.connections == 2)
        newcomer = here.connect()
        assert stranger.ended()
        assert here.count(LoopCount.CLOSED_EVICTED) == 1
        here.join(newcomer)
        assert here.connect().ended()
        assert here.count(LoopCount.REFUSED_FULL) == 1
        assert here.loop.connections == 2


def test_connections_of_one_address_are_limited():
    with place(connections_of_one=2) as here:
        here.join(here.connect())
        here.join(here.connect())
        assert here.connect().ended()
        assert here.count(LoopCount.REFUSED_ADDRESS) == 1
        here.join(here.connect("::1"))


def video_of(here: Place) -> tuple[Client, int, Callable[[int], None], Callable[[int], None]]:
    """A peer who does not read, its transport, and what sends it a picture or a sound."""
    ada, ben = here.connect(), here.connect(room=4096)
    sender, receiver = here.join(ada), here.join(ben)
    for ssrc, codec in ((AUDIO, Codec.OPUS), (VIDEO, Codec.VP8)):
        source = here.relay.add_source(sender, ssrc, codec, 96, 90_000)
        forward = here.relay.add_forward(receiver, ssrc, 96, codec)
        here.relay.feed(forward, source, at_keyframe=False)

    def sent() -> int:
        return int(here.relay.forwards_view["packets"].sum())

    def picture(number: int) -> None:
        before = sent()
        for part in range(PARTS):
            payload = vp8(number, start=part == 0, body=bytes([part]) * 1000)
            ada.send(ada.protect(rtp(VIDEO, number * PARTS + part, payload, number * 3000)))
        here.until(lambda: sent() == before + PARTS)

    def sound(number: int) -> None:
        before = sent()
        ada.send(ada.protect(rtp(AUDIO, number, number.to_bytes(4))))
        here.until(lambda: sent() == before + 1)

    return ben, receiver, picture, sound


def test_a_full_queue_drops_video_by_the_frame_and_keeps_the_sound():
    with place() as here:
        ben, receiver, picture, sound = video_of(here)
        pictures = itertools.count(1)
        dropped = 0
        while dropped < 3 * PARTS:
            picture(next(pictures))
            dropped = here.count(LoopCount.VIDEO_DROPPED)
        for number in range(20):
            sound(number)
        here.relay.send_rtcp(receiver, b"\x81\xc9\x00\x07" + bytes(28))
        here.relay.send(ben.address, b"the last word before it reads again")
        assert here.count(LoopCount.STREAM_FULL) == 0

        got: list[tuple[int, int]] = []
        heard, video_after_sound = [], 0
        while not heard or heard[-1] != b"the last word before it reads again":
            frame = ben.receive()
            if frame[1] == 201 or frame.startswith(b"the last"):
                heard.append(frame)
                continue
            packet = ben.unprotect(frame)
            if int.from_bytes(packet[8:12]) == AUDIO:
                heard.append(packet[12:])
            else:
                got.append((int.from_bytes(packet[4:8]), packet[-1]))
        assert heard[:20] == [number.to_bytes(4) for number in range(20)]
        assert len(heard) == 22

        # What waits drains; the next pictures come from their beginning.
        while here.count(LoopCount.VIDEO_DROPPED) > dropped or not video_after_sound:
            dropped = here.count(LoopCount.VIDEO_DROPPED)
            picture(next(pictures))
            packet = ben.unprotect(ben.receive())
            got.append((int.from_bytes(packet[4:8]), packet[-1]))
            video_after_sound += 1
        number = next(pictures)
        picture(number)
        while got[-1] != (number * 3000, PARTS - 1):
            packet = ben.unprotect(ben.receive())
            got.append((int.from_bytes(packet[4:8]), packet[-1]))
        for timestamp, parts in itertools.groupby(got, key=lambda one: one[0]):
            seen = [part for _, part in parts]
            assert seen == list(range(len(seen))), f"the picture of {timestamp} has a hole: {seen}"
        assert len(got) < number * PARTS


def test_sound_overtakes_the_video_that_waits():
    with place() as here:
        ben, _, picture, sound = video_of(here)
        number = 0
        while here.count(LoopCount.VIDEO_DROPPED) == 0:
            number += 1
            picture(number)
        sound(7)
        order = []
        while len(order) < number * PARTS - here.count(LoopCount.VIDEO_DROPPED) + 1:
            order.append(int.from_bytes(ben.unprotect(ben.receive())[8:12]))
        behind = len(order) - 1 - order.index(AUDIO)
        assert behind * 1000 > 30_000, "most of 48 KiB"


def test_who_stays_full_is_disconnected():
    with place(stalled_s=0.3) as here:
        ben, receiver, picture, _ = video_of(here)
        number = 0
        while here.count(LoopCount.VIDEO_DROPPED) == 0:
            number += 1
            picture(number)
        told = []
        while not told:
            told = [event for event in here.events(1) if event[0] == EventKind.DISCONNECTED]
        assert told[0][1:3] == (receiver, ben.address)
        assert here.count(LoopCount.CLOSED_STALLED) == 1


def test_what_is_urgent_is_bounded_too():
    with place() as here:
        ben = here.connect(room=4096)
        here.join(ben)
        sent = 0
        while here.count(LoopCount.STREAM_FULL) < 10:
            here.relay.send(ben.address, sent.to_bytes(4) + bytes(1000))
            sent += 1
        numbers = [int.from_bytes(ben.receive()[:4])]
        here.relay.send(ben.address, sent.to_bytes(4))
        while numbers[-1] < sent:
            numbers.append(int.from_bytes(ben.receive()[:4]))
            if not ben.unread():
                here.relay.send(ben.address, sent.to_bytes(4))
        assert numbers == sorted(numbers), "frames are whole, and in order"
        assert here.loop.connections == 1


def test_without_descriptors_it_waits_and_goes_on():
    with place(ips=("127.0.0.1",)) as here:
        waiting = socket.socket()
        waiting.settimeout(SECONDS)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        first_free = os.dup(0)
        os.close(first_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
        try:
            waiting.connect(here.addresses[0])
            here.until(lambda: here.count(LoopCount.ACCEPT_FAILED) > 0)
            began = here.loop.cpu_seconds
            here.until(lambda: here.count(LoopCount.ACCEPT_FAILED) > 1)
            assert here.loop.cpu_seconds - began < 0.1, "it tries again and again"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.sendall(len(BINDING_REQUEST).to_bytes(2) + BINDING_REQUEST)
        assert here.events(1)[0][0] == EventKind.STUN
        waiting.close()


def test_it_stops_and_leaves_nothing_open():
    before = len(os.listdir("/proc/self/fd"))
    _stop_and_start()
    assert len(os.listdir("/proc/self/fd")) == before


def _stop_and_start() -> None:
    with place() as here:
        peer, stranger = here.connect(), here.connect()
        here.join(peer)
        here.until(lambda: here.loop.connections == 2)
        here.loop.stop()
        assert peer.ended() and stranger.ended()
        assert here.events(1)[0][0] == EventKind.DISCONNECTED
        assert here.count(LoopCount.CLOSED_AT_STOP) == 2
        here.loop.start()
        again = here.connect()
        again.send(BINDING_REQUEST)
        assert here.events(1)[0][2] == again.address


def test_connections_come_and_go():
    with place() as here:
        for _ in range(300):
            client = here.connect()
            client.send(BINDING_REQUEST)
            client.socket.close()
        here.until(lambda: here.count(LoopCount.CLOSED_BY_PEER) + here.count(LoopCount.CLOSED_BROKEN) == 300)
        assert here.count(LoopCount.ACCEPTED) == 300 and here.loop.connections == 0


def test_misuse_is_refused():
    relay = Relay(transports=1, sources=1, forwards=1)
    with socket.socket() as one, socket.socket() as other, socket.socket(type=socket.SOCK_DGRAM) as udp:
        with pytest.raises(InvalidStateError):
            SocketLoop(relay, [], [one.fileno(), other.fileno()])
        with pytest.raises(InvalidStateError):
            SocketLoop(relay, [], [udp.fileno()])


def test_strangers_cost_little():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    half_a_frame = (1500).to_bytes(2) + BINDING_REQUEST[:19] + bytes(1400)
    with place(ips=("127.0.0.1",)) as here:
        strangers = [here.connect() for _ in range(200)]
        here.until(lambda: here.loop.connections == len(strangers))
        before = resident()
        for stranger in strangers:
            stranger.socket.sendall(half_a_frame)
        waiting = here.connect()
        waiting.send(BINDING_REQUEST)
        here.events(1)
        assert resident() - before < 2 << 20
        assert here.loop.connections == len(strangers) + 1
