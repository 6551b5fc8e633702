"""The relay in memory: peers with SRTP sessions of their own on both sides of it."""

import itertools
import struct
from dataclasses import dataclass, field

import pytest
from pylibsrtp import Error as SrtpError
from pylibsrtp import Policy, Session

from server.errors import InvalidStateError
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
IDS_IN = {"mid": 1, "transport-cc": 3, "audio-level": 4, "dependency-descriptor": 5}
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
        """Of a packet without contributing sources or padding, which is what the relay sends."""
        first, second, seq, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        assert first & 0xEF == 0x80
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
        return cls(ssrc, seq, data[at:], timestamp, second & 0x7F, bool(second & 0x80), elements)


class Peer:
    """A browser as far as the relay can tell: an address and two SRTP sessions."""

    ports = itertools.count(40_000)

    def __init__(self, relay: Relay, profile: int = GCM, ip: str = "192.0.2.1") -> None:
        self.relay = relay
        self.address: Address = (ip, next(self.ports), "udp")
        self.transport = relay.add_transport()
        self.key, other = (bytes([number]) * PROFILES[profile][1] for number in (self.transport + 1, 200))
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


@pytest.fixture
def relay() -> Relay:
    return Relay(transports=64, sources=64, forwards=64)


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


# --- What a packet becomes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
def test_a_packet_is_carried_with_the_receivers_names(relay, profile):
    pair = call(relay, profile=profile)
    packet = Rtp(0xA0, 7, vp8(key=True), 1234, marker=True, elements={1: b"0", 3: b"\x12\x34", 4: b"\x85"})
    (received,) = pair.send(packet, now=65.5)
    assert (received.ssrc, received.payload_type, received.marker) == (0xB0, 100, True)
    assert received.payload == packet.payload
    assert received.timestamp == 1234
    # abs-send-time: 65.5 s modulo 64 in 6.18 fixed point; transport-wide numbers begin at 1.
    assert received.elements == {9: b"v1", 2: (int(1.5 * 2**18)).to_bytes(3), 7: b"\x00\x01", 1: b"\x85"}


def test_nothing_is_sent_in_the_clear(relay):
    pair = call(relay)
    ((address, data),) = pair.ada.send(Rtp(0xA0, 1, vp8(key=True, body=b"secret" * 9)))
    assert address == pair.ben.address and b"secret" not in data


def test_one_source_feeds_many(relay):
    pair = call(relay)
    others = [Peer(relay) for _ in range(20)]
    for peer in others:
        forward = relay.add_forward(peer.transport, 0xC0, 110, Codec.VP8)
        relay.feed(forward, pair.source)
    sent = pair.ada.send(Rtp(0xA0, 1, vp8(key=True)))
    assert len(sent) == 21
    assert [peer.decrypt(sent)[0].ssrc for peer in (pair.ben, *others)] == [0xB0] + [0xC0] * 20


def test_more_leave_at_once_than_a_batch_holds(relay):
    pair = call(relay, Codec.OPUS)
    packets = [Rtp(0xA0, seq, b"%d" % seq) for seq in range(700)]
    assert [packet.payload for packet in pair.send(*packets)] == [b"%d" % seq for seq in range(700)]


def test_transport_wide_numbers_count_all_streams_of_a_transport(relay):
    pair = call(relay, Codec.OPUS)
    second = relay.add_forward(pair.ben.transport, 0xB8, 102, Codec.OPUS)
    relay.feed(second, pair.source)
    received = pair.send(*(Rtp(0xA0, seq, b"x") for seq in range(3)))
    assert sorted(packet.elements[7] for packet in received) == [number.to_bytes(2) for number in range(1, 7)]
    assert relay.transports_view["wide_seq"][pair.ben.transport] == 6


def test_an_id_above_14_or_a_long_element_takes_the_two_byte_form(relay):
    pair = call(relay, Codec.OPUS)
    relay.set_extension_ids(pair.ben.transport, {}, {"mid": 20, "audio-level": 1})
    (received,) = pair.send(Rtp(0xA0, 1, b"x", elements={4: b"\x05"}))
    assert received.elements == {20: b"v1", 1: b"\x05"}


def test_frame_numbers_of_the_dependency_descriptor_continue(relay):
    pair = call(relay, Codec.AV1)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.AV1, 96, 90_000)
    keyframe = b"\x08obu"
    (before,) = pair.send(Rtp(0xA0, 1, keyframe, elements={5: b"\xc0\x00\x63"}))
    relay.feed(pair.forward, source)
    (after,) = pair.ben.decrypt(other.send(Rtp(0xD0, 5, keyframe, elements={5: b"\xc1\xff\xff"})))
    assert (before.elements[12], after.elements[12]) == (b"\xc0\x00\x63", b"\xc1\x00\x64")


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1, 0x7FFF, 0xFFFD, 0xFFFF])
@pytest.mark.parametrize("timestamp", [0, 0xFFFFFFF0])
def test_numbers_go_on_across_the_wrap_of_the_input(relay, first, timestamp):
    pair = call(relay)
    received = []
    for number in range(6):
        received += pair.video(first + number, vp8(key=number == 0), timestamp=timestamp + 3000 * number)
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == list(range(6))
    assert [(packet.timestamp - timestamp) % 2**32 for packet in received] == [3000 * number for number in range(6)]
    assert relay.sources_view["highest_ext_seq"][pair.source] == 0x10000 + first + 5
    assert relay.sources_view["lost"][pair.source] == 0


