# The relay's tables and counters. A row is what Python sees of a slot (NumPy views, read only); the struct of the same name
# is the rest of it. road.pyx says what is done with them.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from server.media.fastpath.arrivals cimport Arrivals
from server.media.fastpath.crypto cimport Srtp
from server.media.fastpath.dependency cimport Structure
from server.media.fastpath.extensions cimport ReceiveIds, SendIds
from server.media.fastpath.history cimport History
from server.media.fastpath.numbering cimport Numbering
from server.media.fastpath.red cimport Seen
from server.media.fastpath.sentlog cimport SentLog
from server.media.fastpath.slots cimport Endpoint
from server.media.fastpath.unknown cimport Reporters, Unknowns


cdef enum:
    MAX_DATAGRAM = 1500
    CNAME_BYTES = 32
    RATED = 4               # kinds of events that a transport has so many of in a second; the first ones
    DROPS = 31


cdef enum:
    EVENT_STUN = 0
    EVENT_DTLS = 1
    EVENT_RTCP = 2
    EVENT_UNKNOWN_SSRC = 3
    EVENT_KEYFRAME_WANTED = 4
    EVENT_SWITCHED = 5
    EVENT_BOUND = 6
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
    DROP_RED_BAD = 28
    DROP_OVER_RATE = 29
    DROP_OUTDATED = 30


cdef struct TransportRow:
    uint64_t received_packets
    uint64_t received_bytes
    uint64_t sent_packets
    uint64_t sent_bytes
    uint64_t wide_seq
    double received_at
    double round_trip
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
    uint64_t clock_ntp
    double clock_at
    double jitter
    double received_at
    double loudness
    int32_t transport
    uint32_t ssrc
    uint32_t clock_rate
    uint32_t clock_timestamp
    uint32_t timestamp
    uint8_t used
    uint8_t codec
    uint8_t audio_level
    uint8_t voice


cdef inline void reset_row(SourceRow* row, int32_t transport, uint8_t codec, uint32_t clock_rate) noexcept nogil:
    """As if nothing of the source had come yet."""
    memset(row, 0, sizeof(SourceRow))
    row.transport = transport
    row.codec = codec
    row.clock_rate = clock_rate
    row.audio_level = 127
    row.used = 1


cdef struct ForwardRow:
    int64_t highest_ext_seq
    uint64_t packets
    uint64_t bytes
    uint64_t retransmitted
    uint64_t nacked
    uint64_t dropped_temporal
    double sent_at
    int32_t transport
    int32_t source
    int32_t pending
    uint32_t ssrc
    uint32_t timestamp_offset
    uint32_t timestamp
    uint8_t used


cdef struct Transport:
    Srtp receive            # all zero: no keys
    Srtp send
    Endpoint nominated      # family 0: nowhere
    Arrivals* arrivals      # with transport-cc from the peer
    SentLog* sent           # with transport-cc to the peer
    int32_t sources         # first of its own, and 1; 0: none
    int32_t forwards        # likewise
    int32_t expected        # likewise, of its sources that are bound in-band
    double report_at        # when reports are due; 0: never
    uint32_t ssrc           # ours, in RTCP to the peer
    uint8_t cname_size
    uint8_t cname[CNAME_BYTES]
    uint32_t birth          # a number that no other transport has had
    uint32_t events         # in the queue
    double due[RATED]       # when the next event of a kind would come, were they evenly spaced
    Unknowns unknowns
    Reporters reporters
    ReceiveIds receive_ids
    SendIds send_ids


cdef struct Source:
    uint32_t birth          # a number that no other source has had
    uint32_t rtx_ssrc
    uint8_t payload_type
    uint8_t rtx_payload_type
    uint8_t red_payload_type    # 0: it does not come wrapped
    bint bound              # to the row's SSRC
    bint rtx_bound
    bint rtx_ahead          # RTX has been bound anew, media not yet
    bint expected           # bound in-band, by:
    uint8_t mid_size
    uint8_t rid_size
    uint8_t mid[16]
    uint8_t rid[16]
    int32_t next            # of the transport, and 1; 0: none
    int32_t next_expected   # likewise
    int64_t reported_expected   # packets, until the last report block
    int64_t reported_packets
    Seen seen               # with RED
    Structure structure     # with dependency descriptors
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
    uint8_t red_payload_type    # 0: the peer does not take it
    uint8_t max_temporal
    uint8_t temporal        # in force
    bint at_keyframe
    bint has_timestamp_offset
    bint video
    int32_t next            # of the transport, and 1; 0: none
    double report_at        # of the last sender report
    uint64_t reported_packets
    uint32_t report_ntp     # the middle of its time, by which blocks refer to it
    uint8_t cname_size
    uint8_t cname[CNAME_BYTES]
    uint8_t mid_size
    uint8_t mid[16]
