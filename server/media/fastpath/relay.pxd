# The relay's tables and counters. A row is what Python sees of a slot (NumPy views, read only); the struct of the same name
# is the rest of it. relay.pyx says what is done with them.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from server.media.fastpath.arrivals cimport Arrivals
from server.media.fastpath.crypto cimport Srtp, Transform
from server.media.fastpath.extensions cimport ReceiveIds, SendIds
from server.media.fastpath.history cimport History
from server.media.fastpath.numbering cimport Numbering, Piece
from server.media.fastpath.packet cimport Packet
from server.media.fastpath.slots cimport Endpoint, Key, Map

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass


cdef enum:
    MAX_DATAGRAM = 1500
    STRIDE = 2048           # of an outgoing datagram's buffer: 1500, larger extensions, RTX and SRTP's trailer
    EVENTS = 4096
    EVENTS_OF_ONE = 256     # share of one transport
    EVENTS_OF_STRANGERS = 512
    UNKNOWN_SSRCS = 32      # of one transport
    DROPS = 28


cdef enum:
    EVENT_STUN = 0
    EVENT_DTLS = 1
    EVENT_RTCP = 2
    EVENT_UNKNOWN_SSRC = 3
    EVENT_KEYFRAME_WANTED = 4
    EVENT_SWITCHED = 5
    EVENT_DISCONNECTED = 7


cdef enum:
    # 0 to 8 are the demultiplexer's verdicts, less 0x80.
    DROP_TURN_CHANNEL = 9
    DROP_TOO_LONG = 10
    DROP_ADDRESS_NOT_ALLOWED = 11
    DROP_NO_KEYS = 12
    DROP_SRTP_AUTH_FAILED = 13
    DROP_SRTP_REPLAYED = 14
    DROP_SRTP_FAILED = 15
    DROP_UNKNOWN_SSRC = 16
    DROP_UNEXPECTED_PAYLOAD_TYPE = 17
    DROP_RTP_BAD_PADDING = 18
    DROP_RTP_PADDING_ONLY = 19
    DROP_RTX_BAD = 20
    DROP_DUPLICATE = 21
    DROP_QUEUE_FULL = 22
    DROP_STRANGER_QUEUE_FULL = 23
    DROP_NOT_NOMINATED = 24
    DROP_PROTECT_FAILED = 25
    DROP_TOO_LATE = 26
    DROP_SEND_FAILED = 27


cdef struct TransportRow:
    uint64_t received_packets
    uint64_t received_bytes
    uint64_t sent_packets
    uint64_t sent_bytes
    uint64_t wide_seq
    double received_at
    uint8_t used
    uint8_t keyed


cdef struct SourceRow:
    int64_t base_ext_seq
    int64_t highest_ext_seq
    uint64_t packets
    uint64_t bytes
    int64_t lost
    uint64_t recovered
    uint64_t keyframes
    double jitter
    double received_at
    double loudness
    int32_t transport
    uint32_t ssrc
    uint32_t clock_rate
    uint32_t timestamp
    uint8_t used
    uint8_t codec
    uint8_t audio_level
    uint8_t voice


cdef struct ForwardRow:
    int64_t highest_ext_seq
    uint64_t packets
    uint64_t bytes
    uint64_t retransmitted
    uint64_t dropped_temporal
    double sent_at
    int32_t transport
    int32_t source
    int32_t pending
    uint32_t ssrc
    uint32_t timestamp_offset
    uint32_t timestamp
    uint8_t used


cdef struct UnknownSsrc:
    double reported_at
    uint32_t ssrc


cdef struct Transport:
    void* receive           # srtp_t; NULL: no keys
    void* send
    Endpoint nominated      # family 0: nowhere
    Arrivals* arrivals
    uint32_t events         # in the queue
    uint32_t unknown_count
    UnknownSsrc unknown[UNKNOWN_SSRCS]
    ReceiveIds receive_ids
    SendIds send_ids


cdef struct Source:
    uint32_t birth          # a number that no other source has had
    uint32_t rtx_ssrc
    uint8_t payload_type
    uint8_t rtx_payload_type
    uint32_t feeds_count
    uint32_t feeds_room
    int32_t* feeds          # forwards that carry it, or wait for its keyframe
    History* history        # video, once it has received
    double transit          # jitter's memory (RFC 3550 appendix A.8)