def test_the_output_wraps_too(relay):
    pair = call(relay, Codec.OPUS)
    received = []
    for first in range(0, 66_000, 1000):
        received += [packet.seq for packet in pair.send(*(Rtp(0xA0, first + n, b"x") for n in range(1000)))]
    assert {(b - a) % 65536 for a, b in itertools.pairwise(received)} == {1}


@pytest.mark.parametrize(
    ("wide", "last", "expected"),
    [(True, 5, 6), (True, 0x7FFF, 0), (False, 0x7E, 0x7F), (False, 0x7F, 0)],
)
def test_picture_ids_continue_across_a_switch_in_either_width(relay, wide, last, expected):
    pair = call(relay)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    pair.video(1, vp8(last, key=True, wide=wide))
    relay.feed(pair.forward, source)
    (packet,) = pair.ben.decrypt(other.send(Rtp(0xD0, 1, vp8(77, key=True, wide=wide))))
    assert packet.payload == vp8(expected, key=True, wide=wide)


def test_a_switch_waits_for_the_keyframe_and_leaves_no_gap(relay):
    pair = call(relay)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    received = pair.video(60_000, vp8(900, key=True, tl0=250, tid=0), now=1.0, timestamp=5000)
    events(relay)
    relay.feed(pair.forward, source)
    assert pair.ben.decrypt(other.send(Rtp(0xD0, 9, vp8(3, tl0=1, tid=0), 70), now=1.05)) == []
    received += pair.video(60_001, vp8(901, tl0=251, tid=0), now=1.1, timestamp=14_000)
    assert events(relay) == [(EventKind.KEYFRAME_WANTED, pair.forward, ("", 0, "udp"), source.to_bytes(4), 1.05)]
    received += pair.ben.decrypt(other.send(Rtp(0xD0, 10, vp8(4, key=True, tl0=2, tid=0), 3070), now=1.2))
    assert events(relay) == [(EventKind.SWITCHED, pair.forward, ("", 0, "udp"), source.to_bytes(4), 1.2)]
    received += pair.ben.decrypt(other.send(Rtp(0xD0, 11, vp8(5, tl0=3, tid=0), 6070), now=1.233))
    assert pair.video(60_002, vp8(902, tl0=252, tid=0), now=1.3) == []
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == [0, 1, 2, 3]
    assert [ids_of(packet) for packet in received] == [(900, 250), (901, 251), (902, 252), (903, 253)]
    # 100 ms have passed between the last packet of the one and the first of the other.
    assert [packet.timestamp for packet in received] == [5000, 14_000, 14_000 + 9000, 14_000 + 12_000]


def test_a_late_packet_of_before_the_switch_is_not_taken_for_one_of_the_new_source(relay):
    pair = call(relay)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    pair.video(1, vp8(key=True))
    relay.feed(pair.forward, source)
    late = Rtp(0xD0, 9, vp8())
    received = pair.ben.decrypt(other.send(Rtp(0xD0, 10, vp8(key=True)), late, Rtp(0xD0, 11, vp8())))
    assert (received[1].seq - received[0].seq) % 65536 == 1 and len(received) == 2
    assert dropped(relay) == {DropReason.TOO_LATE: 1}


def test_the_timestamp_offset_of_the_slow_path_holds_unless_it_steps_back(relay):
    pair = call(relay)
    other = Peer(relay)
    sources = [relay.add_source(other.transport, 0xD0 + n, Codec.VP8, 96, 90_000) for n in range(2)]
    pair.video(1, vp8(key=True), now=1.0, timestamp=100_000)
    relay.feed(pair.forward, sources[0], timestamp_offset=60_000)
    (ahead,) = pair.ben.decrypt(other.send(Rtp(0xD0, 1, vp8(key=True), 50_000), now=1.1))
    assert ahead.timestamp == 110_000
    assert relay.forwards_view["timestamp_offset"][pair.forward] == 60_000
    relay.feed(pair.forward, sources[1], timestamp_offset=0)
    (behind,) = pair.ben.decrypt(other.send(Rtp(0xD1, 1, vp8(key=True), 50_000), now=1.2))
    assert behind.timestamp == 119_000


def test_pause_and_resume_leave_no_gap_in_the_numbers(relay):
    pair = call(relay)
    (before,) = pair.video(1, vp8(10, key=True, tl0=3), now=1.0, timestamp=0)
    relay.feed(pair.forward, None)
    assert pair.video(2, vp8(11, key=True, tl0=4), now=2.0) == []
    relay.feed(pair.forward, pair.source)
    assert pair.video(3, vp8(12, tl0=5), now=3.0) == []
    (after,) = pair.video(4, vp8(13, key=True, tl0=6), now=4.0, timestamp=270_000)
    assert (after.seq - before.seq) % 65536 == 1
    assert ids_of(after) == (11, 4)
    assert after.timestamp == 270_000


