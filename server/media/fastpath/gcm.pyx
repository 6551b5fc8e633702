"""SRTP's AES-GCM for media, on OpenSSL's EVP functions: AEAD_AES_128_GCM and AEAD_AES_256_GCM.

    | header, CSRCs, extension |  payload  |  tag  |      IV: 00 00 | SSRC | rollover counter | sequence number
    |<- authenticated -------->|           | 16 B  |          xor the session salt
    |                          |<--- encrypted --->|

The transforms have the signature and the verdicts of libsrtp's, and cost less: one cipher context for all streams of a
direction instead of one each (the keys are the same, and what is warm serves all), a replay window that nothing shifts
(window.pxd), four or five calls of OpenSSL's a packet. RTCP, and the profiles without GCM, stay with libsrtp.

* Protecting never uses an index of a stream twice: under GCM that gives the authentication key away. It notes the index
  before it encrypts, whatever becomes of that.
* Unprotecting notes a packet, and a stream its window, only once it has authenticated. A window is 264 bytes; how many
  streams there may be is for the caller to say.

The OpenSSL is the one that pylibsrtp's wheel brings for libsrtp, found by the names it exports. A build without them has no
VERSION, and no `GcmKeys` can be made.

Driven by: the road and whoever else sends or receives media, through the `Session` of crypto.pyx.
Spec: RFC 7714 sections 8 to 11, RFC 3711 sections 3.3 and 4.3.
"""

import ctypes

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from server.media.fastpath.crypto cimport (
    SRTP_ALLOC_FAIL, SRTP_AUTH_FAIL, SRTP_BAD_PARAM, SRTP_CIPHER_FAIL, SRTP_OK, SRTP_PARSE_ERR, transformed,
)
from server.media.fastpath.demux cimport read_u16, read_u32
from server.media.fastpath.window cimport window_add, window_check, window_index

from server.errors import InvalidStateError

cdef enum:
    TAG = 16
    IV = 12
    GET_TAG = 0x10      # EVP_CTRL_AEAD_GET_TAG
    OCTET_STRING = 5    # OSSL_PARAM_OCTET_STRING


cdef struct Parameter:
    # OSSL_PARAM
    const char* key
    unsigned int data_type
    void* data
    size_t data_size
    size_t return_size


cdef struct Evp:
    # OpenSSL's functions, without their EVP_ and EVP_CIPHER_.
    void* (*context_new)() noexcept nogil
    void (*context_free)(void* context) noexcept nogil
    int (*init)(
        void* context, const void* cipher, const uint8_t* key, const uint8_t* iv, int encrypt, const Parameter* parameters
    ) noexcept nogil
    int (*update)(void* context, uint8_t* out, const uint8_t* data, unsigned int size) noexcept nogil
    int (*control)(void* context, int what, int size, void* data) noexcept nogil


cdef Evp evp
_CIPHERS = {}


cdef _find():
    """Look the functions up, and return which OpenSSL that is; None: some are not there."""
    cdef uintptr_t context_new, context_free, init, update, control
    try:
        from pylibsrtp import _binding

        library = ctypes.CDLL(_binding.__file__)
        library.OpenSSL_version.restype = ctypes.c_char_p
        version = library.OpenSSL_version(0).decode("ascii")

        def address(name):
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value

        context_new, context_free, init, update, control = map(address, (
            "EVP_CIPHER_CTX_new", "EVP_CIPHER_CTX_free", "EVP_CipherInit_ex2", "EVP_Cipher", "EVP_CIPHER_CTX_ctrl",
        ))
        ciphers = {}
        for name in ("aes_128_gcm", "aes_256_gcm", "aes_128_ctr", "aes_256_ctr"):
            cipher = getattr(library, f"EVP_{name}")
            cipher.restype = ctypes.c_void_p
            ciphers[name] = cipher()
    except (AttributeError, ImportError, OSError):
        return None
    evp.context_new = <void* (*)() noexcept nogil>context_new
    evp.context_free = <void (*)(void*) noexcept nogil>context_free
    evp.init = <int (*)(void*, const void*, const uint8_t*, const uint8_t*, int, const Parameter*) noexcept nogil>init
    evp.update = <int (*)(void*, uint8_t*, const uint8_t*, unsigned int) noexcept nogil>update
    _CIPHERS.update(ciphers)
    evp.control = <int (*)(void*, int, int, void*) noexcept nogil>control
    return " ".join(version.split()[:2])


VERSION = _find()


cdef void* _context(str mode, bytes key, const uint8_t* iv, bint encrypt) except NULL:
    """A cipher context with a key of 16 or 32 bytes."""
    cdef void* context
    cdef uintptr_t cipher = _CIPHERS.get(f"aes_{8 * len(key)}_{mode}", 0)
    if not cipher:
        raise InvalidStateError(f"no AES takes a key of {len(key)} bytes")
    context = evp.context_new()
    if context == NULL or not evp.init(context, <void*>cipher, key, iv, encrypt, NULL):
        evp.context_free(context)
        raise MemoryError
    return context


def derive(bytes key, bytes salt, int label, int size):
    """See gcm.pyi."""
    cdef void* context
    cdef uint8_t* out
    if len(salt) > 14:
        raise InvalidStateError("a master salt has at most 14 bytes")
    start = bytearray(salt.ljust(16, b"\0"))
    start[7] ^= label
    stream = bytes(size)
    derived = bytearray(stream)
    out = derived
    context = _context("ctr", key, bytes(start), True)
    try:
        if evp.update(context, out, stream, size) < 0:
            raise MemoryError
    finally:
        evp.context_free(context)
    return bytes(derived)


