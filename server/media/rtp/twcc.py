"""Transport-wide congestion control feedback: when each packet of a transport arrived.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           base seq            |      packet status count      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |       reference time, in 64 ms, signed        | feedback count|
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  chunks of 2 bytes, then a delta in 250 us for every arrival  |

    run length   |0| S |      13 bits: how many      |
    14 symbols   |1|0|  one bit each: 0, 1           |
     7 symbols   |1|1|  two bits each: 0, 1, 2       |
    symbols: 0 not received, 1 delta of one byte, 2 delta of two bytes, signed; 3 is reserved

Spec: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1. This is the part after the two SSRCs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import pack, unpack_from

from server.media.rtp.errors import RtcpParseError
from server.media.rtp.sequence import Unwrapper, difference

TICK_S = 0.00025
REFERENCE_S = 0.064
_TICKS_PER_REFERENCE = 256
MAX_STATUSES = 400
"""Of one message that we send: at worst 115 bytes of chunks and 800 of deltas, well inside one datagram."""
MAX_PARSED_STATUSES = 8192
"""Of one message that we read: one full run; senders report every 50 to 250 ms, hundreds of packets at most."""
MAX_REPORTED = 2048
"""Of all messages of one `build`: 100 ms at 250 Mbit/s. A peer that jumps further has sent nothing in between."""
REMEMBERED_S = 0.5
"""Arrivals kept, so that a late packet's message does not call its successors lost (libwebrtc keeps as long)."""


@dataclass(frozen=True)
class TransportFeedback:
    """What one message says. `deltas` has one entry a packet from `base_seq` on, in 250 us after the arrival before it
    (the first: after the reference time); None: not received.
    """

    sender_ssrc: int
    media_ssrc: int
    base_seq: int
    reference: int
    """Reference time in 64 ms, 24 bits signed."""
    feedback_count: int
    deltas: tuple[int | None, ...]

    def arrivals(self) -> list[tuple[int, float | None]]:
        """Return seq and arrival of each packet, in seconds on the peer's clock; None if it is not there."""
        ticks = self.reference * _TICKS_PER_REFERENCE
        arrivals: list[tuple[int, float | None]] = []
        for index, delta in enumerate(self.deltas):
            if delta is not None:
                ticks += delta
            arrivals.append(((self.base_seq + index) & 0xFFFF, None if delta is None else ticks * TICK_S))
        return arrivals


def parse_feedback(sender_ssrc: int, media_ssrc: int, data: bytes) -> TransportFeedback:
    """Parse what follows the SSRCs; what follows the last delta is ignored.

    Raises:
        RtcpParseError: It is truncated, has no status or too many, or a symbol is the reserved one.
    """
    if len(data) < 8:
        raise RtcpParseError("transport feedback is shorter than its header")
    base, count, word = unpack_from("!HHI", data)
    if not 0 < count <= MAX_PARSED_STATUSES:
        raise RtcpParseError("transport feedback has no status, or too many")
    symbols: list[int] = []
    at = 8
    while len(symbols) < count:
        if at + 2 > len(data):
            raise RtcpParseError("transport feedback ends within its chunks")
        (chunk,) = unpack_from("!H", data, at)
        at += 2
        if not chunk & 0x8000:
            symbols += [chunk >> 13] * min(chunk & 0x1FFF, count - len(symbols))
        elif not chunk & 0x4000:
            symbols += [chunk >> (13 - i) & 1 for i in range(14)]
        else:
            symbols += [chunk >> (12 - 2 * i) & 3 for i in range(7)]
    deltas: list[int | None] = []
    for symbol in symbols[:count]:
        if symbol == 0:
            deltas.append(None)
            continue
        if symbol == 3:
            raise RtcpParseError("transport feedback uses the reserved symbol")
        if at + symbol > len(data):
            raise RtcpParseError("transport feedback ends within its deltas")
        deltas.append(data[at] if symbol == 1 else unpack_from("!h", data, at)[0])
        at += symbol
    reference = difference(word >> 8, 0, 24)
    return TransportFeedback(sender_ssrc, media_ssrc, base, reference, word & 0xFF, tuple(deltas))


