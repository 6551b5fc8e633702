"""RTCP: every vector parses to what it says and serialises to the same bytes; every fault has its own sentence."""

import json
from pathlib import Path

import pytest

from server.media.rtp.errors import RtcpParseError
from server.media.rtp.nack import MAX_SEQS, parse_nack, serialize_nack
from server.media.rtp.rtcp import ReceiverEstimate, ReceiverReport, parse_compound, serialize, serialize_compound
from server.media.rtp.twcc import MAX_STATUSES, FeedbackBuilder, TransportFeedback, parse_feedback, serialize_feedback

VECTORS = json.loads(Path(__file__).parent.parent.joinpath("vectors", "rtcp.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector):
    data = bytes.fromhex(vector["hex"])
    packets = parse_compound(data)
    assert [repr(packet) for packet in packets] == vector["packets"]
    assert serialize_compound(packets) == data


FAULTS = {
    "": "compound is empty",
    "80c900": "header is truncated",
    "40c9000100000001": "version is not 2",
    "80c9000200000001": "packet is truncated",
    "80c9000100000001 80": "header is truncated",
    "a0c90000": "padding is longer than the packet, or zero",
    "a0c9000100000000": "padding is longer than the packet, or zero",
    "a0c9000100000005": "padding is longer than the packet, or zero",
    "80c90000": "receiver report is truncated",
    "81c9000100000001": "report block is truncated",
    "80c800050000000100000002000000030000000400000005": "sender report is truncated",
    "81ca0000": "SDES chunk is truncated",
    "81ca00010000": "packet is truncated",
    "81ca000100000001": "SDES chunk does not end",
    "81ca00020000000101056162": "SDES item is truncated",
    "81ca00020000000101026162": "SDES chunk does not end",
    "82cb000100000001": "BYE is truncated",
    "81cb00020000000104616263": "BYE reason is truncated",
    "81cd000100000001": "NACK is truncated",
    "81cd00020000000100000002": "NACK has no entry or half of one",
    "a1cd0003 00000001 00000002 00010002": "NACK has no entry or half of one",
    "81ce000100000001": "PLI is truncated",
    "81ce0003000000010000000200000003": "PLI has a body",
    "84ce00020000000100000002": "FIR has no entry or half of one",
    "84ce0003000000010000000200000003": "FIR has no entry or half of one",
    "8fce0003000000010000000052454d42": "REMB is truncated",
    "8fce0004000000010000000052454d4201000000": "REMB's count of sources contradicts its length",
    "8fcd0002 00000001 00000002": "transport feedback is shorter than its header",
    "8fcd0004 00000001 00000002 0001 0000 00000000": "transport feedback has no status, or too many",
    "8fcd0004 00000001 00000002 0001 2001 00000000": "transport feedback has no status, or too many",
    "8fcd0004 00000001 00000002 0001 0001 00000000": "transport feedback ends within its chunks",
    "afcd0005 00000001 00000002 0001 0001 00000000 2001 0002": "transport feedback ends within its deltas",
    "8fcd0005 00000001 00000002 0001 0001 00000000 6001 0000": "transport feedback uses the reserved symbol",
}


@pytest.mark.parametrize("data", FAULTS)
def test_fault(data):
    with pytest.raises(RtcpParseError) as caught:
        parse_compound(bytes.fromhex(data))
    assert caught.value.detail == FAULTS[data]
    assert caught.value.code == "bad_rtcp"


def test_zero_length_run_ends():
    """A run of no packets makes no progress: it must not loop, and the chunks end at some time."""
    with pytest.raises(RtcpParseError):
        parse_compound(bytes.fromhex("8fcd0005 00000001 00000002 0001 0003 00000000 2000 2000"))


@pytest.mark.parametrize(
    ("seqs", "entries"),
    [
        ([5], "00050000"),
        ([5, 21], "00058000"),
        ([5, 22], "0005000000160000"),
        ([65535, 0, 15], "ffff8001"),
        (list(range(17)), "0000ffff"),
        ([], ""),
    ],
)
def test_nack_entries(seqs, entries):
    assert serialize_nack(seqs).hex() == entries
    if entries:
        assert parse_nack(bytes.fromhex(entries)) == tuple(seqs)


def test_nack_is_bounded():
    whole = bytes.fromhex("0000ffff")
    parse_nack(whole * (MAX_SEQS // 17))
    with pytest.raises(RtcpParseError, match="more than 1024"):
        parse_nack(whole * (MAX_SEQS // 17 + 1))


@pytest.mark.parametrize("bitrate", [0, 1, 0x3FFFF, 0x40000, 1_200_000, 2_500_000_000])
def test_estimates_are_rounded_down_to_18_bits(bitrate):
    [estimate] = parse_compound(serialize(ReceiverEstimate(1, 0, bitrate, ())))
    assert bitrate * (1 - 2**-17) <= estimate.bitrate_bps <= bitrate


def feedback(deltas, base=0, reference=0):
    return TransportFeedback(1, 2, base, reference, 0, tuple(deltas))


@pytest.mark.parametrize(
    "deltas",
    [
        [0],
        [255, 256, -1, -32768, 32767],
        [None] * 20 + [1],
        [1] * 8000 + [300] * 100,
        [1] * 13 + [None] * 14 + [1, 300] * 9,
        [1, None] * 50,
        [None, 4000] * 50,
        [1] * 7 + [999] + [1] * 14,
    ],
    ids=lambda deltas: str(len(deltas)),
)
def test_feedback_round_trip(deltas):
    message = feedback(deltas, base=65_530, reference=-5)
    assert parse_feedback(1, 2, serialize_feedback(message)) == message
    assert parse_compound(serialize(message)) == [message]


def test_arrivals_of_a_feedback():
    assert feedback([4, None, -4], base=65_535, reference=2).arrivals() == [(65_535, 0.129), (0, None), (1, 0.128)]


class TestFeedbackBuilder:
    @staticmethod
    def seen(messages):
        return {seq: at for message in messages for seq, at in message.arrivals()}

    def test_nothing_arrived(self):
        assert FeedbackBuilder(1, 2).build([]) == []

    def test_losses_and_times(self):
        builder = FeedbackBuilder(1, 2)
        [message] = builder.build([(10, 100.0), (11, 100.02), (13, 100.05)])
        assert message.base_seq == 10
        assert self.seen([message]) == pytest.approx({10: 100.0, 11: 100.02, 12: None, 13: 100.05})
        [message] = builder.build([(15, 100.1)])  # what was lost between two calls is in the second
        assert self.seen([message]) == pytest.approx({14: None, 15: 100.1})
        assert message.feedback_count == 1

    def test_wrap(self):
        [message] = FeedbackBuilder(1, 2).build([(65_535, 1.0), (0, 1.001), (1, 1.002)])
        assert [seq for seq, _ in message.arrivals()] == [65_535, 0, 1]

    def test_late_arrivals_are_reported_beside_those_that_came_before(self):
        builder = FeedbackBuilder(1, 2)
        builder.build([(1, 1.0), (3, 1.01), (4, 1.02)])
        [message] = builder.build([(2, 1.05)])
        assert self.seen([message]) == pytest.approx({2: 1.05})
        [message] = builder.build([(5, 1.06)])
        assert [seq for seq, _ in message.arrivals()] == [5]
        builder.build([(7, 1.07), (8, 1.08), (9, 1.09)])
        [message] = builder.build([(6, 1.1), (10, 1.11)])
        assert self.seen([message]) == pytest.approx({6: 1.1, 7: 1.07, 8: 1.08, 9: 1.09, 10: 1.11})

    def test_duplicates_count_once(self):
        builder = FeedbackBuilder(1, 2)
        builder.build([(1, 1.0)])
        assert builder.build([(1, 1.01)]) == []

    def test_a_long_pause_starts_a_new_message(self):
        messages = FeedbackBuilder(1, 2).build([(1, 1.0), (2, 11.0)])
        assert len(messages) == 2
        assert self.seen(messages) == pytest.approx({1: 1.0, 2: 11.0})

    def test_many_packets_are_cut(self):
        messages = FeedbackBuilder(1, 2).build([(n, 5 + n * 0.0005) for n in range(1000)])
        assert [len(message.deltas) for message in messages] == [MAX_STATUSES, MAX_STATUSES, 200]
        assert [message.feedback_count for message in messages] == [0, 1, 2]
        assert all(len(serialize(message)) <= 1200 for message in messages)
        seen = self.seen(messages)
        assert all(seen[n] == pytest.approx(5 + n * 0.0005, abs=0.000126) for n in range(1000))

    def test_a_jump_is_bounded(self):
        """A peer may use any numbers: the work is bounded, and nothing of the past is kept."""
        builder = FeedbackBuilder(1, 2)
        builder.build([(0, 1.0)])
        messages = builder.build([(20_000, 2.0)])
        assert sum(len(message.deltas) for message in messages) <= 2048
        assert self.seen(messages)[20_000] == pytest.approx(2.0)
        assert len(builder._arrivals) == 1

    def test_the_clock_of_years_fits(self):
        [message] = FeedbackBuilder(1, 2).build([(1, 1e8)])
        assert -(1 << 23) <= message.reference < 1 << 23
        assert parse_compound(serialize(message)) == [message]


def test_a_compound_may_be_of_reduced_size():
    assert parse_compound(serialize(feedback([1])) + serialize(ReceiverReport(1)))[1] == ReceiverReport(1)
