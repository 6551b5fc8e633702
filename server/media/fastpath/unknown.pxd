# The SSRCs of a transport that belong to no source. For each that has been decrypted there is a replay window (window.pxd, or
# libsrtp's context with more) until the keys go, looked for from the first to the last: so their number is bounded here, and
# what is one too many is not decrypted.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t


cdef enum:
    UNKNOWN_SSRCS = 64      # of one transport
    REPORTERS = 64          # of one transport


cdef struct Unknown:
    double reported_at      # seconds
    uint32_t ssrc
    bint left_behind        # its source has another now: what comes late of it is not taken for new


cdef struct Reporters:
    # Who has sent RTCP and is no source: receivers have SSRCs for that alone, libwebrtc one, Firefox one for each section.
    uint32_t count
    uint32_t ssrcs[REPORTERS]


cdef struct Unknowns:
    uint32_t count
    uint32_t nameless       # SSRCs that a source has left when there was no room: they take room of those to come
    Unknown items[UNKNOWN_SSRCS]


cdef inline Unknown* unknown_find(Unknowns* unknowns, uint32_t ssrc) noexcept nogil:
    """NULL: it has not been seen."""
    cdef uint32_t i
    for i in range(unknowns.count):
        if unknowns.items[i].ssrc == ssrc:
            return &unknowns.items[i]
    return NULL


cdef inline bint unknown_is_full(const Unknowns* unknowns) noexcept nogil:
    """Whether an SSRC that has not been seen is one too many."""
    return unknowns.count + unknowns.nameless >= UNKNOWN_SSRCS


cdef inline Unknown* unknown_add(Unknowns* unknowns, uint32_t ssrc, bint left_behind) noexcept nogil:
    """One that has not been seen, or has been a source's. NULL: there is no place."""
    cdef Unknown* unknown
    if unknowns.count == UNKNOWN_SSRCS:
        unknowns.nameless += 1
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
    return unknown_is_full(unknowns) and unknown_find(unknowns, ssrc) == NULL


cdef inline bint reporter_is_known(const Reporters* reporters, uint32_t ssrc) noexcept nogil:
    cdef uint32_t i
    for i in range(reporters.count):
        if reporters.ssrcs[i] == ssrc:
            return True
    return False


cdef inline void reporter_add(Reporters* reporters, uint32_t ssrc) noexcept nogil:
    """One that is not known; there is room."""
    reporters.ssrcs[reporters.count] = ssrc
    reporters.count += 1
