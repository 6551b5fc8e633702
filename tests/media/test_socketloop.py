"""The socket loop between real sockets on loopback, IPv4 and IPv6."""

import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pylibsrtp import Policy, Session

from server.errors import InvalidStateError
from server.media.fastpath.relay import Codec, DropReason, EventKind, Relay
from server.media.fastpath.socketloop import SocketLoop

BINDING_REQUEST = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
KEY = bytes(28)
SECONDS = 20


def udp(ip: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((ip, 0))
    made.settimeout(SECONDS)
    return made


@contextmanager
def running(gso: bool = True, ips: tuple[str, ...] = ("127.0.0.1", "::1")) -> Iterator[tuple[Relay, SocketLoop, list]]:
    sockets = [udp(ip) for ip in ips]
    relay = Relay(transports=16, sources=16, forwards=64)
    loop = SocketLoop(relay, [each.fileno() for each in sockets], gso=gso)
    loop.start()
    try:
        yield relay, loop, [each.getsockname()[:2] for each in sockets]
    finally:
        loop.stop()
        for each in sockets:
            each.close()


def join(relay: Relay, peer: socket.socket) -> int:
    transport = relay.add_transport()
    address = (*peer.getsockname()[:2], "udp")
    relay.allow(transport, address)
    relay.nominate(transport, address)
    relay.set_keys(transport, 7, KEY, KEY)
    return transport


def session(*, inbound: bool) -> Session:
    kind = Policy.SSRC_ANY_INBOUND if inbound else Policy.SSRC_ANY_OUTBOUND
    return Session(policy=Policy(key=KEY, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM))


def events(relay: Relay, loop: SocketLoop, count: int) -> list:
    got = []
    while len(got) < count:
        assert select.select([loop.events_fd], [], [], SECONDS)[0], f"{len(got)} events of {count}"
        os.read(loop.events_fd, 8)
        got += relay.take_events()
    return got


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_stun_goes_up_and_the_answer_comes_back(ip):
    with running() as (relay, loop, addresses), udp(ip) as peer:
        peer.sendto(BINDING_REQUEST, addresses[":" in ip])
        ((kind, transport, origin, data, _),) = events(relay, loop, 1)
        assert (kind, transport, data) == (EventKind.STUN, -1, BINDING_REQUEST)
        assert origin == (*peer.getsockname()[:2], "udp")
        relay.send(origin, b"answer")
        assert peer.recv(100) == b"answer"


def test_what_is_said_in_rtcp_waits_and_a_request_for_a_keyframe_does_not():
    """Eight goodbyes are told of once; with a request among them the slow path wakes before their time is over."""
    goodbye, request = struct.pack("!BBHI", 0x81, 203, 1, 0xA0), struct.pack("!BBHII", 0x81, 206, 2, 1, 0xA0)
    with running() as (relay, loop, addresses), udp("127.0.0.1") as peer:
        join(relay, peer)
        protect, waited = session(inbound=False), {goodbye: [], request: []}
        for last in (goodbye, request) * 5:
            begun = time.monotonic()
            for compound in (*[goodbye] * 7, last):
                peer.sendto(protect.protect_rtcp(compound), addresses[0])
            (*_, newest) = events(relay, loop, 8)
            assert (newest[0], newest[3]) == (EventKind.RTCP, last)
            waited[last].append(time.monotonic() - begun)
        assert min(waited[goodbye]) > 0.04 > min(waited[request])


@pytest.mark.parametrize("gso", [True, False])
def test_media_is_carried_between_families(gso):
    with running(gso) as (relay, loop, addresses), udp("127.0.0.1") as ada, udp("::1") as ben, udp("127.0.0.1") as eve:
        source = relay.add_source(join(relay, ada), 0xA0, Codec.OPUS, 96, 48_000)
        for peer in (ben, eve):
            forward = relay.add_forward(join(relay, peer), 0xB0, 96, Codec.OPUS)
            relay.feed(forward, source)
        protect, sizes = session(inbound=False), [100, 100, 100, 60, 100, 120, 1, 1]
        for seq, size in enumerate(sizes):
            packet = struct.pack("!BBHII", 0x80, 96, seq, seq, 0xA0) + bytes([seq]) * size
            ada.sendto(protect.protect(packet), addresses[0])
        for peer in (ben, eve):
            unprotect = session(inbound=True)
            payloads = [unprotect.unprotect(peer.recv(2000))[12:] for _ in sizes]
            assert payloads == [bytes([seq]) * size for seq, size in enumerate(sizes)]
        assert relay.transports_view["sent_packets"].sum() == 2 * len(sizes)
        assert 0 < loop.batches <= len(sizes) and loop.messages <= 2 * len(sizes)


def test_runs_for_one_receiver_leave_in_one_message():
    with running() as (relay, loop, addresses), udp("127.0.0.1") as ada, udp("127.0.0.1") as ben:
        transports = [join(relay, ada), join(relay, ben)]
        source = relay.add_source(transports[0], 0xA0, Codec.OPUS, 96, 48_000)
        # One datagram in, twenty of equal size to the same receiver out.
        for ssrc in range(20):
            relay.feed(relay.add_forward(transports[1], 0xB0 + ssrc, 96, Codec.OPUS), source)
        ada.sendto(session(inbound=False).protect(struct.pack("!BBHII", 0x80, 96, 1, 1, 0xA0) + b"x"), addresses[0])
        unprotect = session(inbound=True)
        ssrcs = {int.from_bytes(unprotect.unprotect(ben.recv(2000))[8:12]) for _ in range(20)}
        assert ssrcs == set(range(0xB0, 0xB0 + 20))
        loop.stop()  # what has been received may not have been counted yet
        assert loop.messages == 1


def test_a_receiver_that_cannot_be_reached_does_not_hold_up_others():
    with running() as (relay, _loop, _), udp("127.0.0.1") as ben:
        for address in (("203.0.113.1", 0, "udp"), ("192.0.2.1", 9, "tcp"), (*ben.getsockname()[:2], "udp")):
            relay.send(address, b"hello")
        assert ben.recv(100) == b"hello"
        relay.send((*ben.getsockname()[:2], "udp"), b"again")
        assert ben.recv(100) == b"again"
        assert relay.drops[DropReason.SEND_FAILED] == 2


def test_without_a_socket_of_the_family_it_is_a_drop():
    with running(ips=("127.0.0.1",)) as (relay, _, _), udp("127.0.0.1") as ben:
        relay.send(("::1", 9, "udp"), b"nowhere")
        for text in (b"one", b"two"):
            relay.send((*ben.getsockname()[:2], "udp"), text)
            assert ben.recv(100) == text
        assert relay.drops[DropReason.SEND_FAILED] == 1


def test_a_datagram_too_long_for_us_is_dropped_whole():
    with running() as (relay, loop, addresses), udp("127.0.0.1") as peer:
        peer.sendto(bytes([0x16]) * 9000, addresses[0])
        peer.sendto(BINDING_REQUEST, addresses[0])
        assert [event[0] for event in events(relay, loop, 1)] == [EventKind.STUN]
        assert relay.drops[DropReason.TOO_LONG] == 1


def test_it_stops_and_leaves_nothing_open():
    def count():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    before = count()
    for _ in range(20):
        with running() as (relay, loop, _):
            assert loop.running and loop.cpu_seconds >= 0
        assert not loop.running and loop.cpu_seconds > 0
        loop.stop()
        relay.send(("127.0.0.1", 9, "udp"), b"nobody listens any more")
        del loop
    deadline = time.monotonic() + 1  # a thread that was joined is in the kernel's list for a moment longer
    while count() > before and time.monotonic() < deadline:
        pass
    files, threads = count()
    assert files == before[0] and threads <= before[1], "a thread of a test before may have ended meanwhile"


def test_it_can_be_started_again():
    with running() as (relay, loop, addresses), udp("127.0.0.1") as peer:
        with pytest.raises(InvalidStateError):
            loop.start()
        loop.stop()
        loop.start()
        peer.sendto(BINDING_REQUEST, addresses[0])
        assert len(events(relay, loop, 1)) == 1


def test_misuse_is_refused():
    relay = Relay(transports=1, sources=1, forwards=1)
    with udp("127.0.0.1") as one, udp("127.0.0.1") as other, socket.socket() as stream:
        with pytest.raises(InvalidStateError):
            SocketLoop(relay, [one.fileno(), other.fileno()])
        with pytest.raises(InvalidStateError):
            SocketLoop(relay, [stream.fileno()])
    with pytest.raises(OSError):
        SocketLoop(relay, [99_999])
