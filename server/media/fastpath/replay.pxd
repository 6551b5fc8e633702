# A captured batch that is relayed again and again; replay.pyi says what for.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from server.media.fastpath.crypto cimport Session
from server.media.fastpath.slots cimport Endpoint


cdef struct Captured:
    Endpoint origin
    uint32_t size
    uint16_t step           # by how much the sequence numbers of its stream advance in one round
    uint8_t data[1400]


cdef class Replay:
    cdef:
        Session session
        Captured* packets
        uint32_t count, at
        readonly uint64_t rounds

    cdef int fill(self, int room, int stride, uint8_t* data, uint32_t* sizes, Endpoint* origins) noexcept nogil
