# The SSRCs of a transport that belong to no source. libsrtp keeps a context for each that it has decrypted, so that their
# number is bounded here: what is one too many is not decrypted.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t


cdef enum:
    UNKNOWN_SSRCS = 64      # of one transport


cdef struct Unknown:
    double reported_at      # seconds
    uint32_t ssrc
    bint left_behind        # its source has another now: what comes late of it is not taken for new


cdef struct Unknowns:
    uint32_t count
    Unknown items[UNKNOWN_SSRCS]


cdef inline Unknown* unknown_find(Unknowns* unknowns, uint32_t ssrc) noexcept nogil:
    """NULL: it has not been seen."""
    cdef uint32_t i
    for i in range(unknowns.count):
        if unknowns.items[i].ssrc == ssrc:
            return &unknowns.items[i]
    return NULL


cdef inline Unknown* unknown_add(Unknowns* unknowns, uint32_t ssrc, bint left_behind) noexcept nogil:
    """One that has not been seen. NULL: too many."""
    cdef Unknown* unknown
    if unknowns.count == UNKNOWN_SSRCS:
        return NULL
    unknown = &unknowns.items[unknowns.count]
    unknowns.count += 1
    unknown.ssrc = ssrc
    unknown.left_behind = left_behind
    unknown.reported_at = 0
    return unknown


cdef inline void unknown_forget(Unknowns* unknowns, uint32_t ssrc) noexcept nogil:
    """It is unknown no longer."""
    cdef Unknown* unknown = unknown_find(unknowns, ssrc)
    if unknown != NULL:
        unknowns.count -= 1
        unknown[0] = unknowns.items[unknowns.count]


cdef inline bint unknown_is_flood(Unknowns* unknowns, uint32_t ssrc) noexcept nogil:
    """Whether it is new, and one too many."""
    return unknowns.count == UNKNOWN_SSRCS and unknown_find(unknowns, ssrc) == NULL
