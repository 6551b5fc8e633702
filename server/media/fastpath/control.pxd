# What the packets' road and the Python face call of RTCP.

from libc.stdint cimport int32_t, uint8_t, uint32_t

from server.media.fastpath.batch cimport Batch
from server.media.fastpath.road cimport Road
from server.media.fastpath.rtcp cimport Report


cdef enum:
    COMPOUNDS = 12          # of reports to one transport at a time: sound and picture of all that a room can have
    REPORT_EVERY_S = 1      # on average; libwebrtc's pace for video, within RFC 3550's 5 % of a video call's bandwidth


cdef class Control(Road):
    cdef:
        Batch outbox        # the slow path's, until the next batch
        int wake_fd         # written when the outbox has something; -1: nobody listens
        uint32_t seed       # spreads reports in time
        int32_t feeding_back    # the transport whose feedback is next
        int32_t reporting       # the one whose reports are

    cdef uint32_t feed_back(self, double now, double every, uint32_t sender_ssrc) noexcept nogil
    cdef uint32_t report(self, double now) noexcept nogil
    cdef bint queue_rtcp(self, int32_t transport, uint8_t* data, int size) noexcept nogil
    cdef void wake(self) noexcept nogil

    cdef uint8_t _left_by(self, int32_t transport, const Report* report) noexcept nogil
    cdef void _read_blocks(self, int32_t transport, const uint8_t* blocks, uint8_t count) noexcept nogil
    cdef void _repeat(self, int32_t index, const Report* nack, uint32_t* asked, Batch* out) noexcept nogil
    cdef uint32_t _report_to(self, int32_t index, double now) noexcept nogil
    cdef int _write_report(
        self, int32_t index, int32_t* source, int32_t* forward, uint8_t* out, double now
    ) noexcept nogil
