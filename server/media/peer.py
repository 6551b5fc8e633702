"""One peer: its transport, what it publishes and what it receives, and what it asks for in RTCP.

Driven by: sfu.py. Sans-IO.

    RTCP from the peer ──┬─ PLI, FIR ──> downtrack ─> router ─> uptrack of somebody else: keyframe
                         └─ BYE ───────> uptrack: it has stopped

Reports are the relay's affair, both ways. What asks for something at once (PLI, NACK) goes alone, in reduced size
(RFC 5506), which every WebRTC stack takes.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.errors import InvalidStateError, RefusalError
from server.media.downtrack import DownTrack
from server.media.fastpath.relay import Relay
from server.media.parameters import HeaderExtension, SendParameters, TrackParameters
from server.media.router import Router
from server.media.rtp import extensions as uris
from server.media.rtp.errors import RtpParseError
from server.media.rtp.packet import RtpPacket
from server.media.rtp.rtcp import (
    FullIntraRequest,
    Goodbye,
    PictureLossIndication,
    ReceiverReport,
    RtcpPacket,
)
from server.media.transport import Transport
from server.media.uptrack import UpEncoding, UpTrack

FIRST_ROUND_TRIP_S = 0.1
"""Until a report tells: a publisher that receives nothing from us never tells."""

_EXTENSIONS = {
    uris.MID: "mid",
    uris.RID: "rid",
    uris.REPAIRED_RID: "rrid",
    uris.ABS_SEND_TIME: "abs-send-time",
    uris.TRANSPORT_CC: "transport-cc",
    uris.AUDIO_LEVEL: "audio-level",
    uris.VIDEO_ORIENTATION: "video-orientation",
    uris.DEPENDENCY_DESCRIPTOR: "dependency-descriptor",
}
_RECEIVED_ONLY = ("rid", "rrid")


class Peer:
    """What hangs on one transport.

    Args:
        transport: Its own; closed by the Sfu.
        router: Its room.
        participant: Whose it is.
        relay: The fast path.
        ssrc: Ours in RTCP, where no stream of ours speaks.
        cname: Of everything that this peer publishes.
        now: Reports begin a second from here.
    """

    def __init__(
        self, transport: Transport, router: Router, participant: str, relay: Relay, ssrc: int, cname: str, now: float
    ) -> None:
        self.transport = transport
        self.router = router
        self.participant = participant
        self.cname = cname
        self.ups: dict[str, UpTrack] = {}
        self.downs: dict[str, DownTrack] = {}
        self.ufrags: tuple[str, ...] = ()
        self.due = float("inf")
        """When the Sfu's clockwork comes to it."""
        self.ssrcs: set[int] = {ssrc}
        """All of ours that this transport has ever had: none is used twice."""
        self._ssrc = ssrc
        self._relay = relay
        self._by_ssrc: dict[int, UpEncoding] = {}
        self._downs_by_ssrc: dict[int, DownTrack] = {}
        self._extension_ids: dict[str, int] = {}
        relay.introduce(transport.slot, ssrc, cname.encode(), now)

    # What it sends and receives.

    def has(self, track: TrackParameters) -> bool:
        """Tell whether a track is published, and as this says."""
        up = self.ups.get(track.mid)
        return up is not None and _is_same(up.parameters, track)

    def publish(self, source: str, track: TrackParameters, now: float) -> UpTrack:
        """Take a track whose mid has none.

        Raises:
            RefusalError: `bad_sdp`, an SSRC of it is another stream's; `room_full`, the relay has no room left.
        """
        try:
            up = UpTrack(
                source,
                self.transport.id,
                self.participant,
                self._relay,
                self.transport.slot,
                self._ssrc,
                track,
                self.transport.send_rtcp,
            )
        except InvalidStateError as error:
            is_full = int((self._relay.sources_view["used"] == 0).sum()) < max(len(track.encodings), 1)
            raise RefusalError("room_full" if is_full else "bad_sdp") from error
        self.ups[track.mid] = up
        for encoding in up.encodings:
            self._know(encoding)
        self.router.publish(up, now)
        return up

    def unpublish(self, up: UpTrack, now: float) -> None:
        """Take a track no longer."""
        del self.ups[up.mid]
        self._by_ssrc = {ssrc: each for ssrc, each in self._by_ssrc.items() if each.track is not up}
        self.router.unpublish(up, now)
        up.close()

    def subscribe(self, track: TrackParameters, source: str, parameters: SendParameters, now: float) -> DownTrack:
        """Forward a source to it.

        Raises:
            RefusalError: `room_full`, the relay has no room left.
        """
        try:
            down = DownTrack(self._relay, self.transport.slot, self.transport.id, track, source, parameters)
        except InvalidStateError as error:
            if not self._relay.forwards_view["used"].all():
                raise
            raise RefusalError("room_full") from error
        self.downs[track.mid] = down
        self._downs_by_ssrc[parameters.ssrc] = down
        self.router.subscribe(down, now)
        return down

    def unsubscribe(self, down: DownTrack, now: float) -> None:
        """Forward it no longer, and say so to the peer."""
        del self.downs[down.mid]
        del self._downs_by_ssrc[down.parameters.ssrc]
        self.router.unsubscribe(down, now)
        down.close()
        self.transport.send_rtcp([ReceiverReport(self._ssrc), Goodbye((down.parameters.ssrc,))])

    def leave(self, now: float) -> None:
        """Take all of it out of the room. The relay's slots go with the transport's."""
        for up in self.ups.values():
            self.router.unpublish(up, now)
        for down in self.downs.values():
            self.router.unsubscribe(down, now)

    def use_extensions(self, extensions: Iterable[HeaderExtension]) -> None:
        """Add header extensions to those in use: with BUNDLE one id means the same in all sections (RFC 8285)."""
        ids = dict(self._extension_ids)
        for extension in extensions:
            if extension.uri in _EXTENSIONS and 1 <= extension.id <= 255 and extension.id != 15:
                ids[_EXTENSIONS[extension.uri]] = extension.id
        if ids != self._extension_ids:
            self._extension_ids = ids
            sent = {name: id for name, id in ids.items() if name not in _RECEIVED_ONLY}
            self._relay.set_extension_ids(self.transport.slot, ids, sent)

    # SSRCs that the relay has seen.

    def bound(self, encoding: UpEncoding, ssrc: int) -> None:
        """An expected stream has an SSRC."""
        if encoding.ssrc is not None:
            self._by_ssrc.pop(encoding.ssrc, None)
        encoding.bound(ssrc)
        self._know(encoding)

    def claim(self, data: bytes, now: float) -> tuple[UpEncoding, int] | None:
        """Find the stream that packets without a known SSRC, mid or rid belong to, by their payload type.

        Only a stream that is silent can have got another SSRC. A packet with a mid that the relay does not know belongs
        to a section that is not published.

        Returns:
            The encoding, which has a new source now, and the slot of the one before; None: nobody's, or too soon.
        """
        try:
            packet = RtpPacket.parse(data)
            elements = uris.parse_elements(packet.extension_profile, packet.extension)
        except RtpParseError:
            return None
        if self._extension_ids.get("mid") in elements:
            return None
        for up in self.ups.values():
            encoding = up.encodings[0]
            if packet.payload_type not in (up.codec.payload_type, up.red) or len(up.encodings) > 1 or encoding.fresh:
                continue
            before, slot = encoding.ssrc, encoding.slot
            if encoding.rebind(packet.ssrc, now):
                self._by_ssrc.pop(before or 0, None)
                self._know(encoding)
                return encoding, slot
        return None

    def _know(self, encoding: UpEncoding) -> None:
        if encoding.ssrc is not None:
            self._by_ssrc[encoding.ssrc] = encoding

    # RTCP.

    @property
    def round_trip_s(self) -> float:
        """What its reports show."""
        return float(self._relay.transports_view[self.transport.slot]["round_trip"]) or FIRST_ROUND_TRIP_S

    def receive(self, packets: Iterable[RtcpPacket], now: float) -> list[UpEncoding]:
        """Take what the peer asks for. Returns the encodings that have ended."""
        ended: list[UpEncoding] = []
        for packet in packets:
            match packet:
                case PictureLossIndication(_, ssrc):
                    self._on_picture_wanted(ssrc, now)
                case FullIntraRequest(_, _, requests):
                    for ssrc, number in requests:
                        down = self._downs_by_ssrc.get(ssrc)
                        if down is not None and down.fir_number != number:
                            down.fir_number = number
                            self._on_picture_wanted(ssrc, now)
                case Goodbye(ssrcs):
                    ended += [self._by_ssrc[ssrc] for ssrc in ssrcs if ssrc in self._by_ssrc]
                case _:
                    pass
        return ended

    def _on_picture_wanted(self, ssrc: int, now: float) -> None:
        down = self._downs_by_ssrc.get(ssrc)
        if down is not None and down.shown is not None:
            self.router.want_keyframe(down.shown, now)


def _is_same(old: TrackParameters, new: TrackParameters) -> bool:
    """Tell whether nothing has changed that a source is made of."""

    def essence(track: TrackParameters) -> object:
        return track.kind, track.codecs, [(each.rid, each.ssrc, each.rtx_ssrc) for each in track.encodings]

    return essence(old) == essence(new)


def require(track: TrackParameters) -> None:
    """Refuse what no negotiation of ours should bring.

    Raises:
        InvalidStateError: It has no codec, or a mid that no header extension can carry.
    """
    if not track.codecs or not 1 <= len(track.mid.encode()) <= 16:
        raise InvalidStateError("a track needs a codec, and a mid of 1 to 16 bytes")
