"""Generic NACK: which packets of a stream are missing.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |              PID              |  BLP: bit i is PID + i + 1    |   any number of times
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

Spec: RFC 4585 section 6.2.1. This is the part after the two SSRCs; rtcp.py has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import iter_unpack, pack

from server.media.rtp.errors import RtcpParseError

MAX_SEQS = 1024
"""Of one packet: several seconds of a stream; a packet that asks for more is an attack or a ruin."""


def parse_nack(data: bytes) -> tuple[int, ...]:
    """Return the missing seqs in the order of the packet.

    Raises:
        RtcpParseError: Its length is no multiple of four, it is empty, or asks for more than 1,024 packets.
    """
    if not data or len(data) % 4:
        raise RtcpParseError("NACK has no entry or half of one")
    seqs: list[int] = []
    for pid, mask in iter_unpack("!HH", data):
        seqs.append(pid)
        while mask:
            low = mask & -mask
            seqs.append((pid + low.bit_length()) & 0xFFFF)
            mask ^= low
        if len(seqs) > MAX_SEQS:
            raise RtcpParseError("NACK asks for more than 1024 packets")
    return tuple(seqs)


def serialize_nack(seqs: Sequence[int]) -> bytes:
    """Return the entries for seqs in their order; rising ones, wrap included, share entries as far as greed finds."""
    data = b""
    at = 0
    while at < len(seqs):
        pid, mask, last = seqs[at], 0, 0
        at += 1
        while at < len(seqs) and last < (ahead := (seqs[at] - pid) & 0xFFFF) <= 16:
            mask |= 1 << (ahead - 1)
            last = ahead
            at += 1
        data += pack("!HH", pid, mask)
    return data
