"""One forwarded track: which layer it carries, in time with its companions.

Driven by: peer.py (what its receiver asks for) and router.py (what there is to forward). Sans-IO. Together with
uptrack.py the only place that programs the relay's table of forwards.

**Lip-sync.** A receiver aligns sound and picture by the NTP times in sender reports, within one CNAME. Ours, which the
relay writes, say what the publisher's own say, the RTP time moved by what the relay adds to timestamps; so sound and
picture of one publisher stay on one clock, the publisher's, whatever encodings they are made of and however often these
change.

Spec: RFC 3550 section 6.4.1 (sender reports), 6.5.1 (CNAME); RFC 5104 section 4.3.1 (FIR).
"""

from __future__ import annotations

from server.media.fastpath.relay import Relay
from server.media.parameters import CodecParameters, SendParameters, TrackParameters
from server.media.sourcewatch import STALE_S
from server.media.uptrack import UpEncoding, UpTrack, main_codec, red_payload_type, relay_codec

ALL_TEMPORAL = 7

_DISTINCTIONS = {"h264": ("packetization-mode", "0"), "vp9": ("profile-id", "0"), "av1": ("profile", "0")}
"""Format parameters that make different codecs of one name, and what they are when nothing is said."""


def is_same_codec(sent: CodecParameters, received: CodecParameters) -> bool:
    """Tell whether what is sent as one codec can be received as the other.

    Packetisation or profile that differs makes different codecs (RFC 6184 section 8.1, RFC 9628 section 6).
    """
    name = sent.name.lower()
    if name != received.name.lower() or sent.clock_rate != received.clock_rate:
        return False
    key, default = _DISTINCTIONS.get(name, ("", ""))
    return dict(sent.parameters).get(key, default) == dict(received.parameters).get(key, default)


class DownTrack:
    """One section that a peer receives in. Holds one forward of the relay until `close`.

    Args:
        relay: The fast path.
        transport: The receiver's slot there.
        transport_id: The receiver's name.
        track: The receiver's section; `codecs[0]` is what is sent.
        source: Id of what is to be forwarded.
        parameters: What our answer says.

    Raises:
        InvalidStateError: The relay has no room left.
    """

    def __init__(
        self,
        relay: Relay,
        transport: int,
        transport_id: str,
        track: TrackParameters,
        source: str,
        parameters: SendParameters,
    ) -> None:
        self.transport_id = transport_id
        self.mid = track.mid
        self.source = source
        self.codec = main_codec(track)
        self.parameters = parameters
        self._relay = relay
        self._transport = transport
        self._up: UpTrack | None = None
        self._asked: str | None = ""
        self._asked_at = 0.0
        self.is_waiting = False
        """Another encoding could be carried, but what is asked for may come any moment: `choose` again soon."""
        self.fir_number: int | None = None
        """Of the receiver's last request: the same again asks for nothing more (RFC 5104 section 4.3.1.2)."""
        self._max_temporal = ALL_TEMPORAL
        self._fed: tuple[UpEncoding, int, int] | None = None
        self._carried: UpEncoding | None = None
        self.forward = self._make_forward(red_payload_type(track))

    def _make_forward(self, red: int) -> int:
        mine, sent = self.codec, self.parameters
        rtx = (sent.rtx_ssrc, mine.rtx_payload_type) if sent.rtx_ssrc and mine.rtx_payload_type else (0, 0)
        named = (sent.ssrc, mine.payload_type, relay_codec(mine))
        return self._relay.add_forward(self._transport, *named, *rtx, self.mid.encode(), red, sent.cname.encode())

    def close(self) -> None:
        """Give the forward back."""
        self._relay.remove_forward(self.forward)

    # What it carries.

    @property
    def wanted(self) -> set[UpEncoding]:
        """What the publisher is to go on sending for it: what is asked for, and what is carried until that comes."""
        if self._up is None or self._fed is None or self._asked is None:
            return set()
        return {self._up.encoding(self._asked), self._fed[0]} | ({self._carried} if self._carried else set())

    @property
    def shown(self) -> UpEncoding | None:
        """What the receiver sees, or waits for."""
        return self._carried or (self._fed[0] if self._fed else None)

    def attach(self, up: UpTrack | None, now: float) -> UpEncoding | None:
        """Carry this track from its beginning, if its codec is ours; None: it has gone. Returns as `choose` does."""
        self._up = up if up is not None and is_same_codec(up.codec, self.codec) else None
        self._fed = self._carried = None
        self._asked_at = now
        return self.choose(now)

    def prefer(self, rid: str | None, max_temporal: int, now: float) -> UpEncoding | None:
        """Ask for a layer; None pauses. Returns as `choose` does."""
        self._asked = rid
        self._asked_at = now
        self._max_temporal = max_temporal
        return self.choose(now)

    def choose(self, now: float) -> UpEncoding | None:
        """Let the relay carry what is best now. A switch waits for a keyframe; the old encoding goes on until then.

        Returns:
            The encoding that comes, and whose keyframe is needed; None if none is. Of one that does not come yet the
            relay asks for a keyframe itself, should it not begin with one.
        """
        self.is_waiting = False
        if self._up is None or self._asked is None:
            if self._fed is not None or self._asked is None:
                self._relay.feed(self.forward, None)
            self._fed = self._carried = None
            return None
        best = self._best(self._up, self._up.encoding(self._asked), now)
        choice = (best, best.slot, self._max_temporal)
        if choice == self._fed:
            return None
        before, self._fed = self._fed, choice
        is_video = self._up.kind == "video"
        self._relay.feed(self.forward, best.slot, self._max_temporal, is_video, self._offset(best))
        is_new = best is not self._carried and (before is None or before[0] is not best)
        return best if is_video and is_new and best.fresh else None

    def _best(self, up: UpTrack, asked: UpEncoding, now: float) -> UpEncoding:
        """Return the encoding to wait for, which is what is asked for unless that is off.

        What is carried at the moment and still comes is left only for something nearer to what is asked for; when
        nothing is, something that comes stands in, but not before the one that is asked for has had its chance.
        """
        nearest, carried = up.nearest(asked), self._carried
        if nearest is asked:
            return asked
        if carried is not None and carried.fresh:
            return nearest if carried.order < nearest.order < asked.order else asked
        self.is_waiting = now < self._asked_at + STALE_S
        return asked if self.is_waiting else nearest

    def awaits(self, slot: int) -> bool:
        """Tell whether it is to carry this source, and is not known to do so."""
        return self._fed is not None and self._fed[1] == slot and self._carried is not self._fed[0]

    def switched(self, slot: int) -> None:
        """The relay has begun to carry this source."""
        if self._fed is not None and self._fed[1] == slot:
            self._carried = self._fed[0]

    def _offset(self, best: UpEncoding) -> int | None:
        """Return what to add to an encoding's timestamps, so that the picture stays on the time line of the sound.

        Encodings of one track count from different beginnings; both clocks known, the difference is.
        """
        old = self._carried
        if old is None or old is best or old.clock is None or best.clock is None:
            return None
        row = self._relay.forwards_view[self.forward]
        if int(row["source"]) != old.slot:
            return None
        at_same_time = old.clock.rtp_at(best.clock.ntp, self.codec.clock_rate)
        return (at_same_time + int(row["timestamp_offset"]) - best.clock.rtp_timestamp) & 0xFFFFFFFF
