"""Datagrams to the relay, forged by who has no keys and by who has. Allowed: to be dropped, passed up or carried."""

import struct

from hypothesis import given
from hypothesis import strategies as st
from pylibsrtp import Error as SrtpError
from pylibsrtp import Policy, Session

from server.media.fastpath.relay import Codec, Relay
from tests.fuzz import fuzz

ADA, BEN = ("192.0.2.1", 1, "udp"), ("192.0.2.2", 2, "udp")
KEY = bytes(28)
PROFILE = Policy.SRTP_PROFILE_AEAD_AES_128_GCM


def sender() -> Session:
    return Session(policy=Policy(key=KEY, ssrc_type=Policy.SSRC_ANY_OUTBOUND, srtp_profile=PROFILE))


def relay_of(codec: Codec) -> tuple[Relay, int, int]:
    """A relay with one who sends and one who receives, all extensions negotiated."""
    relay = Relay(transports=4, sources=8, forwards=8)
    names = "mid rid rrid abs-send-time transport-cc audio-level video-orientation dependency-descriptor".split()
    ids = {name: number for number, name in enumerate(names, 1)}
    for address in (ADA, BEN):
        transport = relay.add_transport()
        relay.allow(transport, address)
        relay.nominate(transport, address)
        relay.set_keys(transport, 7, KEY, KEY)
        relay.set_extension_ids(transport, ids, ids)
    source = relay.add_source(0, 0xA0, codec, 96, 90_000, rtx_ssrc=0xA1, rtx_payload_type=97)
    forward = relay.add_forward(1, 0xB0, 100, codec, rtx_ssrc=0xB1, rtx_payload_type=101, mid=b"m")
    relay.feed(forward, source, max_temporal=1, at_keyframe=False)
    expected = relay.expect_source(0, b"m", b"", Codec.OPUS, 111, 48_000, rtx_payload_type=97, red_payload_type=63)
    for number in range(2):
        sound = relay.add_forward(1, 0xB8 + number, 109, Codec.OPUS, red_payload_type=64 * number)
        relay.feed(sound, expected)
    return relay, source, forward


def still_works(relay: Relay, source: int, forward: int) -> None:
    """Whatever has happened, the next good packet of another stream is carried."""
    fresh = relay.add_source(0, 0xC0, Codec.OPUS, 111, 48_000)
    relay.feed(forward, fresh)
    packet = struct.pack("!BBHII", 0x80, 111, 1, 0, 0xC0) + b"sound"
    relay.process([], 9.0)
    assert len(relay.process([(ADA, sender().protect(packet))], 9.0)) == 1
    relay.missing(source, 9.0)
    relay.feedback(9.0)
    relay.sent(1)
    relay.process([], 9.1)
    relay.take_events()


heads = st.builds(
    struct.pack,
    st.just("!BBHII"),
    st.sampled_from([0x80, 0x90, 0xA0, 0xB0, 0x81, 0x8F, 0x9F]),
    st.sampled_from([96, 97, 224, 225, 0, 111, 63, 63]),
    st.integers(0, 65_535) | st.integers(0, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0xA0, 0xA0, 0xA0, 0xA1, 0xEE, 0xE0, 0xE1]),
)
named = st.builds(
    lambda size, descriptor: b"\x10m" + bytes([0x80 | size]) + descriptor[: size + 1],
    st.integers(0, 15),
    st.binary(min_size=16, max_size=16),
)
"""The expected source's mid (id 1), and a dependency descriptor (id 8)."""
extensions = st.builds(
    lambda profile, elements: (
        struct.pack("!HH", profile, (len(elements) + 3) // 4) + elements + bytes(-len(elements) % 4)
    ),
    st.sampled_from([0xBEDE, 0xBEDE, 0x1000, 0x100F, 0x1234]),
    st.binary(max_size=60) | named,
)
blocks = st.builds(
    lambda headers, tail: b"".join(struct.pack("!BBBB", 0x80 | 111, *header) for header in headers) + b"\x6f" + tail,
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 4), st.integers(0, 20)), max_size=10),
    st.binary(max_size=40),
)
"""RED, now and then of blocks that fit."""
clear = st.builds(
    lambda head, extension, payload: head + (extension if head[0] & 0x10 else b"") + payload,
    heads,
    extensions,
    st.binary(max_size=40) | blocks,
)


