from typing import final

VERSION: str | None
"""Which OpenSSL that is, as "OpenSSL 3.5.4"; None: pylibsrtp's build has none to offer."""

def derive(key: bytes, salt: bytes, label: int, size: int) -> bytes:
    """Derive a session key from a master key of 16 or 32 bytes, with AES in counter mode.

    Spec: RFC 3711 sections 4.3.1 and 4.3.3, without a key derivation rate; RFC 7714 section 11 for salts of 12 bytes.

    Args:
        key: Master key.
        salt: Master salt, at most 14 bytes.
        label: What for: 0, a cipher's key; 2, its salt.
        size: Bytes wanted.

    Raises:
        InvalidStateError: The key or the salt has a wrong length.
    """

@final
class GcmKeys:
    """One direction's cipher, and the replay windows of its streams.

    Args:
        key: Session key, 16 or 32 bytes.
        salt: Session salt, 12 bytes.
        inbound: Whether it decrypts.

    Raises:
        InvalidStateError: The key or the salt has a wrong length.
    """

    def __init__(self, key: bytes, salt: bytes, inbound: bool) -> None: ...
    @property
    def streams(self) -> int:
        """How many SSRCs have a window: what has been encrypted, or has been authentic."""

    def media(self, packet: bytes) -> tuple[int, bytes]:
        """Protect or unprotect one RTP packet, as `Session.media` does."""