def test_sound_switches_at_once(relay):
    pair = call(relay, Codec.OPUS)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.OPUS, 96, 48_000)
    (before,) = pair.send(Rtp(0xA0, 5, b"a"))
    relay.feed(pair.forward, source)
    (after,) = pair.ben.decrypt(other.send(Rtp(0xD0, 90, b"b")))
    assert (after.seq - before.seq) % 65536 == 1


def test_temporal_layers_are_left_out_without_a_gap(relay):
    pair = call(relay)
    relay.feed(pair.forward, pair.source, max_temporal=0)
    received = pair.video(65_534, vp8(0x7FFE, key=True, tl0=255, tid=0))
    layers = [2, 1, 2, 0]
    tl0 = 255
    for number, tid in enumerate(layers):
        tl0 += tid == 0
        picture = 0x7FFF + number & 0x7FFF
        for part in range(2):
            seq = 65_535 + 2 * number + part
            received += pair.video(seq, vp8(picture, tl0=tl0 & 255, tid=tid, start=part == 0))
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == [0, 1, 2]
    assert [ids_of(packet) for packet in received] == [(0x7FFE, 255), (0x7FFF, 0), (0x7FFF, 0)]
    assert relay.forwards_view["dropped_temporal"][pair.forward] == 6


def test_a_layer_comes_back_where_the_stream_allows_it(relay):
    pair = call(relay)
    relay.feed(pair.forward, pair.source, max_temporal=0)
    pair.video(1, vp8(1, key=True, tl0=1, tid=0))
    relay.feed(pair.forward, pair.source, max_temporal=2)
    assert pair.video(2, vp8(2, tl0=1, tid=2)) == []
    assert len(pair.video(3, vp8(3, tl0=1, tid=1, sync=True))) == 1
    assert pair.video(4, vp8(4, tl0=1, tid=2)) == []
    assert len(pair.video(5, vp8(5, tl0=1, tid=2, sync=True))) == 1


def test_late_packets_get_the_numbers_that_were_kept_for_them(relay):
    pair = call(relay)
    relay.feed(pair.forward, pair.source, max_temporal=0)
    layers = {1: 0, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0}
    received = {}
    for seq in (1, 3, 5, 6, 4, 2):
        for packet in pair.video(seq, vp8(100 + seq, key=seq == 1, tl0=0, tid=layers[seq])):
            received[seq] = (packet.seq, ids_of(packet)[0])
    base = received[1][0]
    numbers = {seq: ((out - base) % 65536, picture) for seq, (out, picture) in received.items()}
    assert numbers == {1: (0, 101), 2: (1, 102), 4: (2, 103), 6: (3, 104)}


def test_padding_alone_is_not_carried_and_leaves_no_gap(relay):
    pair = call(relay)
    received = pair.video(1, vp8(key=True))
    received += pair.send(Rtp(0xA0, 2, b"", padding=200))
    received += pair.send(Rtp(0xA0, 3, vp8(), padding=7))
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == [0, 1]
    assert received[1].payload == vp8()
    assert dropped(relay) == {DropReason.RTP_PADDING_ONLY: 1}


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        (Codec.VP9, b"\x08rest"),
        (Codec.VP9, b"\xaa\x85\x00\x00\x07rest"),
        (Codec.H264, b"\x65idr"),
        (Codec.H264, b"\x67sps"),
        (Codec.H264, b"\x78\x00\x02\x68p\x00\x02\x67s"),
        (Codec.H264, b"\x7c\x85idr"),
        (Codec.AV1, b"\x08obu"),
        (Codec.OTHER, b"anything"),
    ],
)
def test_what_pictures_begin_with(relay, codec, payload):
    assert len(call(relay, codec).send(Rtp(0xA0, 1, payload))) == 1


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        (Codec.VP8, b"\x10\x01"),
        (Codec.VP8, b"\x00\x00"),
        (Codec.VP8, b"\x11\x00"),
        (Codec.VP8, b"\x90"),
        (Codec.VP8, b"\x90\xf0\x80"),
        (Codec.VP9, b"\x48rest"),
        (Codec.VP9, b"\x00rest"),
        (Codec.VP9, b"\x28\x02\x00rest"),
        (Codec.H264, b"\x61slice"),
        (Codec.H264, b"\x7c\x05idr, continued"),
        (Codec.AV1, b"\x00obu"),
        (Codec.AV1, b"\x88obu, continued"),
    ],
)
def test_what_they_do_not_begin_with(relay, codec, payload):
    pair = call(relay, codec)
    assert pair.send(Rtp(0xA0, 1, payload)) == []
    assert [event[0] for event in relay.take_events()] == [EventKind.KEYFRAME_WANTED]


def test_a_keyframe_is_wanted_twice_a_second_at_most(relay):
    pair = call(relay)
    for number in range(100):
        pair.video(number, vp8(), now=1 + number / 100)
    assert [event[4] for event in events(relay)] == pytest.approx([1.0, 1.5])


# --- Who gets in ------------------------------------------------------------------------------------------------------


