# When packets with a transport-wide sequence number arrived: what transport-cc feedback is written from (feedback.pxd).
#
# Spec: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from server.media.fastpath.numbering cimport unwrap


cdef enum:
    ARRIVALS = 2048         # numbers remembered: 100 ms of 20,000 packets/s, and late ones of seconds


cdef struct Arrivals:
    int64_t highest         # extended; 0: none yet
    int64_t next            # the first that no report has covered
    int64_t fresh_from      # arrivals since the last report lie from here
    int64_t fresh_to        # to here; less: there are none
    double reported_at      # seconds
    uint32_t ssrc           # of the stream that was heard last
    uint8_t reports         # written so far
    int64_t ticks[ARRIVALS] # by number: arrival in 250 us; 0: it did not arrive


cdef inline void note_arrival(Arrivals* log, uint16_t wide_seq, uint32_t ssrc, double now) noexcept nogil:
    """Remember the first arrival of a number. One far behind is taken for one after a long silence."""
    cdef int64_t n = unwrap(log.highest, wide_seq), i
    if log.highest == 0:
        n = <int64_t>0x10000 + wide_seq
    elif n <= log.highest - ARRIVALS:
        n += 0x10000
    if log.highest == 0 or n - log.highest >= ARRIVALS:
        memset(log.ticks, 0, sizeof(log.ticks))
        log.next = n
        log.fresh_from = n
        log.fresh_to = n - 1
        log.highest = n
    elif n > log.highest:
        for i in range(log.highest + 1, n):
            log.ticks[i % ARRIVALS] = 0
        log.highest = n
    elif log.ticks[n % ARRIVALS]:
        return
    if log.fresh_to < log.fresh_from:
        log.fresh_from = n
        log.fresh_to = n
    elif n < log.fresh_from:
        log.fresh_from = n
    elif n > log.fresh_to:
        log.fresh_to = n
    log.ticks[n % ARRIVALS] = max(<int64_t>(now * 4000 + 0.5), <int64_t>1)
    log.ssrc = ssrc
