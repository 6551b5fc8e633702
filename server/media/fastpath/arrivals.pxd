# When packets with a transport-wide sequence number arrived: the log that transport-cc feedback is written from.
#
# Spec: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2.

from libc.stdint cimport int64_t, uint16_t, uint32_t

from server.media.fastpath.numbering cimport unwrap


cdef enum:
    ARRIVALS = 1024         # 100 ms of 10,000 packets/s; feedback is due at that pace


cdef struct Arrival:
    int64_t wide_seq        # unwrapped
    double at               # seconds


cdef struct Arrivals:
    int64_t highest         # 0: none yet
    uint32_t begin
    uint32_t count
    Arrival ring[ARRIVALS]


cdef inline void note_arrival(Arrivals* log, uint16_t wide_seq, double now) noexcept nogil:
    """Append; when full, the oldest gives way."""
    cdef Arrival* arrival
    cdef int64_t extended = unwrap(log.highest, wide_seq) if log.highest else <int64_t>0x10000 + wide_seq
    if extended > log.highest:
        log.highest = extended
    if log.count == ARRIVALS:
        log.begin = (log.begin + 1) % ARRIVALS
        log.count -= 1
    arrival = &log.ring[(log.begin + log.count) % ARRIVALS]
    arrival.wide_seq = extended
    arrival.at = now
    log.count += 1