def test_nothing_but_stun_from_an_address_that_is_not_allowed(relay):
    pair = call(relay)
    stranger = ("203.0.113.9", 5, "udp")
    media, rtcp = pair.ada.protect(Rtp(0xA0, 1, vp8(key=True))), pair.ada.protect_rtcp(b"\x80\xc9\x00\x01" + bytes(4))
    assert relay.process([(stranger, data) for data in (media, rtcp, CLIENT_HELLO, BINDING_REQUEST)], 2.5) == []
    assert relay.take_events() == [(EventKind.STUN, -1, stranger, BINDING_REQUEST, 2.5)]
    assert dropped(relay) == {DropReason.ADDRESS_NOT_ALLOWED: 3}
    # It was the address: the packet is as good as ever.
    assert len(pair.ben.decrypt(relay.process([(pair.ada.address, media)], 2.6))) == 1


@pytest.mark.parametrize(
    "other", [("192.0.2.1", 1, "udp"), ("192.0.2.1", 40_000, "tcp"), ("::ffff:c000:201", 40_000, "udp")]
)
def test_ip_port_and_protocol_make_the_address(relay, other):
    transport = relay.add_transport()
    relay.allow(transport, ("192.0.2.1", 40_000, "udp"))
    relay.process([(other, CLIENT_HELLO)], 1.0)
    assert events(relay) == []
    relay.process([(("192.0.2.1", 40_000, "udp"), CLIENT_HELLO)], 1.0)
    assert [event[:2] for event in events(relay)] == [(EventKind.DTLS, transport)]


def test_a_forbidden_address_is_a_strangers_and_gets_nothing(relay):
    pair = call(relay)
    relay.forbid(pair.ben.transport, pair.ben.address)
    assert pair.video(1, vp8(key=True)) == []
    relay.process([(pair.ben.address, CLIENT_HELLO)], 1.0)
    assert dropped(relay) == {DropReason.NOT_NOMINATED: 1, DropReason.ADDRESS_NOT_ALLOWED: 1}


def test_media_follows_the_nomination(relay):
    pair = call(relay, Codec.OPUS)
    moved = ("2001:db8::7", 9, "udp")
    with pytest.raises(InvalidStateError):
        relay.nominate(pair.ben.transport, moved)
    relay.allow(pair.ben.transport, moved)
    relay.nominate(pair.ben.transport, moved)
    assert [address for address, _ in pair.ada.send(Rtp(0xA0, 1, b"x"))] == [moved]
    relay.nominate(pair.ben.transport, None)
    assert pair.ada.send(Rtp(0xA0, 2, b"x")) == []


def test_an_address_that_another_transport_has_validated_leaves_the_first(relay):
    pair = call(relay, Codec.OPUS)
    newcomer = relay.add_transport()
    relay.allow(newcomer, pair.ben.address)
    assert pair.ada.send(Rtp(0xA0, 1, b"x")) == []
    relay.process([(pair.ben.address, CLIENT_HELLO)], 1.0)
    assert events(relay, EventKind.DTLS)[0][1] == newcomer


def test_before_the_keys_nothing_is_decrypted(relay):
    transport = relay.add_transport()
    relay.allow(transport, ("192.0.2.1", 1, "udp"))
    relay.process([(("192.0.2.1", 1, "udp"), bytes(Rtp(0xA0, 1, b"clear")))], 1.0)
    assert dropped(relay) == {DropReason.NO_KEYS: 1}


def test_a_replayed_packet_goes_nowhere(relay):
    pair = call(relay, Codec.OPUS)
    data = pair.ada.protect(Rtp(0xA0, 1, b"x"))
    assert len(relay.process([(pair.ada.address, data)] * 3, 1.0)) == 1
    assert dropped(relay) == {DropReason.SRTP_REPLAYED: 2}
    report = pair.ada.protect_rtcp(b"\x80\xc9\x00\x01" + bytes(4))
    relay.process([(pair.ada.address, report)] * 2, 1.0)
    assert len(events(relay, EventKind.RTCP)) == 1
    assert dropped(relay) == {DropReason.SRTP_REPLAYED: 3}


@pytest.mark.parametrize("at", [1, 3, 5, 9, 20, -1])
@pytest.mark.parametrize("profile", PROFILES)
def test_a_forged_packet_goes_nowhere(relay, at, profile):
    pair = call(relay, Codec.OPUS, profile)
    data = bytearray(pair.ada.protect(Rtp(0xA0, 1, b"some sound")))
    data[at] ^= 1
    assert relay.process([(pair.ada.address, bytes(data))], 1.0) == []
    assert dropped(relay) == {DropReason.SRTP_AUTH_FAILED: 1}


def test_one_peer_cannot_speak_as_another(relay):
    pair = call(relay, Codec.OPUS)
    mallory = Peer(relay)
    assert relay.process([(mallory.address, pair.ada.protect(Rtp(0xA0, 1, b"x")))], 1.0) == []
    assert dropped(relay) == {DropReason.SRTP_AUTH_FAILED: 1}
    assert mallory.send(Rtp(0xA0, 1, b"x")) == []
    assert [event[:2] for event in events(relay)] == [(EventKind.UNKNOWN_SSRC, mallory.transport)]


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", DropReason.EMPTY),
        (b"\xff" * 40, DropReason.UNKNOWN_PROTOCOL),
        (b"\x80\x60" + bytes(9), DropReason.RTP_TRUNCATED),
        (b"\x80\xc9\x00\x09" + bytes(4), DropReason.RTCP_TRUNCATED),
        (BINDING_REQUEST[:19], DropReason.STUN_TRUNCATED),
        (b"\x00\x01\x00\x00" + bytes(16), DropReason.STUN_BAD_COOKIE),
        (BINDING_REQUEST + bytes(4), DropReason.STUN_BAD_LENGTH),
        (CLIENT_HELLO[:12], DropReason.DTLS_TRUNCATED),
        (b"\x40\x00\x00\x09", DropReason.TURN_CHANNEL_TRUNCATED),
        (b"\x40\x00\x00\x00", DropReason.TURN_CHANNEL),
        (b"\x80\x60" + bytes(1499), DropReason.TOO_LONG),
        (b"\x80\x60" + bytes(10), DropReason.SRTP_FAILED),
    ],
)
def test_junk_is_dropped_under_its_name(relay, datagram, reason):
    peer = Peer(relay)
    assert relay.process([(peer.address, datagram)], 1.0) == []
    assert dropped(relay) == {reason: 1}
    assert relay.take_events() == []


