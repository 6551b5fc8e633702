# Transport-cc feedback, written from the log of arrivals: one RTCP packet for at most 400 numbers.
#
#     |V=2|P|  FMT=15 |     PT=205    |            length             |
#     |                     SSRC of packet sender                     |
#     |                      SSRC of media source                     |
#     |            base seq           |      packet status count      |
#     |        reference time, in 64 ms, signed       | feedback count|
#     |  chunks of 2 bytes, then a delta in 250 us for every arrival  |
#
# Symbols and chunks are drawn in rtp/twcc.py, which reads them and writes the same bytes.
#
# Spec: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t

from server.media.fastpath.arrivals cimport ARRIVALS, Arrivals
from server.media.fastpath.packet cimport write_u16, write_u32


cdef enum:
    FEEDBACK_STATUSES = 400     # at worst 116 bytes of chunks and 800 of deltas
    FEEDBACK_BYTES = 940        # and the 20 before them, padded
    FEEDBACK_AT_ONCE = 8        # packets to one transport: more than ARRIVALS take, unless arrivals leap by 8 s and back


cdef inline bint feedback_due(const Arrivals* log, double now, double every) noexcept nogil:
    return log.highest != 0 and log.fresh_from <= log.fresh_to and now - log.reported_at >= every


cdef inline int64_t feedback_begin(const Arrivals* log) noexcept nogil:
    """The first number to report: what was lost since the last report, and what came late, included."""
    cdef int64_t first = min(log.next, log.fresh_from)
    if first <= log.highest - ARRIVALS:
        first = log.highest - ARRIVALS + 1
        while not log.ticks[first % ARRIVALS]:
            first += 1
    return first


cdef inline void feedback_end(Arrivals* log, double now) noexcept nogil:
    """All that arrived has been reported."""
    log.next = max(log.next, log.fresh_to + 1)
    log.fresh_to = log.fresh_from - 1
    log.reported_at = now


cdef inline uint32_t write_feedback(uint8_t* out, Arrivals* log, int64_t* first, uint32_t sender_ssrc) noexcept nogil:
    """Write one packet.

    Args:
        out: Room for FEEDBACK_BYTES.
        log: With arrivals not reported yet; its count of reports is raised.
        first: The first number to report, at most `log.fresh_to`; changed to where the next packet begins.
        sender_ssrc: Ours.

    Returns:
        Bytes written, a multiple of 4.
    """
    cdef uint8_t symbols[FEEDBACK_STATUSES]
    cdef int16_t deltas[FEEDBACK_STATUSES]
    cdef uint32_t count = 0, size = 20, i, padding
    cdef int64_t n = first[0], ticks, before, delta, reference
    while not log.ticks[n % ARRIVALS]:
        n += 1
    reference = log.ticks[n % ARRIVALS] >> 8
    before = reference << 8
    for n in range(first[0], min(log.fresh_to + 1, first[0] + FEEDBACK_STATUSES)):
        ticks = log.ticks[n % ARRIVALS]
        symbols[count] = 0
        if ticks:
            delta = ticks - before
            if not -0x8000 <= delta <= 0x7FFF:
                break
            before = ticks
            deltas[count] = <int16_t>delta
            symbols[count] = 1 if 0 <= delta <= 0xFF else 2
        count += 1
    write_u32(out + 4, sender_ssrc)
    write_u32(out + 8, log.ssrc)
    write_u16(out + 12, <uint16_t>first[0])
    write_u16(out + 14, <uint16_t>count)
    write_u32(out + 16, <uint32_t>(reference << 8) | log.reports)
    log.reports += 1
    first[0] += count
    size += _write_chunks(out + size, symbols, count)
    for i in range(count):
        if symbols[i] == 1:
            out[size] = <uint8_t>deltas[i]
            size += 1
        elif symbols[i] == 2:
            write_u16(out + size, <uint16_t>deltas[i])
            size += 2
    padding = (4 - (size & 3)) & 3
    for i in range(padding):
        out[size + i] = <uint8_t>(padding if i == padding - 1 else 0)
    size += padding
    out[0] = 0xAF if padding else 0x8F
    out[1] = 205
    write_u16(out + 2, <uint16_t>(size // 4 - 1))
    return size


cdef inline uint32_t _write_chunks(uint8_t* out, const uint8_t* symbols, uint32_t count) noexcept nogil:
    """Greedily: a run where it is longer than a vector would be, else the vector that fits."""
    cdef uint32_t at = 0, size = 0, run, width, i
    cdef uint16_t chunk
    while at < count:
        run = 1
        while at + run < count and symbols[at + run] == symbols[at]:
            run += 1
        width = 14
        for i in range(at, min(count, at + 14)):
            if symbols[i] == 2:
                width = 7
        if run >= width or at + run == count:
            chunk = <uint16_t>(symbols[at] << 13 | run)
            width = run
        else:
            chunk = 0x8000 if width == 14 else 0xC000
            for i in range(min(width, count - at)):
                chunk |= <uint16_t>(symbols[at + i] << ((13 - i) if width == 14 else (12 - 2 * i)))
        write_u16(out + size, chunk)
        size += 2
        at += width
    return size
