from enum import IntEnum

from typing_extensions import Buffer

class Kind(IntEnum):
    RTP = 0
    RTCP = 1
    STUN = 2
    DTLS = 3
    TURN_CHANNEL = 4

class DropReason(IntEnum):
    EMPTY = 0x80
    UNKNOWN_PROTOCOL = 0x81
    RTP_TRUNCATED = 0x82
    RTCP_TRUNCATED = 0x83
    STUN_TRUNCATED = 0x84
    STUN_BAD_COOKIE = 0x85
    STUN_BAD_LENGTH = 0x86
    DTLS_TRUNCATED = 0x87
    TURN_CHANNEL_TRUNCATED = 0x88

def classify(datagram: Buffer) -> Kind | DropReason: ...
