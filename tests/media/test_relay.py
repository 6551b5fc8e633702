"""The relay in memory: who gets in, what goes up, and what is known of it all."""

import pytest
from pylibsrtp import Error as SrtpError

from server.errors import InvalidStateError
from server.media.fastpath.relay import Codec, DropReason, EventKind, Relay
from tests.relayed import (
    BINDING_REQUEST,
    CLIENT_HELLO,
    GCM,
    PROFILES,
    Peer,
    Rtp,
    call,
    dropped,
    drops,
    events,
    ids_of,
    session,
    vp8,
)


@pytest.fixture
def relay() -> Relay:
    return Relay(transports=64, sources=64, forwards=64)


# --- Who gets in ------------------------------------------------------------------------------------------------------


def test_nothing_but_stun_from_an_address_that_is_not_allowed(relay):
    pair = call(relay)
    stranger = ("203.0.113.9", 5, "udp")
    media, rtcp = pair.ada.protect(Rtp(0xA0, 1, vp8(key=True))), pair.ada.protect_rtcp(b"\x81\xcb\x00\x01" + bytes(4))
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
    goodbye = pair.ada.protect_rtcp(b"\x81\xcb\x00\x01" + bytes(4))
    relay.process([(pair.ada.address, goodbye)] * 2, 1.0)
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


def test_a_thousand_bad_packets_end_no_call(relay):
    pair = call(relay)
    good = [pair.ada.protect(Rtp(0xA0, seq, vp8(key=seq == 0, body=b"%d" % seq))) for seq in range(101)]
    goodbye = pair.ada.protect_rtcp(b"\x81\xcb\x00\x01" + bytes(4))
    received, bad = [], 0
    for seq in range(100):
        forged = bytearray(good[seq + 1])
        forged[-1 - seq % 16] ^= 0x40
        truncated = good[seq + 1][: 13 + seq % 10]
        junk = bytes([0x80, 96]) + bytes((seq * n) % 256 for n in range(40))
        attack = [good[seq], good[0], bytes(forged), truncated, junk, junk, goodbye, goodbye, bytes(forged), truncated]
        bad += len(attack)
        received += pair.ben.decrypt(relay.process([(pair.ada.address, data) for data in (good[seq], *attack)], 1.0))
    assert bad == 1000
    assert [packet.payload for packet in received] == [vp8(key=seq == 0, body=b"%d" % seq) for seq in range(100)]
    assert len(events(relay, EventKind.RTCP)) == 1
    counts = dropped(relay)
    assert set(counts) == {DropReason.SRTP_REPLAYED, DropReason.SRTP_AUTH_FAILED, DropReason.SRTP_FAILED}
    assert (sum(counts.values()), counts[DropReason.SRTP_REPLAYED]) == (999, 399)


def test_captured_packets_are_refused_for_as_long_as_the_call_lasts(relay):
    pair = call(relay, Codec.OPUS)
    captured = [pair.ada.protect(Rtp(0xA0, seq, b"x")) for seq in range(3000)]
    assert len(relay.process([(pair.ada.address, data) for data in captured], 1.0)) == 3000
    assert relay.process([(pair.ada.address, data) for data in captured], 2.0) == []
    assert dropped(relay) == {DropReason.SRTP_REPLAYED: 3000}


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
    goodbye = b"\x81\xcb\x00\x01" + b"ssrc"
    assert relay.process([(peer.address, peer.protect_rtcp(goodbye))], 1.0) == []
    assert relay.take_events() == [(EventKind.RTCP, peer.transport, peer.address, goodbye, 1.0)]
    relay.send_rtcp(peer.transport, goodbye)
    sent = relay.process([], 1.0)
    assert peer.decrypt_rtcp(sent) == [goodbye]
    assert goodbye[4:] in sent[0][1] and sent[0][1] != goodbye


def test_packets_of_a_picture_are_padded_to_one_size(relay):
    """They differ by a byte or two, and leave in one message if they do not; RFC 3550 section 5.1."""
    pair = call(relay)
    pictures = [vp8(key=True, body=bytes(size)) for size in (1080, 1081, 1083, 1085, 610)]
    sent = pair.ada.send(*(Rtp(0xA0, seq, payload) for seq, payload in enumerate(pictures)))
    assert [len(data) % 16 for _, data in sent] == [0] * 5, "with a tag of 16 bytes"
    assert len({len(data) for _, data in sent[:4]}) == 1 and len(sent[4][1]) < 700
    received = pair.ben.decrypt(sent)
    assert [packet.payload for packet in received] == pictures
    assert 0 < max(packet.padding for packet in received) < 16
    assert relay.forwards_view["bytes"][pair.forward] == sum(map(len, pictures)), "padding is not counted"
    assert relay.retransmit(pair.forward, [packet.seq for packet in received[:4]]) == 4
    repeats = pair.ben.decrypt(relay.process([], 1.0))
    assert [(packet.payload[2:], packet.padding) for packet in repeats] == [(each, 0) for each in pictures[:4]]


@pytest.mark.parametrize("what", ["sound", "small", "tcp"])
def test_what_gains_nothing_is_not_padded(relay, what):
    pair = call(relay, Codec.OPUS if what == "sound" else Codec.VP8)
    if what == "tcp":
        pair.ben.address = (pair.ben.address[0], 1, "tcp")
        relay.allow(pair.ben.transport, pair.ben.address)
        relay.nominate(pair.ben.transport, pair.ben.address)
    sizes = range(300, 316) if what == "small" else range(1000, 1016)
    received = pair.send(*(Rtp(0xA0, seq, vp8(key=True, body=bytes(size))) for seq, size in enumerate(sizes)))
    assert [packet.padding for packet in received] == [0] * 16