cdef class GcmKeys:
    """See gcm.pyi."""

    def __cinit__(self, bytes key, bytes salt, bint inbound):
        if len(salt) != IV:
            raise InvalidStateError(f"a session salt has {IV} bytes")
        memcpy(self.state.salt, <const uint8_t*>salt, IV)
        self.inbound = inbound
        self.state.context = _context("gcm", key, NULL, not inbound)

    def __dealloc__(self):
        if self.state.context != NULL:
            evp.context_free(self.state.context)
        free(self.state.ssrcs)
        free(self.state.windows)

    @property
    def streams(self):
        return self.state.count

    def media(self, bytes packet):
        if self.inbound:
            return transformed(gcm_unprotect, &self.state, packet, 0)
        return transformed(gcm_protect, &self.state, packet, TAG)


cdef inline int _header(const uint8_t* data, int size) noexcept nogil:
    """Bytes before the payload; -1: more than there are."""
    cdef int header
    if size < 12:
        return -1
    header = 12 + 4 * (data[0] & 15)
    if data[0] & 0x10:
        header += 4
        if header > size:
            return -1
        header += 4 * read_u16(data + header - 2)
    return header if header <= size else -1


cdef inline Window* _find_window(const Gcm* keys, uint32_t ssrc) noexcept nogil:
    """NULL: the stream is new."""
    cdef uint32_t i
    for i in range(keys.count):
        if keys.ssrcs[i] == ssrc:
            return &keys.windows[i]
    return NULL


cdef Window* _add_window(Gcm* keys, uint32_t ssrc) noexcept nogil:
    """NULL: there is no memory."""
    cdef uint32_t room = 2 * keys.room if keys.room else 4
    cdef void* grown
    cdef Window* window
    if keys.count == keys.room:
        grown = realloc(keys.ssrcs, room * sizeof(uint32_t))
        if grown == NULL:
            return NULL
        keys.ssrcs = <uint32_t*>grown
        grown = realloc(keys.windows, room * sizeof(Window))
        if grown == NULL:
            return NULL
        keys.windows = <Window*>grown
        keys.room = room
    window = &keys.windows[keys.count]
    memset(window, 0, sizeof(Window))
    keys.ssrcs[keys.count] = ssrc
    keys.count += 1
    return window


cdef inline void _write_iv(uint8_t* iv, const Gcm* keys, const uint8_t* data, int64_t index) noexcept nogil:
    """Spec: RFC 7714 section 8.1."""
    cdef int i
    memcpy(iv, keys.salt, IV)
    for i in range(4):
        iv[2 + i] ^= data[8 + i]
    for i in range(6):
        iv[6 + i] ^= <uint8_t>(index >> (40 - 8 * i))


cdef int gcm_protect(void* session, void* packet, int* size) noexcept nogil:
    """Encrypt a packet in place; it grows by the tag."""
    cdef Gcm* keys = <Gcm*>session
    cdef uint8_t* data = <uint8_t*>packet
    cdef uint8_t iv[IV]
    cdef int header = _header(data, size[0]), payload = size[0] - header, status
    cdef int64_t index
    cdef Window* window
    if header < 0:
        return SRTP_BAD_PARAM
    window = _find_window(keys, read_u32(data + 8))
    if window == NULL:
        window = _add_window(keys, read_u32(data + 8))
        if window == NULL:
            return SRTP_ALLOC_FAIL
    index = window_index(window, read_u16(data + 2))
    status = window_check(window, index)
    if status != SRTP_OK:
        return status
    window_add(window, index)
    _write_iv(iv, keys, data, index)
    if (
        not evp.init(keys.context, NULL, NULL, iv, 1, NULL)
        or evp.update(keys.context, NULL, data, <unsigned int>header) < 0
        or evp.update(keys.context, data + header, data + header, <unsigned int>payload) < 0
        or evp.update(keys.context, NULL, NULL, 0) < 0
        or not evp.control(keys.context, GET_TAG, TAG, data + size[0])
    ):
        return SRTP_CIPHER_FAIL
    size[0] += TAG
    return SRTP_OK


cdef int gcm_unprotect(void* session, void* packet, int* size) noexcept nogil:
    """Check and decrypt a packet in place; it shrinks by the tag. What is refused has been overwritten all the same."""
    cdef Gcm* keys = <Gcm*>session
    cdef uint8_t* data = <uint8_t*>packet
    cdef uint8_t iv[IV]
    cdef int header = _header(data, size[0]), payload = size[0] - header - TAG, status
    cdef int64_t index
    cdef Window* window
    cdef Parameter tag[2]
    if header < 0:
        return SRTP_BAD_PARAM
    window = _find_window(keys, read_u32(data + 8))
    if window == NULL:
        index = read_u16(data + 2)
    else:
        index = window_index(window, read_u16(data + 2))
        status = window_check(window, index)
        if status != SRTP_OK:
            return status
    if payload < 0:
        return SRTP_PARSE_ERR
    _write_iv(iv, keys, data, index)
    memset(tag, 0, sizeof(tag))
    tag[0].key = b"tag"
    tag[0].data_type = OCTET_STRING
    tag[0].data = data + header + payload
    tag[0].data_size = TAG
    if (
        not evp.init(keys.context, NULL, NULL, iv, 0, tag)
        or evp.update(keys.context, NULL, data, <unsigned int>header) < 0
        or evp.update(keys.context, data + header, data + header, <unsigned int>payload) < 0
    ):
        return SRTP_CIPHER_FAIL
    if evp.update(keys.context, NULL, NULL, 0) < 0:
        return SRTP_AUTH_FAIL
    if window == NULL:
        window = _add_window(keys, read_u32(data + 8))
        if window == NULL:
            return SRTP_ALLOC_FAIL
    window_add(window, index)
    size[0] -= TAG
    return SRTP_OK
