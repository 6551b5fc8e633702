"""The relay in memory: NACKs it answers by itself, and the transport-cc feedback that it writes."""

import itertools
import random
import struct

import pytest

from server.media.fastpath.relay import Codec, DropReason, EventKind, Relay
from server.media.rtp.nack import serialize_nack
from server.media.rtp.rtcp import Nack, parse_compound, serialize_compound
from server.media.rtp.twcc import FeedbackBuilder, TransportFeedback
from tests.relayed import Call, Peer, Rtp, call, dropped, events, vp8

TRANSPORT_CC = 3
GOODBYE = b"\x81\xcb\x00\x01" + b"ssrc"


@pytest.fixture
def relay() -> Relay:
    return Relay(transports=16, sources=16, forwards=16)


# --- NACKs ------------------------------------------------------------------------------------------------------------


def nack(seqs: list[int], ssrc: int = 0xB0) -> bytes:
    return serialize_compound([Nack(1, ssrc, tuple(seqs))])


def ask(pair: Call, compound: bytes, now: float = 2.0) -> list[Rtp]:
    return pair.ben.decrypt(pair.relay.process([(pair.ben.address, pair.ben.protect_rtcp(compound))], now))


def test_a_nack_is_answered_without_the_slow_path(relay):
    pair = call(relay)
    received = pair.send(*(Rtp(0xA0, 65_530 + n, vp8(n, key=n == 0, body=b"%d" % n)) for n in range(30)))
    events(relay)
    lost = [received[n] for n in (2, 3, 5, 18, 25)]
    repeated = ask(pair, nack([packet.seq for packet in lost]))
    assert [packet.payload for packet in repeated] == [packet.seq.to_bytes(2) + packet.payload for packet in lost]
    assert {packet.ssrc for packet in repeated} == {0xB1}
    row = relay.forwards_view[pair.forward]
    assert (row["nacked"], row["retransmitted"]) == (5, 5)
    assert relay.take_events() == []


def test_what_comes_with_a_nack_goes_up_whole(relay):
    pair = call(relay)
    (received,) = pair.send(Rtp(0xA0, 1, vp8(key=True)))
    events(relay)
    compound = GOODBYE + nack([received.seq])
    assert len(ask(pair, compound)) == 1
    assert [event[:4] for event in relay.take_events()] == [
        (EventKind.RTCP, pair.ben.transport, pair.ben.address, compound)
    ]


@pytest.mark.parametrize("ssrc", [0xB1, 0xB9, 0xEE])
def test_a_nack_of_what_cannot_be_repeated_goes_up(relay, ssrc):
    pair = call(relay)
    relay.add_forward(pair.ben.transport, 0xB9, 100, Codec.VP8)
    assert ask(pair, nack([1], ssrc)) == []
    assert [event[3] for event in events(relay)] == [nack([1], ssrc)]


def test_one_receiver_cannot_ask_for_anothers_packets(relay):
    pair = call(relay)
    (received,) = pair.send(Rtp(0xA0, 1, vp8(key=True)))
    events(relay)
    mallory = Peer(relay)
    assert relay.process([(mallory.address, mallory.protect_rtcp(nack([received.seq])))], 2.0) == []
    assert [event[1] for event in relay.take_events()] == [mallory.transport]
    assert relay.forwards_view["nacked"][pair.forward] == 0


GOOD = struct.pack("!BBHIIHH", 0x81, 205, 3, 1, 0xB0, 0, 0)


