"""RTP packets, header extensions, RTX, RED, keyframes, wrapping numbers: tables, vectors by hand after the figures."""

import pytest

from server.media.rtp import extensions, keyframe, red, rtx
from server.media.rtp.errors import RtpParseError
from server.media.rtp.packet import RtpPacket
from server.media.rtp.sequence import Unwrapper, difference

PACKETS = {
    "80 60 0001 00000002 00000003": RtpPacket(96, 1, 2, 3),
    "80 ef ffff fffffffe ffffffff 0a0b": RtpPacket(111, 65535, 0xFFFFFFFE, 0xFFFFFFFF, marker=True, payload=b"\n\x0b"),
    "82 60 0001 00000002 00000003 00000004 00000005 61": RtpPacket(96, 1, 2, 3, csrcs=(4, 5), payload=b"a"),
    "90 60 0001 00000002 00000003 bede 0001 10 61 00 00 62": RtpPacket(
        96, 1, 2, 3, extension_profile=0xBEDE, extension=b"\x10a\0\0", payload=b"b"
    ),
    "90 60 0001 00000002 00000003 1000 0000": RtpPacket(96, 1, 2, 3, extension_profile=0x1000),
    "a0 60 0001 00000002 00000003 61 00 00 03": RtpPacket(96, 1, 2, 3, payload=b"a", padding=3),
    "a0 60 0001 00000002 00000003 0000 03": RtpPacket(96, 1, 2, 3, padding=3),
}


@pytest.mark.parametrize("data", PACKETS)
def test_packets(data):
    assert RtpPacket.parse(bytes.fromhex(data)) == PACKETS[data]
    assert bytes(PACKETS[data]) == bytes.fromhex(data)


PACKET_FAULTS = {
    "80 60 0001 00000002 000000": "packet shorter than 12 bytes",
    "40 60 0001 00000002 00000003": "version is not 2",
    "81 60 0001 00000002 00000003 0000": "contributing sources are truncated",
    "90 60 0001 00000002 00000003 bede": "extension header is truncated",
    "90 60 0001 00000002 00000003 bede 0002 00000000": "extension is truncated",
    "a0 60 0001 00000002 00000003": "padding is longer than the payload, or zero",
    "a0 60 0001 00000002 00000003 00": "padding is longer than the payload, or zero",
    "a0 60 0001 00000002 00000003 02": "padding is longer than the payload, or zero",
}


@pytest.mark.parametrize("data", PACKET_FAULTS)
def test_packet_faults(data):
    with pytest.raises(RtpParseError) as caught:
        RtpPacket.parse(bytes.fromhex(data))
    assert caught.value.detail == PACKET_FAULTS[data]


@pytest.mark.parametrize(
    ("profile", "data", "elements"),
    [
        (0xBEDE, "10 61 21 6263", {1: b"a", 2: b"bc"}),
        (0xBEDE, "00 00 10 61 00 20 62", {1: b"a", 2: b"b"}),
        (0xBEDE, "10 61 f0 62 20 63", {1: b"a"}),  # id 15 ends the list
        (0xBEDE, "10 61 10 62", {1: b"a"}),
        (0xBEDE, "01 6161 20 62", {2: b"b"}),  # id 0 with a length
        (0x1000, "01 00 10 01 61", {1: b"", 16: b"a"}),
        (0x100F, "00 ff 02 6162", {255: b"ab"}),
        (0xABCD, "10 61", {}),
        (0xBEDE, "", {}),
    ],
)
def test_extension_elements(profile, data, elements):
    assert extensions.parse_elements(profile, bytes.fromhex(data)) == elements


@pytest.mark.parametrize(("profile", "data"), [(0xBEDE, "11 61"), (0xBEDE, "10"), (0x1000, "01"), (0x1000, "01 02 61")])
def test_truncated_extension_elements(profile, data):
    with pytest.raises(RtpParseError, match="extension element is truncated"):
        extensions.parse_elements(profile, bytes.fromhex(data))


@pytest.mark.parametrize(
    ("elements", "profile", "data"),
    [
        ({}, 0, ""),
        ({1: b"a"}, 0xBEDE, "10610000"),
        ({14: bytes(16)}, 0xBEDE, "ef" + "00" * 19),
        ({15: b"a"}, 0x1000, "0f016100"),
        ({1: b""}, 0x1000, "01000000"),
        ({1: bytes(17)}, 0x1000, "0111" + "00" * 18),
    ],
)
def test_serialised_elements(elements, profile, data):
    assert extensions.serialize_elements(elements) == (profile, bytes.fromhex(data))
    assert extensions.parse_elements(profile, bytes.fromhex(data)) == elements