cdef struct Forward:
    Numbering numbering
    int64_t highest_in      # of the newest piece's source
    int64_t budget          # bytes that may be retransmitted
    double wanted_at
    uint32_t timestamp_offset   # asked for with the pending source
    uint32_t rtx_ssrc
    int32_t left_out_picture    # the picture whose number was closed up last; -1: none
    uint16_t rtx_seq
    uint16_t picture_id     # sent last
    uint16_t frame_number
    uint8_t tl0
    uint8_t payload_type
    uint8_t rtx_payload_type
    uint8_t max_temporal
    uint8_t temporal        # in force
    bint at_keyframe
    bint has_timestamp_offset
    bint has_frame_number
    bint video
    uint8_t mid_size
    uint8_t mid[16]


cdef struct Queued:
    uint8_t* data           # ours
    double at
    Endpoint origin
    int32_t index
    uint16_t size
    uint8_t kind
    bint charged            # to its transport's share


cdef struct Outgoing:
    Endpoint to
    int32_t transport       # -1: none
    uint16_t size
    bint video              # what a full stream drops first


cdef struct Batch

ctypedef void (*Flush)(void* context, Batch* batch) noexcept nogil

cdef struct Batch:
    # Datagrams on their way out. When full, `flush` sends them and sets `count` to 0.
    uint8_t* arena          # STRIDE bytes each
    Outgoing* items
    uint32_t count
    uint32_t room
    Flush flush
    void* context


cdef bint batch_open(Batch* batch, uint32_t room, Flush flush, void* context) noexcept nogil
cdef void batch_close(Batch* batch) noexcept nogil


cdef class Relay:
    cdef:
        pthread_mutex_t mutex
        Srtp srtp
        Map by_address      # -> transport
        Map by_ssrc         # -> 2 * source, + 1 if it is its RTX
        Transport* transports
        Source* sources
        Forward* forwards
        Py_ssize_t transports_room, sources_room
        TransportRow* transport_rows
        SourceRow* source_rows
        ForwardRow* forward_rows
        uint64_t* drop_counts
        uint32_t births
        Queued* events
        uint32_t events_begin, events_count, events_of_strangers
        Batch outbox        # the slow path's, until the next batch
        int wake_fd         # written when the outbox has something; -1: nobody listens
        double now          # of the batch
        readonly object transports_view, sources_view, forwards_view, drops
        object _tables, _free_transports, _free_sources, _free_forwards, _sessions

    cdef void lock(self) noexcept nogil
    cdef void unlock(self) noexcept nogil
    cdef void begin_batch(self, double now, Batch* out) noexcept nogil
    cdef void receive(self, uint8_t* data, uint32_t size, const Endpoint* origin, Batch* out) noexcept nogil

    cdef void _drop(self, int reason) noexcept nogil
    cdef void _pass_up(
        self, uint8_t kind, int32_t index, bint charged, const Endpoint* origin, const uint8_t* data, uint32_t size
    ) noexcept nogil
    cdef bint _decrypt(self, Transform function, void* session, uint8_t* data, int* size) noexcept nogil
    cdef void _receive_rtp(
        self, int32_t transport, int32_t found, const Endpoint* origin, uint8_t* data, uint32_t size, Batch* out
    ) noexcept nogil
    cdef bint _is_flood(self, int32_t transport, uint32_t ssrc) noexcept nogil
    cdef void _receive_unknown(
        self, int32_t transport, const Endpoint* origin, uint8_t* data, uint32_t size, uint32_t ssrc
    ) noexcept nogil
    cdef bint _unwrap_rtx(self, Source* source, SourceRow* row, Packet* packet) noexcept nogil
    cdef bint _count_packet(self, Source* source, SourceRow* row, Packet* packet, bint recovered) noexcept nogil
    cdef void _forward(self, int32_t index, int32_t source, Packet* packet, Batch* out) noexcept nogil
    cdef void _switch(self, int32_t index, int32_t source, Packet* packet) noexcept nogil
    cdef bint _emit(
        self, int32_t index, Packet* packet, const Piece* piece, int64_t ext_seq, bint rtx, Batch* out
    ) noexcept nogil
    cdef int _attach(self, int32_t forward, int32_t source) except -1
    cdef void _detach(self, int32_t forward, int32_t source) noexcept nogil
    cdef void _pause(self, int32_t forward) noexcept nogil
    cdef void _wake(self) noexcept nogil
    cdef void _queue(self, Batch* out, int32_t transport, const Endpoint* to, int size) noexcept nogil
    cdef void _tell(self, uint8_t kind, int32_t forward, int32_t source) noexcept nogil
    cdef void _know(self, int32_t transport, uint32_t ssrc) noexcept nogil
    cdef void _stop_sending(self, const Key* key) noexcept nogil
    cdef int32_t _take_slot(self, list free_slots, str table) except -1
    cdef int32_t _slot(self, index, str table) except -1