def serialize_feedback(feedback: TransportFeedback) -> bytes:
    """Return what follows the SSRCs; rtcp.py pads it to whole words."""
    symbols = [_symbol(delta) for delta in feedback.deltas]
    word = (feedback.reference & 0xFFFFFF) << 8 | feedback.feedback_count
    data = pack("!HHI", feedback.base_seq, len(symbols), word) + _chunks(symbols)
    return data + b"".join(
        pack("!B" if symbol == 1 else "!h", delta)
        for symbol, delta in zip(symbols, feedback.deltas, strict=True)
        if delta is not None
    )


def _symbol(delta: int | None) -> int:
    if delta is None:
        return 0
    return 1 if 0 <= delta <= 0xFF else 2


def _chunks(symbols: Sequence[int]) -> bytes:
    """Choose chunks greedily: a run where it is longer than a vector would be, else the vector that fits."""
    data = b""
    at = 0
    while at < len(symbols):
        run = at
        while run < len(symbols) and symbols[run] == symbols[at] and run - at < 0x1FFF:
            run += 1
        ones = symbols[at : at + 14]
        width = 7 if 2 in ones else 14
        if run - at >= width or run == len(symbols):
            data += pack("!H", symbols[at] << 13 | (run - at))
            at = run
        elif width == 14:
            data += pack("!H", 0x8000 | sum(symbol << (13 - i) for i, symbol in enumerate(ones)))
            at += 14
        else:
            twos = symbols[at : at + 7]
            data += pack("!H", 0xC000 | sum(symbol << (12 - 2 * i) for i, symbol in enumerate(twos)))
            at += 7
    return data


class FeedbackBuilder:
    """Turns the relay's arrival log into messages. Keeps half a second of arrivals.

    Args:
        sender_ssrc: Ours.
        media_ssrc: One of the peer's; it only has to be known to the peer.
    """

    def __init__(self, sender_ssrc: int, media_ssrc: int) -> None:
        self.media_ssrc = media_ssrc
        self._sender_ssrc = sender_ssrc
        self._unwrapper = Unwrapper()
        self._arrivals: dict[int, float] = {}
        self._next: int | None = None
        self._count = 0

    def build(self, log: Iterable[tuple[int, float]]) -> list[TransportFeedback]:
        """Return the messages for what arrived since the last call; none if nothing did.

        A gap at the start, since the last call, is reported as lost; what arrives late is reported when it does.

        Args:
            log: Transport-wide seqs and arrivals in seconds, in order of arrival.
        """
        fresh: list[int] = []
        for seq, at in log:
            ext_seq = self._unwrapper.unwrap(seq & 0xFFFF)
            if ext_seq not in self._arrivals:
                self._arrivals[ext_seq] = at
                fresh.append(ext_seq)
        if not fresh:
            return []
        first, last = min(fresh), max(fresh)
        if self._next is not None:
            first = min(first, self._next)
        if last - first >= MAX_REPORTED:
            first = min(ext_seq for ext_seq in fresh if last - ext_seq < MAX_REPORTED)
        self._next = last + 1 if self._next is None else max(self._next, last + 1)
        messages = []
        while first <= last:
            message, first = self._message(first, last)
            messages.append(message)
        newest = max(self._arrivals[ext_seq] for ext_seq in fresh)
        self._arrivals = {n: at for n, at in self._arrivals.items() if at > newest - REMEMBERED_S}
        return messages

    def _message(self, first: int, last: int) -> tuple[TransportFeedback, int]:
        """Return one message and where the next begins: at its size, or where a delta does not fit 16 bits."""
        end = min(last + 1, first + MAX_STATUSES)
        start = next(self._arrivals[n] for n in range(first, last + 1) if n in self._arrivals)
        reference = int(start // REFERENCE_S)
        before = reference * _TICKS_PER_REFERENCE
        deltas: list[int | None] = []
        for ext_seq in range(first, end):
            at = self._arrivals.get(ext_seq)
            if at is None:
                deltas.append(None)
                continue
            ticks = round(at / TICK_S)
            if not -0x8000 <= ticks - before <= 0x7FFF:
                break
            deltas.append(ticks - before)
            before = ticks
        message = TransportFeedback(
            self._sender_ssrc,
            self.media_ssrc,
            first & 0xFFFF,
            difference(reference & 0xFFFFFF, 0, 24),
            self._count,
            tuple(deltas),
        )
        self._count = (self._count + 1) & 0xFF
        return message, first + len(deltas)
