"""One received track: its encodings in the relay, keyframes asked of it, its losses repaired.

Driven by: peer.py and router.py (keyframes). Sans-IO.

A source of the relay is made for every encoding. Where the SDP names its SSRC, by that; otherwise the relay waits for
the first packet with its mid and rid (`expect_source`) and says which SSRC it was (`bound`).

Spec: RFC 4585 section 6 (NACK, PLI), RFC 5104 section 4.3.1 (FIR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.errors import InvalidStateError
from server.media.fastpath.relay import Codec, Relay
from server.media.parameters import CodecParameters, EncodingParameters, TrackParameters
from server.media.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    RtcpPacket,
)

KEYFRAME_EVERY_S = 0.3
"""Between two requests for one encoding: libwebrtc's sender ignores what comes sooner after the last one."""
NACK_TRIES = 10
"""Of one packet, as libwebrtc's receiver does."""
NACK_EVERY_S = 0.05
"""At least between two requests for one packet: one turn of the Sfu's clockwork."""
NACK_SEQS = 128
"""Of one NACK: half a kilobyte where no two are neighbours."""
REBIND_EVERY_S = 1.0
"""A publisher that changes its SSRC faster than this is broken, or plays with us."""

_CODECS = {
    "opus": Codec.OPUS,
    "vp8": Codec.VP8,
    "vp9": Codec.VP9,
    "h264": Codec.H264,
    "av1": Codec.AV1,
}


def relay_codec(codec: CodecParameters) -> Codec:
    """Return the relay's name of a codec."""
    return _CODECS.get(codec.name.lower(), Codec.OTHER)


def main_codec(track: TrackParameters) -> CodecParameters:
    """Return what a section carries: its first codec, and of RED what is inside."""
    return next((codec for codec in track.codecs if codec.name.lower() != "red"), track.codecs[0])


def red_payload_type(track: TrackParameters) -> int:
    """Return under which payload type it may come wrapped in RED (RFC 2198); 0: never."""
    return next((codec.payload_type for codec in track.codecs if codec.name.lower() == "red"), 0)


@dataclass(frozen=True)
class SenderClock:
    """What a publisher's last sender report says about its clocks: lip-sync hangs on it (RFC 3550 section 6.4.1)."""

    ntp: int
    """64 bits: seconds since 1900 and their fraction, on the publisher's clock."""
    rtp_timestamp: int
    at: float
    """When it came, on ours."""

    def rtp_at(self, ntp: int, clock_rate: int) -> int:
        """Return the RTP timestamp of another moment of the publisher's clock."""
        return (self.rtp_timestamp + (((ntp - self.ntp) * clock_rate + (1 << 31)) >> 32)) & 0xFFFFFFFF