def test_an_authentic_packet_with_impossible_padding(relay):
    pair = call(relay, Codec.OPUS)
    broken = bytearray(bytes(Rtp(0xA0, 1, b"x", padding=4)))
    broken[-1] = 99
    relay.process([(pair.ada.address, pair.ada._protect.protect(bytes(broken)))], 1.0)
    assert dropped(relay) == {DropReason.RTP_BAD_PADDING: 1}


def test_another_payload_type_is_not_carried(relay):
    pair = call(relay, Codec.OPUS)
    assert pair.send(Rtp(0xA0, 1, b"x", payload_type=13)) == []
    assert dropped(relay) == {DropReason.UNEXPECTED_PAYLOAD_TYPE: 1}


# --- Up to the slow path ----------------------------------------------------------------------------------------------


def test_rtcp_goes_up_decrypted_and_comes_down_encrypted(relay):
    peer = Peer(relay)
    report = b"\x80\xc9\x00\x01" + b"ssrc"
    assert relay.process([(peer.address, peer.protect_rtcp(report))], 1.0) == []
    assert relay.take_events() == [(EventKind.RTCP, peer.transport, peer.address, report, 1.0)]
    relay.send_rtcp(peer.transport, report)
    sent = relay.process([], 1.0)
    assert peer.decrypt_rtcp(sent) == [report]
    assert report[4:] in sent[0][1] and sent[0][1] != report


def test_stun_and_dtls_leave_as_they_are(relay):
    relay.send(("2001:db8::1", 3478, "udp"), CLIENT_HELLO)
    relay.send(("192.0.2.7", 1, "tcp"), BINDING_REQUEST)
    assert relay.process([], 1.0) == [
        (("2001:db8::1", 3478, "udp"), CLIENT_HELLO),
        (("192.0.2.7", 1, "tcp"), BINDING_REQUEST),
    ]
    assert relay.process([], 1.0) == []


def test_an_unknown_ssrc_goes_up_now_and_then(relay):
    peer = Peer(relay)
    packet = Rtp(0xE0, 1, b"who am I", elements={1: b"m"})
    peer.send(packet, now=1.0)
    for seq in range(2, 12):
        peer.send(Rtp(0xE0, seq, b"x"), now=1.0 + 0.004 * seq)
    got = events(relay, EventKind.UNKNOWN_SSRC)
    assert got[0] == (EventKind.UNKNOWN_SSRC, peer.transport, peer.address, bytes(packet), 1.0)
    assert [event[4] for event in got] == pytest.approx([1.0, 1.02, 1.04])
    assert dropped(relay) == {DropReason.UNKNOWN_SSRC: 8}


def test_a_peer_cannot_fill_memory_with_ssrcs(relay):
    peer = Peer(relay)
    peer.send(*(Rtp(0xE000 + number, 1, b"x") for number in range(1000)))
    assert len(events(relay)) == 32
    # One of them that is made known makes room for another.
    source = relay.add_source(peer.transport, 0xE000, Codec.OPUS, 96, 48_000)
    peer.send(Rtp(0xE000, 2, b"x"), Rtp(0xF000, 1, b"x"))
    assert relay.sources_view["packets"][source] == 1
    assert len(events(relay)) == 1


def test_strangers_share_a_part_of_the_queue(relay):
    peer = Peer(relay)
    flood = [((f"203.0.113.{number % 250}", number + 1, "udp"), BINDING_REQUEST) for number in range(6000)]
    relay.process(flood, 1.0)
    peer.send(now=1.0)
    relay.process([(peer.address, peer.protect_rtcp(b"\x80\xc9\x00\x01" + bytes(4)))], 1.1)
    got = relay.take_events()
    assert [event[0] for event in got] == [EventKind.STUN] * 512 + [EventKind.RTCP]
    assert dropped(relay) == {DropReason.STRANGER_QUEUE_FULL: 6000 - 512}
    relay.process(flood[:1], 1.2)
    assert len(relay.take_events()) == 1


def test_one_transport_cannot_keep_others_out_of_the_queue(relay):
    loud, quiet = Peer(relay), Peer(relay)
    relay.process([(loud.address, CLIENT_HELLO)] * 5000, 1.0)
    relay.process([(quiet.address, CLIENT_HELLO)], 1.0)
    owners = [event[1] for event in relay.take_events()]
    assert owners.count(loud.transport) == 256 and owners.count(quiet.transport) == 1
    relay.process([(loud.address, CLIENT_HELLO)], 1.0)
    assert len(relay.take_events()) == 1