def test_an_address_that_is_allowed_again_stays_nominated(relay):
    """As with every check; no packet may be lost for it."""
    pair = call(relay)
    relay.allow(pair.ben.transport, pair.ben.address)
    assert len(pair.video(1, vp8(key=True))) == 1


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
    assert len(events(relay)) == 64
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
    relay.process([(peer.address, peer.protect_rtcp(b"\x81\xcb\x00\x01" + bytes(4)))], 1.1)
    got = relay.take_events()
    assert [event[0] for event in got] == [EventKind.STUN] * 512 + [EventKind.RTCP]
    assert dropped(relay) == {DropReason.STRANGER_QUEUE_FULL: 6000 - 512}
    relay.process(flood[:1], 1.2)
    assert len(relay.take_events()) == 1


def test_one_transport_cannot_keep_others_out_of_the_queue(relay):
    loud, quiet = Peer(relay), Peer(relay)
    for number in range(1000):
        relay.process([(loud.address, CLIENT_HELLO)], 1 + number / 100)
    relay.process([(quiet.address, CLIENT_HELLO)], 11.0)
    owners = [event[1] for event in relay.take_events()]
    assert owners.count(loud.transport) == 256 and owners.count(quiet.transport) == 1
    relay.process([(loud.address, CLIENT_HELLO)], 11.0)
    assert len(relay.take_events()) == 1


@pytest.mark.parametrize(("kind", "rate"), [("stun", 100), ("dtls", 100), ("rtcp", 200)])
def test_one_transport_passes_up_so_many_a_second(relay, kind, rate):
    loud, quiet = Peer(relay), Peer(relay)

    def datagram(peer: Peer) -> bytes:
        made = {"stun": BINDING_REQUEST, "dtls": CLIENT_HELLO}
        return made.get(kind) or peer.protect_rtcp(b"\x81\xcb\x00\x01" + bytes(4))

    passed = []
    for number in range(5000):  # 500 a second
        relay.process([(loud.address, datagram(loud))], 1 + number / 500)
        passed += relay.take_events()
    assert rate * 11 <= len(passed) <= rate * 11 + 2, "the rate, and a burst of a second"
    assert dropped(relay) == {DropReason.OVER_RATE: 5000 - len(passed)}
    relay.process([(quiet.address, datagram(quiet))], 11.0)
    assert len(relay.take_events()) == 1
    # What was too much is forgotten after a second.
    relay.process([(loud.address, datagram(loud))] * (rate if kind != "rtcp" else 1), 13.0)
    assert len(relay.take_events()) == (rate if kind != "rtcp" else 1)


def test_what_is_told_once_has_room_that_datagrams_cannot_take(relay):
    loud = [Peer(relay) for _ in range(40)]
    pair = call(relay)
    for peer in loud:
        relay.process([(peer.address, CLIENT_HELLO)] * 100, 1.0)
    assert drops(relay, DropReason.QUEUE_FULL) > 0
    assert len(pair.video(1, vp8(key=True))) == 1
    told = relay.take_events()
    assert len(told) == 3072 + 1 and told[-1][:2] == (EventKind.SWITCHED, pair.forward)


# --- What is no longer true -------------------------------------------------------------------------------------------


def test_nothing_of_a_removed_transport_is_delivered(relay):
    pair = call(relay)
    expected = relay.expect_source(pair.ada.transport, b"7", b"", Codec.OPUS, 111, 48_000)
    pair.video(1, vp8())
    pair.video(2, vp8(key=True))
    pair.ada.send(Rtp(0xE0, 1, b"x"), Rtp(0xE1, 1, b"x", payload_type=111, elements={1: b"7"}))
    rtcp = pair.ada.protect_rtcp(b"\x81\xcb\x00\x01" + bytes(4))
    relay.process([(pair.ada.address, data) for data in (BINDING_REQUEST, CLIENT_HELLO, rtcp)], 1.0)
    slots = pair.ada.transport, pair.source, pair.forward, expected
    relay.remove_transport(pair.ada.transport)
    relay.remove_forward(pair.forward)
    # Somebody else has the slots before the events are looked at.
    again = call(relay)
    relay.expect_source(again.ada.transport, b"7", b"", Codec.OPUS, 111, 48_000)
    assert {again.ada.transport, again.source, again.forward} <= {*slots}
    assert relay.take_events() == []
    assert dropped(relay)[DropReason.OUTDATED] == 4
    # Nor does it take of the newcomer's share.
    relay.process([(again.ada.address, CLIENT_HELLO)] * 100, 2.0)
    assert len(relay.take_events()) == 100


def test_an_address_that_has_moved_outlives_its_first_transport(relay):
    first, second = Peer(relay), Peer(relay)
    relay.allow(first.transport, ("192.0.2.77", 7, "udp"))
    relay.allow(second.transport, first.address)
    relay.remove_transport(first.transport)
    for address in (first.address, second.address, ("192.0.2.77", 7, "udp")):
        relay.process([(address, CLIENT_HELLO)], 1.0)
    assert [event[1:3] for event in events(relay)] == [
        (second.transport, first.address),
        (second.transport, second.address),
    ]
    assert dropped(relay) == {DropReason.ADDRESS_NOT_ALLOWED: 1}


def test_a_keyframe_that_has_come_is_not_wanted(relay):
    pair = call(relay)
    pair.video(1, vp8())
    pair.video(2, vp8(key=True))
    assert [event[0] for event in relay.take_events()] == [EventKind.SWITCHED]


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
        assert relay.take_events(10_000) != []
        relay.remove_transport(pair.ada.transport)
        relay.remove_transport(pair.ben.transport)


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