@pytest.mark.parametrize(
    "broken",
    [
        GOOD + b"\x80",
        GOOD + GOOD[:-4],
        GOOD + struct.pack("!BBHI", 0x41, 205, 1, 1),
        GOOD + struct.pack("!BBHI", 0xA1, 205, 1, 0),
        GOOD + struct.pack("!BBHI", 0xA1, 205, 1, 5),
        struct.pack("!BBHII", 0x81, 205, 2, 1, 0xB0),
        struct.pack("!BBHIIHH", 0xA1, 205, 3, 1, 0xB0, 0, 12),
        struct.pack("!BBHIIHH", 0x81, 206, 3, 1, 0xB0, 0, 0),
        struct.pack("!BBHIIHH", 0x8E, 205, 3, 1, 0xB0, 0, 0),
    ],
)
def test_what_is_no_well_formed_nack_goes_up_and_is_not_answered(relay, broken):
    pair = call(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)))
    events(relay)
    assert ask(pair, broken) == []
    assert [event[3] for event in relay.take_events()] == [broken]
    assert relay.forwards_view["nacked"][pair.forward] == 0


def test_padding_behind_a_nack_is_no_more_of_it(relay):
    pair = call(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)))
    events(relay)
    ask(pair, struct.pack("!BBHIIHHI", 0xA1, 205, 4, 1, 0xB0, 7, 0, 4))
    assert relay.forwards_view["nacked"][pair.forward] == 1
    assert relay.take_events() == []


def test_a_nack_of_everything_costs_no_more_than_history_holds(relay):
    pair = call(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)))
    events(relay)
    everything = struct.pack("!BBHII", 0x81, 205, 2 + 300, 1, 0xB0) + b"\x00\x00\xff\xff" * 300
    ask(pair, everything)
    assert relay.forwards_view["nacked"][pair.forward] == 512
    assert relay.take_events() == []


def test_a_nack_has_the_budget_of_retransmissions(relay):
    pair = call(relay)
    (received,) = pair.send(Rtp(0xA0, 1, vp8(key=True, body=bytes(1000))))
    repeated = [packet for _ in range(100) for packet in ask(pair, nack([received.seq]))]
    assert 30 <= len(repeated) <= 33
    assert relay.forwards_view["nacked"][pair.forward] == 100


def test_a_forward_that_is_gone_is_not_answered_for(relay):
    pair = call(relay)
    (received,) = pair.send(Rtp(0xA0, 1, vp8(key=True)))
    relay.remove_forward(pair.forward)
    events(relay)
    assert ask(pair, nack([received.seq])) == []
    assert len(events(relay, EventKind.RTCP)) == 1


