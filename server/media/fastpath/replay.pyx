"""A captured batch, relayed again and again without the GIL: saturates a core where no network could. See replay.pyi.

Driven by: the socket loop that was given one, each time round.
"""

from collections import Counter
from ipaddress import ip_address

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from server.media.fastpath cimport demux as verdicts
from server.media.fastpath.crypto cimport SRTP_OK, Session
from server.media.fastpath.demux cimport demux, read_u16, read_u32
from server.media.fastpath.packet cimport write_u16, write_u32
from server.media.fastpath.slots cimport UDP, Endpoint

from server.errors import InvalidStateError

cdef enum:
    MOST = 4096
    MOST_BYTES = 1400
    ROUND_TICKS = 3000          # by how much timestamps advance: a picture of 30 a second


cdef int _set_origin(Endpoint* origin, ip, uint16_t port) except -1:
    cdef bytes packed = ip.packed
    cdef const uint8_t* octets = packed
    memcpy(origin.ip, octets, len(packed))
    origin.family = ip.version
    origin.port = port
    origin.protocol = UDP
    return 0


cdef class Replay:
    """See replay.pyi."""

    def __cinit__(self, packets, profile, key):
        cdef Captured* captured
        cdef const uint8_t[::1] view
        if not 1 <= len(packets) <= MOST:
            raise InvalidStateError(f"a replay has 1 to {MOST} packets")
        self.packets = <Captured*>calloc(len(packets), sizeof(Captured))
        if self.packets == NULL:
            raise MemoryError
        streams = Counter(bytes(data[8:12]) for _, data in packets)
        for (ip, port, _), data in packets:
            view = data
            if len(data) > MOST_BYTES or not len(data) or demux(&view[0], len(data)) != verdicts.RTP:
                raise InvalidStateError(f"a replay has RTP packets of at most {MOST_BYTES} bytes")
            captured = &self.packets[self.count]
            _set_origin(&captured.origin, ip_address(ip), port)
            captured.size = len(data)
            captured.step = streams[bytes(data[8:12])]
            memcpy(captured.data, &view[0], captured.size)
            self.count += 1
        self.session = Session(profile, key, False)

    def __dealloc__(self):
        free(self.packets)

    cdef int fill(self, int room, int stride, uint8_t* data, uint32_t* sizes, Endpoint* origins) noexcept nogil:
        """Write the next packets, encrypted, `stride` bytes apart; return how many."""
        cdef Captured* captured
        cdef uint8_t* out
        cdef int count = 0, i, size
        for i in range(room):
            captured = &self.packets[self.at]
            out = data + <size_t>count * stride
            size = <int>captured.size
            memcpy(out, captured.data, captured.size)
            write_u16(captured.data + 2, <uint16_t>(read_u16(captured.data + 2) + captured.step))
            write_u32(captured.data + 4, read_u32(captured.data + 4) + ROUND_TICKS)
            self.at += 1
            if self.at == self.count:
                self.at = 0
                self.rounds += 1
            if self.session.srtp.media(self.session.srtp.media_session, out, &size) == SRTP_OK:
                sizes[count] = <uint32_t>size
                origins[count] = captured.origin
                count += 1
        return count
