# RED: earlier frames of sound repeated before the present one. And which of the latest packets have come, so that what is
# lost can be taken from there.
#
#     a redundant block's header:   |1|  block PT   |  timestamp offset, 14 bits  |  block length, 10 bits  |
#     the last, of the primary one: |0|  block PT   |   then the blocks, in the order of their headers
#
# Spec: RFC 2198 section 3.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from server.media.fastpath.demux cimport read_u32


cdef enum:
    RED_BLOCKS = 8          # redundant ones; libwebrtc sends one or two


cdef struct RedBlock:
    uint8_t* data
    uint32_t size
    uint32_t timestamp_offset   # how far before the packet's timestamp


cdef struct Red:
    uint32_t count          # of redundant blocks, oldest first; the primary one is behind them
    RedBlock blocks[RED_BLOCKS + 1]


cdef inline bint read_red(uint8_t* data, uint32_t size, uint8_t payload_type, Red* red) noexcept nogil:
    """Find the blocks. False: they do not fit, are too many, or one has another payload type."""
    cdef uint32_t at = 0, i, word
    red.count = 0
    while at < size and data[at] & 0x80:
        if at + 4 > size or red.count == RED_BLOCKS or data[at] & 0x7F != payload_type:
            return False
        word = read_u32(data + at)
        red.blocks[red.count].timestamp_offset = word >> 10 & 0x3FFF
        red.blocks[red.count].size = word & 0x3FF
        red.count += 1
        at += 4
    if at >= size or data[at] != payload_type:
        return False
    at += 1
    for i in range(red.count):
        if at + red.blocks[i].size > size:
            return False
        red.blocks[i].data = data + at
        at += red.blocks[i].size
    red.blocks[red.count].data = data + at
    red.blocks[red.count].size = size - at
    red.blocks[red.count].timestamp_offset = 0
    return True


cdef inline void rename_blocks(uint8_t* data, const Red* red, uint8_t payload_type) noexcept nogil:
    """Write the receiver's payload type into the headers of a payload that `read_red` has read."""
    cdef uint32_t i
    for i in range(red.count):
        data[4 * i] = 0x80 | payload_type
    data[4 * red.count] = payload_type


cdef struct Seen:
    int64_t highest
    uint64_t arrived        # by bit: highest, highest - 1, ...
    uint64_t repaired       # taken from redundancy


cdef inline void note_seen(Seen* seen, int64_t ext_seq) noexcept nogil:
    """A packet has come."""
    cdef int64_t ahead = ext_seq - seen.highest
    if ahead >= 64:
        seen.arrived = 0
        seen.repaired = 0
    elif ahead > 0:
        seen.arrived <<= ahead
        seen.repaired <<= ahead
    if ahead > 0:
        seen.highest = ext_seq
    if ext_seq > seen.highest - 64:
        seen.arrived |= <uint64_t>1 << (seen.highest - ext_seq)


cdef inline bint is_lost(const Seen* seen, int64_t ext_seq) noexcept nogil:
    """Whether a packet before the highest has neither come nor been repaired; of old ones that is not known."""
    return (
        ext_seq > seen.highest - 64 and not (seen.arrived | seen.repaired) >> (seen.highest - ext_seq) & 1
    )


cdef inline bint is_repaired(const Seen* seen, int64_t ext_seq) noexcept nogil:
    return ext_seq > seen.highest - 64 and seen.repaired >> (seen.highest - ext_seq) & 1


cdef inline void note_repaired(Seen* seen, int64_t ext_seq) noexcept nogil:
    seen.repaired |= <uint64_t>1 << (seen.highest - ext_seq)
