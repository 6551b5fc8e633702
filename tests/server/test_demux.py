"""The demultiplexer against tables of its boundaries, and against a second one written straight from the RFCs."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.media.fastpath.demux import DropReason, Kind, classify

COOKIE = bytes.fromhex("2112a442")
STUN = b"\x00\x01\x00\x00" + COOKIE + bytes(12)
RTP = b"\x80\x60" + bytes(10)
RTCP = b"\x80\xc9\x00\x01" + bytes(4)
DTLS = b"\x16\xfe\xff" + bytes(10)
TURN_CHANNEL = b"\x40\x00\x00\x02ab"


def reference(datagram: bytes) -> Kind | DropReason:
    """The same decision, slowly."""
    size = len(datagram)
    if not datagram:
        return DropReason.EMPTY
    match datagram[0]:
        case first if first in range(4):
            if size < 20:
                return DropReason.STUN_TRUNCATED
            if datagram[4:8] != COOKIE:
                return DropReason.STUN_BAD_COOKIE
            length = int.from_bytes(datagram[2:4])
            return Kind.STUN if length % 4 == 0 and length == size - 20 else DropReason.STUN_BAD_LENGTH
        case first if first in range(20, 64):
            return Kind.DTLS if size >= 13 else DropReason.DTLS_TRUNCATED
        case first if first in range(64, 80):
            fits = size >= 4 and size - 4 >= int.from_bytes(datagram[2:4])
            return Kind.TURN_CHANNEL if fits else DropReason.TURN_CHANNEL_TRUNCATED
        case first if first in range(128, 192):
            if size > 1 and datagram[1] in range(192, 224):
                fits = size >= 8 and size >= 4 + 4 * int.from_bytes(datagram[2:4])
                return Kind.RTCP if fits else DropReason.RTCP_TRUNCATED
            needed = 12 + 4 * (first % 16)
            if first & 0b1_0000:
                needed += 4 + 4 * int.from_bytes(datagram[needed + 2 : needed + 4])
            return Kind.RTP if size >= needed else DropReason.RTP_TRUNCATED
    return DropReason.UNKNOWN_PROTOCOL


# Bytes that lead into the deep branches; purely random ones hardly ever carry a cookie or a fitting length.
shaped = st.builds(
    lambda head, cut, tail: head[:cut] + tail,
    st.sampled_from([STUN, RTP, RTCP, DTLS, TURN_CHANNEL, b"\x9f\x60" + bytes(72) + b"\xbe\xde\x00\x02" + bytes(8)]),
    st.integers(0, 90),
    st.binary(max_size=40),
)


@given(shaped | st.binary(max_size=100))
@example(b"\x90\x60" + bytes(12))  # says that an extension follows, and ends inside its header
def test_agrees_with_the_reference(datagram):
    assert classify(datagram) is reference(datagram)


@pytest.mark.parametrize("first", range(256))
def test_first_byte(first):
    """RFC 7983 section 7, every value. The rest is a long packet of zeros."""
    expected = {
        range(4): DropReason.STUN_BAD_COOKIE,
        range(20, 64): Kind.DTLS,
        range(64, 80): Kind.TURN_CHANNEL,
        range(128, 192): Kind.RTP,
    }
    verdicts = [verdict for values, verdict in expected.items() if first in values]
    assert classify(bytes([first]) + bytes(99)) is (verdicts or [DropReason.UNKNOWN_PROTOCOL])[0]


@pytest.mark.parametrize("second", range(256))
def test_rtcp_is_192_to_223(second):
    """RFC 5761 section 4, every value of the second byte."""
    assert classify(bytes([0x80, second]) + bytes(20)) is (Kind.RTCP if 192 <= second <= 223 else Kind.RTP)


@pytest.mark.parametrize(
    ("datagram", "verdict"),
    [
        (b"", DropReason.EMPTY),
        (b"\x80", DropReason.RTP_TRUNCATED),
        (RTP, Kind.RTP),
        (RTP[:-1], DropReason.RTP_TRUNCATED),
        (b"\x8f\x60" + bytes(70), Kind.RTP),  # 15 contributing sources
        (b"\x8f\x60" + bytes(69), DropReason.RTP_TRUNCATED),
        (b"\x90\x60" + bytes(10) + b"\xbe\xde\x00\x01" + bytes(4), Kind.RTP),
        (b"\x90\x60" + bytes(10) + b"\xbe\xde\x00\x01" + bytes(3), DropReason.RTP_TRUNCATED),
        (b"\x90\x60" + bytes(10) + b"\xbe\xde\xff\xff" + bytes(1400), DropReason.RTP_TRUNCATED),
        (RTCP, Kind.RTCP),
        (RTCP[:-1], DropReason.RTCP_TRUNCATED),
        (b"\x80\xc9\x00\x02" + bytes(8), Kind.RTCP),
        (b"\x80\xc9\x00\x02" + bytes(7), DropReason.RTCP_TRUNCATED),
        (b"\x80\xc9\xff\xff" + bytes(1400), DropReason.RTCP_TRUNCATED),
        (STUN, Kind.STUN),
        (STUN[:-1], DropReason.STUN_TRUNCATED),
        (STUN[:2] + b"\x00\x04" + STUN[4:] + bytes(4), Kind.STUN),
        (STUN[:2] + b"\x00\x04" + STUN[4:], DropReason.STUN_BAD_LENGTH),
        (STUN + bytes(4), DropReason.STUN_BAD_LENGTH),
        (STUN[:2] + b"\x00\x03" + STUN[4:] + bytes(3), DropReason.STUN_BAD_LENGTH),
        (STUN[:7] + b"\x43" + STUN[8:], DropReason.STUN_BAD_COOKIE),
        (DTLS, Kind.DTLS),
        (DTLS[:-1], DropReason.DTLS_TRUNCATED),
        (TURN_CHANNEL, Kind.TURN_CHANNEL),
        (TURN_CHANNEL + b"\0\0", Kind.TURN_CHANNEL),  # padded to four bytes
        (TURN_CHANNEL[:-1], DropReason.TURN_CHANNEL_TRUNCATED),
        (TURN_CHANNEL[:3], DropReason.TURN_CHANNEL_TRUNCATED),
    ],
)
def test_lengths(datagram, verdict):
    assert classify(datagram) is verdict


def test_kinds_and_drop_reasons_share_no_value():
    assert all(kind < 0x80 for kind in Kind)
    assert all(reason >= 0x80 for reason in DropReason)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_any_buffer_will_do(buffer):
    assert classify(buffer(RTP)) is Kind.RTP
