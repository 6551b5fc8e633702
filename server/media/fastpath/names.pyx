"""The names of the relay's numbers, and the layout of its rows, for Python. relay.pyi documents them.

Driven by: nobody; `relay` passes them on.
"""

from enum import IntEnum

import numpy as np

from server.media.fastpath cimport demux as verdicts
from server.media.fastpath.packet cimport CODEC_AV1, CODEC_H264, CODEC_OPUS, CODEC_OTHER, CODEC_VP8, CODEC_VP9
from server.media.fastpath.sentlog cimport Sent
from server.media.fastpath.tables cimport (
    DROP_ADDRESS_NOT_ALLOWED, DROP_DUPLICATE, DROP_NOT_NOMINATED, DROP_NO_KEYS, DROP_OUTDATED, DROP_OVER_RATE,
    DROP_PROTECT_FAILED, DROP_QUEUE_FULL, DROP_RED_BAD, DROP_RTP_BAD_PADDING, DROP_RTP_PADDING_ONLY, DROP_RTX_BAD, DROP_SEND_FAILED,
    DROP_SRTP_AUTH_FAILED, DROP_SRTP_FAILED, DROP_SRTP_REPLAYED, DROP_STRANGER_QUEUE_FULL, DROP_TOO_LATE,
    DROP_TOO_LONG, DROP_TURN_CHANNEL, DROP_UNEXPECTED_PAYLOAD_TYPE, DROP_UNKNOWN_SSRC, EVENT_BOUND,
    EVENT_DISCONNECTED, EVENT_DTLS, EVENT_KEYFRAME_WANTED, EVENT_RTCP, EVENT_STUN, EVENT_SWITCHED,
    EVENT_UNKNOWN_SSRC, ForwardRow, SourceRow, TransportRow,
)

EXTENSION_NAMES = (
    "mid", "rid", "rrid", "abs-send-time", "transport-cc", "audio-level", "video-orientation", "dependency-descriptor",
)


class Codec(IntEnum):
    """What a payload is, as far as the relay has to know."""

    OTHER = CODEC_OTHER
    OPUS = CODEC_OPUS
    VP8 = CODEC_VP8
    VP9 = CODEC_VP9
    H264 = CODEC_H264
    AV1 = CODEC_AV1


class EventKind(IntEnum):
    """What is passed up to the slow path."""

    STUN = EVENT_STUN
    DTLS = EVENT_DTLS
    RTCP = EVENT_RTCP
    UNKNOWN_SSRC = EVENT_UNKNOWN_SSRC
    KEYFRAME_WANTED = EVENT_KEYFRAME_WANTED
    SWITCHED = EVENT_SWITCHED
    BOUND = EVENT_BOUND
    DISCONNECTED = EVENT_DISCONNECTED


class DropReason(IntEnum):
    """Why a datagram went nowhere: an index into `Relay.drops`."""

    EMPTY = verdicts.EMPTY - 0x80
    UNKNOWN_PROTOCOL = verdicts.UNKNOWN_PROTOCOL - 0x80
    RTP_TRUNCATED = verdicts.RTP_TRUNCATED - 0x80
    RTCP_TRUNCATED = verdicts.RTCP_TRUNCATED - 0x80
    STUN_TRUNCATED = verdicts.STUN_TRUNCATED - 0x80
    STUN_BAD_COOKIE = verdicts.STUN_BAD_COOKIE - 0x80
    STUN_BAD_LENGTH = verdicts.STUN_BAD_LENGTH - 0x80
    DTLS_TRUNCATED = verdicts.DTLS_TRUNCATED - 0x80
    TURN_CHANNEL_TRUNCATED = verdicts.TURN_CHANNEL_TRUNCATED - 0x80
    TURN_CHANNEL = DROP_TURN_CHANNEL
    TOO_LONG = DROP_TOO_LONG
    ADDRESS_NOT_ALLOWED = DROP_ADDRESS_NOT_ALLOWED
    NO_KEYS = DROP_NO_KEYS
    SRTP_AUTH_FAILED = DROP_SRTP_AUTH_FAILED
    SRTP_REPLAYED = DROP_SRTP_REPLAYED
    SRTP_FAILED = DROP_SRTP_FAILED
    UNKNOWN_SSRC = DROP_UNKNOWN_SSRC
    UNEXPECTED_PAYLOAD_TYPE = DROP_UNEXPECTED_PAYLOAD_TYPE
    RTP_BAD_PADDING = DROP_RTP_BAD_PADDING
    RTP_PADDING_ONLY = DROP_RTP_PADDING_ONLY
    RTX_BAD = DROP_RTX_BAD
    DUPLICATE = DROP_DUPLICATE
    QUEUE_FULL = DROP_QUEUE_FULL
    STRANGER_QUEUE_FULL = DROP_STRANGER_QUEUE_FULL
    NOT_NOMINATED = DROP_NOT_NOMINATED
    PROTECT_FAILED = DROP_PROTECT_FAILED
    TOO_LATE = DROP_TOO_LATE
    SEND_FAILED = DROP_SEND_FAILED
    RED_BAD = DROP_RED_BAD
    OVER_RATE = DROP_OVER_RATE
    OUTDATED = DROP_OUTDATED


def _dtype(columns):
    return np.dtype([tuple(column.split()) for column in columns.split(", ")], align=True)


TRANSPORT_DTYPE = _dtype(
    "received_packets u8, received_bytes u8, sent_packets u8, sent_bytes u8, wide_seq u8, received_at f8, round_trip f8,"
    " used u1, keyed u1"
)
SOURCE_DTYPE = _dtype(
    "base_ext_seq i8, highest_ext_seq i8, packets u8, bytes u8, lost i8, recovered u8, keyframes u8, clock_ntp u8,"
    " clock_at f8, jitter f8,"
    " received_at f8, loudness f8, transport i4, ssrc u4, clock_rate u4, clock_timestamp u4, timestamp u4, used u1, codec u1,"
    " audio_level u1,"
    " voice u1"
)
FORWARD_DTYPE = _dtype(
    "highest_ext_seq i8, packets u8, bytes u8, retransmitted u8, nacked u8, dropped_temporal u8, sent_at f8, transport i4, source i4,"
    " pending i4, ssrc u4, timestamp_offset u4, timestamp u4, used u1"
)
SENT_DTYPE = _dtype("sent_at f8, wide_seq u4, size u4")
if (TRANSPORT_DTYPE.itemsize, SOURCE_DTYPE.itemsize, FORWARD_DTYPE.itemsize, SENT_DTYPE.itemsize) != (
    sizeof(TransportRow), sizeof(SourceRow), sizeof(ForwardRow), sizeof(Sent)
):
    raise ImportError("the views of the relay's tables do not have the layout of tables.pxd")
