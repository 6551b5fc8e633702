"""The relay in memory: sources whose SSRC nobody knows before their first packet; how many SSRCs a peer may have."""

import random
import struct

import pytest

from server.errors import InvalidStateError
from server.media.fastpath.relay import Codec, DropReason, EventKind, Relay
from tests.relayed import Call, Peer, Rtp, dropped, events, vp8

MID, RID, RRID = 1, 6, 8


@pytest.fixture
def relay() -> Relay:
    return Relay(transports=16, sources=64, forwards=64)


def expecting(relay: Relay, rid: bytes = b"", codec: Codec = Codec.VP8) -> Call:
    ada, ben = Peer(relay), Peer(relay)
    source = relay.expect_source(ada.transport, b"7", rid, codec, 96, 90_000, rtx_payload_type=97)
    forward = relay.add_forward(ben.transport, 0xB0, 100, codec, rtx_ssrc=0xB1, rtx_payload_type=101)
    relay.feed(forward, source)
    return Call(relay, ada, ben, source, forward)


def bound(relay: Relay) -> list[tuple[int, int]]:
    """Source and SSRC of each binding told."""
    return [(event[1], int.from_bytes(event[3])) for event in events(relay, EventKind.BOUND)]


def packet(ssrc: int, seq: int, payload: bytes = b"", rid: bytes = b"", mid: bytes = b"7", **more: int) -> Rtp:
    names = {MID: mid} | ({RID: rid} if rid else {})
    return Rtp(ssrc, seq, payload or vp8(key=seq == 1), elements=names, **more)


def test_the_first_packet_binds_and_is_carried(relay):
    pair = expecting(relay)
    assert relay.sources_view["ssrc"][pair.source] == 0
    assert len(pair.send(packet(0xA0, 1))) == 1
    assert bound(relay) == [(pair.source, 0xA0)]
    # From now on the SSRC alone says whose it is.
    assert len(pair.send(Rtp(0xA0, 2, vp8()))) == 1
    row = relay.sources_view[pair.source]
    assert (row["ssrc"], row["packets"], row["lost"]) == (0xA0, 2, 0)
    assert bound(relay) == [] and dropped(relay) == {}


@pytest.mark.parametrize(
    "other",
    [
        packet(0xA0, 1, mid=b"8"),
        packet(0xA0, 1, mid=b"77"),
        packet(0xA0, 1, rid=b"q"),
        packet(0xA0, 1, payload_type=98),
        Rtp(0xA0, 1, vp8(key=True)),
        Rtp(0xA0, 1, vp8(key=True), elements={RID: b"q"}),
    ],
)
def test_what_has_another_name_is_asked_about(relay, other):
    pair = expecting(relay)
    assert pair.send(other) == []
    assert [event[:2] for event in relay.take_events()] == [(EventKind.UNKNOWN_SSRC, pair.ada.transport)]


def test_nobody_binds_in_anothers_transport(relay):
    pair = expecting(relay)
    mallory = Peer(relay)
    assert mallory.send(packet(0xA0, 1)) == []
    assert bound(relay) == []
    assert len(pair.send(packet(0xA0, 1))) == 1


def test_layers_are_told_apart_by_rid(relay):
    ada = Peer(relay)
    sources = {
        rid: relay.expect_source(ada.transport, b"7", rid, Codec.VP8, 96, 90_000, rtx_payload_type=97)
        for rid in (b"q", b"h", b"f")
    }
    ada.send(*(packet(0xA0 + number, 1, rid=rid) for number, rid in enumerate((b"f", b"q", b"h"))))
    assert bound(relay) == [(sources[b"f"], 0xA0), (sources[b"q"], 0xA1), (sources[b"h"], 0xA2)]