def test_events_are_taken_oldest_first_and_as_many_as_asked(relay):
    peer = Peer(relay)
    for number in range(5):
        relay.process([(peer.address, CLIENT_HELLO)], float(number))
    assert [event[4] for event in relay.take_events(3)] == [0, 1, 2]
    assert [event[4] for event in relay.take_events()] == [3, 4]


# --- What is known of a source ----------------------------------------------------------------------------------------


def test_loss_and_jitter_are_those_of_rfc_3550(relay):
    pair = call(relay, Codec.OPUS)
    jitter, before = 0.0, None
    for number, delay in enumerate([0, 3, 9, 2, 0, 14]):
        if number == 3:
            continue
        now = 1 + number * 0.02 + delay / 1000
        pair.send(Rtp(0xA0, number, b"x", timestamp=number * 1800), now=now)
        transit = now * 90_000 - number * 1800
        if before is not None:
            jitter += (abs(transit - before) - jitter) / 16
        before = transit
    row = relay.sources_view[pair.source]
    assert row["jitter"] == pytest.approx(jitter) and jitter > 1
    assert (row["packets"], row["lost"], row["bytes"], row["timestamp"]) == (5, 1, 5, 5 * 1800)


def test_a_packet_before_the_first_one_widens_the_range(relay):
    pair = call(relay, Codec.OPUS)
    pair.send(Rtp(0xA0, 0, b"x"), Rtp(0xA0, 0xFFFE, b"x"))
    row = relay.sources_view[pair.source]
    assert (row["base_ext_seq"], row["highest_ext_seq"], row["lost"]) == (0xFFFE, 0x10000, 1)


def test_audio_levels_are_followed(relay):
    pair = call(relay, Codec.OPUS)
    assert relay.sources_view["audio_level"][pair.source] == 127
    loudness = 0.0
    for seq, level in enumerate([10, 20, 127, 30]):
        pair.send(Rtp(0xA0, seq, b"x", elements={4: bytes([0x80 | level])}))
        loudness += (127 - level - loudness) / 10
    row = relay.sources_view[pair.source]
    assert (row["audio_level"], row["voice"]) == (30, 1)
    assert row["loudness"] == pytest.approx(loudness)


def test_arrivals_are_logged_across_the_wrap_whatever_the_stream(relay):
    pair = call(relay, Codec.OPUS)
    for number, wide in enumerate([65_534, 65_535, 1, 0]):
        packet = Rtp((0xA0, 0xEE)[number % 2], number, b"x", elements={3: wide.to_bytes(2)})
        pair.ada.send(packet, now=1 + number / 10)
    assert relay.arrivals(pair.ada.transport) == [(131_070, 1.0), (131_071, 1.1), (131_073, 1.2), (131_072, 1.3)]
    assert relay.arrivals(pair.ada.transport) == []
    assert relay.arrivals(pair.ben.transport) == []


def test_the_log_of_arrivals_keeps_the_latest(relay):
    pair = call(relay, Codec.OPUS)
    pair.ada.send(*(Rtp(0xA0, number, b"x", elements={3: number.to_bytes(2)}) for number in range(1500)))
    assert [wide for wide, _ in relay.arrivals(pair.ada.transport)] == list(range(65_536 + 476, 65_536 + 1500))


# --- Loss -------------------------------------------------------------------------------------------------------------


def test_a_nack_is_answered_with_what_was_sent(relay):
    pair = call(relay)
    packets = [Rtp(0xA0, 65_530 + n, vp8(n, key=n == 0, tl0=n, tid=0, body=b"%d" % n * 50), 90 * n) for n in range(10)]
    received = pair.send(*packets)
    assert relay.retransmit(pair.forward, [received[3].seq, received[8].seq]) == 2
    again = pair.ben.decrypt(relay.process([], 1.1))
    assert [(packet.ssrc, packet.payload_type) for packet in again] == [(0xB1, 101)] * 2
    assert again[1].seq == (again[0].seq + 1) % 65536
    for repeat, original in zip(again, (received[3], received[8]), strict=True):
        assert repeat.payload == original.seq.to_bytes(2) + original.payload
        assert (repeat.timestamp, repeat.marker) == (original.timestamp, original.marker)
        assert repeat.elements[9] == b"v1" and repeat.elements[7] > original.elements[7]
    assert relay.forwards_view["retransmitted"][pair.forward] == 2


def test_what_was_sent_before_a_switch_is_repeated_as_it_was(relay):
    pair = call(relay)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    received = pair.video(10, vp8(50, key=True, tl0=9, tid=0), now=1.0, timestamp=900)
    relay.feed(pair.forward, source, max_temporal=0)
    for seq, tid in ((1, 0), (2, 1), (3, 0), (4, 2), (5, 0)):
        packet = Rtp(0xD0, seq, vp8(seq, key=seq == 1, tl0=seq, tid=tid), 3000 * seq)
        received += pair.ben.decrypt(other.send(packet, now=1 + seq / 30))
    assert len(received) == 4
    assert relay.retransmit(pair.forward, [packet.seq for packet in received]) == 4
    again = pair.ben.decrypt(relay.process([], 2.0))
    assert [packet.payload for packet in again] == [packet.seq.to_bytes(2) + packet.payload for packet in received]
    assert [packet.timestamp for packet in again] == [packet.timestamp for packet in received]


