"""What the parsers of this package raise, and nothing else."""

from __future__ import annotations

from server.errors import ProtocolError


class RtpParseError(ProtocolError):
    """An RTP packet, a header extension or a payload header that is not one."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_rtp", detail)


class RtcpParseError(ProtocolError):
    """An RTCP packet that is not one."""

    def __init__(self, detail: str) -> None:
        super().__init__("bad_rtcp", detail)
