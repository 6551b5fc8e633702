# Which numbers of a stream have been there: SRTP's index of a packet, and its replay window.
#
# A number of 16 bits is taken for the one nearest to the highest so far, which makes it an index of 48 (RFC 3711 section
# 3.3.1); at a stream's beginning, for what it says. The window is a ring of bits that nothing shifts (RFC 6479): a word of it
# is cleared when the highest index enters it, which is why the ring is longer than the window. Verdicts are libsrtp's.

from libc.stdint cimport int64_t, uint16_t, uint64_t

from server.media.fastpath.crypto cimport (
    REPLAY_WINDOW, SRTP_KEY_EXPIRED, SRTP_OK, SRTP_REPLAY_FAIL, SRTP_REPLAY_OLD,
)

cdef enum:
    RING_WORDS = 32     # a power of two, and more than REPLAY_WINDOW / 64


cdef struct Window:
    int64_t highest
    uint64_t ring[RING_WORDS]


cdef inline int64_t window_index(const Window* window, uint16_t seq) noexcept nogil:
    """The index that a sequence number stands for."""
    cdef int64_t ahead = seq - (window.highest & 0xFFFF)
    if window.highest <= 0x8000:
        return seq      # nothing was before the first round
    if ahead > 0x8000:
        ahead -= 0x10000
    elif ahead < -0x8000:
        ahead += 0x10000
    return window.highest + ahead


cdef inline int window_check(const Window* window, int64_t index) noexcept nogil:
    """SRTP_OK: it is new, and not too old to tell."""
    if index > window.highest:
        return SRTP_KEY_EXPIRED if index >> 48 else SRTP_OK
    if window.highest - index >= REPLAY_WINDOW:
        return SRTP_REPLAY_OLD
    if window.ring[(index >> 6) & (RING_WORDS - 1)] >> (index & 63) & 1:
        return SRTP_REPLAY_FAIL
    return SRTP_OK


cdef inline void window_add(Window* window, int64_t index) noexcept nogil:
    """Note one that has been found to be new."""
    cdef int64_t word = window.highest >> 6, newest = index >> 6
    if index > window.highest:
        window.highest = index
        if newest - word > RING_WORDS:
            word = newest - RING_WORDS
        while word < newest:
            word += 1
            window.ring[word & (RING_WORDS - 1)] = 0
    window.ring[newest & (RING_WORDS - 1)] |= <uint64_t>1 << (index & 63)
