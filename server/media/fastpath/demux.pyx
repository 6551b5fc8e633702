"""Which protocol a datagram belongs to: the Python face of demux.pxd, for tests and for the slow path.

Driven by: the relay, which cimports `demux()`; anybody else, through `classify`.
Spec: RFC 7983 section 7, RFC 5761 section 4.
"""

from enum import IntEnum

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from server.media.fastpath cimport demux as core


class Kind(IntEnum):
    """What a datagram is."""

    RTP = core.RTP
    RTCP = core.RTCP
    STUN = core.STUN
    DTLS = core.DTLS
    TURN_CHANNEL = core.TURN_CHANNEL


class DropReason(IntEnum):
    """Why a datagram is nothing that we read. One counter each."""

    EMPTY = core.EMPTY
    UNKNOWN_PROTOCOL = core.UNKNOWN_PROTOCOL
    RTP_TRUNCATED = core.RTP_TRUNCATED
    RTCP_TRUNCATED = core.RTCP_TRUNCATED
    STUN_TRUNCATED = core.STUN_TRUNCATED
    STUN_BAD_COOKIE = core.STUN_BAD_COOKIE
    STUN_BAD_LENGTH = core.STUN_BAD_LENGTH
    DTLS_TRUNCATED = core.DTLS_TRUNCATED
    TURN_CHANNEL_TRUNCATED = core.TURN_CHANNEL_TRUNCATED


_VERDICTS = {int(verdict): verdict for verdict in (*Kind, *DropReason)}


def classify(const uint8_t[::1] datagram not None):
    """Say what one datagram is.

    Args:
        datagram: Any contiguous buffer of bytes.

    Returns:
        Its `Kind`, or the `DropReason` if it is to be dropped. Bytes from the network never raise.
    """
    cdef size_t size = datagram.shape[0]
    return _VERDICTS[core.demux(&datagram[0] if size else NULL, size)]