def test_what_is_not_there_is_not_repeated(relay):
    pair = call(relay)
    received = pair.send(*(Rtp(0xA0, n, vp8(key=n == 0)) for n in (0, 1, 3)))
    gap, future = received[1].seq + 1, received[2].seq + 1
    assert relay.retransmit(pair.forward, [gap % 65536, future % 65536, (received[0].seq - 1) % 65536]) == 0
    relay.remove_source(pair.source)
    assert relay.retransmit(pair.forward, [received[0].seq]) == 0


def test_without_rtx_nothing_is_repeated(relay):
    pair = call(relay)
    forward = relay.add_forward(pair.ben.transport, 0xB9, 100, Codec.VP8)
    relay.feed(forward, pair.source)
    (received,) = [packet for packet in pair.video(1, vp8(key=True)) if packet.ssrc == 0xB9]
    assert relay.retransmit(forward, [received.seq]) == 0


def test_repeats_have_a_budget(relay):
    pair = call(relay)
    (received,) = pair.video(1, vp8(key=True, body=bytes(1000)))
    sent = sum(relay.retransmit(pair.forward, [received.seq]) for _ in range(1000))
    assert 30 <= sent <= 33
    pair.send(*(Rtp(0xA0, seq, vp8(body=bytes(1000))) for seq in range(2, 42)))
    assert relay.retransmit(pair.forward, [received.seq] * 50) in (9, 10)


def test_history_holds_the_latest_256_kib(relay):
    pair = call(relay)
    received = pair.send(*(Rtp(0xA0, seq, vp8(key=seq == 0, body=bytes([seq % 251]) * 1000)) for seq in range(400)))
    there = []
    for number in (399, 380, 145, 144, 0):
        relay.retransmit(pair.forward, [received[number].seq])
        there += [(number, packet.payload[2:]) for packet in pair.ben.decrypt(relay.process([], 1.0))]
    assert [number for number, _ in there][:3] == [399, 380, 145]
    assert 0 not in dict(there)
    assert all(payload == received[number].payload for number, payload in there)


def rtx(seq: int, original: int, payload: bytes, **more: object) -> Rtp:
    return Rtp(0xA1, seq, original.to_bytes(2) + payload, payload_type=97, **more)  # type: ignore[arg-type]


def test_rtx_from_the_publisher_fills_the_gap(relay):
    pair = call(relay)
    received = pair.send(
        *(Rtp(0xA0, seq & 0xFFFF, vp8(seq & 0x7FFF, key=seq == 65_534), seq) for seq in (65_534, 65_535, 65_537))
    )
    assert relay.missing(pair.source, 1.0) == [0x10000 + 65_536]
    (repaired,) = pair.send(rtx(9, 0, vp8(65_536 & 0x7FFF), timestamp=65_536, elements={1: b"m"}), now=1.1)
    assert (repaired.seq - received[1].seq) % 65536 == 1
    assert (repaired.payload, repaired.timestamp) == (vp8(65_536 & 0x7FFF), 65_536)
    assert relay.missing(pair.source, 2.0) == []
    row = relay.sources_view[pair.source]
    assert (row["packets"], row["recovered"], row["lost"]) == (3, 1, 1)


def test_what_came_twice_is_carried_once(relay):
    pair = call(relay)
    assert len(pair.send(Rtp(0xA0, 1, vp8(key=True)), rtx(1, 1, vp8(key=True)), rtx(2, 1, vp8(key=True)))) == 1
    assert dropped(relay) == {DropReason.DUPLICATE: 2}


def test_rtx_that_cannot_be(relay):
    pair = call(relay)
    pair.send(rtx(1, 1, b""))
    pair.send(Rtp(0xA0, 1, vp8(key=True)))
    pair.send(Rtp(0xA1, 2, b"\x00", payload_type=97), Rtp(0xA1, 3, b"\x00\x02abc", payload_type=96))
    pair.send(Rtp(0xA1, 4, b"", payload_type=97, padding=90))
    assert dropped(relay) == {DropReason.RTX_BAD: 3, DropReason.RTP_PADDING_ONLY: 1}


def test_missing_packets_are_asked_for_again_each_round_trip_and_not_for_ever(relay):
    pair = call(relay)
    pair.send(*(Rtp(0xA0, seq, vp8(key=seq == 1)) for seq in (1, 3, 6)))
    assert relay.missing(pair.source, 1.0) == [0x10002, 0x10004, 0x10005]
    assert relay.missing(pair.source, 1.02) == []
    pair.send(Rtp(0xA0, 4, vp8()))
    assert relay.missing(pair.source, 1.06) == [0x10002, 0x10005]
    assert [len(relay.missing(pair.source, 2.0 + n)) for n in range(10)] == [2] * 8 + [0] * 2


def test_a_leap_is_not_taken_for_loss(relay):
    pair = call(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)), Rtp(0xA0, 9000, vp8(key=True)))
    assert relay.missing(pair.source, 1.0) == []


# --- Slots ------------------------------------------------------------------------------------------------------------


