"""SRTP sessions: one direction's keys, and the C functions to use them with.

pylibsrtp is a wheel with libsrtp and OpenSSL inside: the crypto that we stand on, on every platform, without anything to
install. Its Python face costs ten times the encryption itself, so the relay calls the same C functions by their addresses.
Those are reached through cffi objects that pylibsrtp keeps private; its version is pinned, and what we rely on is checked
here, at import.

Media under AES-GCM, which is nearly all there is, is encrypted by the same wheel's OpenSSL without libsrtp in between
(gcm.pyx says why), if the wheel exports it. MEDIA_CIPHER says which of the two it is.

Driven by: the relay. Spec: RFC 3711, RFC 7714, RFC 5764.
"""

from libc.stdint cimport uintptr_t

import pylibsrtp

from server.media.fastpath.gcm cimport GcmKeys, gcm_protect, gcm_unprotect

from server.errors import InvalidStateError
from server.media.fastpath.gcm import VERSION, derive

try:
    from pylibsrtp._binding import ffi as _ffi
    from pylibsrtp._binding import lib as _lib

    _ADDRESSES = {
        name: int(_ffi.cast("uintptr_t", _ffi.addressof(_lib, name)))
        for name in ("srtp_protect", "srtp_unprotect", "srtp_protect_rtcp", "srtp_unprotect_rtcp")
    }
    for status, meaning in (
        (SRTP_OK, "nothing to report"),
        (SRTP_AUTH_FAIL, "authentication failure"),
        (SRTP_REPLAY_FAIL, "replay check failed (bad index)"),
        (SRTP_REPLAY_OLD, "replay check failed (index too old)"),
    ):
        if pylibsrtp.ERRORS[status] != meaning:
            raise ImportError(f"status {status} is {pylibsrtp.ERRORS[status]!r}")
    if not int(_ffi.cast("uintptr_t", pylibsrtp.Session()._srtp[0])):
        raise ImportError("a session has no address")
except (AttributeError, ImportError, IndexError, TypeError) as error:
    raise ImportError(
        f"pylibsrtp {pylibsrtp.__version__} is not built as the relay expects ({error}); install the version that"
        " pyproject.toml pins, or adapt server/media/fastpath/crypto.pyx"
    ) from error

_PROFILES = {
    1: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    2: pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_32,
    7: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    8: pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}
"""By their numbers in DTLS (RFC 5764 section 4.1.2, RFC 7714 section 14.2)."""

_KEY_BYTES = {1: 16, 2: 16, 7: 16, 8: 32}
_SALT_BYTES = {1: 14, 2: 14, 7: 12, 8: 12}

_GCM = (7, 8)
LIBSRTP = "libsrtp"
MEDIA_CIPHER = VERSION or LIBSRTP


cdef class Session:
    """See crypto.pyi."""

    def __cinit__(self, profile, key, bint inbound):
        if profile not in _PROFILES:
            raise InvalidStateError(f"SRTP protection profile {profile} is not known")
        if len(key) != _KEY_BYTES[profile] + _SALT_BYTES[profile]:
            raise InvalidStateError("an SRTP master key has not its profile's length")
        try:
            policy = pylibsrtp.Policy(
                key=key,
                ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND if inbound else pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
                srtp_profile=_PROFILES[profile],
            )
            policy.window_size = REPLAY_WINDOW
            self._libsrtp = pylibsrtp.Session(policy=policy)
        except (TypeError, ValueError, pylibsrtp.Error) as error:
            raise InvalidStateError(f"SRTP keys refused: {error}") from error
        self._inbound = inbound
        self.srtp.control = _function("srtp_unprotect_rtcp" if inbound else "srtp_protect_rtcp")
        self.srtp.control_session = <void*><uintptr_t>int(_ffi.cast("uintptr_t", self._libsrtp._srtp[0]))
        if profile in _GCM and MEDIA_CIPHER != LIBSRTP:
            self._use_gcm(key[: _KEY_BYTES[profile]], key[_KEY_BYTES[profile] :])
        else:
            self.srtp.media = _function("srtp_unprotect" if inbound else "srtp_protect")
            self.srtp.media_session = self.srtp.control_session

    def _use_gcm(self, key, salt):
        """Let media go past libsrtp."""
        cdef GcmKeys keys = GcmKeys(derive(key, salt, 0, len(key)), derive(key, salt, 2, len(salt)), self._inbound)
        self.gcm = keys
        self.srtp.media = gcm_unprotect if self._inbound else gcm_protect
        self.srtp.media_session = &keys.state

    def media(self, bytes packet):
        return transformed(self.srtp.media, self.srtp.media_session, packet, 0 if self._inbound else SRTP_TRAILER)


cdef Transform _function(str name) noexcept:
    """One of libsrtp's, checked at import."""
    return <Transform><uintptr_t>_ADDRESSES[name]
