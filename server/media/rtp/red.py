"""Redundant audio: earlier frames repeated before the present one.

    a redundant block's header                                       the last, of the primary block
     0                   1                   2                   3    0 1 2 3 4 5 6 7
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 +-+-+-+-+-+-+-+-+
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+|0|  block PT   |
    |1|  block PT   |     timestamp offset      |   block length    |+-+-+-+-+-+-+-+-+
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

The relay unwraps it in C; by this reader and writer the tests judge that.

Spec: RFC 2198 section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack, unpack_from

from server.media.rtp.errors import RtpParseError


@dataclass(frozen=True)
class RedBlock:
    """One frame."""

    payload_type: int
    data: bytes
    timestamp_offset: int = 0
    """How far before the packet's own timestamp; 0 for the primary block."""


def parse_red(payload: bytes) -> list[RedBlock]:
    """Return the blocks, oldest first, the primary one last.

    Raises:
        RtpParseError: The headers do not end, or a block leaves the payload.
    """
    headers: list[tuple[int, int, int]] = []
    at = 0
    while True:
        if at >= len(payload):
            raise RtpParseError("RED headers do not end")
        if not payload[at] & 0x80:
            break
        if at + 4 > len(payload):
            raise RtpParseError("RED header is truncated")
        (word,) = unpack_from("!I", payload, at)
        headers.append((word >> 24 & 0x7F, word >> 10 & 0x3FFF, word & 0x3FF))
        at += 4
    primary = payload[at] & 0x7F
    at += 1
    blocks = []
    for payload_type, offset, length in headers:
        if at + length > len(payload):
            raise RtpParseError("RED block is truncated")
        blocks.append(RedBlock(payload_type, payload[at : at + length], offset))
        at += length
    return [*blocks, RedBlock(primary, payload[at:])]


def serialize_red(blocks: Sequence[RedBlock]) -> bytes:
    """Return the payload of blocks whose last is the primary one; a redundant block has less than 1,024 bytes."""
    *redundant, primary = blocks
    data = b"".join(
        pack("!I", 1 << 31 | block.payload_type << 24 | block.timestamp_offset << 10 | len(block.data))
        for block in redundant
    )
    return data + bytes([primary.payload_type]) + b"".join(block.data for block in blocks)