def test_removing_a_transport_removes_what_hangs_on_it(relay):
    pair = call(relay)
    pair.video(1, vp8(key=True))
    relay.remove_transport(pair.ada.transport)
    assert not relay.sources_view["used"].any()
    assert relay.forwards_view["source"][pair.forward] == -1
    relay.process([(pair.ada.address, CLIENT_HELLO)], 1.0)
    assert drops(relay, DropReason.ADDRESS_NOT_ALLOWED) == 1
    relay.remove_transport(pair.ben.transport)
    assert not relay.forwards_view["used"].any() and not relay.transports_view["used"].any()
    with pytest.raises(InvalidStateError):
        relay.remove_transport(pair.ben.transport)


def test_slots_are_used_again_without_memory_of_the_past(relay):
    for _ in range(200):
        pair = call(relay)
        (received,) = pair.video(1, vp8(5, key=True, tl0=1, tid=0))
        assert ids_of(received) == (5, 1)
        relay.remove_transport(pair.ada.transport)
        relay.remove_transport(pair.ben.transport)
        assert relay.take_events(10_000) != []


def test_a_pending_source_that_goes_away_is_waited_for_no_longer(relay):
    pair = call(relay)
    pair.video(1, vp8(key=True))
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    relay.feed(pair.forward, source)
    relay.remove_source(source)
    assert relay.forwards_view["pending"][pair.forward] == -1
    assert len(pair.video(2, vp8())) == 1


def test_going_back_to_the_source_before_its_successor_came(relay):
    pair = call(relay)
    pair.video(1, vp8(key=True))
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    relay.feed(pair.forward, source)
    relay.feed(pair.forward, pair.source)
    assert other.send(Rtp(0xD0, 1, vp8(key=True))) == []
    assert len(pair.video(2, vp8())) == 1


def test_new_keys_replace_the_old(relay):
    pair = call(relay, Codec.OPUS)
    relay.set_keys(pair.ada.transport, GCM, b"n" * 28, b"o" * 28)
    assert pair.send(Rtp(0xA0, 1, b"x")) == []
    fresh = session(b"n" * 28, GCM, inbound=False)
    sent = relay.process([(pair.ada.address, fresh.protect(bytes(Rtp(0xA0, 2, b"y"))))], 1.0)
    assert [packet.payload for packet in pair.ben.decrypt(sent)] == [b"y"]


def test_misuse_is_refused(relay):
    transport = relay.add_transport()
    for misuse in (
        lambda: relay.add_source(99, 1, Codec.VP8, 96, 90_000),
        lambda: relay.add_source(-1, 1, Codec.VP8, 96, 90_000),
        lambda: relay.allow(transport, ("nowhere", 1, "udp")),
        lambda: relay.allow(transport, ("192.0.2.1", 70_000, "udp")),
        lambda: relay.allow(transport, ("192.0.2.1", 1, "sctp")),
        lambda: relay.set_keys(transport, 9, bytes(28), bytes(28)),
        lambda: relay.set_keys(transport, GCM, bytes(27), bytes(28)),
        lambda: relay.set_extension_ids(transport, {"mid": 15}, {}),
        lambda: relay.set_extension_ids(transport, {}, {"colour": 3}),
        lambda: relay.add_forward(transport, 1, 96, Codec.VP8, mid=bytes(17)),
        lambda: relay.send(("192.0.2.1", 1, "udp"), bytes(1501)),
        lambda: relay.send_rtcp(transport, b"short"),
        lambda: relay.feed(0, None),
    ):
        with pytest.raises(InvalidStateError):
            misuse()
    relay.add_source(transport, 1, Codec.VP8, 96, 90_000, rtx_ssrc=2)
    for ssrc, repeat in ((1, 0), (2, 0), (3, 1), (3, 3)):
        with pytest.raises(InvalidStateError):
            relay.add_source(transport, ssrc, Codec.VP8, 96, 90_000, rtx_ssrc=repeat)
    with pytest.raises(ValueError, match="read-only"):
        relay.sources_view["packets"][0] = 1


def test_a_full_table_says_so():
    relay = Relay(transports=2, sources=1, forwards=1)
    first = relay.add_transport()
    relay.add_transport()
    with pytest.raises(InvalidStateError):
        relay.add_transport()
    relay.remove_transport(first)
    assert relay.add_transport() == first


def test_thousands_of_addresses_come_and_go():
    relay = Relay(transports=512, sources=4, forwards=4)
    addresses = [("2001:db8::1", port, "udp") for port in range(1, 2001)]
    transports = [relay.add_transport() for _ in range(500)]
    for number, address in enumerate(addresses):
        relay.allow(transports[number % 500], address)
    for transport in transports[::2]:
        relay.remove_transport(transport)
    relay.process([(address, CLIENT_HELLO) for address in addresses], 1.0)
    got = {(event[1], event[2]) for event in relay.take_events(10_000)}
    assert got == {(transports[n % 500], address) for n, address in enumerate(addresses) if n % 2}


def test_what_the_relay_sends_passes_replay_protection_only_once(relay):
    pair = call(relay, Codec.OPUS)
    sent = pair.ada.send(Rtp(0xA0, 1, b"x"))
    assert len(pair.ben.decrypt(sent)) == 1
    with pytest.raises(SrtpError):
        pair.ben.decrypt(sent)