def test_rtx_is_bound_by_its_own_packets(relay):
    pair = expecting(relay, b"h")
    pair.send(packet(0xA0, 1, rid=b"h"), Rtp(0xA0, 3, vp8()))
    names = {MID: b"7", RRID: b"h"}
    (repaired,) = pair.send(Rtp(0xA9, 50, b"\x00\x02" + vp8(), payload_type=97, elements=names))
    assert repaired.payload == vp8()
    assert relay.sources_view["recovered"][pair.source] == 1
    stranger = Rtp(0xAA, 50, b"\x00\x02" + vp8(), payload_type=97, elements={MID: b"7", RRID: b"q"})
    assert pair.send(stranger) == []
    assert [event[0] for event in events(relay)][-1] == EventKind.UNKNOWN_SSRC


def test_another_ssrc_binds_anew_and_continues_the_stream(relay):
    pair = expecting(relay)
    received = pair.send(packet(0xA0, 1, vp8(7, key=True, tl0=1), timestamp=10), packet(0xA0, 2, vp8(8, tl0=2)), now=1)
    events(relay)
    assert pair.send(packet(0xC0, 9000, vp8(60, tl0=9)), now=1.9) == [], "not a keyframe"
    assert [event[0] for event in relay.take_events()] == [EventKind.BOUND, EventKind.KEYFRAME_WANTED]
    row = relay.sources_view[pair.source]
    assert (row["ssrc"], row["packets"], row["base_ext_seq"]) == (0xC0, 1, 0x10000 + 9000)
    received += pair.send(packet(0xC0, 9001, vp8(61, key=True, tl0=10)), now=2)
    assert [(packet.seq - received[0].seq) % 65536 for packet in received] == [0, 1, 2]
    assert received[2].payload == vp8(9, key=True, tl0=3)


def test_what_comes_late_of_the_old_ssrc_is_not_taken_back(relay):
    pair = expecting(relay)
    pair.send(packet(0xA0, 1), packet(0xC0, 1))
    events(relay)
    assert pair.send(packet(0xA0, 2), packet(0xA0, 1000)) == []
    assert relay.take_events() == []
    assert dropped(relay) == {DropReason.UNKNOWN_SSRC: 2}
    assert relay.sources_view["ssrc"][pair.source] == 0xC0


def test_the_old_rtx_stream_goes_with_the_old_ssrc(relay):
    pair = expecting(relay)
    old, new = (Rtp(ssrc, 1, b"\x00\x02" + vp8(), payload_type=97, elements={MID: b"7"}) for ssrc in (0xA9, 0xC9))
    pair.send(packet(0xA0, 1), old)
    pair.send(packet(0xC0, 1, vp8(key=True)), Rtp(0xC0, 3, vp8()))
    assert pair.send(Rtp(0xA9, 2, b"\x00\x02" + vp8(), payload_type=97)) == []
    assert len(pair.send(new)) == 1


def test_rtx_that_runs_ahead_of_its_new_stream_stays_bound(relay):
    pair = expecting(relay)
    padding = {"payload_type": 97, "elements": {MID: b"7"}, "padding": 100}
    pair.send(packet(0xA0, 1), Rtp(0xA9, 1, b"", **padding), Rtp(0xC9, 1, b"", **padding))
    pair.send(packet(0xC0, 1, vp8(key=True)), Rtp(0xC0, 3, vp8()))
    assert len(pair.send(Rtp(0xC9, 2, b"\x00\x02" + vp8(), payload_type=97))) == 1


def test_sound_goes_on_at_once_when_bound_anew(relay):
    pair = expecting(relay, codec=Codec.OPUS)
    received = pair.send(packet(0xA0, 5, b"a"), packet(0xC0, 900, b"b"))
    assert (received[1].seq - received[0].seq) % 65536 == 1


