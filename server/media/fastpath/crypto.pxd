# SRTP: the C functions of the libsrtp inside pylibsrtp's wheel, called by address (crypto.pyx says why and how).

from libc.stdint cimport uint8_t

ctypedef int (*Transform)(void* session, void* packet, int* size) noexcept nogil


cdef enum:
    SRTP_OK = 0
    SRTP_AUTH_FAIL = 7
    SRTP_REPLAY_FAIL = 9
    SRTP_REPLAY_OLD = 10


cdef enum:
    SRTP_TRAILER = 148      # what protecting may append: SRTP_MAX_SRTCP_TRAILER_LEN


cdef struct Srtp:
    # srtp_protect and its kin: in place, `size` in and out; protecting needs SRTP_TRAILER bytes of room behind.
    Transform protect
    Transform unprotect
    Transform protect_rtcp
    Transform unprotect_rtcp


cdef Srtp srtp_functions() noexcept
cdef void* session_pointer(object session) except NULL
