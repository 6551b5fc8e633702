# What the socket loop calls of the relay. The tables are in tables.pxd, the road of a packet in road.pxd.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from server.media.fastpath.batch cimport STRIDE, Batch, Outgoing, batch_close, batch_open
from server.media.fastpath.control cimport Control
from server.media.fastpath.events cimport Queued
from server.media.fastpath.slots cimport Endpoint, Key
from server.media.fastpath.tables cimport DROP_SEND_FAILED, DROP_TOO_LONG, EVENT_DISCONNECTED


cdef class Relay(Control):
    cdef:
        readonly object transports_view, sources_view, forwards_view, drops
        object _tables, _free_transports, _free_sources, _free_forwards, _sessions, _owned

    cdef void begin_batch(self, double now, Batch* out) noexcept nogil

    cdef bint _is_current(self, const Queued* event) noexcept nogil
    cdef int _attach(self, int32_t forward, int32_t source) except -1
    cdef void _pause(self, int32_t forward) noexcept nogil
    cdef _release(self, const Key* key)
    cdef int32_t _take_slot(self, list free_slots, str table) except -1
    cdef int32_t _slot(self, index, str table) except -1
