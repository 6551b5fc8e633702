# RTCP as far as the relay deals with it by itself: a compound's packets one by one, and the generic NACK.
#
#     |V=2|P|  count  |      PT       |  length, in 32-bit words - 1  |
#     |  ... if P: the last byte says how many bytes are padding      |
#
#     generic NACK (PT 205, FMT 1), after the SSRCs of its sender and of the media:
#     |              PID              |              BLP              |   the packet, and which of the 16 behind it
#
# Spec: RFC 3550 section 6.4, RFC 4585 section 6.2.1.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from server.media.fastpath.demux cimport read_u16


cdef enum:
    SENDER_REPORT = 200
    RECEIVER_REPORT = 201
    SDES = 202
    RTPFB = 205
    GENERIC_NACK = 1
    TRANSPORT_FEEDBACK = 15
    PSFB = 206
    PICTURE_LOSS = 1
    FULL_INTRA = 4
    APPLICATION = 15        # REMB
    XR = 207


cdef enum:
    # What a compound leaves for the slow path.
    LEFT_NOTHING = 0
    LEFT_OTHERS = 1
    LEFT_REQUESTS = 2       # for a keyframe: somebody sees nothing until it comes


cdef struct Report:
    uint8_t kind            # packet type
    uint8_t count           # or format
    const uint8_t* body     # behind the first word
    size_t size             # of the body, without padding


cdef inline bint next_report(const uint8_t* data, size_t size, size_t* at, Report* report) noexcept nogil:
    """Read one packet of a compound and step behind it.

    Returns:
        False: there is none; the compound is well formed if `at` has come to its end.
    """
    cdef const uint8_t* head = data + at[0]
    cdef size_t length
    if at[0] + 4 > size or head[0] >> 6 != 2:
        return False
    length = 4 * (<size_t>read_u16(head + 2) + 1)
    if at[0] + length > size:
        return False
    report.kind = head[1]
    report.count = head[0] & 0x1F
    report.body = head + 4
    report.size = length - 4
    if head[0] & 0x20:
        if head[length - 1] == 0 or head[length - 1] > report.size:
            return False
        report.size -= head[length - 1]
    at[0] += length
    return True


cdef inline bint is_nack(const Report* report) noexcept nogil:
    return report.kind == RTPFB and report.count == GENERIC_NACK and report.size >= 12 and report.size % 4 == 0


cdef inline uint8_t left_by(const Report* report) noexcept nogil:
    """What a packet that is no NACK, SR or RR leaves for the slow path. Nobody reads estimates of bandwidth yet."""
    if report.kind == PSFB and (report.count == PICTURE_LOSS or report.count == FULL_INTRA):
        return LEFT_REQUESTS
    if (
        report.kind == SDES
        or report.kind == XR
        or (report.kind == RTPFB and report.count == TRANSPORT_FEEDBACK)
        or (report.kind == PSFB and report.count == APPLICATION)
    ):
        return LEFT_NOTHING
    return LEFT_OTHERS
