"""A whole Sfu in memory: peers with real DTLS and SRTP, forwarded to each other, and apart from each other."""

import gc
import struct
import weakref

import pytest

from server.errors import InvalidStateError, RefusalError
from server.media.events import (
    SpeakersChanged,
    TrackStarted,
    TrackStopped,
    TransportConnected,
    TransportFailed,
    TransportFailure,
)
from server.media.fastpath.relay import Relay
from server.media.parameters import Endpoint
from server.media.rtp.rtcp import (
    Goodbye,
    PictureLossIndication,
    ReceiverReport,
    SenderReport,
    SourceDescription,
)
from server.media.rtp.twcc import TransportFeedback
from server.media.sfu import SfuDrop
from tests.sfupeers import H264, Member, World, audio, video
from tests.transportpeers import REMOTE, check

NTP = 0xE000_0000_0000_0000


@pytest.fixture
def world() -> World:
    return World()


def pair(world: World) -> tuple[Member, Member]:
    return Member(world, "ada"), Member(world, "ben")


def used(relay: Relay) -> tuple[int, int, int]:
    views = relay.transports_view, relay.sources_view, relay.forwards_view
    transports, sources, forwards = (int(view["used"].sum()) for view in views)
    return transports, sources, forwards


def test_two_people_see_and_hear_each_other(world):
    ada, ben = pair(world)
    assert world.take() == [TransportConnected("ada"), TransportConnected("ben")]
    for sender, receiver, ssrc in ((ada, ben, 0xA0), (ben, ada, 0xB0)):
        receiver.subscribe(video("seen"), sender.publish(video()))
        receiver.subscribe(audio("heard"), sender.publish(audio()))
        sender.send_video(ssrc, key=True)
        sender.send_audio(ssrc + 5)
        assert [packet.elements[1] for packet in receiver.media()] == [b"seen", b"heard"]
    world.advance(0.1)
    assert {event.source for event in world.take(TrackStarted)} == {"ada:v", "ada:a", "ben:v", "ben:a"}


@pytest.mark.parametrize("early", [True, False])
def test_a_subscription_and_its_source_may_come_in_either_order(world, early):
    ada, ben = pair(world)
    if early:
        ben.subscribe(video("x"), "ada:v")
    ada.publish(video(ssrc=0xA0))
    if not early:
        ben.subscribe(video("x"), "ada:v")
    ada.send_video(0xA0, key=True)
    assert len(ben.media()) == 1


def test_said_again_nothing_changes(world):
    """Every later offer of a connection says all its sections again."""
    ada, ben = pair(world)
    source = ada.publish(video())
    parameters = ben.subscribe(video("x"), source)
    ada.send_video(0xA0, key=True)
    ben.take()
    assert ada.publish(video()) == source
    assert ben.subscribe(video("x"), source) == parameters
    ada.send_video(0xA0)
    assert [packet.ssrc for packet in ben.media()] == [parameters.ssrc]


def test_another_codec_is_not_fed(world):
    ada, ben = pair(world)
    source = ada.publish(video(codec=H264))
    ben.subscribe(video("x"), source)
    ada.send_video(0xA0, key=True, payload_type=102)
    assert ben.media() == []
    ada.publish(video())
    ada.send_video(0xA0, key=True)
    assert len(ben.media()) == 1


def test_a_section_that_carries_another_source_is_another_stream(world):
    ada, ben = pair(world)
    cat = Member(world, "cat")
    first = ben.subscribe(video("x"), ada.publish(video()))
    second = ben.subscribe(video("x"), cat.publish(video()))
    assert first.ssrc != second.ssrc
    assert first.cname != second.cname
    (bye,) = ben.rtcp(Goodbye)
    assert bye.ssrcs == (first.ssrc,)
    ada.send_video(0xA0, key=True)
    cat.send_video(0xC0, key=True)
    assert [packet.ssrc for packet in ben.media()] == [second.ssrc]


def test_nothing_crosses_rooms(world):
    """Not by asking for another room's source, and not by naming another room's streams in RTCP."""
    ada, ben = pair(world)
    eve = Member(world, "eve", room="another")
    parameters = ben.subscribe(video("x"), ada.publish(video()))
    spied = eve.subscribe(video("x"), "ada:v")
    assert "ada" not in spied.msid.split()[0]
    ada.send_video(0xA0, key=True)
    assert eve.media() == []
    world.advance(1.0)
    ada.take()
    eve.send_rtcp(PictureLossIndication(1, parameters.ssrc), Goodbye((0xA0,)))
    eve.send_rtcp(PictureLossIndication(1, spied.ssrc))
    assert ada.rtcp(PictureLossIndication) == []
    assert world.take(TrackStopped) == []


