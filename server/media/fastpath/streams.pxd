# The TCP connections of a socket loop. streams.pyx says what is done with them.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from server.media.fastpath.framing cimport Deframer
from server.media.fastpath.relay cimport Batch, Outgoing, Relay
from server.media.fastpath.slots cimport Endpoint, Map
from server.media.fastpath.sockets cimport SocketAddress


cdef enum:
    # What the loop counts; LoopCount in socketloop.pyi says what each means.
    NO_SOCKET = 0
    SOCKET_FULL = 1
    UNREACHABLE = 2
    NOT_CONNECTED = 3
    VIDEO_DROPPED = 4
    STREAM_FULL = 5
    ACCEPTED = 6
    CLOSED_BY_PEER = 7
    CLOSED_BROKEN = 8
    CLOSED_NOT_STUN = 9
    CLOSED_NO_ADDRESS = 10
    CLOSED_TOO_MUCH = 11
    CLOSED_STALLED = 12
    CLOSED_EVICTED = 13
    CLOSED_AT_STOP = 14
    REFUSED_ADDRESS = 15
    REFUSED_FULL = 16
    ACCEPT_FAILED = 17
    COUNTS = 18


cdef enum:
    READ = 16384            # bytes at a time: one peer holds up the others for a millisecond at most
    URGENT_BYTES = 16384    # audio, RTCP, STUN, DTLS
    VIDEO_BYTES = 49152     # together 64 KiB
    CUT_STREAMS = 32        # of one peer: a video stream and its RTX for each of 16 senders
    LISTENER_TOKEN = 4      # what epoll names listeners by, with the family added
    CONNECTION_TOKENS = 16  # below it, tokens of the loop's own descriptors


cdef struct Ring:
    # Frames that wait; the first may have left in part.
    uint8_t* data
    uint32_t room
    uint32_t begin
    uint32_t used


cdef struct CutStream:
    # A video stream of which a frame was dropped, and which waits for the beginning of the next.
    uint32_t ssrc           # 0: none
    uint32_t timestamp


cdef struct Connection:
    int descriptor          # -1: free
    uint32_t generation     # of the slot: what an old event still names is not the next connection
    Endpoint peer
    double opened_at
    double allowed_at       # last found so, or when it was opened
    double full_since       # 0: it is not
    uint32_t taken          # bytes, while a stranger
    bint allowed            # its address, by a transport
    bint spoken             # its first frame was STUN
    bint blocked            # the kernel takes no more for now
    bint touched            # has something to write in this batch
    uint8_t ending          # why it is to be closed; 0: it is not
    uint8_t* memory         # of both rings
    Ring urgent, video
    bint leaving_video      # where the frame that has left in part is
    uint32_t left           # what is still to leave of it
    uint32_t next_cut
    CutStream cuts[CUT_STREAMS]
    Deframer reader


cdef class Streams:
    cdef:
        Relay relay
        uint64_t* counts
        int epoll
        int listeners[7]    # by 4 and 6; -1: none
        bint paused         # nothing is accepted until the next tick
        readonly Py_ssize_t open_count
        uint32_t room, room_of_one
        double stranger_s, stalled_s
        Connection* connections
        Map by_peer         # -> connection
        int32_t* touched
        uint32_t touched_count, ending_count
        uint8_t input[READ]
        uint8_t datagram[2048]

    cdef bint begin(self, int epoll) noexcept nogil
    cdef void end(self) noexcept nogil
    cdef void accept_from(self, uint8_t family, double now) noexcept nogil
    cdef Connection* find(self, uint64_t token) noexcept nogil
    cdef Py_ssize_t receive(self, Connection* connection) noexcept nogil
    cdef void relay_input(self, Connection* connection, Py_ssize_t size, Batch* out) noexcept nogil
    cdef bint send(self, const Outgoing* item, const uint8_t* data) noexcept nogil
    cdef void flush(self) noexcept nogil
    cdef void writable(self, Connection* connection) noexcept nogil
    cdef void tick(self, double now) noexcept nogil
    cdef void sweep(self) noexcept nogil

    cdef void _open(self, int descriptor, const SocketAddress* address, double now) noexcept nogil
    cdef uint64_t _token(self, const Connection* connection) noexcept nogil
    cdef bint _make_room(self, const Endpoint* peer, bint of_one) noexcept nogil
    cdef void _close(self, Connection* connection, int reason) noexcept nogil
    cdef void _end(self, Connection* connection, int reason) noexcept nogil
    cdef int32_t _transport(self, Connection* connection) noexcept nogil
    cdef bint _admit(self, Connection* connection, const Outgoing* item, const uint8_t* data) noexcept nogil
    cdef void _write(self, Connection* connection) noexcept nogil
