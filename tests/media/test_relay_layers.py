"""The relay in memory: temporal layers of VP9 and of streams with a dependency descriptor, and redundant sound."""

import itertools
import struct
from dataclasses import dataclass

import pytest

from server.errors import InvalidStateError
from server.media.fastpath.relay import Codec, DropReason, Relay
from server.media.rtp.red import RedBlock, parse_red, serialize_red
from tests.relayed import Call, Peer, Rtp, call, dropped

DESCRIPTOR_IN, DESCRIPTOR_OUT = 5, 12


@pytest.fixture
def relay() -> Relay:
    return Relay(transports=16, sources=16, forwards=16)


# --- VP9 --------------------------------------------------------------------------------------------------------------


def vp9(picture: int, tid: int, *, key: bool = False, up: bool = False, tl0: int = 0, start: bool = True) -> bytes:
    """A VP9 payload (RFC 9628) of a stream without spatial layers, not in flexible mode."""
    first = 0x80 | 0x40 * (not key) | 0x20 | 0x08 * start
    return bytes([first]) + struct.pack("!H", 0x8000 | picture) + bytes([tid << 5 | 0x10 * up, tl0]) + b"rest"


def test_layers_of_vp9_are_left_out_and_picture_ids_keep_their_distance(relay):
    pair = call(relay, Codec.VP9)
    relay.feed(pair.forward, pair.source, max_temporal=1)
    payloads = [vp9(0x7FFE, 0, key=True, tl0=255)]
    payloads += [vp9(0x7FFF + n & 0x7FFF, tid, tl0=n // 4) for n, tid in enumerate([2, 1, 2, 0, 2, 1, 2, 0])]
    received = [packet for n, payload in enumerate(payloads) for packet in pair.video(65_530 + n, payload)]
    assert [packet.payload for packet in received] == [payloads[n] for n in (0, 2, 4, 6, 8)]
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == list(range(5))
    assert relay.forwards_view["dropped_temporal"][pair.forward] == 4


def test_vp9_goes_up_behind_a_picture_that_it_carries_and_that_allows_it(relay):
    pair = call(relay, Codec.VP9)
    relay.feed(pair.forward, pair.source, max_temporal=0)
    pair.video(1, vp9(1, 0, key=True))
    relay.feed(pair.forward, pair.source, max_temporal=2)
    carried = [
        bool(pair.video(2 + n, vp9(2 + n, tid, up=up)))
        for n, (tid, up) in enumerate(
            [(2, False), (1, True), (2, True), (0, False), (1, True), (0, True), (2, False), (1, False)]
        )
    ]
    # Only the base layer's own "switch up" helps who carries nothing else.
    assert carried == [False, False, False, True, False, True, True, True]


def test_vp9_goes_down_at_a_picture_and_not_within(relay):
    pair = call(relay, Codec.VP9)
    pair.video(1, vp9(1, 0, key=True))
    assert len(pair.video(2, vp9(2, 1))) == 1
    relay.feed(pair.forward, pair.source, max_temporal=0)
    assert len(pair.video(3, vp9(2, 1, start=False))) == 1
    assert pair.video(4, vp9(3, 1)) == []
    assert len(pair.video(5, vp9(4, 0))) == 1


def test_numbers_of_vp9_continue_across_a_switch(relay):
    pair = call(relay, Codec.VP9)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP9, 96, 90_000)
    pair.video(1, vp9(9, 0, key=True, tl0=4))
    relay.feed(pair.forward, source, max_temporal=0)
    sent = [Rtp(0xD0, n, vp9(500 + n, n % 2, key=n == 0, tl0=90 + n)) for n in range(5)]
    received = pair.ben.decrypt(other.send(*sent))
    assert [packet.payload for packet in received] == [vp9(10 + n, 0, key=n == 0, tl0=5 + n) for n in (0, 2, 4)], (
        "the second stream's distances, from the first one's numbers on"
    )


# --- Dependency descriptors -------------------------------------------------------------------------------------------


def bits(*fields: tuple[int, int]) -> bytes:
    """Values and their widths, padded with zeros."""
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    return int(text.ljust(-len(text) // 8 * -8, "0"), 2).to_bytes((len(text) + 7) // 8)


DTI = {"-": 0, "D": 1, "S": 2, "R": 3}
L1T3 = [(0, "SSS"), (0, "SSS"), (1, "-DS"), (2, "--D")]
"""Templates: temporal layer, and what a frame is to the decode targets of 7.5, 15 and 30 pictures a second."""


@dataclass
class Structure:
    """A template dependency structure, as far as its DTIs; what follows is not read."""

    offset: int
    templates: list[tuple[int, str]]

    def fields(self) -> list[tuple[int, int]]:
        layers = [layer for layer, _ in self.templates]
        following = [int(b > a) for a, b in itertools.pairwise(layers)] + [3]
        targets = [(DTI[mark], 2) for _, marks in self.templates for mark in marks]
        return [(self.offset, 6), (len(self.templates[0][1]) - 1, 5), *((step, 2) for step in following), *targets]


def descriptor(
    template: int, frame: int, *, start: bool = True, structure: Structure | None = None, custom: str = ""
) -> bytes:
    fields = [(start, 1), (1, 1), (template, 6), (frame & 0xFFFF, 16)]
    if structure or custom:
        fields += [(structure is not None, 1), (0, 1), (bool(custom), 1), (0, 2)]
    if structure:
        fields += structure.fields()
    fields += [(DTI[mark], 2) for mark in custom]
    return bits(*fields)


def av1(pair: Call, seq: int, element: bytes, key: bool = False) -> list[Rtp]:
    return pair.send(Rtp(0xA0, seq, bytes([0x08 * key]) + b"obu", elements={DESCRIPTOR_IN: element}))


OFFSET = 62
KEY = descriptor(OFFSET, 100, structure=Structure(OFFSET, L1T3))


def template(number: int) -> int:
    return (OFFSET + number) % 64


@pytest.mark.parametrize(("highest", "kept"), [(0, [0, 4]), (1, [0, 2, 4]), (2, [0, 1, 2, 3, 4])])
def test_layers_of_a_dependency_descriptor_are_left_out(relay, highest, kept):
    pair = call(relay, Codec.AV1)
    relay.feed(pair.forward, pair.source, max_temporal=highest)
    frames = [KEY] + [descriptor(template(n), 101 + i) for i, n in enumerate([3, 2, 3, 1])]
    received = [packet for i, element in enumerate(frames) for packet in av1(pair, i, element, key=i == 0)]
    assert [packet.elements[DESCRIPTOR_OUT] for packet in received] == [frames[n] for n in kept]
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == list(range(len(kept)))


def test_a_layer_comes_back_where_the_descriptor_says_so(relay):
    pair = call(relay, Codec.AV1)
    relay.feed(pair.forward, pair.source, max_temporal=0)
    av1(pair, 1, KEY, key=True)
    relay.feed(pair.forward, pair.source, max_temporal=2)
    marks = [(2, ""), (3, ""), (1, "RRR"), (3, ""), (1, ""), (3, ""), (2, "")]
    carried = [
        bool(av1(pair, 2 + i, descriptor(template(n), 101 + i, custom=custom))) for i, (n, custom) in enumerate(marks)
    ]
    assert carried == [False, False, True, False, True, True, True]


def test_layers_go_down_at_a_frame_and_not_within(relay):
    pair = call(relay, Codec.AV1)
    av1(pair, 1, KEY, key=True)
    assert len(av1(pair, 2, descriptor(template(3), 101))) == 1
    relay.feed(pair.forward, pair.source, max_temporal=0)
    assert len(av1(pair, 3, descriptor(template(3), 101, start=False))) == 1
    assert av1(pair, 4, descriptor(template(3), 102)) == []


def test_frame_numbers_continue_across_a_switch_and_keep_their_distance(relay):
    pair = call(relay, Codec.AV1)
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.AV1, 96, 90_000)
    av1(pair, 1, KEY, key=True)
    relay.feed(pair.forward, source, max_temporal=0)
    structure = Structure(5, L1T3)
    elements = [descriptor(5, 65_534, structure=structure), descriptor(5 + 2, 65_535), descriptor(5 + 1, 65_536)]
    packets = [
        Rtp(0xD0, n, bytes([0x08 * (n == 0)]) + b"obu", elements={DESCRIPTOR_IN: element})
        for n, element in enumerate(elements)
    ]
    received = pair.ben.decrypt(other.send(*packets))
    expected = [descriptor(5, 101, structure=structure), descriptor(5 + 1, 103)]
    assert [packet.elements[DESCRIPTOR_OUT] for packet in received] == expected


@pytest.mark.parametrize(
    "element",
    [
        b"\xc0",
        b"\xc0\x00",
        descriptor(3, 1),
        bits((1, 1), (1, 1), (OFFSET, 6), (100, 16), (0x10, 5), (OFFSET, 6), (31, 5), (0, 2), (3, 2)),
        bits((1, 1), (1, 1), (OFFSET, 6), (100, 16), (0x10, 5), (OFFSET, 6), (0, 5), *[(0, 2)] * 40),
        bits(
            (1, 1), (1, 1), (OFFSET, 6), (100, 16), (0x10, 5), (OFFSET, 6), (0, 5), *[(1, 2)] * 9, (3, 2), *[(2, 2)] * 9
        ),
    ],
    ids=["1 byte", "2 bytes", "no structure", "cut short", "no last template", "nine layers"],
)
def test_a_descriptor_that_cannot_be_read_leaves_nothing_out(relay, element):
    pair = call(relay, Codec.AV1)
    relay.feed(pair.forward, pair.source, max_temporal=0)
    assert len(av1(pair, 1, element, key=True)) == 1
    assert len(av1(pair, 2, descriptor(template(3), 101))) == 1


# --- RED --------------------------------------------------------------------------------------------------------------


OPUS, RED, FRAME = 111, 63, 960


def sound(relay: Relay, red: int = 0) -> Call:
    """One who may wrap, and one who takes RED under `red`, with blocks of 109; 0: plain Opus only."""
    ada, ben = Peer(relay), Peer(relay)
    source = relay.add_source(ada.transport, 0xA0, Codec.OPUS, OPUS, 48_000, red_payload_type=RED)
    forward = relay.add_forward(ben.transport, 0xB0, 109, Codec.OPUS, mid=b"a", red_payload_type=red)
    relay.feed(forward, source)
    return Call(relay, ada, ben, source, forward)


def wrapped(number: int, redundancy: int = 2, payload_type: int = RED) -> Rtp:
    """Frame `number` with those before it."""
    blocks = [
        RedBlock(OPUS, b"frame %d" % (number - back), back * FRAME)
        for back in range(redundancy, -1, -1)
        if number >= back
    ]
    return Rtp(0xA0, 65_530 + number, serialize_red(blocks), number * FRAME, payload_type)


def heard(packets: list[Rtp], first: Rtp) -> dict[int, tuple[bytes, int]]:
    """Payload and timestamp, by how far behind the first packet."""
    return {(packet.seq - first.seq) % 65536: (packet.payload, packet.timestamp) for packet in packets}


def test_red_goes_as_it_is_to_who_takes_it_with_their_payload_types(relay):
    pair = sound(relay, red=64)
    received = pair.send(*map(wrapped, range(4)))
    assert {packet.payload_type for packet in received} == {64}
    for packet, original in zip(received, map(wrapped, range(4)), strict=True):
        blocks = parse_red(packet.payload)
        assert {block.payload_type for block in blocks} == {109}
        assert [block.data for block in blocks] == [block.data for block in parse_red(original.payload)]


def test_red_is_unwrapped_for_who_does_not(relay):
    pair = sound(relay)
    received = pair.send(*map(wrapped, range(4)))
    assert {packet.payload_type for packet in received} == {109}
    assert heard(received, received[0]) == {n: (b"frame %d" % n, n * FRAME) for n in range(4)}


@pytest.mark.parametrize("red", [0, 64])
def test_what_comes_plain_leaves_plain(relay, red):
    pair = sound(relay, red)
    (received,) = pair.send(Rtp(0xA0, 1, b"plain", payload_type=OPUS))
    assert (received.payload_type, received.payload) == (109, b"plain")


@pytest.mark.parametrize("lost", [{3}, {3, 4}, {1, 4, 5, 8}, {6}])
def test_lost_frames_are_taken_from_redundancy(relay, lost):
    pair = sound(relay)
    received = pair.send(*(wrapped(n) for n in range(10) if n not in lost))
    assert heard(received, received[0]) == {n: (b"frame %d" % n, n * FRAME) for n in range(10)}
    numbers = [packet.seq for packet in received]
    assert numbers == [(numbers[0] + n) % 65536 for n in range(10)], "in order, each once"
    row = relay.sources_view[pair.source]
    assert (row["recovered"], row["lost"]) == (len(lost), len(lost))


def test_a_repair_is_forgotten_in_time(relay):
    pair = sound(relay)
    assert len(pair.send(*(wrapped(n) for n in range(300) if n not in (3, 70, 71)))) == 300


def test_bytes_are_counted_as_they_are_sent(relay):
    pair = sound(relay)
    pair.send(*map(wrapped, range(4)))
    assert relay.forwards_view["bytes"][pair.forward] == 4 * len(b"frame 0")


def test_more_than_the_redundancy_holds_stays_lost(relay):
    pair = sound(relay)
    received = pair.send(wrapped(0), wrapped(4))
    assert sorted(heard(received, received[0])) == [0, 2, 3, 4]


def test_nothing_is_taken_from_before_the_stream_began(relay):
    pair = sound(relay)
    assert len(pair.send(wrapped(5), wrapped(6))) == 2


def test_what_comes_late_after_its_repair_is_carried_to_who_has_it_not(relay):
    pair = sound(relay)
    other = Peer(relay)
    relay.feed(relay.add_forward(other.transport, 0xC0, 109, Codec.OPUS, red_payload_type=64), pair.source)
    sent = pair.ada.send(wrapped(0), wrapped(2), wrapped(1), wrapped(3))
    plain, redundant = pair.ben.decrypt(sent), other.decrypt(sent)
    assert [packet.payload for packet in plain] == [b"frame 0", b"frame 1", b"frame 2", b"frame 3"]
    assert [(packet.seq - redundant[0].seq) % 65536 for packet in redundant] == [0, 2, 1, 3]
    assert dropped(relay) == {}


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80",
        bytes([0x80 | OPUS, 0, 0]),
        bytes([0x80 | OPUS, 0, 0, 1]),
        bytes([0x80 | OPUS, 0, 0, 9, OPUS]) + b"short",
        bytes([OPUS + 1]) + b"another",
        bytes([0x80 | (OPUS + 1), 0, 0, 1, OPUS]) + b"ab",
        bytes([0x80 | OPUS, 0, 0, 0]) * 9 + bytes([OPUS]) + b"too many",
    ],
)
def test_red_that_does_not_fit_is_dropped(relay, payload):
    pair = sound(relay)
    assert pair.send(Rtp(0xA0, 1, payload, payload_type=RED)) == []
    assert dropped(relay) == {DropReason.RED_BAD: 1}


def test_red_that_was_not_negotiated_is_dropped(relay):
    pair = call(relay, Codec.OPUS)
    assert pair.send(Rtp(0xA0, 1, wrapped(0).payload, payload_type=RED)) == []
    assert dropped(relay) == {DropReason.UNEXPECTED_PAYLOAD_TYPE: 1}


def test_red_is_for_sound(relay):
    transport = relay.add_transport()
    with pytest.raises(InvalidStateError):
        relay.add_source(transport, 1, Codec.VP8, 96, 90_000, red_payload_type=63)