def test_who_is_sent_away_neither_sends_nor_receives_from_that_moment(world):
    ada, ben = pair(world)
    cat, dan = Member(world, "cat", room="another"), Member(world, "dan", room="another")
    ben.subscribe(video("x"), ada.publish(video()))
    ada.subscribe(video("x"), ben.publish(video()))
    dan.subscribe(video("x"), cat.publish(video()))
    ada.send_video(0xA0, key=True)
    ben.send_video(0xB0, key=True)
    world.advance(0.1)
    ben.take()
    world.sfu.close_transport("ben", world.now)
    world.deliver()
    assert [data[0] for data in ben.take()] == [0x15], "one DTLS alert: goodbye"
    ada.send_video(0xA0)
    assert ben.take() == []
    ada.take()
    ben.send_video(0xB0)
    assert ada.media() == []
    assert TrackStopped("ben", "ben:v") in world.take()
    cat.send_video(0xC0, key=True)
    assert len(dan.media()) == 1, "other rooms go on"


def test_a_known_user_name_with_valid_integrity_or_no_answer(world):
    ada = Member(world, "ada", connect=False)
    stranger = ("203.0.113.9", 9, "udp")
    world.deliver([(stranger, check(REMOTE, ada.ice)), (stranger, b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12))])
    assert world.sent == {}
    assert world.sfu.drops[SfuDrop.UNKNOWN_USER] == 2
    world.deliver([(stranger, check(ada.local.ice, ada.ice, key="wrong"))])
    assert len(world.sent[stranger]) == 1, "an error, from which nothing is learnt but that"
    world.deliver([(stranger, b"\x16\xfe\xff" + bytes(20))])
    assert len(world.sent[stranger]) == 1, "and DTLS from there goes nowhere"
    ada.connect()


def test_a_stranger_costs_no_memory(world):
    before = used(world.relay)
    for port in range(5000):
        world.deliver([(("203.0.113.9", 1 + port, "udp"), check(REMOTE, REMOTE))])
    assert used(world.relay) == before
    assert world.sent == {}
    assert world.sfu.get_timer() is None


def test_ice_restart_answers_old_and_new_names(world):
    ada, _ = pair(world)
    old = ada.local
    ada.local = world.sfu.restart_ice("ada", ada.ice, world.now)
    assert ada.local.ice != old.ice
    for local in (old, ada.local):
        world.deliver([(ada.address, check(local.ice, ada.ice, nominate=True))])
        assert len(ada.take()) == 1


def test_a_peer_that_is_never_heard_of_fails(world):
    Member(world, "ada", connect=False)
    world.advance(31)
    assert world.take() == [TransportFailed("ada", TransportFailure.TIMEOUT)]


def test_room_and_worker_take_so_many_and_no_more():
    world = World(Relay(transports=3, sources=8, forwards=8), max_transports_of_room=2)
    for id in ("ada", "ben"):
        Member(world, id, connect=False)
    with pytest.raises(RefusalError, match="room_full"):
        Member(world, "cat", connect=False)
    Member(world, "cat", room="another", connect=False)
    with pytest.raises(RefusalError, match="room_full"):
        Member(world, "dan", room="a third", connect=False)


def test_misuse_is_told(world):
    Member(world, "ada", connect=False)
    with pytest.raises(InvalidStateError):
        Member(world, "ada", connect=False)
    with pytest.raises(InvalidStateError):
        world.sfu.publish("nobody", video(), world.now)
    with pytest.raises(InvalidStateError):
        world.sfu.publish("ada", video("m" * 17), world.now)
    world.sfu.unpublish("ada", "never", world.now)
    world.sfu.unsubscribe("ada", "never", world.now)
    world.sfu.prefer("ada", "never", "q")
    world.sfu.close_transport("nobody", world.now)


def test_a_publisher_that_starts_again_under_another_ssrc_is_seen_again(world):
    """With its mid the relay binds it; without, and silent before, the payload type says whose it is."""
    ada, ben = pair(world)
    parameters = ben.subscribe(video("x"), ada.publish(video()))
    ada.send_video(0xA0, key=True)
    ada.send_video(0xA8, key=True, timestamp=77)
    first, second = ben.media()
    assert (first.ssrc, second.ssrc) == (parameters.ssrc, parameters.ssrc)
    assert second.seq == (first.seq + 1) & 0xFFFF
    world.advance(0.6)
    ben.send_rtcp(PictureLossIndication(1, parameters.ssrc))
    assert [pli.media_ssrc for pli in ada.rtcp(PictureLossIndication)] == [0xA8]