def test_a_switch_under_way_goes_on_when_the_old_source_begins_anew(relay):
    pair = expecting(relay)
    pair.send(packet(0xA0, 1))
    other = Peer(relay)
    source = relay.add_source(other.transport, 0xD0, Codec.VP8, 96, 90_000)
    relay.feed(pair.forward, source)
    assert pair.send(packet(0xC0, 1, vp8(key=True))) == []
    assert relay.forwards_view["pending"][pair.forward] == source
    assert len(pair.ben.decrypt(other.send(Rtp(0xD0, 1, vp8(key=True))))) == 1


def test_what_was_sent_before_cannot_be_repeated_from_the_new_stream(relay):
    pair = expecting(relay)
    (before,) = pair.send(packet(0xA0, 1))
    pair.send(packet(0xC0, 1, vp8(key=True)))
    assert relay.retransmit(pair.forward, [before.seq]) == 0


def test_a_peer_that_begins_anew_without_end_is_stopped(relay):
    pair = expecting(relay)
    told = []
    for number in range(500):
        pair.send(packet(0x5000 + number, 1))
        told += bound(relay)
    assert len(told) == 65, "one, and 64 left behind"
    assert dropped(relay) == {DropReason.UNKNOWN_SSRC: 435}


def test_only_the_latest_ssrc_is_told(relay):
    pair = expecting(relay)
    pair.send(packet(0xA0, 1), packet(0xC0, 1))
    assert bound(relay) == [(pair.source, 0xC0)]


def test_an_unknown_ssrc_that_a_source_has_found_is_not_asked_about(relay):
    pair = expecting(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)), packet(0xA0, 2))
    assert [event[0] for event in relay.take_events()] == [EventKind.BOUND, EventKind.KEYFRAME_WANTED]
    assert dropped(relay) == {DropReason.OUTDATED: 1}


def test_a_source_named_by_guess_is_won_back_by_its_mid(relay):
    ada, ben = Peer(relay), Peer(relay)
    source = relay.expect_source(ada.transport, b"7", b"", Codec.OPUS, 111, 48_000, ssrc=0xE0)
    forward = relay.add_forward(ben.transport, 0xB0, 109, Codec.OPUS)
    relay.feed(forward, source)
    pair = Call(relay, ada, ben, source, forward)
    assert len(pair.send(Rtp(0xE0, 1, b"stranger", payload_type=111))) == 1
    assert bound(relay) == []
    assert [sound.payload for sound in pair.send(packet(0xA0, 1, b"sound", payload_type=111))] == [b"sound"]
    assert bound(relay) == [(source, 0xA0)]
    assert pair.send(Rtp(0xE0, 2, b"stranger", payload_type=111)) == []
    with pytest.raises(InvalidStateError):
        relay.expect_source(ada.transport, b"8", b"", Codec.OPUS, 111, 48_000, ssrc=0xA0)


# --- How many ---------------------------------------------------------------------------------------------------------


def decrypted(peer: Peer) -> int:
    return int(peer.relay.transports_view["received_packets"][peer.transport])


def report(ssrc: int) -> bytes:
    return struct.pack("!BBHI", 0x80, 201, 1, ssrc)


def test_who_only_reports_is_one_of_64(relay):
    pair = expecting(relay)
    for ssrc in (*range(0x5000, 0x5100), *range(0x5000, 0x5100)):
        relay.process([(pair.ada.address, pair.ada.protect_rtcp(report(ssrc)))], 1.0)
    assert decrypted(pair.ada) == 2 * 64
    assert dropped(relay)[DropReason.UNKNOWN_SSRC] == 2 * (256 - 64)
    # Whoever sends media has a place of their own.
    assert len(pair.send(packet(0xA0, 1))) == 1
    relay.process([(pair.ada.address, pair.ada.protect_rtcp(report(0xA0)))], 1.0)
    assert decrypted(pair.ada) == 2 * 64 + 2


