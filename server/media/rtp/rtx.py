"""Retransmissions in a stream of their own: the payload begins with the original seq.

Spec: RFC 4588 section 4. The relay does this in C, to every repaired packet; by this one the tests judge.
"""

from __future__ import annotations

from dataclasses import replace

from server.media.rtp.errors import RtpParseError
from server.media.rtp.packet import RtpPacket


def wrap(packet: RtpPacket, payload_type: int, ssrc: int, seq: int) -> RtpPacket:
    """Return the retransmission of a packet, as number `seq` of the repair stream."""
    payload = packet.seq.to_bytes(2, "big") + packet.payload
    return replace(packet, payload_type=payload_type, ssrc=ssrc, seq=seq, payload=payload)


def unwrap(packet: RtpPacket, payload_type: int, ssrc: int) -> RtpPacket:
    """Return the original of a retransmission.

    Raises:
        RtpParseError: It is too short to hold one; a packet of padding alone, which probes bandwidth, is.
    """
    if len(packet.payload) < 2:
        raise RtpParseError("retransmission holds no original")
    seq = int.from_bytes(packet.payload[:2], "big")
    return replace(packet, payload_type=payload_type, ssrc=ssrc, seq=seq, payload=packet.payload[2:], padding=0)
