"""The load generator's engine in memory: what it makes up, and how it accounts for what arrives."""

import struct
from collections import defaultdict
from itertools import pairwise

import pytest
from pylibsrtp import Policy, Session

from loadtest.fastgen import BUCKET_S, Engine
from loadtest.sdp import OFFERED
from server.errors import InvalidStateError
from server.media.rtp.extensions import parse_elements, parse_transport_cc
from server.media.rtp.keyframe import starts_keyframe
from server.media.rtp.packet import RtpPacket
from server.media.rtp.rtcp import (
    FullIntraRequest,
    PictureLossIndication,
    ReceiverReport,
    RtcpPacket,
    SenderReport,
    parse_compound,
    serialize_compound,
)
from server.media.rtp.twcc import TransportFeedback

GCM, OURS, THEIRS = 7, bytes(28), bytes([1]) * 28
MS = 1_000_000
S = 1000 * MS


def session(key: bytes, *, inbound: bool) -> Session:
    kind = Policy.SSRC_ANY_INBOUND if inbound else Policy.SSRC_ANY_OUTBOUND
    policy = Policy(key=key, ssrc_type=kind, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
    policy.allow_repeat_tx = True  # so that a test may let a packet come twice, or very late
    policy.window_size = 10_000
    return Session(policy=policy)


class Played:
    """An engine with one leg, and the server's side of it."""

    def __init__(self, **senders: int) -> None:
        self.engine = Engine(-1, "10.0.0.1")
        self.leg = self.engine.add_leg()
        self.engine.set_keys(self.leg, GCM, THEIRS, OURS)
        self._protect = session(THEIRS, inbound=False)
        self._unprotect = session(OURS, inbound=True)
        for kind, ssrc in senders.items():
            self.engine.add_sender(
                self.leg, ssrc, 96 if kind == "video" else 111, kind == "video", mid=kind.encode(),
                mid_id=OFFERED["mid"], wide_id=OFFERED["wide"], sent_id=OFFERED["sent"],
            )  # fmt: skip
        self.engine.media_on = True

    def run(self, first_ms: int, end_ms: int) -> tuple[list[RtpPacket], list[RtcpPacket]]:
        """What leaves in this time: media, and what RTCP says."""
        media, control = [], []
        for at in range(first_ms, end_ms, 5):
            for leg, data in self.engine.datagrams_to_send(at * MS):
                assert leg == self.leg
                if 192 <= data[1] <= 223:
                    control += parse_compound(self._unprotect.unprotect_rtcp(data))
                else:
                    media.append(RtpPacket.parse(self._unprotect.unprotect(data)))
        return media, control

    def arrives(self, seq: int, ssrc: int = 0xB0, *, made: int = 0, at: int = S, elements: bytes = b"") -> None:
        """Let a packet come in, stamped with the time of its making."""
        head = struct.pack("!BBHII", 0x90 if elements else 0x80, 96, seq & 0xFFFF, 0, ssrc)
        extension = struct.pack("!HH", 0xBEDE, len(elements) // 4) + elements if elements else b""
        payload = bytes(100) + b"clqs" + struct.pack("!IQ", ssrc, made)
        self.engine.receive_datagram(self.leg, self._protect.protect(head + extension + payload), at)

    def control(self, *packets: object) -> None:
        self.engine.receive_datagram(self.leg, self._protect.protect_rtcp(serialize_compound(packets)), S)


def pictures(packets: list[RtpPacket]) -> list[list[RtpPacket]]:
    found = defaultdict(list)
    for packet in packets:
        found[packet.rtp_timestamp].append(packet)
    return list(found.values())


def test_pictures_are_cut_as_encoders_cut_them():
    media, _ = Played(video=0xA0).run(0, 1000)
    assert len(pictures(media)) == pytest.approx(30, abs=1)
    for picture in pictures(media):
        sizes = [len(packet.payload) for packet in picture]
        assert sizes == sorted(sizes), "the longer parts come last"
        assert max(sizes) - min(sizes) <= 1
        assert [packet.marker for packet in picture] == [False] * (len(picture) - 1) + [True]
        assert len({packet.payload[2:4] for packet in picture}) == 1, "one picture id"
    ids = [int.from_bytes(picture[0].payload[2:4]) for picture in pictures(media)]
    assert [(b - a) & 0x7FFF for a, b in pairwise(ids)] == [1] * (len(ids) - 1)


def test_packets_follow_one_another():
    media, _ = Played(video=0xA0).run(0, 500)
    numbers = [packet.seq for packet in media]
    assert [(b - a) & 0xFFFF for a, b in pairwise(numbers)] == [1] * (len(numbers) - 1)
    times = [picture[0].rtp_timestamp for picture in pictures(media)]
    assert {(b - a) & 0xFFFFFFFF for a, b in pairwise(times)} == {3000}


def test_the_rates_are_those_of_the_benchmark():
    media, _ = Played(video=0xA0, audio=0xA1).run(0, 10_000)
    video = [packet for packet in media if packet.ssrc == 0xA0]
    audio = [packet for packet in media if packet.ssrc == 0xA1]
    assert sum(len(packet.payload) for packet in video) * 8 / 10 == pytest.approx(1_200_000, rel=0.05)
    assert len(audio) == pytest.approx(500, abs=1)
    sizes = [len(packet.payload) + len(packet.extension) + 16 + 16 for packet in video]
    assert sum(sizes) / len(sizes) == pytest.approx(1100, rel=0.05)
    assert max(sizes) <= 1228
    assert {len(packet.payload) for packet in audio} == {64}


def test_extensions_say_which_section_and_which_packet_of_all():
    media, _ = Played(video=0xA0, audio=0xA1).run(0, 200)
    elements = [parse_elements(packet.extension_profile, packet.extension) for packet in media]
    for packet, own in zip(media, elements, strict=True):
        assert own[OFFERED["mid"]] == (b"video" if packet.ssrc == 0xA0 else b"audio")
    wide = [parse_transport_cc(own[OFFERED["wide"]]) for own in elements]
    assert wide == list(range(len(wide)))


def test_a_stream_begins_with_a_keyframe_and_brings_others_when_asked():
    played = Played(video=0xA0)

    def keyframes(first_ms: int, end_ms: int) -> int:
        media, _ = played.run(first_ms, end_ms)
        return sum(starts_keyframe("VP8", packet.payload) for packet in media)

    assert keyframes(0, 1000) == 1
    assert keyframes(1000, 2000) == 0
    played.control(PictureLossIndication(1, 0xA0))
    assert keyframes(2000, 3000) == 1
    played.control(FullIntraRequest(1, 0, ((0xA0, 1),)))
    assert keyframes(3000, 4000) == 1
    played.control(PictureLossIndication(1, 0xA1))
    assert keyframes(4000, 5000) == 0, "somebody else's"
    assert keyframes(5000, 15_000) == 1, "one each ten seconds at least"


def test_media_off_sends_nothing_and_some_may_rest():
    played = Played(video=0xA0, audio=0xA1)
    played.engine.media_on = False
    assert played.run(0, 500)[0] == []
    played.engine.media_on = True
    played.engine.set_active(1)
    assert {packet.ssrc for packet in played.run(500, 1000)[0]} == {0xA0}


def test_loss_is_what_sequence_numbers_lack():
    played = Played()
    for seq in [65530, 65531, 65533, 65532, 65535, 0, 1, 1, 4]:  # 65534, 2, 3 are lost; one late, one twice
        played.arrives(seq)
    assert played.engine.streams() == [(0, 0xB0, 8, 11)]
    assert played.engine.counts()["repeated"] == 1


def test_a_window_counts_anew():
    played = Played()
    for seq in (1, 2, 5):
        played.arrives(seq)
    played.engine.open_window()
    assert played.engine.streams() == [(0, 0xB0, 0, 0)]
    played.arrives(4)  # late: of the window before
    played.arrives(6)
    played.arrives(8)
    assert played.engine.streams() == [(0, 0xB0, 2, 3)]


def test_long_gaps_and_old_packets():
    played = Played()
    played.arrives(0)
    played.arrives(5000)
    played.arrives(3000)  # older than what is remembered
    played.arrives(5001)
    assert played.engine.streams() == [(0, 0xB0, 3, 5002)]


def test_delays_of_a_sample():
    played = Played()
    for seq in range(1000):
        played.arrives(seq, made=S, at=S + 3 * MS)
    counts = played.engine.counts()
    assert counts["sampled"] == pytest.approx(1000 / 16, rel=0.3)
    delays = played.engine.delay_counts()
    assert delays[round(0.003 / BUCKET_S)] == counts["sampled"] == delays.sum()


def test_what_is_not_for_us_is_counted():
    played = Played()
    stranger = session(bytes([9]) * 28, inbound=False)
    for seq in range(64):
        packet = stranger.protect(struct.pack("!BBHII", 0x80, 96, seq, 0, 0xB0) + bytes(50))
        played.engine.receive_datagram(played.leg, packet, S)
    assert played.engine.counts()["undecipherable"] > 0
    assert played.engine.counts()["sampled"] == 0


def test_reports_name_what_is_sent_and_received():
    played = Played(video=0xA0)
    played.arrives(7)
    played.arrives(9)
    _, control = played.run(0, 3000)
    reports = [packet for packet in control if isinstance(packet, SenderReport)]
    assert 2 <= len(reports) <= 3
    assert {report.ssrc for report in reports} == {0xA0}
    assert [(block.ssrc, block.highest_ext_seq) for block in reports[0].reports] == [(0xB0, 9)]
    assert reports[-1].packets > reports[0].packets > 0


def test_who_only_receives_sends_receiver_reports():
    played = Played()
    played.arrives(7)
    _, control = played.run(0, 2500)
    assert any(isinstance(packet, ReceiverReport) for packet in control)


def test_feedback_tells_when_each_packet_came():
    played = Played()
    played.engine.set_feedback(played.leg, 3)
    came = {5: 100, 6: 101, 8: 104, 9: 180, 10: 179}  # 7 is lost; 10 overtakes 9
    for seq, at_ms in sorted(came.items(), key=lambda item: item[1]):
        played.arrives(seq, at=at_ms * MS, elements=struct.pack("!BHx", 0x31, seq))
    _, control = played.run(0, 300)
    (feedback,) = [packet for packet in control if isinstance(packet, TransportFeedback)]
    told = feedback.arrivals()
    assert [seq for seq, _ in told] == [5, 6, 7, 8, 9, 10]
    assert {seq: round(at * 1e3) for seq, at in told if at is not None} == came


def test_feedback_of_many_packets_is_told_in_parts():
    played = Played()
    played.engine.set_feedback(played.leg, 3)
    for seq in range(900):
        played.arrives(seq, at=S + seq * MS // 10, elements=struct.pack("!BHx", 0x31, seq))
    _, control = played.run(0, 500)
    told = [seq for packet in control if isinstance(packet, TransportFeedback) for seq, _ in packet.arrivals()]
    assert told == list(range(900))


def test_misuse():
    engine = Engine(-1, "10.0.0.1", legs=1)
    assert engine.local_ip(engine.add_leg()) == "10.0.0.1"
    with pytest.raises(InvalidStateError):
        engine.add_leg()
    with pytest.raises(InvalidStateError):
        engine.set_keys(3, GCM, OURS, THEIRS)
    with pytest.raises(InvalidStateError):
        engine.set_keys(0, GCM, b"short", THEIRS)
    with pytest.raises(InvalidStateError):
        engine.set_checks(0, [])
