"""RTCP packets, one dataclass each, and compounds of them.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P| count or|      PT       |   length in 32-bit words - 1  |
    |     |  format |               |                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

What we do not know is kept as it came (`OtherRtcp`), so that parsing and serialising gives the same bytes. A compound
may be of reduced size, without a report in front (RFC 5506): browsers send such when `a=rtcp-rsize` is agreed on.

Padding is for the last packet and in whole words, says RFC 3550 section 6.4.1. libwebrtc fills transport feedback with
1 to 3 bytes of it, and sends several of those in one compound: so do we, and so we read it.

Spec: RFC 3550 section 6 (reports, SDES, BYE), RFC 4585 section 6 (NACK, PLI), RFC 5104 section 4.3.1 (FIR),
draft-alvestrand-rmcat-remb-03 (REMB). NACK lists and transport feedback are in nack.py and twcc.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Any

from server.media.rtp.errors import RtcpParseError
from server.media.rtp.nack import parse_nack, serialize_nack
from server.media.rtp.sequence import difference
from server.media.rtp.twcc import TransportFeedback, parse_feedback, serialize_feedback

SDES_CNAME = 1

MAX_PACKETS = 32
"""Of one compound: more than any browser puts together, and far less than fits, each of which costs more than it is
long."""
_REPORT_BYTES = 24
_REMB = b"REMB"


UNREAD_FROM_RECEIVERS = frozenset({(202, 0), (207, 0), (205, 1), (205, 15), (206, 15)})
"""SDES and XR, which tell us nothing; NACK, which the relay has answered; transport feedback and REMB."""


class _Type:
    """Packet types (RFC 3550 section 12.1, RFC 4585 section 6.1)."""

    SR, RR, SDES, BYE, RTPFB, PSFB = 200, 201, 202, 203, 205, 206


class _Format:
    """Formats of RTPFB (the first two) and PSFB; REMB is the application's."""

    NACK, TRANSPORT_CC = 1, 15
    PLI, FIR, APPLICATION = 1, 4, 15


@dataclass(frozen=True)
class ReportBlock:
    """How one stream arrives."""

    ssrc: int
    fraction_lost: int
    """Since the report before, in 1/256."""
    lost: int
    """Since the beginning, 24 bits signed: duplicates make it negative."""
    highest_ext_seq: int
    jitter: int
    """In units of the stream's clock."""
    last_sr: int
    """Middle 32 bits of the last sender report's NTP time; 0: none came."""
    delay_since_last_sr: int
    """In 1/65536 s."""


@dataclass(frozen=True)
class SenderReport:
    """What a source has sent, and which wall time its timestamps stand for."""

    ssrc: int
    ntp: int
    """64 bits: seconds since 1900 and their fraction."""
    rtp_timestamp: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()
    extension: bytes = b""


