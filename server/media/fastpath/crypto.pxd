# SRTP: one direction's keys, and the C functions that encrypt or decrypt with them (crypto.pyx says whose).

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

ctypedef int (*Transform)(void* session, void* packet, int* size) noexcept nogil


cdef enum:
    # libsrtp's numbers; what is no verdict on a packet is passed on as it comes.
    SRTP_OK = 0
    SRTP_BAD_PARAM = 2
    SRTP_ALLOC_FAIL = 3
    SRTP_AUTH_FAIL = 7
    SRTP_CIPHER_FAIL = 8
    SRTP_REPLAY_FAIL = 9
    SRTP_REPLAY_OLD = 10
    SRTP_KEY_EXPIRED = 15
    SRTP_PARSE_ERR = 21


cdef enum:
    SRTP_TRAILER = 148      # what protecting may append: SRTP_MAX_SRTCP_TRAILER_LEN
    REPLAY_WINDOW = 1024    # packets; what RTX brings back within a second of 1000 packets/s is not too old yet


cdef struct Srtp:
    # One direction: it protects, or unprotects, in place, `size` in and out; protecting needs SRTP_TRAILER bytes of room
    # behind. All zero: no keys.
    Transform media
    Transform control
    void* media_session
    void* control_session


cdef inline transformed(Transform transform, void* session, bytes packet, int room):
    """For Python: the status, and what has become of a packet, which may grow by so much."""
    cdef int size = <int>len(packet), status
    # No more room than there has to be: a byte too far is for the sanitizers to see.
    cdef uint8_t* data = <uint8_t*>malloc(max(1, size + room))
    if data == NULL:
        raise MemoryError
    memcpy(data, <const uint8_t*>packet, size)
    status = transform(session, data, &size)
    result = status, data[:size]
    free(data)
    return result


cdef class Session:
    # Owns what the pointers point to: keep it.
    cdef:
        Srtp srtp
        readonly object gcm
        object _libsrtp
        bint _inbound