def test_the_ssrcs_of_sources_that_were_removed_count(relay):
    ada = Peer(relay)
    for ssrc in range(0x5000, 0x5000 + 64, 2):
        relay.remove_source(relay.add_source(ada.transport, ssrc, Codec.VP8, 96, 90_000, ssrc + 1, 97))
    with pytest.raises(InvalidStateError):
        relay.add_source(ada.transport, 0x6000, Codec.VP8, 96, 90_000)
    ada.send(Rtp(0x6000, 1, vp8()))
    assert decrypted(ada) == 0
    with pytest.raises(InvalidStateError):
        relay.add_source(ada.transport, 0x5000, Codec.VP8, 96, 90_000, 0x6000, 97)
    relay.add_source(ada.transport, 0x5000, Codec.VP8, 96, 90_000, 0x5001, 97)
    ada.send(Rtp(0x5000, 1, vp8(key=True)))
    assert decrypted(ada) == 1, "one that was there before may come back"


def test_a_source_that_was_removed_may_come_back_under_its_mid(relay):
    pair = expecting(relay)
    pair.send(packet(0xA0, 1))
    relay.remove_source(pair.source)
    relay.take_events()
    again = relay.expect_source(pair.ada.transport, b"7", b"", Codec.VP8, 96, 90_000)
    pair.send(packet(0xA0, 2))
    assert bound(relay) == [(again, 0xA0)]


def test_packets_with_bad_padding_count(relay):
    ada = Peer(relay)
    for ssrc in range(0x5000, 0x5100):
        head = struct.pack("!BBHII", 0xA0, 96, 1, 0, ssrc)
        relay.process([(ada.address, ada._protect.protect(head + b"\x10\xff"))], 1.0)
    assert decrypted(ada) == 64
    assert dropped(relay) == {DropReason.RTP_BAD_PADDING: 64, DropReason.UNKNOWN_SSRC: 256 - 64}


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_coming_and_going_makes_a_peer_have_ssrcs_without_end(relay, seed):
    ada, rng = Peer(relay), random.Random(seed)
    live: list[int] = []
    seen: set[int] = set()
    for seq in range(4000):
        ssrc = rng.choice([rng.randrange(0x5000, 0x5080), 0x6000 + seq])
        before = decrypted(ada)
        match rng.randrange(6):
            case 0 if len(live) < 4:
                try:
                    live.append(relay.add_source(ada.transport, ssrc, Codec.OPUS, 111, 48_000))
                except InvalidStateError:
                    continue
            case 1 if len(live) < 4:
                live.append(relay.expect_source(ada.transport, b"7", b"", Codec.VP8, 96, 90_000))
            case 2 if live:
                relay.remove_source(live.pop(rng.randrange(len(live))))
            case 3:
                relay.process([(ada.address, ada.protect_rtcp(report(ssrc)))], seq / 10)
            case _:
                ada.send(rng.choice([packet(ssrc, seq), Rtp(ssrc, seq, b"x", payload_type=111)]), now=seq / 10)
        if decrypted(ada) > before:
            seen.add(ssrc)
        relay.take_events()
    assert 64 < len(seen) <= 64 + 64 + 4


def test_a_source_that_was_removed_binds_no_longer(relay):
    pair = expecting(relay)
    others = [relay.expect_source(pair.ada.transport, b"%d" % n, b"", Codec.VP8, 96, 90_000) for n in range(20, 25)]
    for gone in (others[2], others[4], pair.source, others[0]):
        relay.remove_source(gone)
    pair.ada.send(*(packet(0x100 + n, 1, mid=b"%d" % n) for n in (7, 20, 21, 22, 23, 24)))
    assert bound(relay) == [(others[1], 0x100 + 21), (others[3], 0x100 + 23)]


@pytest.mark.parametrize(("mid", "rid"), [(b"", b""), (b"m" * 17, b""), (b"m", b"r" * 17)])
def test_names_have_a_length(relay, mid, rid):
    transport = relay.add_transport()
    with pytest.raises(InvalidStateError):
        relay.expect_source(transport, mid, rid, Codec.VP8, 96, 90_000)
