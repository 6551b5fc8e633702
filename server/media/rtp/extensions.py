"""RTP header extensions: the elements, and the values of those that we know.

    one byte (profile 0xBEDE)     two bytes (profile 0x100?)
     0 1 2 3 4 5 6 7               0                   1
    +-+-+-+-+-+-+-+-+              0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
    |  id   | len-1 | value       |      id       |      len      | value
    id 0 is a byte of padding, id 15 of the one-byte form ends the list

Spec: RFC 8285 sections 4.2 and 4.3; each value's where it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import pack, unpack

from server.media.rtp.errors import RtpParseError

ONE_BYTE = 0xBEDE
TWO_BYTE = 0x1000
"""The low four bits are the application's."""

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
VIDEO_ORIENTATION = "urn:3gpp:video-orientation"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
DEPENDENCY_DESCRIPTOR = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"


def parse_elements(profile: int, data: bytes) -> dict[int, bytes]:
    """Return the elements by their id; the first of an id counts. Another profile's extension has none of ours.

    Raises:
        RtpParseError: An element leaves the extension.
    """
    elements: dict[int, bytes] = {}
    one_byte = profile == ONE_BYTE
    if not one_byte and profile & 0xFFF0 != TWO_BYTE:
        return elements
    at = 0
    while at < len(data):
        if data[at] == 0:
            at += 1
            continue
        if one_byte:
            id, length = data[at] >> 4, (data[at] & 0x0F) + 1
            at += 1
            if id == 15:
                break
        else:
            if at + 2 > len(data):
                raise RtpParseError("extension element is truncated")
            id, length = data[at], data[at + 1]
            at += 2
        if at + length > len(data):
            raise RtpParseError("extension element is truncated")
        if id:  # id 0 with a length is padding that should not have one
            elements.setdefault(id, data[at : at + length])
        at += length
    return elements


def serialize_elements(elements: Mapping[int, bytes]) -> tuple[int, bytes]:
    """Return profile and extension data, in the one-byte form where it can hold every element."""
    if not elements:
        return 0, b""
    one_byte = all(id <= 14 and 1 <= len(value) <= 16 for id, value in elements.items())
    if one_byte:
        data = b"".join(bytes([id << 4 | len(value) - 1]) + value for id, value in elements.items())
    else:
        data = b"".join(bytes([id, len(value)]) + value for id, value in elements.items())
    return (ONE_BYTE if one_byte else TWO_BYTE), data + bytes(-len(data) % 4)


def parse_text(value: bytes) -> str:
    """Read mid, rid or repaired rid (RFC 7941, RFC 8852).

    Raises:
        RtpParseError: It is not ASCII.
    """
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise RtpParseError("identifier is not ASCII") from None


def parse_audio_level(value: bytes) -> tuple[bool, int]:
    """Read voice activity and level in -dBov, 0 the loudest and 127 silence (RFC 6464).

    Raises:
        RtpParseError: It is empty.
    """
    if not value:
        raise RtpParseError("audio level is empty")
    return bool(value[0] & 0x80), value[0] & 0x7F


def parse_transport_cc(value: bytes) -> int:
    """Read the transport-wide seq (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2).

    Raises:
        RtpParseError: It is not two bytes; the four of version 2 begin with the same two.
    """
    if len(value) not in (2, 4):
        raise RtpParseError("transport-wide sequence number is not 2 or 4 bytes")
    return int.from_bytes(value[:2], "big")


def parse_abs_send_time(value: bytes) -> float:
    """Read a send time in seconds, which wraps every 64 s: 6.18 fixed point.

    Raises:
        RtpParseError: It is not three bytes.
    """
    if len(value) != 3:
        raise RtpParseError("abs-send-time is not 3 bytes")
    (ticks,) = unpack("!I", b"\0" + value)
    return float(ticks) / (1 << 18)


def serialize_abs_send_time(seconds: float) -> bytes:
    """Write a send time, whole turns of 64 s left out."""
    return pack("!I", int(seconds * (1 << 18)) & 0xFFFFFF)[1:]
