# RTCP of a load participant: sender and receiver reports, and transport-wide feedback, as browsers send them.
#
# Spec: RFC 3550 section 6.4, draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from loadtest.streams cimport Receiver, Sender, get16, get32, put16, put32


cdef enum:
    ARRIVALS = 1024             # transport-wide numbers remembered: 100 ms of 10,000 packets a second
    FEEDBACK_BYTES = 1100
    TICK_NS = 250000            # of a receive delta


cdef struct Arrivals:
    int64_t at[ARRIVALS]        # nanoseconds, by number; 0: not arrived
    int64_t next                # the first that no feedback has told of, unwrapped; -1: none arrived yet
    int64_t highest
    uint8_t count               # of feedback packets


cdef inline void note_arrival(Arrivals* arrivals, uint16_t seq, int64_t at) noexcept nogil:
    """Remember when a packet came."""
    cdef int64_t ext_seq, gap
    if arrivals.next < 0:
        arrivals.next = arrivals.highest = ext_seq = 65536 + seq
    else:
        gap = (seq - <int>(arrivals.highest & 0xFFFF)) & 0xFFFF
        if gap >= 32768:
            gap -= 65536
        ext_seq = arrivals.highest + gap
    if ext_seq < arrivals.next:
        return
    if ext_seq >= arrivals.next + ARRIVALS:  # more than feedback could tell of: begin anew
        memset(arrivals.at, 0, sizeof(arrivals.at))
        arrivals.next = ext_seq
    if ext_seq > arrivals.highest:
        arrivals.highest = ext_seq
    arrivals.at[ext_seq & (ARRIVALS - 1)] = at


cdef inline int write_feedback(
    Arrivals* arrivals, uint32_t from_ssrc, uint32_t of_ssrc, uint8_t* packet
) noexcept nogil:
    """Write what arrived since the last feedback, status vectors of two bits throughout; returns its size or 0."""
    cdef int count, chunks, i, deltas, at, symbol, padding
    cdef int64_t reference, told, delta, came
    cdef uint32_t chunk
    if arrivals.next < 0 or arrivals.highest < arrivals.next:
        return 0
    count = <int>(arrivals.highest - arrivals.next + 1)
    if count > 400:  # what fits, deltas of two bytes included; the rest goes with the next one
        count = 400
    reference = arrivals.at[arrivals.next & (ARRIVALS - 1)]
    i = 0
    while reference == 0:
        i += 1
        reference = arrivals.at[(arrivals.next + i) & (ARRIVALS - 1)]
    reference //= 64000000
    told = reference * 256  # in ticks
    packet[0] = 0x8F
    packet[1] = 205
    put32(packet + 4, from_ssrc)
    put32(packet + 8, of_ssrc)
    put16(packet + 12, arrivals.next & 0xFFFF)
    put16(packet + 14, count)
    put32(packet + 16, <uint32_t>((reference & 0xFFFFFF) << 8) | arrivals.count)
    chunks = 20
    deltas = chunks + 2 * ((count + 6) // 7)
    at = deltas
    chunk = 0
    for i in range(count):
        came = arrivals.at[(arrivals.next + i) & (ARRIVALS - 1)]
        arrivals.at[(arrivals.next + i) & (ARRIVALS - 1)] = 0
        symbol = 0
        if came:
            delta = came // TICK_NS - told
            if delta < -32768 or delta > 32767:
                symbol = 0
            else:
                told += delta
                if 0 <= delta <= 255:
                    symbol = 1
                    packet[at] = delta
                    at += 1
                else:
                    symbol = 2
                    put16(packet + at, <uint32_t>(delta & 0xFFFF))
                    at += 2
        chunk = chunk << 2 | symbol
        if i % 7 == 6 or i == count - 1:
            chunk <<= 2 * (6 - i % 7)
            put16(packet + chunks, 0xC000 | chunk)
            chunks += 2
            chunk = 0
    arrivals.next += count
    arrivals.count += 1
    padding = (4 - at % 4) % 4
    if padding:
        packet[0] |= 0x20
        memset(packet + at, 0, padding)
        at += padding
        packet[at - 1] = padding
    put16(packet + 2, at // 4 - 1)
    return at


cdef inline int write_report(
    Sender** senders, int sending, Receiver* receivers, int receiving, uint32_t ssrc, int64_t wall, uint8_t* packet
) noexcept nogil:
    """Write a compound: a sender report for each stream sent (or one receiver report), and SDES; returns its size."""
    cdef int at = 0, i, j, head, blocks
    cdef uint32_t seconds = <uint32_t>(wall // 1000000000) + <uint32_t>2208988800  # from 1900 to 1970
    cdef uint32_t fraction = <uint32_t>((<uint64_t>(wall % 1000000000) << 32) // 1000000000)
    for i in range(sending if sending else 1):
        head = at
        blocks = receiving if i == 0 else 0
        packet[at] = 0x80 | blocks
        packet[at + 1] = 200 if sending else 201
        put32(packet + at + 4, senders[i].ssrc if sending else ssrc)
        at += 8
        if sending:
            put32(packet + at, seconds)
            put32(packet + at + 4, fraction)
            put32(packet + at + 8, senders[i].timestamp)
            put32(packet + at + 12, senders[i].packets)
            put32(packet + at + 16, senders[i].bytes)
            at += 20
        for j in range(blocks):
            memset(packet + at, 0, 24)
            put32(packet + at, receivers[j].ssrc)
            put32(packet + at + 8, receivers[j].highest - 65536)
            at += 24
        put16(packet + head + 2, (at - head) // 4 - 1)
    packet[at] = 0x81
    packet[at + 1] = 202
    put16(packet + at + 2, 3)
    put32(packet + at + 4, senders[0].ssrc if sending else ssrc)
    memcpy(packet + at + 8, b"\x01\x04load\x00\x00", 8)
    return at + 16
