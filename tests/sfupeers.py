"""A whole Sfu in memory: its relay, a clock of numbers, and peers with ICE checks, DTLS and SRTP of their own."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pylibsrtp import Policy, Session

from server.media.dtls import Certificate
from server.media.events import MediaEvent
from server.media.fastpath.relay import Address, Relay
from server.media.parameters import (
    CodecParameters,
    EncodingParameters,
    Endpoint,
    HeaderExtension,
    IceParameters,
    SendParameters,
    TrackParameters,
)
from server.media.rtp import extensions as uris
from server.media.rtp.rtcp import RtcpPacket, parse_compound, serialize_compound
from server.media.sfu import Sfu
from tests.relayed import Rtp, vp8
from tests.transportpeers import WALL, DtlsPeer, check

MID, RID, RRID, ABS_SEND_TIME, TRANSPORT_CC, AUDIO_LEVEL = 1, 2, 3, 4, 5, 6
EXTENSIONS = (
    HeaderExtension(MID, uris.MID),
    HeaderExtension(RID, uris.RID),
    HeaderExtension(RRID, uris.REPAIRED_RID),
    HeaderExtension(ABS_SEND_TIME, uris.ABS_SEND_TIME),
    HeaderExtension(TRANSPORT_CC, uris.TRANSPORT_CC),
    HeaderExtension(AUDIO_LEVEL, uris.AUDIO_LEVEL),
)
VIDEO_FEEDBACK = ("nack", "nack pli", "ccm fir", "transport-cc")
VP8 = CodecParameters("VP8", 96, 90_000, feedback=VIDEO_FEEDBACK, rtx_payload_type=97)
H264 = CodecParameters("H264", 102, 90_000, feedback=VIDEO_FEEDBACK, rtx_payload_type=103)
OPUS = CodecParameters("opus", 111, 48_000, 2)
CERTIFICATE = Certificate.generate(WALL)


def video(mid: str = "v", *, ssrc: int | None = None, rids: Sequence[str] = (), codec: CodecParameters = VP8):
    """A section that sends or receives a picture."""
    encodings = tuple(EncodingParameters(rid) for rid in rids)
    if ssrc is not None:
        encodings = (EncodingParameters(ssrc=ssrc, rtx_ssrc=ssrc + 1),)
    return TrackParameters(mid, "video", "sendrecv", (codec,), EXTENSIONS, encodings)


def audio(mid: str = "a", *, ssrc: int | None = None):
    """A section that sends or receives sound."""
    encodings = (EncodingParameters(ssrc=ssrc),) if ssrc is not None else ()
    return TrackParameters(mid, "audio", "sendrecv", (OPUS,), EXTENSIONS, encodings)


class World:
    """An Sfu, its relay, and the time."""

    def __init__(self, relay: Relay | None = None, **settings: int) -> None:
        self.relay = relay or Relay(transports=64, sources=256, forwards=512)
        self.sfu = Sfu(self.relay, CERTIFICATE, [Endpoint("192.0.2.254", 10_000)], **settings)
        self.now = 100.0
        self.events: list[MediaEvent] = []
        self.sent: defaultdict[Address, list[bytes]] = defaultdict(list)

    def deliver(self, datagrams: Iterable[tuple[Address, bytes]] = ()) -> None:
        """Let datagrams arrive, and all follow from that which follows at once."""
        pending = list(datagrams)
        while True:
            for address, data in self.relay.process(pending, self.now):
                self.sent[address].append(data)
            pending = []
            events = self.relay.take_events()
            self.sfu.receive_relay_events(events, self.now)
            self.drain()
            if not events and not self._queued():
                return

    def _queued(self) -> bool:
        queued = self.relay.process([], self.now)
        for address, data in queued:
            self.sent[address].append(data)
        return bool(queued)

    def drain(self) -> None:
        for data, endpoint in self.sfu.datagrams_to_send(self.now):
            self.relay.send(tuple(endpoint), data)
        while (event := self.sfu.next_event()) is not None:
            self.events.append(event)

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        while (timer := self.sfu.get_timer()) is not None and timer <= end:
            self.now = max(self.now, timer)
            self.sfu.handle_timer(self.now)
            self.deliver()
        self.now = end
        self.deliver()

    def take(self, *kinds: type[MediaEvent]) -> list[MediaEvent]:
        """Take the events so far, of some kinds or all."""
        self.drain()
        taken, self.events = self.events, []
        return [event for event in taken if not kinds or isinstance(event, kinds)]


class Member:
    """A browser with one connection to the media server: connected as soon as it is made."""

    ports = itertools.count(30_000)

    def __init__(
        self, world: World, id: str, room: str = "room", participant: str = "", *, connect: bool = True
    ) -> None:
        self.world = world
        self.id = id
        self.participant = participant or id
        self.address: Address = ("192.0.2.1", next(self.ports), "udp")
        self.ice = IceParameters(f"{id}ufrag", f"{id}{'p' * 22}")
        self.dtls = DtlsPeer()
        local = world.sfu.open_transport(
            id, room, self.participant, self.ice, self.dtls.parameters, EXTENSIONS, world.now
        )
        self.local = local
        self.seqs: defaultdict[int, itertools.count[int]] = defaultdict(lambda: itertools.count(1000))
        self.wide = itertools.count(1)
        self.unread: list[bytes] = []
        if connect:
            self.connect()

    def connect(self) -> None:
        self.check()
        to_us = self.dtls.feed()
        while to_us:
            self.world.deliver((self.address, data) for data in to_us)
            to_us = self.dtls.feed(data for data in self.take() if 20 <= data[0] <= 63)
        assert self.dtls.connected
        client, server = self.dtls.keys(16, 12)
        self._protect, self._unprotect = (
            _session(client, Policy.SSRC_ANY_OUTBOUND),
            _session(server, Policy.SSRC_ANY_INBOUND),
        )

    def check(self, **more: bool) -> None:
        """Send a connectivity check that nominates."""
        self.world.deliver([(self.address, check(self.local.ice, self.ice, nominate=True, **more))])

    def take(self) -> list[bytes]:
        """Take the datagrams that have arrived here."""
        return self.world.sent.pop(self.address, [])

    # Media.

    def publish(self, track: TrackParameters) -> str:
        source = self.world.sfu.publish(self.id, track, self.world.now)
        self.world.deliver()
        return source

    def subscribe(self, track: TrackParameters, source: str) -> SendParameters:
        parameters = self.world.sfu.subscribe(self.id, track, source, self.world.now)
        self.world.deliver()
        return parameters

    def prefer(self, mid: str, rid: str | None, max_temporal: int = 7) -> None:
        self.world.sfu.prefer(self.id, mid, rid, max_temporal, self.world.now)
        self.world.deliver()

    def send(self, packet: Rtp) -> None:
        self.world.deliver([(self.address, self._protect.protect(bytes(packet)))])

    def send_video(
        self, ssrc: int, *, key: bool = False, mid: str = "v", rid: str = "", timestamp: int = 0,
        seq: int | None = None, payload_type: int = 96,
    ) -> None:  # fmt: skip
        """One packet that is a whole picture."""
        elements = {TRANSPORT_CC: next(self.wide).to_bytes(2)}
        if mid:
            elements[MID] = mid.encode()
        if rid:
            elements[RID] = rid.encode()
        number = next(self.seqs[ssrc]) if seq is None else seq
        self.send(Rtp(ssrc, number, vp8(number & 0x7FFF, key=key), timestamp, payload_type, True, elements))

    def send_audio(self, ssrc: int, *, mid: str = "a", level: int = 127, timestamp: int = 0) -> None:
        """One packet of sound, as loud as `level` says in -dBov."""
        elements = {MID: mid.encode(), AUDIO_LEVEL: bytes([0x80 | level])}
        self.send(Rtp(ssrc, next(self.seqs[ssrc]), b"sound", timestamp, 111, False, elements))

    def send_rtcp(self, *packets: RtcpPacket) -> None:
        self.world.deliver([(self.address, self._protect.protect_rtcp(serialize_compound(packets)))])

    def received(self) -> tuple[list[Rtp], list[RtcpPacket]]:
        """Take what has arrived, decrypted: media, and RTCP."""
        media, control = [], []
        for data in self.take():
            if data[0] >> 6 != 2:
                continue
            if 192 <= data[1] <= 223:
                control += parse_compound(self._unprotect.unprotect_rtcp(data))
            else:
                media.append(Rtp.parse(self._unprotect.unprotect(data)))
        return media, control

    def media(self) -> list[Rtp]:
        return self.received()[0]

    def rtcp(self, kind: type) -> list:
        return [packet for packet in self.received()[1] if isinstance(packet, kind)]


def _session(key: bytes, kind: int) -> Session:
    return Session(policy=Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM))
