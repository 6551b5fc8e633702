# What has left with a transport-wide number, and when: what a peer's transport-cc feedback is compared with.

from libc.stdint cimport uint32_t


cdef enum:
    SENT = 1024             # 370 ms of what eleven others of 2.5 Mbit/s each make


cdef struct Sent:
    double at               # seconds
    uint32_t wide_seq       # unwrapped
    uint32_t size           # bytes of the datagram


cdef struct SentLog:
    uint32_t begin
    uint32_t count
    Sent ring[SENT]


cdef inline void note_sent(SentLog* log, uint32_t wide_seq, uint32_t size, double now) noexcept nogil:
    """Append; when full, the oldest gives way."""
    cdef Sent* sent
    if log.count == SENT:
        log.begin = (log.begin + 1) % SENT
        log.count -= 1
    sent = &log.ring[(log.begin + log.count) % SENT]
    sent.at = now
    sent.wide_seq = wide_seq
    sent.size = size
    log.count += 1