class UpEncoding:
    """One stream of a track.

    Args:
        track: Whose.
        order: 0 is the lowest.
        parameters: As negotiated.
    """

    def __init__(self, track: UpTrack, order: int, parameters: EncodingParameters) -> None:
        self.track = track
        self.order = order
        self.rid = parameters.rid
        self.ssrc = parameters.ssrc
        self.rtx_ssrc = parameters.rtx_ssrc
        self.live = False
        """Media comes that a decoder can begin with; kept by the router."""
        self.fresh = False
        """The last packet came within the time that tells a simulcast layer that is off from one that is on."""
        self._asked_at = float("-inf")
        self._asked_again = False
        self._keyframes = 0
        self._bound_at = float("-inf")
        self._fir_number = 0
        self.slot = self._make_source(self.ssrc, self.rtx_ssrc)

    # Its source.

    @property
    def clock(self) -> SenderClock | None:
        """What the publisher's last report says; None: none has come of this SSRC."""
        row = self.track.relay.sources_view[self.slot]
        at = float(row["clock_at"])
        return SenderClock(int(row["clock_ntp"]), int(row["clock_timestamp"]), at) if at else None

    def bound(self, ssrc: int) -> None:
        """Note the SSRC that the relay has found it under: its first, or another one after the publisher's restart."""
        self.ssrc = ssrc

    def rebind(self, ssrc: int, now: float) -> bool:
        """Take another SSRC, which only the payload type shows to be ours.

        The source is a new one then; whoever it feeds must be fed again. The old one goes last: a refusal changes
        nothing, and at no time does `slot` name what may be somebody else's.

        Returns:
            False: it is too soon after the last one, or the relay has bound the SSRC to another source meanwhile.
        """
        if now < self._bound_at + REBIND_EVERY_S:
            return False
        self._bound_at = now
        try:
            slot = self._make_source(ssrc, None, guessed=True)
        except InvalidStateError:
            return False
        self.track.relay.remove_source(self.slot)
        self.bound(ssrc)
        self.rtx_ssrc = None
        self.slot = slot
        return True

    def _make_source(self, ssrc: int | None, rtx_ssrc: int | None, guessed: bool = False) -> int:
        """Make one; `guessed`: a packet with the mid shows better whose the SSRC is."""
        codec, relay = self.track.codec, self.track.relay
        named = (relay_codec(codec), codec.payload_type, codec.clock_rate)
        if ssrc is None or guessed:
            ids = (self.track.mid.encode(), self.rid.encode())
            rtx_type, red = codec.rtx_payload_type or 0, self.track.red
            return relay.expect_source(self.track.transport, *ids, *named, rtx_type, red, ssrc or 0)
        rtx = (rtx_ssrc, codec.rtx_payload_type) if rtx_ssrc and codec.rtx_payload_type else (0, 0)
        return relay.add_source(self.track.transport, ssrc, *named, *rtx, self.track.red)

    # Keyframes.

    def want_keyframe(self, now: float) -> bool:
        """Ask for a keyframe, whatever the cause; many who ask at one time cost one request.

        Returns:
            False: one was asked for a moment ago, so `ask_again` is to be called until it returns True.
        """
        self._keyframes = int(self.track.relay.sources_view[self.slot]["keyframes"])
        if now < self._asked_at + KEYFRAME_EVERY_S:
            self._asked_again = True
            return False
        self._ask(now)
        return True

    def ask_again(self, now: float) -> bool:
        """Make up for a request that came too soon, unless a keyframe has come since. False: still too soon."""
        if now < self._asked_at + KEYFRAME_EVERY_S:
            return False
        if self._asked_again and int(self.track.relay.sources_view[self.slot]["keyframes"]) == self._keyframes:
            self._ask(now)
        return True

    def _ask(self, now: float) -> None:
        if self.ssrc is None:
            return  # its first packet begins a picture
        self._asked_at = now
        self._asked_again = False
        feedback = self.track.codec.feedback
        if "nack pli" in feedback:
            self.track.send([PictureLossIndication(self.track.local_ssrc, self.ssrc)])
        elif "ccm fir" in feedback:
            self._fir_number = (self._fir_number + 1) & 0xFF
            self.track.send([FullIntraRequest(self.track.local_ssrc, 0, ((self.ssrc, self._fir_number),))])

    # Repair.

    def repair(self, now: float, round_trip_s: float) -> None:
        """Ask for what is missing, at most once a round trip."""
        if self.ssrc is None or "nack" not in self.track.codec.feedback:
            return
        every = max(NACK_EVERY_S, round_trip_s)
        seqs = [seq & 0xFFFF for seq in self.track.relay.missing(self.slot, now, every, NACK_TRIES)]
        for at in range(0, len(seqs), NACK_SEQS):
            self.track.send([Nack(self.track.local_ssrc, self.ssrc, tuple(seqs[at : at + NACK_SEQS]))])


class UpTrack:
    """One section that a peer sends in.

    Args:
        id: The source's.
        transport_id: The publisher's.
        participant: Whose it is.
        relay: The fast path.
        transport: The publisher's slot there.
        local_ssrc: Ours, in RTCP to the publisher.
        parameters: As negotiated, encodings lowest first. The mid has at most 16 bytes.
        send: Sends RTCP to the publisher.

    Raises:
        InvalidStateError: The relay has no room left.
    """

    def __init__(
        self,
        id: str,
        transport_id: str,
        participant: str,
        relay: Relay,
        transport: int,
        local_ssrc: int,
        parameters: TrackParameters,
        send: Callable[[Sequence[RtcpPacket]], None],
    ) -> None:
        self.id = id
        self.transport_id = transport_id
        self.participant = participant
        self.relay = relay
        self.transport = transport
        self.local_ssrc = local_ssrc
        self.parameters = parameters
        self.send = send
        self.mid = parameters.mid
        self.kind = parameters.kind
        self.codec = main_codec(parameters)
        self.red = red_payload_type(parameters)
        self.live = False
        """As the last `TrackStarted` or `TrackStopped` said."""
        self.encodings: list[UpEncoding] = []
        try:
            for order, encoding in enumerate(parameters.encodings or (EncodingParameters(),)):
                self.encodings.append(UpEncoding(self, order, encoding))
        except InvalidStateError:
            self.close()
            raise

    def close(self) -> None:
        """Give the sources back; what they feed pauses."""
        for encoding in self.encodings:
            self.relay.remove_source(encoding.slot)

    def encoding(self, rid: str) -> UpEncoding:
        """Return the encoding of this rid; another rid than ours means the highest."""
        return next((each for each in self.encodings if each.rid == rid), self.encodings[-1])

    def nearest(self, asked: UpEncoding) -> UpEncoding:
        """Return what stands in for an encoding that does not come: the next lower one that does, then the next higher.

        When none comes, or it comes itself, it is the one that was asked for.
        """
        if asked.fresh or not any(each.fresh for each in self.encodings):
            return asked
        below = [each for each in self.encodings[: asked.order] if each.fresh]
        return below[-1] if below else next(each for each in self.encodings[asked.order :] if each.fresh)
