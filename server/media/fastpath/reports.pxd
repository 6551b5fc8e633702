# Sender and receiver reports: what a publisher's tells of its clocks, what a receiver's tells of the way to it, and ours.
#
#     SR (PT 200)   SSRC, NTP time (64 bits), RTP timestamp, packets, octets, then report blocks
#     RR (PT 201)   SSRC, then report blocks of 24 bytes:
#                   |  SSRC  |fraction|   lost (24)  | highest number | jitter | middle of the last SR's NTP | time since |
#     SDES (PT 202) for each source:  SSRC, 1, size, CNAME, zeros to the next word
#
# Spec: RFC 3550 sections 6.4 and 6.5, appendices A.3 and A.8.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from server.media.fastpath.demux cimport read_u32
from server.media.fastpath.packet cimport write_u16, write_u32
from server.media.fastpath.rtcp cimport SENDER_REPORT
from server.media.fastpath.tables cimport CNAME_BYTES, Forward, ForwardRow, Source, SourceRow


cdef enum:
    SENDER_INFO_BYTES = 24      # of a report's body
    BLOCK_BYTES = 24
    CHUNK_BYTES = CNAME_BYTES + 12
    # Of one compound: 28 bytes and a chunk for each of our reports leave room for blocks below 1200.
    REPORTS_OF_ONE = 12
    BLOCKS_OF_ONE = 20


cdef inline void write_head(uint8_t* out, uint8_t count, uint8_t kind, int size) noexcept nogil:
    """The first word of a packet of this size."""
    out[0] = 0x80 | count
    out[1] = kind
    write_u16(out + 2, size // 4 - 1)


cdef inline void note_clock(SourceRow* row, const uint8_t* body, double now) noexcept nogil:
    """Keep what a publisher's report says about its clocks: lip-sync hangs on it."""
    row.clock_ntp = <uint64_t>read_u32(body + 4) << 32 | read_u32(body + 8)
    row.clock_timestamp = read_u32(body + 12)
    row.clock_at = now


cdef inline double round_trip(const Forward* forward, const uint8_t* block, double now) noexcept nogil:
    """Seconds that a receiver's report block shows (RFC 3550 section 6.4.1); below 0: it shows none."""
    cdef double seconds = now - forward.report_at - read_u32(block + 20) / 65536.0
    if read_u32(block + 16) == 0 or read_u32(block + 16) != forward.report_ntp or seconds >= 10:
        return -1
    return seconds


cdef inline bint write_block(uint8_t* out, Source* source, const SourceRow* row, double now) noexcept nogil:
    """How a source arrives, since the call before and since its beginning. False: nothing has come."""
    cdef int64_t lost = min(max(row.lost, <int64_t>-0x800000), <int64_t>0x7FFFFF)
    cdef int64_t due = <int64_t>row.packets + row.lost - source.reported_expected
    cdef int64_t missing = due - (<int64_t>row.packets - source.reported_packets)
    cdef double since = min(max((now - row.clock_at) * 65536, 0.0), 4294967295.0)
    if row.packets == 0 or not source.bound:
        return False
    source.reported_expected = <int64_t>row.packets + row.lost
    source.reported_packets = <int64_t>row.packets
    write_u32(out, row.ssrc)
    write_u32(out + 4, <uint32_t>lost & 0xFFFFFF)
    out[4] = <uint8_t>min(missing * 256 // due, <int64_t>255) if due > 0 and missing > 0 else 0
    write_u32(out + 8, <uint32_t>row.highest_ext_seq)
    write_u32(out + 12, <uint32_t>row.jitter)
    write_u32(out + 16, <uint32_t>(row.clock_ntp >> 16))
    write_u32(out + 20, <uint32_t>since if row.clock_at else 0)
    return True


cdef inline bint write_sender_report(
    uint8_t* out, Forward* forward, const ForwardRow* row, const SourceRow* source, double now
) noexcept nogil:
    """What was sent of a forward, on its publisher's clocks: 28 bytes. False: nothing since, or the clocks are not known."""
    cdef double elapsed = now - source.clock_at
    cdef uint64_t ntp = source.clock_ntp + <uint64_t><int64_t>(elapsed * 4294967296.0)
    if row.packets == forward.reported_packets or source.clock_at == 0:
        return False
    forward.reported_packets = row.packets
    forward.report_ntp = <uint32_t>(ntp >> 16)
    forward.report_at = now
    write_head(out, 0, SENDER_REPORT, 4 + SENDER_INFO_BYTES)
    write_u32(out + 4, row.ssrc)
    write_u32(out + 8, <uint32_t>(ntp >> 32))
    write_u32(out + 12, <uint32_t>ntp)
    write_u32(
        out + 16,
        source.clock_timestamp + <uint32_t><int64_t>(elapsed * source.clock_rate + 0.5) + row.timestamp_offset,
    )
    write_u32(out + 20, <uint32_t>row.packets)
    write_u32(out + 24, <uint32_t>row.bytes)
    return True


cdef inline int write_chunk(uint8_t* out, uint32_t ssrc, const uint8_t* cname, uint8_t size) noexcept nogil:
    """Whose stream it is. Returns the bytes written, whole words, at most CHUNK_BYTES."""
    cdef int words = (6 + size) // 4 + 1
    memset(out, 0, 4 * words)
    write_u32(out, ssrc)
    out[4] = 1
    out[5] = size
    memcpy(out + 6, cname, size)
    return 4 * words
