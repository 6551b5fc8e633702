"""The relay in memory: what a packet becomes on its way, lost and repeated ones included."""

import itertools

import pytest

from server.media.fastpath.relay import Codec, DropReason, EventKind, Relay
from tests.relayed import PROFILES, Peer, Rtp, call, dropped, events, ids_of, rtx, vp8


@pytest.fixture
def relay() -> Relay:
    return Relay(transports=64, sources=64, forwards=64)


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