@dataclass(frozen=True)
class ReceiverReport:
    """What somebody receives."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()
    extension: bytes = b""


@dataclass(frozen=True)
class SdesChunk:
    """Items of one source: kind and text."""

    ssrc: int
    items: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class SourceDescription:
    """Who the sources are; browsers send the CNAME alone."""

    chunks: tuple[SdesChunk, ...]


@dataclass(frozen=True)
class Goodbye:
    """Sources that have ended."""

    ssrcs: tuple[int, ...]
    reason: bytes = b""


@dataclass(frozen=True)
class Nack:
    """Packets to send again."""

    sender_ssrc: int
    media_ssrc: int
    seqs: tuple[int, ...]


@dataclass(frozen=True)
class PictureLossIndication:
    """A keyframe is wanted."""

    sender_ssrc: int
    media_ssrc: int


@dataclass(frozen=True)
class FullIntraRequest:
    """Keyframes are wanted, each request numbered so that a repeated one is not a new one."""

    sender_ssrc: int
    media_ssrc: int
    requests: tuple[tuple[int, int], ...]
    """Stream and number of the request."""


@dataclass(frozen=True)
class ReceiverEstimate:
    """REMB: what a receiver believes its downlink carries."""

    sender_ssrc: int
    media_ssrc: int
    bitrate_bps: int
    ssrcs: tuple[int, ...]


@dataclass(frozen=True)
class OtherRtcp:
    """A packet that is not for us to understand."""

    type: int
    count: int
    body: bytes


RtcpPacket = (
    SenderReport
    | ReceiverReport
    | SourceDescription
    | Goodbye
    | Nack
    | TransportFeedback
    | PictureLossIndication
    | FullIntraRequest
    | ReceiverEstimate
    | OtherRtcp
)


def parse_compound(data: bytes, skip: Collection[tuple[int, int]] = ()) -> list[RtcpPacket]:
    """Parse a whole datagram.

    Args:
        data: One packet after the other.
        skip: Types, with the format for those of RFC 4585 and otherwise 0, that are left out unread.

    Raises:
        RtcpParseError: It is empty, one of its packets is truncated or contradicts itself, or there are too many.
    """
    if not data:
        raise RtcpParseError("compound is empty")
    packets: list[RtcpPacket] = []
    at = number = 0
    while at < len(data):
        number += 1
        if number > MAX_PACKETS:
            raise RtcpParseError("too many packets")
        if at + 4 > len(data):
            raise RtcpParseError("header is truncated")
        first, kind, words = unpack_from("!BBH", data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2:
            raise RtcpParseError("version is not 2")
        if end > len(data):
            raise RtcpParseError("packet is truncated")
        if (kind, first & 0x1F if kind in (_Type.RTPFB, _Type.PSFB) else 0) in skip:
            at = end
            continue
        body = data[at + 4 : end]
        if first & 0x20:
            if not body or not 1 <= body[-1] <= len(body):
                raise RtcpParseError("padding is longer than the packet, or zero")
            body = body[: -body[-1]]
        packets.append(_parse(kind, first & 0x1F, body))
        at = end
    return packets


def serialize_compound(packets: Sequence[RtcpPacket]) -> bytes:
    """Return the packets one after the other."""
    return b"".join(serialize(packet) for packet in packets)


def serialize(packet: RtcpPacket) -> bytes:
    """Return one packet."""
    kind, count, body = _serialized(packet)
    padding = -len(body) % 4
    if padding:
        body += bytes(padding - 1) + bytes([padding])
    return pack("!BBH", 0x80 | bool(padding) << 5 | count, kind, len(body) // 4) + body


def _parse(kind: int, count: int, body: bytes) -> RtcpPacket:
    match kind, count:
        case (_Type.SR, _):
            return _parse_sender_report(count, body)
        case (_Type.RR, _):
            (ssrc,) = _fields("!I", body, "receiver report")
            reports, extension = _parse_reports(count, body[4:])
            return ReceiverReport(ssrc, reports, extension)
        case (_Type.SDES, _):
            return _parse_sdes(count, body)
        case (_Type.BYE, _):
            return _parse_goodbye(count, body)
        case (_Type.RTPFB, _Format.NACK):
            sender, media = _fields("!II", body, "NACK")
            return Nack(sender, media, parse_nack(body[8:]))
        case (_Type.RTPFB, _Format.TRANSPORT_CC):
            sender, media = _fields("!II", body, "transport feedback")
            return parse_feedback(sender, media, body[8:])
        case (_Type.PSFB, _Format.PLI):
            sender, media = _fields("!II", body, "PLI")
            if len(body) != 8:
                raise RtcpParseError("PLI has a body")
            return PictureLossIndication(sender, media)
        case (_Type.PSFB, _Format.FIR):
            return _parse_fir(body)
        case (_Type.PSFB, _Format.APPLICATION) if body[8:12] == _REMB:
            return _parse_remb(body)
        case _:
            return OtherRtcp(kind, count, body)


def _serialized(packet: RtcpPacket) -> tuple[int, int, bytes]:
    """Return type, count or format, and body."""
    match packet:
        case SenderReport():
            ntp = (packet.ntp >> 32, packet.ntp & 0xFFFFFFFF)
            body = pack("!IIIIII", packet.ssrc, *ntp, packet.rtp_timestamp, packet.packets, packet.octets)
            return _Type.SR, len(packet.reports), body + _serialize_reports(packet.reports) + packet.extension
        case ReceiverReport():
            body = pack("!I", packet.ssrc) + _serialize_reports(packet.reports) + packet.extension
            return _Type.RR, len(packet.reports), body
        case SourceDescription(chunks):
            return _Type.SDES, len(chunks), b"".join(map(_serialize_chunk, chunks))
        case Goodbye(ssrcs, reason):
            text = bytes([len(reason)]) + reason if reason else b""
            return _Type.BYE, len(ssrcs), pack(f"!{len(ssrcs)}I", *ssrcs) + text + bytes(-len(text) % 4)
        case Nack(sender, media, seqs):
            return _Type.RTPFB, _Format.NACK, pack("!II", sender, media) + serialize_nack(seqs)
        case TransportFeedback(sender, media):
            return _Type.RTPFB, _Format.TRANSPORT_CC, pack("!II", sender, media) + serialize_feedback(packet)
        case PictureLossIndication(sender, media):
            return _Type.PSFB, _Format.PLI, pack("!II", sender, media)
        case FullIntraRequest(sender, media, requests):
            entries = b"".join(pack("!IB3x", ssrc, number) for ssrc, number in requests)
            return _Type.PSFB, _Format.FIR, pack("!II", sender, media) + entries
        case ReceiverEstimate(sender, media, bitrate, ssrcs):
            exponent = max(bitrate.bit_length() - 18, 0)
            word = len(ssrcs) << 24 | exponent << 18 | bitrate >> exponent
            body = pack("!II4sI", sender, media, _REMB, word) + pack(f"!{len(ssrcs)}I", *ssrcs)
            return _Type.PSFB, _Format.APPLICATION, body
        case OtherRtcp(kind, count, body):
            return kind, count, body


def _fields(layout: str, body: bytes, name: str) -> tuple[Any, ...]:
    if len(body) < 4 * (len(layout) - 1):  # every layout here is of 32-bit words
        raise RtcpParseError(f"{name} is truncated")
    return unpack_from(layout, body)


def _parse_sender_report(count: int, body: bytes) -> SenderReport:
    ssrc, seconds, fraction, timestamp, packets, octets = _fields("!IIIIII", body, "sender report")
    reports, extension = _parse_reports(count, body[24:])
    return SenderReport(ssrc, seconds << 32 | fraction, timestamp, packets, octets, reports, extension)


def _parse_reports(count: int, data: bytes) -> tuple[tuple[ReportBlock, ...], bytes]:
    if len(data) < _REPORT_BYTES * count:
        raise RtcpParseError("report block is truncated")
    reports = []
    for at in range(0, _REPORT_BYTES * count, _REPORT_BYTES):
        ssrc, word, highest, jitter, last_sr, delay = unpack_from("!IIIIII", data, at)
        lost = difference(word & 0xFFFFFF, 0, 24)
        reports.append(ReportBlock(ssrc, word >> 24, lost, highest, jitter, last_sr, delay))
    return tuple(reports), data[_REPORT_BYTES * count :]


def _serialize_reports(reports: Sequence[ReportBlock]) -> bytes:
    return b"".join(
        pack(
            "!IIIIII",
            report.ssrc,
            report.fraction_lost << 24 | report.lost & 0xFFFFFF,
            report.highest_ext_seq,
            report.jitter,
            report.last_sr,
            report.delay_since_last_sr,
        )
        for report in reports
    )


def _parse_sdes(count: int, body: bytes) -> SourceDescription:
    chunks = []
    at = 0
    for _ in range(count):
        if at + 4 > len(body):
            raise RtcpParseError("SDES chunk is truncated")
        (ssrc,) = unpack_from("!I", body, at)
        start = at
        at += 4
        items = []
        while at < len(body) and body[at]:
            if at + 2 > len(body) or at + 2 + body[at + 1] > len(body):
                raise RtcpParseError("SDES item is truncated")
            items.append((body[at], body[at + 2 : at + 2 + body[at + 1]]))
            at += 2 + body[at + 1]
        if at >= len(body):
            raise RtcpParseError("SDES chunk does not end")
        at = start + (at - start) // 4 * 4 + 4  # at least one zero ends the items; more fill the word
        chunks.append(SdesChunk(ssrc, tuple(items)))
    return SourceDescription(tuple(chunks))


def _serialize_chunk(chunk: SdesChunk) -> bytes:
    data = pack("!I", chunk.ssrc) + b"".join(bytes([kind, len(text)]) + text for kind, text in chunk.items)
    return data + bytes(4 - len(data) % 4)


def _parse_goodbye(count: int, body: bytes) -> Goodbye:
    if len(body) < 4 * count:
        raise RtcpParseError("BYE is truncated")
    rest = body[4 * count :]
    if rest and 1 + rest[0] > len(rest):
        raise RtcpParseError("BYE reason is truncated")
    return Goodbye(unpack_from(f"!{count}I", body), rest[1 : 1 + rest[0]] if rest else b"")


def _parse_fir(body: bytes) -> FullIntraRequest:
    sender, media = _fields("!II", body, "FIR")
    if len(body) == 8 or len(body) % 8:
        raise RtcpParseError("FIR has no entry or half of one")
    entries = tuple((ssrc, number) for ssrc, number in (unpack_from("!IB", body, at) for at in range(8, len(body), 8)))
    return FullIntraRequest(sender, media, entries)


def _parse_remb(body: bytes) -> ReceiverEstimate:
    sender, media, _, word = _fields("!IIII", body, "REMB")
    count = word >> 24
    if len(body) != 16 + 4 * count:
        raise RtcpParseError("REMB's count of sources contradicts its length")
    bitrate = (word & 0x3FFFF) << (word >> 18 & 0x3F)
    return ReceiverEstimate(sender, media, bitrate, unpack_from(f"!{count}I", body, 16))