def test_the_vector_of_nack_py_is_read_alike():
    seqs = (65_534, 65_535, 0, 14, 15, 40)
    relay = Relay(transports=4, sources=4, forwards=4)
    pair = call(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)))
    ask(pair, struct.pack("!BBHII", 0x81, 205, 2 + len(serialize_nack(seqs)) // 4, 1, 0xB0) + serialize_nack(seqs))
    assert relay.forwards_view["nacked"][pair.forward] == len(seqs)


# --- Transport-cc feedback --------------------------------------------------------------------------------------------


def arrive(relay: Relay, peer: Peer, log: list[tuple[int, float]], ssrc: int = 0xA0) -> None:
    """Packets with these transport-wide numbers, at these times."""
    for wide, at in log:
        peer.seq = getattr(peer, "seq", 0) + 1  # type: ignore[attr-defined]
        packet = Rtp(ssrc, peer.seq, b"x", elements={TRANSPORT_CC: (wide & 0xFFFF).to_bytes(2)})  # type: ignore[attr-defined]
        relay.process([(peer.address, peer.protect(packet))], at)


def reports(relay: Relay, peer: Peer, now: float) -> list[bytes]:
    count = relay.feedback(now)
    sent = peer.decrypt_rtcp(relay.process([], now))
    assert len(sent) == count
    return sent


def parsed(report: bytes) -> TransportFeedback:
    (feedback,) = parse_compound(report)
    assert isinstance(feedback, TransportFeedback)
    return feedback


def ticks(*numbers: int, start: float = 1.0, every: float = 0.01) -> list[tuple[int, float]]:
    return [(number, start + every * index) for index, number in enumerate(numbers)]


def generated(seed: int) -> list[tuple[int, float]]:
    """Numbers in loss, reordering and jitter of every kind, each time a whole number of 250 us."""
    rng = random.Random(seed)
    log, wide, at = [], rng.choice([1, 65_500, 40_000]), 4000 * rng.randrange(1, 10**6)
    for _ in range(rng.randrange(1, 700)):
        wide += rng.choice([1] * 12 + [2, 3, 9, 40])
        at += rng.choice([0, 1, 2, 4, 40, 200, 255, 256, 300, 2000])
        log.append((wide, at / 4000))
    for _ in range(rng.randrange(0, 30)):
        place = rng.randrange(len(log))
        log.insert(min(len(log), place + rng.randrange(1, 6)), log.pop(place))
    times = sorted(at for _, at in log)
    return [(wide, at) for (wide, _), at in zip(log, times, strict=True)]


CASES = {
    "one": ticks(5),
    "run": ticks(*range(100)),
    "wrap": ticks(*range(65_530, 65_545)),
    "loss": ticks(1, 2, 5, 6, 7, 30, 31),
    "reordering": ticks(1, 3, 2, 6, 5, 4),
    "large gap": ticks(1, 2, 500, 501),
    "large deltas": ticks(1, 2, 3, every=1.5),
    "delta that needs another packet": ticks(1, 2, 3, every=9.0),
    "negative deltas": [(3, 1.0), (1, 1.001), (2, 3.0)],
    "negative delta that needs another packet": [(2, 1.0), (1, 10.0)],
    "mixed sizes": [(n, 1.0 + n * (0.001 if n % 3 else 0.08)) for n in range(60)],
    "two packets": ticks(*range(401), every=0.0005),
    "five packets": ticks(*range(0, 2000, 2), every=0.0005),
    "twice": ticks(7, 7, 8, 7),
}


@pytest.mark.parametrize("log", [*CASES.values(), *map(generated, range(20))], ids=[*CASES, *map(str, range(20))])
def test_feedback_is_what_twcc_py_writes(relay, log):
    peer = Peer(relay)
    relay.add_source(peer.transport, 0xA0, Codec.OPUS, 96, 48_000)
    arrive(relay, peer, log)
    expected = FeedbackBuilder(1, 0xA0).build(log)
    assert reports(relay, peer, log[-1][1]) == [serialize_compound([message]) for message in expected]


def test_reports_go_on_where_the_last_one_ended(relay):
    peer = Peer(relay)
    builder = FeedbackBuilder(1, 0xEE)
    for log in (
        ticks(65_533, 65_534),
        ticks(65_537, start=1.2),
        ticks(65_536, 65_535, start=1.4),
        ticks(65_540, start=1.6),
    ):
        arrive(relay, peer, log, 0xEE)
        expected = [serialize_compound([message]) for message in builder.build(log)]
        assert reports(relay, peer, log[-1][1] + 0.05) == expected
    assert reports(relay, peer, 9.0) == [], "nothing new"


def test_each_arrival_is_reported_at_its_time_to_250_us(relay):
    peer = Peer(relay)
    log = [(n, 1.0 + n * 0.0071) for n in range(300)]
    arrive(relay, peer, log)
    told = dict(itertools.chain(*(parsed(report).arrivals() for report in reports(relay, peer, 9.0))))
    assert told == pytest.approx(dict(log), abs=0.000126)


def test_a_transport_is_told_no_more_often_than_asked(relay):
    peer, quiet = Peer(relay), Peer(relay)
    times = []
    for number in range(50):
        arrive(relay, peer, [(number, 1 + number / 32)])
        if relay.feedback(1 + number / 32, every=0.125):
            times.append(number)
    assert times == list(range(0, 50, 4))
    assert quiet.decrypt_rtcp(relay.process([], 3.0)) == []


def test_a_leap_of_the_numbers_is_no_list_of_losses(relay):
    peer = Peer(relay)
    arrive(relay, peer, [(1, 1.0), (30_000, 1.1), (30_001, 1.2)])
    (report,) = reports(relay, peer, 2.0)
    assert [seq for seq, at in parsed(report).arrivals() if at is not None] == [30_000, 30_001]
    # After a long silence the numbers may seem to lie behind.
    arrive(relay, peer, [(65_536 + 1000, 200.0)])
    (report,) = reports(relay, peer, 201.0)
    assert parsed(report).arrivals() == [(1000, 200.0)]


def test_feedback_without_an_address_waits(relay):
    peer = Peer(relay)
    arrive(relay, peer, ticks(1, 2))
    relay.nominate(peer.transport, None)
    assert relay.feedback(2.0) == 0
    relay.nominate(peer.transport, peer.address)
    assert len(reports(relay, peer, 2.1)) == 1


def test_arrivals_that_leap_to_and_fro_in_time_make_few_packets(relay):
    peer = Peer(relay)
    arrive(relay, peer, ticks(*range(0, 1000, 2), every=0))
    arrive(relay, peer, ticks(*range(1, 1000, 2), start=60.0, every=0))
    assert len(reports(relay, peer, 61.0)) == 8
    arrive(relay, peer, ticks(1000, start=62.0))
    assert len(reports(relay, peer, 63.0)) == 1


def test_what_finds_no_room_is_told_by_the_next_call():
    relay = Relay(transports=1300, sources=4, forwards=4)
    peers = [Peer(relay) for _ in range(1200)]
    for peer in peers:
        arrive(relay, peer, [(1, 1.0)])
    events(relay)
    told = []
    for now in (2.0, 2.01):
        relay.feedback(now)
        told.append([address for address, _ in relay.process([], now)])
    assert len(told[0]) > 1000
    assert sorted(told[0] + told[1]) == sorted(peer.address for peer in peers)
    assert dropped(relay).get(DropReason.QUEUE_FULL, 0) == 0


# --- What was sent ----------------------------------------------------------------------------------------------------


def test_what_was_sent_is_known_by_number_size_and_time(relay):
    pair = call(relay)
    sizes = []
    for number in range(3):
        sizes += [
            len(data) for _, data in pair.ada.send(Rtp(0xA0, number, vp8(key=True, body=bytes(number))), now=1 + number)
        ]
    log = relay.sent(pair.ben.transport)
    assert (log["wide_seq"].tolist(), log["size"].tolist(), log["sent_at"].tolist()) == ([1, 2, 3], sizes, [1, 2, 3])
    assert len(relay.sent(pair.ben.transport)) == 0


def test_the_log_of_what_was_sent_keeps_the_latest(relay):
    pair = call(relay, Codec.OPUS)
    pair.send(*(Rtp(0xA0, number, b"x") for number in range(1500)))
    assert relay.sent(pair.ben.transport)["wide_seq"].tolist() == list(range(477, 1501))


def test_without_transport_cc_nothing_is_logged(relay):
    pair = call(relay, Codec.OPUS)
    assert len(relay.sent(relay.add_transport())) == 0
    relay.set_extension_ids(pair.ben.transport, {}, {"mid": 1})
    pair.send(Rtp(0xA0, 1, b"x"))
    assert len(relay.sent(pair.ben.transport)) == 0


TRANSPORT_FEEDBACK = struct.pack("!BBHIIHHI", 0x8F, 205, 4, 1, 0xB0, 0, 0, 0)


@pytest.mark.parametrize(
    ("compound", "goes_up"),
    [
        (TRANSPORT_FEEDBACK, False),
        (GOOD + TRANSPORT_FEEDBACK, False),
        (GOODBYE + TRANSPORT_FEEDBACK, True),
    ],
)
def test_transport_feedback_alone_does_not_go_up(relay, compound, goes_up):
    pair = call(relay)
    pair.send(Rtp(0xA0, 1, vp8(key=True)))
    events(relay)
    ask(pair, compound)
    assert [event[3] for event in relay.take_events()] == [compound] * goes_up
