# SRTP's AES-GCM for media; gcm.pyx says how.

from libc.stdint cimport uint8_t, uint32_t

from server.media.fastpath.window cimport Window


cdef struct Gcm:
    # One direction. SSRCs apart from their windows, so that looking for one reads a cache line or two.
    void* context           # OpenSSL's, with the key: one for all SSRCs
    uint32_t count, room
    uint32_t* ssrcs
    Window* windows
    uint8_t salt[12]


cdef class GcmKeys:
    # Owns the struct, to which the transforms take a pointer.
    cdef:
        Gcm state
        bint inbound


cdef int gcm_protect(void* session, void* packet, int* size) noexcept nogil
cdef int gcm_unprotect(void* session, void* packet, int* size) noexcept nogil