def test_extension_values():
    assert extensions.parse_text(b"q") == "q"
    assert extensions.parse_audio_level(b"\x85") == (True, 5)
    assert extensions.parse_audio_level(b"\x7f") == (False, 127)
    assert extensions.parse_transport_cc(b"\x12\x34") == 0x1234
    assert extensions.parse_transport_cc(b"\x12\x34\x00\x01") == 0x1234
    assert extensions.parse_abs_send_time(b"\x04\x00\x00") == 1.0
    assert extensions.serialize_abs_send_time(65.5) == b"\x06\x00\x00"


@pytest.mark.parametrize(
    ("read", "value", "detail"),
    [
        (extensions.parse_text, b"\xff", "identifier is not ASCII"),
        (extensions.parse_audio_level, b"", "audio level is empty"),
        (extensions.parse_transport_cc, b"\x01", "transport-wide sequence number is not 2 or 4 bytes"),
        (extensions.parse_abs_send_time, b"\x01", "abs-send-time is not 3 bytes"),
    ],
)
def test_extension_value_faults(read, value, detail):
    with pytest.raises(RtpParseError) as caught:
        read(value)
    assert caught.value.detail == detail


def test_rtx():
    packet = RtpPacket(96, 65535, 7, 1, marker=True, payload=b"frame")
    wrapped = rtx.wrap(packet, 97, 2, 40)
    assert (wrapped.payload_type, wrapped.ssrc, wrapped.seq) == (97, 2, 40)
    assert wrapped.payload == b"\xff\xffframe"
    assert rtx.unwrap(wrapped, 96, 1) == packet
    with pytest.raises(RtpParseError, match="holds no original"):
        rtx.unwrap(RtpPacket(97, 1, 2, 3, padding=200), 96, 1)


def test_red():
    payload = bytes.fromhex("ef 0f00 02 6f 6162 63")
    blocks = [red.RedBlock(111, b"ab", 960), red.RedBlock(111, b"c")]
    assert red.parse_red(payload) == blocks
    assert red.serialize_red(blocks) == payload
    assert red.parse_red(b"\x6fonly") == [red.RedBlock(111, b"only")]


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        ("", "RED headers do not end"),
        ("ef 0f00 02", "RED headers do not end"),
        ("ef 0f", "RED header is truncated"),
        ("ef 0f00 02 6f 61", "RED block is truncated"),
    ],
)
def test_red_faults(payload, detail):
    with pytest.raises(RtpParseError) as caught:
        red.parse_red(bytes.fromhex(payload))
    assert caught.value.detail == detail


@pytest.mark.parametrize(
    ("codec", "payload", "starts"),
    [
        ("VP8", "10 00", True),
        ("VP8", "10 01", False),  # inter frame
        ("VP8", "00 00", False),  # not the start of a partition
        ("VP8", "11 00", False),  # another partition
        ("VP8", "90 80 05 00", True),  # short picture id
        ("VP8", "90 80 8005 00", True),
        ("VP8", "90 80 8005 01", False),
        ("VP8", "90 f0 8005 01 20 00", True),
        ("VP8", "90 f0", False),
        ("VP8", "", False),
        ("vp9", "08", True),
        ("VP9", "48", False),  # predicted from another picture
        ("VP9", "00", False),
        ("VP9", "a8 05 00", True),
        ("VP9", "a8 8005 02", False),  # second spatial layer
        ("H264", "65", True),
        ("H264", "67 42", True),
        ("H264", "41", False),
        ("H264", "7c 85", True),
        ("H264", "7c 05", False),  # not the first fragment
        ("H264", "7c 81", False),
        ("H264", "78 0002 6742 0001 68", True),
        ("H264", "78 0001 06 0001 65", True),
        ("H264", "78 0001 06 0001 41", False),
        ("H264", "78 0000 0000 0000", False),
        ("AV1", "08", True),
        ("AV1", "10", False),
        ("opus", "ff", False),
    ],
)
def test_keyframes(codec, payload, starts):
    assert keyframe.starts_keyframe(codec, bytes.fromhex(payload)) is starts


@pytest.mark.parametrize(
    ("wire", "integers"),
    [
        ([0, 1, 2], [65536, 65537, 65538]),
        ([65534, 65535, 0, 1], [131070, 131071, 131072, 131073]),
        ([1, 0, 65535, 65534, 2], [65537, 65536, 65535, 65534, 65538]),
        ([0, 32767, 65534, 32765], [65536, 98303, 131070, 163837]),
        ([0, 32768], [65536, 32768]),  # half a turn is backwards
        ([5, 5], [65541, 65541]),
    ],
)
def test_unwrapping(wire, integers):
    unwrapper = Unwrapper()
    assert [unwrapper.unwrap(number) for number in wire] == integers


def test_timestamps_wrap_at_32_bits():
    unwrapper = Unwrapper(32)
    first = unwrapper.unwrap(0xFFFFFFFF)
    assert unwrapper.unwrap(0) - first == 1
    assert difference(0, 0xFFFFFFFF, 32) == 1
    assert difference(0xFFFFFFFF, 0, 32) == -1