def test_a_stream_without_mid_is_found_by_its_payload_type(world):
    ada, ben = pair(world)
    ben.subscribe(video("x"), ada.publish(video(ssrc=0xA0)))
    ada.send_video(0xA0, key=True, mid="")
    assert len(ben.media()) == 1
    world.advance(1.0)
    for _ in range(3):
        ada.send_video(0xAA, key=True, mid="")
        world.advance(0.03)
    assert [packet.seq for packet in ben.media()]
    assert world.sfu.statistics()["sources"] == 1


def test_a_stream_of_a_section_that_is_not_published_is_not_taken_for_another(world):
    ada, ben = pair(world)
    ben.subscribe(video("x"), ada.publish(video("v")))
    ada.send_video(0xAA, key=True, mid="w")
    assert ben.media() == []
    assert world.sfu.drops[SfuDrop.UNKNOWN_SSRC] == 1


def test_when_the_relay_is_full_nothing_is_left_of_the_attempt():
    world = World(Relay(transports=2, sources=4, forwards=2))
    ada = Member(world, "ada")
    ada.publish(video())
    ada.publish(audio())
    with pytest.raises(RefusalError, match="room_full"):
        ada.publish(video("w", rids=("q", "h", "f")))
    assert used(world.relay) == (1, 2, 0)
    ada.publish(video("w"))


def test_when_the_relay_has_no_forward_left_the_subscription_is_refused_and_the_others_go_on():
    world = World(Relay(transports=2, sources=4, forwards=1))
    ada, ben = pair(world)
    picture, sound = ada.publish(video()), ada.publish(audio())
    ben.subscribe(video("x"), picture)
    with pytest.raises(RefusalError, match="room_full"):
        ben.subscribe(audio("y"), sound)
    ada.send_video(0xA0, key=True)
    assert len(ben.media()) == 1
    world.sfu.unsubscribe("ben", "x", world.now)
    ben.subscribe(audio("y"), sound)
    assert used(world.relay) == (2, 2, 1)


def test_a_living_stream_is_not_taken_over(world):
    ada, ben = pair(world)
    ben.subscribe(video("x"), ada.publish(video(ssrc=0xA0)))
    ada.send_video(0xA0, key=True, mid="")
    world.advance(0.1)
    ada.send_video(0xAA, key=True, mid="")
    assert world.sfu.drops[SfuDrop.UNKNOWN_SSRC] == 1
    ben.take()
    ada.send_video(0xA0, mid="")
    assert len(ben.media()) == 1


def test_sound_and_picture_stay_together(world):
    """What the publisher's reports say of one moment, ours say too, under one CNAME, whatever timestamps become."""
    ada, ben = pair(world)
    seen = ben.subscribe(video("x"), ada.publish(video()))
    heard = ben.subscribe(audio("y"), ada.publish(audio()))
    assert seen.cname == heard.cname
    ada.send_video(0xA0, key=True, timestamp=90_000)
    ada.send_audio(0xA5, timestamp=48_000)
    ada.send_video(0xA8, key=True, timestamp=5_000_000)  # starts again: the forward's timestamps go on all the same
    picture = [packet for packet in ben.media() if packet.ssrc == seen.ssrc][-1]
    ada.send_rtcp(SenderReport(0xA8, NTP, 5_000_000, 1, 1))
    ada.send_rtcp(SenderReport(0xA5, NTP + (1 << 31), 48_000 + 24_000, 1, 1))
    world.advance(0.06)
    _, control = ben.received()
    reports = {report.ssrc: report for report in control if isinstance(report, SenderReport)}
    for ssrc, clock_rate, timestamp in ((seen.ssrc, 90_000, picture.timestamp), (heard.ssrc, 48_000, 48_000)):
        report = reports[ssrc]
        elapsed = (report.ntp - NTP) / 2**32
        assert report.rtp_timestamp == pytest.approx(timestamp + elapsed * clock_rate, abs=2)
    names = {chunk.ssrc: chunk.items for packet in control if isinstance(packet, SourceDescription)
             for chunk in packet.chunks}  # fmt: skip
    assert names[seen.ssrc] == names[heard.ssrc] == ((1, seen.cname.encode()),)


