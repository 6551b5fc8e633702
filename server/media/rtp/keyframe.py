"""Whether a payload begins a picture from which a decoder can start.

Only the first packet of such a picture says so, which is what a switch of sources waits for. What does not parse is no
keyframe: nothing here raises. The relay has its own in C; by this one the tests judge that, and the load generator.

Spec: RFC 7741 section 4 (VP8), RFC 9628 section 4.2 (VP9), RFC 6184 section 5 (H.264), AV1 RTP specification 4.4.
"""

from __future__ import annotations

from collections.abc import Callable

_H264_IDR, _H264_SPS, _H264_STAP_A, _H264_FU_A = 5, 7, 24, 28


def _vp8(payload: bytes) -> bool:
    """First partition from its start, and the frame's own first bit says key."""
    first = payload[0]
    if not first & 0x10 or first & 0x07:  # S, PID
        return False
    at = 1
    if first & 0x80:  # X
        flags = payload[1]
        at = 2
        if flags & 0x80:  # I: the picture id has one byte or two
            at += 2 if payload[at] & 0x80 else 1
        if flags & 0x40:  # L
            at += 1
        if flags & 0x30:  # T or K
            at += 1
    return not payload[at] & 0x01


def _vp9(payload: bytes) -> bool:
    """Begins a frame that refers to no other picture, of the lowest spatial layer."""
    first = payload[0]
    if not first & 0x08 or first & 0x40:  # B, P
        return False
    at = 1
    if first & 0x80:  # I
        at += 2 if payload[at] & 0x80 else 1
    return not (first & 0x20 and payload[at] >> 1 & 0x07)  # L: spatial id


def _h264(payload: bytes) -> bool:
    """Parameters (which precede the picture) or the start of an IDR picture."""
    kind = payload[0] & 0x1F
    if kind in (_H264_IDR, _H264_SPS):
        return True
    if kind == _H264_FU_A:
        return bool(payload[1] & 0x80) and payload[1] & 0x1F == _H264_IDR
    if kind == _H264_STAP_A:
        at = 1
        while at + 2 < len(payload):
            if payload[at + 2] & 0x1F in (_H264_IDR, _H264_SPS):
                return True
            at += 2 + int.from_bytes(payload[at : at + 2], "big")
    return False


def _av1(payload: bytes) -> bool:
    """N: the first packet of a coded video sequence."""
    return bool(payload[0] & 0x08)


_BY_CODEC: dict[str, Callable[[bytes], bool]] = {"vp8": _vp8, "vp9": _vp9, "h264": _h264, "av1": _av1}


def starts_keyframe(codec: str, payload: bytes) -> bool:
    """Tell whether a payload of a codec (`VP8`, `VP9`, `H264`, `AV1`, in any case) begins a keyframe."""
    reader = _BY_CODEC.get(codec.lower())
    try:
        return reader is not None and reader(payload)
    except IndexError:
        return False
