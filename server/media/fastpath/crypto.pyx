"""SRTP sessions, and the C functions to use them with.

pylibsrtp is a wheel with libsrtp and OpenSSL inside: the crypto that we stand on, on every platform, without anything to
install. Its Python face costs ten times the encryption itself, so the relay calls the same C functions by their addresses.
Those are reached through cffi objects that pylibsrtp keeps private; its version is pinned, and what we rely on is checked
here, at import.

Driven by: the relay. Spec: RFC 3711, RFC 7714, RFC 5764.
"""

from libc.stdint cimport uintptr_t

import pylibsrtp

from server.errors import InvalidStateError

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

_REPLAY_WINDOW = 1024
"""Packets; what RTX brings back within a second of 1000 packets/s is not too old yet."""


def open_session(profile: int, key: bytes, inbound: bool):
    """Make the session of one direction, for any SSRC.

    Args:
        profile: Number of the protection profile in DTLS.
        key: Master key with its salt behind it.
        inbound: Whether it is the peer's.

    Raises:
        InvalidStateError: The profile is unknown, or the key has not its length.
    """
    if profile not in _PROFILES:
        raise InvalidStateError(f"SRTP protection profile {profile} is not known")
    try:
        policy = pylibsrtp.Policy(
            key=key,
            ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND if inbound else pylibsrtp.Policy.SSRC_ANY_OUTBOUND,
            srtp_profile=_PROFILES[profile],
        )
        policy.window_size = _REPLAY_WINDOW
        return pylibsrtp.Session(policy=policy)
    except (TypeError, ValueError, pylibsrtp.Error) as error:
        raise InvalidStateError(f"SRTP keys refused: {error}") from error


cdef Srtp srtp_functions() noexcept:
    """The C functions, checked at import."""
    cdef Srtp functions
    functions.protect = <Transform><uintptr_t>_ADDRESSES["srtp_protect"]
    functions.unprotect = <Transform><uintptr_t>_ADDRESSES["srtp_unprotect"]
    functions.protect_rtcp = <Transform><uintptr_t>_ADDRESSES["srtp_protect_rtcp"]
    functions.unprotect_rtcp = <Transform><uintptr_t>_ADDRESSES["srtp_unprotect_rtcp"]
    return functions


cdef void* session_pointer(object session) except NULL:
    """The `srtp_t` of a session. It is valid for as long as the Python object lives: keep that."""
    return <void*><uintptr_t>int(_ffi.cast("uintptr_t", session._srtp[0]))