@fuzz
@given(
    codec=st.sampled_from(Codec),
    packets=st.lists(clear, min_size=1, max_size=30),
    seqs=st.lists(st.integers(0, 65_535)),
)
def test_an_authentic_peer_may_send_anything(codec, packets, seqs):
    relay, source, forward = relay_of(codec)
    session = sender()
    protected = []
    for packet in packets:
        try:
            protected.append((ADA, session.protect(packet)))
        except SrtpError:
            continue  # libsrtp refuses to encrypt what is no packet, or comes twice
    for number, datagram in enumerate(protected):
        relay.process([datagram], 1 + number / 100)
    relay.retransmit(forward, [*seqs, *range(int(relay.forwards_view["highest_ext_seq"][forward]) & 0xFFFF)][-64:])
    relay.process([], 2.0)
    still_works(relay, source, forward)


nacks = st.builds(
    lambda ssrc, entries: struct.pack("!BBHII", 0x81, 205, 2 + len(entries), 1, ssrc) + b"".join(entries),
    st.sampled_from([0xB0, 0xB0, 0xB1, 0xB8, 0xEE]),
    st.lists(st.binary(min_size=4, max_size=4), max_size=300),
)
others = st.builds(
    lambda first, kind, words, body: struct.pack("!BBH", first, kind, words) + body,
    st.integers(0, 255),
    st.integers(192, 223),
    st.integers(0, 12) | st.integers(0, 65_535),
    st.binary(max_size=40),
)


@fuzz
@given(
    compounds=st.lists(st.lists(nacks | others, min_size=1, max_size=4), max_size=6),
    wide=st.lists(st.integers(0, 65_535)),
)
def test_an_authentic_peer_may_report_anything(compounds, wide):
    relay, source, forward = relay_of(Codec.VP8)
    session = sender()
    for seq, number in enumerate(wide):
        head = struct.pack("!BBHII", 0x90, 96, seq, 7, 0xA0)
        extension = struct.pack("!HHBHx", 0xBEDE, 1, 0x51, number)
        relay.process([(ADA, session.protect(head + extension + b"\x10\x00frame"))], 1 + seq**3 / 100)
        if number % 5 == 0:
            relay.feedback(1 + seq**3 / 100, 0)
    for compound in compounds:
        data = b"".join(compound)[:1400]
        try:
            protected = session.protect_rtcp(data)
        except SrtpError:
            continue
        answered = relay.process([(BEN, protected)], 2.0)
        assert sum(len(datagram) for _, datagram in answered) < 500_000
    still_works(relay, source, forward)


VALID = [
    b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
    b"\x16\xfe\xff" + bytes(20),
    sender().protect(struct.pack("!BBHII", 0x80, 96, 5, 7, 0xA0) + b"\x10\x00frame"),
    sender().protect(struct.pack("!BBHII", 0x80, 97, 5, 7, 0xA1) + b"\x00\x04\x10\x01frame"),
    sender().protect_rtcp(b"\x81\xc9\x00\x07" + bytes(28)),
]
mutations = st.builds(
    lambda datagram, flips, cut, tail: (
        bytes(byte ^ dict(flips).get(at, 0) for at, byte in enumerate(datagram))[: len(datagram) - cut] + tail
    ),
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=3),
    st.sampled_from([0, 0, 0, 1, 4, 16]),
    st.binary(max_size=4) | st.just(b""),
)


@fuzz
@given(
    datagrams=st.lists(
        st.tuples(st.sampled_from([ADA, ADA, BEN, ("2001:db8::9", 9, "udp")]), mutations | st.binary(max_size=1600)),
        max_size=20,
    )
)
def test_a_stranger_may_send_anything(datagrams):
    relay, source, forward = relay_of(Codec.VP8)
    sent = relay.process(datagrams, 1.0)
    assert len(sent) <= 2, "what is not one of the two good packets has been carried"
    still_works(relay, source, forward)
