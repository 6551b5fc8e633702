# Datagrams in a byte stream: each with its length before it (RFC 4571 section 2; RFC 6544 section 3 has it for ICE-TCP).
#
#     0                   1
#     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
#    |   length, without these two   |  datagram ...
#
# Inline, so that the streams pay no call; framing.pyx is its Python face. A frame that lies whole in what was read is not
# copied; of one cut in two, what has come is kept: 1502 bytes a connection, whatever the peer sends.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from server.media.fastpath.demux cimport read_u16


cdef enum:
    FRAME_HEADER = 2
    FRAME_MOST = 1500           # a datagram of the relay's, MAX_DATAGRAM


cdef enum Progress:
    FRAME_NONE = 0              # all that was read is taken
    FRAME_WHOLE = 1
    FRAME_TOO_LONG = 2          # it will be passed over; told once, at its header


cdef struct Deframer:
    uint16_t have               # bytes of the frame begun, its header included
    uint16_t skip               # bytes still to come of one that is passed over
    uint8_t data[FRAME_HEADER + FRAME_MOST]


cdef inline Progress next_frame(
    Deframer* reader, const uint8_t** data, size_t* size, const uint8_t** frame, uint32_t* length
) noexcept nogil:
    """Take the next frame out of what was read.

    Args:
        reader: The stream's; all zero at its beginning.
        data, size: What was read and is not taken yet; moved on.
        frame, length: With FRAME_WHOLE the datagram, which may be empty; good until the next call.
    """
    cdef uint32_t want, take
    if reader.skip:
        take = reader.skip if reader.skip < size[0] else <uint32_t>size[0]
        reader.skip -= <uint16_t>take
        data[0] += take
        size[0] -= take
    while reader.have < FRAME_HEADER:
        if size[0] == 0:
            return FRAME_NONE
        reader.data[reader.have] = data[0][0]
        reader.have += 1
        data[0] += 1
        size[0] -= 1
    want = read_u16(reader.data)
    if want > FRAME_MOST:
        reader.have = 0
        reader.skip = <uint16_t>want
        return FRAME_TOO_LONG
    if reader.have == FRAME_HEADER and size[0] >= want:
        frame[0] = data[0]
        data[0] += want
        size[0] -= want
    else:
        take = want + FRAME_HEADER - reader.have
        if take > size[0]:
            take = <uint32_t>size[0]
        memcpy(reader.data + reader.have, data[0], take)
        reader.have += <uint16_t>take
        data[0] += take
        size[0] -= take
        if reader.have < want + FRAME_HEADER:
            return FRAME_NONE
        frame[0] = reader.data + FRAME_HEADER
    length[0] = want
    reader.have = 0
    return FRAME_WHOLE
