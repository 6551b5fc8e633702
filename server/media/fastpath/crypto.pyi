from typing import final

from server.media.fastpath.gcm import GcmKeys

LIBSRTP: str

MEDIA_CIPHER: str
"""What encrypts media under AES-GCM in sessions to come: LIBSRTP, or an OpenSSL by its name and version."""

@final
class Session:
    """One direction of a transport's SRTP, for any SSRC.

    Args:
        profile: Number of the protection profile in DTLS.
        key: Master key with its salt behind it.
        inbound: Whether it is the peer's, and decrypts.

    Raises:
        InvalidStateError: The profile is unknown, or the key has not its length.
    """

    gcm: GcmKeys | None
    """What media is encrypted with; None: libsrtp does it."""

    def __init__(self, profile: int, key: bytes, inbound: bool) -> None: ...
    def media(self, packet: bytes) -> tuple[int, bytes]:
        """Protect or unprotect one RTP packet, as the relay does.

        Returns:
            The status, as libsrtp numbers them (0: it is well), and what has become of the packet.
        """
