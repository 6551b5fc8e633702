"""One RTP packet.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|X|  CC   |M|     PT      |              seq              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                         rtp_timestamp                         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                             ssrc                              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |               0 to 15 contributing sources, 4 bytes each      |
    |            with X: profile, words, header extension           |
    |              payload, with P: padding, its last byte counts   |

Spec: RFC 3550 section 5.1. Off the fast path only: the recorder, tests, the first packet of an unknown source.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack_from

from server.media.rtp.errors import RtpParseError

HEADER_BYTES = 12


@dataclass(frozen=True)
class RtpPacket:
    """A packet in the clear."""

    payload_type: int
    seq: int
    rtp_timestamp: int
    ssrc: int
    marker: bool = False
    csrcs: tuple[int, ...] = ()
    extension_profile: int = 0
    """0xBEDE or 0x100? of RFC 8285 (extensions.py reads the rest); 0 without extension."""
    extension: bytes = b""
    payload: bytes = b""
    padding: int = 0
    """Bytes after the payload, the counting one included."""

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket:
        """Parse a whole packet.

        Raises:
            RtpParseError: It is not of version 2, or something it announces is not inside.
        """
        if len(data) < HEADER_BYTES:
            raise RtpParseError("packet shorter than 12 bytes")
        first, second, seq, timestamp, ssrc = unpack_from("!BBHII", data)
        if first >> 6 != 2:
            raise RtpParseError("version is not 2")
        count = first & 0x0F
        at = HEADER_BYTES + 4 * count
        if at > len(data):
            raise RtpParseError("contributing sources are truncated")
        csrcs = unpack_from(f"!{count}I", data, HEADER_BYTES)
        profile, extension = 0, b""
        if first & 0x10:
            if at + 4 > len(data):
                raise RtpParseError("extension header is truncated")
            profile, words = unpack_from("!HH", data, at)
            extension = data[at + 4 : at + 4 + 4 * words]
            at += 4 + 4 * words
            if at > len(data):
                raise RtpParseError("extension is truncated")
        padding = data[-1] if first & 0x20 and at < len(data) else 0
        if first & 0x20 and not 1 <= padding <= len(data) - at:
            raise RtpParseError("padding is longer than the payload, or zero")
        payload = data[at : len(data) - padding]
        return cls(
            second & 0x7F, seq, timestamp, ssrc, bool(second & 0x80), csrcs, profile, extension, payload, padding
        )

    def __bytes__(self) -> bytes:
        has_extension = bool(self.extension_profile or self.extension)
        first = 0x80 | bool(self.padding) << 5 | has_extension << 4 | len(self.csrcs)
        second = self.marker << 7 | self.payload_type
        data = pack("!BBHII", first, second, self.seq, self.rtp_timestamp, self.ssrc)
        data += pack(f"!{len(self.csrcs)}I", *self.csrcs)
        if has_extension:
            data += pack("!HH", self.extension_profile, len(self.extension) // 4) + self.extension
        data += self.payload
        if self.padding:
            data += bytes(self.padding - 1) + bytes([self.padding])
        return data
