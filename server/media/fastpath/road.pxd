# The class that carries the tables, and what its Python face (relay.pyx) and the socket loop call of it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from server.media.fastpath.batch cimport Batch
from server.media.fastpath.crypto cimport Transform
from server.media.fastpath.events cimport Events
from server.media.fastpath.mutex cimport Mutex
from server.media.fastpath.numbering cimport Piece
from server.media.fastpath.packet cimport Packet
from server.media.fastpath.slots cimport Endpoint, Map
from server.media.fastpath.tables cimport Forward, ForwardRow, Source, SourceRow, Transport, TransportRow


cdef class Road:
    cdef:
        Mutex mutex
        Map by_address      # -> transport
        Map by_ssrc         # -> 2 * source, + 1 if it is its RTX
        Map by_sent_ssrc    # -> forward
        Transport* transports
        Source* sources
        Forward* forwards
        Py_ssize_t transports_room, sources_room
        TransportRow* transport_rows
        SourceRow* source_rows
        ForwardRow* forward_rows
        uint64_t* drop_counts
        uint32_t births
        Events events
        double now          # of the batch

    cdef void lock(self) noexcept nogil
    cdef void lock_for_media(self) noexcept nogil
    cdef void give_way(self) noexcept nogil
    cdef void unlock(self) noexcept nogil
    cdef void receive(self, uint8_t* data, uint32_t size, const Endpoint* origin, Batch* out) noexcept nogil
    cdef uint8_t read_rtcp(self, int32_t transport, const uint8_t* data, uint32_t size, Batch* out) noexcept nogil
    cdef int retransmit_one(self, int32_t index, uint16_t seq, Batch* out) noexcept nogil
    cdef void detach(self, int32_t forward, int32_t source) noexcept nogil
    cdef void leave_behind(self, int32_t transport, uint32_t ssrc, bint for_good) noexcept nogil

    cdef void _drop(self, int reason) noexcept nogil
    cdef void _pass_up(
        self, uint8_t kind, int32_t index, bint charged, const Endpoint* origin, const uint8_t* data, uint32_t size
    ) noexcept nogil
    cdef void _tell(self, uint8_t kind, int32_t index, uint32_t what) noexcept nogil
    cdef bint _decrypt(self, Transform function, void* session, uint8_t* data, int* size) noexcept nogil
    cdef bint _decrypt_rtcp(self, int32_t transport, uint8_t* data, int* size) noexcept nogil
    cdef void _receive_rtp(
        self, int32_t transport, int32_t found, const Endpoint* origin, uint8_t* data, uint32_t size, Batch* out
    ) noexcept nogil
    cdef void _receive_unknown(
        self, int32_t transport, const Endpoint* origin, uint8_t* data, uint32_t size, uint32_t ssrc
    ) noexcept nogil
    cdef int32_t _bind(self, int32_t transport, const Packet* packet) noexcept nogil
    cdef void _begin_anew(self, int32_t transport, int32_t index) noexcept nogil
    cdef void _read_layers(self, Source* source, Packet* packet) noexcept nogil
    cdef bint _unwrap_rtx(self, Source* source, SourceRow* row, Packet* packet) noexcept nogil
    cdef bint _count_packet(self, Source* source, SourceRow* row, Packet* packet, bint recovered) noexcept nogil
    cdef void _repair(self, int32_t index, const Packet* packet, Batch* out) noexcept nogil
    cdef void _forward(self, int32_t index, int32_t source, Packet* packet, Batch* out) noexcept nogil
    cdef void _switch(self, int32_t index, int32_t source, Packet* packet) noexcept nogil
    cdef bint _emit(
        self, int32_t index, Packet* packet, const Piece* piece, int64_t ext_seq, bint rtx, Batch* out
    ) noexcept nogil