def test_the_publisher_is_told_how_it_arrives(world):
    ada, _ = pair(world)
    ada.publish(video())
    for seq in (1, 2, 3, 5):
        ada.send_video(0xA0, key=seq == 1, seq=seq)
    ada.send_rtcp(SenderReport(0xA0, NTP, 0, 4, 4))
    world.advance(2.0)
    _, control = ada.received()
    block = next(packet for packet in control if isinstance(packet, ReceiverReport) and packet.reports).reports[0]
    assert (block.ssrc, block.lost, block.highest_ext_seq & 0xFFFF, block.fraction_lost) == (0xA0, 1, 5, 256 // 5)
    assert block.last_sr == NTP >> 16 & 0xFFFFFFFF
    assert 0 < block.delay_since_last_sr < 2 * 65536
    feedback = next(packet for packet in control if isinstance(packet, TransportFeedback))
    assert feedback.base_seq == 1
    assert len(feedback.deltas) == 4


def test_muted_and_back_and_goodbye(world):
    ada, _ = pair(world)
    ada.publish(video())
    ada.send_video(0xA0, key=True)
    world.advance(0.1)
    assert world.take(TrackStarted) == [TrackStarted("ada", "ada:v")]
    world.advance(3.0)
    assert world.take(TrackStopped) == [TrackStopped("ada", "ada:v")]
    ada.send_video(0xA0)
    world.advance(0.1)
    assert world.take(TrackStarted) == [TrackStarted("ada", "ada:v")]
    ada.send_rtcp(Goodbye((0xA0,)))
    assert world.take(TrackStopped) == [TrackStopped("ada", "ada:v")]
    world.advance(0.2)
    assert world.take() == []
    ada.send_video(0xA0)
    world.advance(0.1)
    assert world.take(TrackStarted) == [TrackStarted("ada", "ada:v")]


def test_who_speaks_comes_first_and_a_cough_changes_nothing(world):
    ada, ben = pair(world)
    for member in (ada, ben):
        member.publish(audio())
    assert world.take(SpeakersChanged)[-1].participants == ("ada", "ben")

    def speak(seconds: float, *levels: int) -> None:
        for _ in range(round(seconds / 0.02)):
            for member, ssrc, level in zip((ada, ben), (0xA5, 0xB5), levels, strict=True):
                member.send_audio(ssrc, level=level)
            world.advance(0.02)

    speak(1.0, 30, 127)
    speak(0.3, 127, 30)
    speak(1.0, 30, 127)
    speak(1.0, 30, 28)
    assert world.take(SpeakersChanged) == []
    for _ in range(3):  # nor do several, apart from each other while nobody speaks
        speak(0.4, 127, 20)
        speak(2.0, 127, 127)
    assert world.take(SpeakersChanged) == []
    speak(1.6, 127, 30)
    assert world.take(SpeakersChanged) == [SpeakersChanged("room", ("ben", "ada"))]
    world.sfu.unpublish("ben", "a", world.now)
    assert world.take(SpeakersChanged) == [SpeakersChanged("room", ("ada",))]


def test_500_calls_leave_nothing_behind():
    world = World()
    ada = Member(world, "ada")
    kept = weakref.WeakSet()
    for number in range(500):
        id = f"guest{number}"
        world.sfu.open_transport(id, f"room{number}", id, REMOTE, ada.dtls.parameters, (), world.now)
        source = world.sfu.publish(id, video(rids=("q", "h", "f")), world.now)
        world.sfu.publish(id, audio(), world.now)
        world.sfu.subscribe(id, video("x"), source, world.now)
        kept.add(world.sfu._peers[id])
        world.sfu.restart_ice(id, REMOTE, world.now)
        world.sfu.handle_timer(world.now)
        world.sfu.close_transport(id, world.now)
        world.drain()
    assert used(world.relay) == (1, 0, 0)
    counts = world.sfu.statistics()
    assert (counts["rooms"], counts["transports"], counts["sources"], counts["forwards"]) == (1, 1, 0, 0)
    world.advance(2.0)
    gc.collect()
    assert len(kept) == 0
    assert len(world.sfu._by_ufrag) == 1
    world.advance(30.0)
    assert len(world.sfu._heap) < 10


def test_hostile_rtcp_of_a_peer_changes_nothing(world):
    ada, ben = pair(world)
    ben.subscribe(video("x"), ada.publish(video()))
    ada.send_video(0xA0, key=True)
    for body in (b"\x80\xc9\x00\x01\x00\x00\x00\x01" + b"\xff" * 9, struct.pack("!BBHI", 0x9F, 203, 1, 0xA0)):
        world.deliver([(ada.address, ada._protect.protect_rtcp(body))])
    ben.take()
    ada.send_video(0xA0)
    assert len(ben.media()) == 1


def test_the_five_verbs_without_a_relay_around(world):
    ada = Member(world, "ada", connect=False)
    home = Endpoint("192.0.2.1", 4)
    world.sfu.receive_datagram(check(ada.local.ice, ada.ice, nominate=True), home, world.now)
    assert [to for _, to in world.sfu.datagrams_to_send(world.now)] == [home]
    (hello,) = ada.dtls.feed()
    world.sfu.receive_datagram(hello, home, world.now)
    assert world.sfu.datagrams_to_send(world.now)
    world.sfu.receive_datagram(hello, Endpoint("203.0.113.9", 4), world.now)
    assert world.sfu.drops[SfuDrop.UNKNOWN_TRANSPORT] == 1
