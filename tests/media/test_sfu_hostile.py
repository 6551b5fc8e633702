"""A whole Sfu in memory, and one peer in it whose browser has been changed: nobody else notices."""

import pytest

from server.errors import RefusalError
from server.media.events import TrackStopped, TransportFailed, TransportInterrupted
from server.media.fastpath.relay import Address
from server.media.rtp.rtcp import MAX_PACKETS, FullIntraRequest, Nack, PictureLossIndication, ReceiverReport
from server.media.sfu import Sfu
from server.media.uptrack import KEYFRAME_EVERY_S
from tests.relayed import Rtp, vp8
from tests.sfupeers import MID, Member, World, audio, video
from tests.transportpeers import check


@pytest.fixture
def world() -> World:
    return World()


def used(world: World) -> tuple[int, int, int]:
    relay = world.relay
    views = relay.transports_view, relay.sources_view, relay.forwards_view
    transports, sources, forwards = (int(view["used"].sum()) for view in views)
    return transports, sources, forwards


def hears(sender: Member, receiver: Member, ssrc: int) -> bool:
    receiver.take()
    sender.send_audio(ssrc)
    return len(receiver.media()) == 1


class TestOneSsrcInTwoSections:
    """Its first packet names no section, its second one another: the relay binds it before the first is looked at."""

    def provoke(self, world: World) -> Member:
        eve = Member(world, "eve")
        eve.publish(audio("a"))
        eve.publish(video("v"))
        packets = (
            Rtp(0x77, 1000, b"sound", 0, 111, False, {}),
            Rtp(0x77, 1001, vp8(1, key=True), 0, 96, True, {MID: b"v"}),
        )
        world.deliver([(eve.address, eve._protect.protect(bytes(packet))) for packet in packets])
        return eve

    def test_is_that_of_the_section_it_names(self, world):
        ben = Member(world, "ben")
        ben.subscribe(video("x"), "eve:v")
        ben.subscribe(audio("y"), "eve:a")
        eve = self.provoke(world)
        assert [packet.elements[MID] for packet in ben.media()] == [b"x"]
        assert hears(eve, ben, 0x99), "the other section waits for its own"

    def test_brings_nobody_another_rooms_sound(self, world):
        self.provoke(world)
        spy = Member(world, "spy")
        victim = Member(world, "victim", room="another")
        victim.publish(audio("a"))
        spy.subscribe(audio("m"), "eve:a")
        victim.send_audio(0xB0)
        victim.send_audio(0xB0)
        assert spy.media() == []

    def test_takes_nobodys_track_away(self, world):
        self.provoke(world)
        victim, listener = Member(world, "victim", room="another"), Member(world, "listener", room="another")
        listener.subscribe(audio("m"), victim.publish(audio("a")))
        world.sfu.unpublish("eve", "a", world.now)
        assert hears(victim, listener, 0xB0)
        world.advance(1.0)
        world.sfu.unpublish("victim", "a", world.now)

    def test_does_not_keep_anybody_here(self, world):
        self.provoke(world)
        victim = Member(world, "victim", room="another")
        victim.publish(audio("a"))
        for id in ("eve", "victim"):
            world.sfu.close_transport(id, world.now)
        assert used(world) == (0, 0, 0)
        assert world.sfu.transports == 0


def test_whatever_is_wrong_with_its_tracks_who_is_sent_away_is_gone(world, monkeypatch):
    ada, ben = Member(world, "ada"), Member(world, "ben")
    ben.subscribe(audio("m"), ada.publish(audio()))

    def broken(self: Sfu, up: object) -> None:
        raise KeyError(0)

    monkeypatch.setattr(Sfu, "_forget", broken)
    with pytest.raises(KeyError):
        world.sfu.close_transport("ada", world.now)
    assert used(world)[0] == 1
    assert not hears(ada, ben, 0xA0)
    world.sfu.close_transport("ada", world.now)
    Member(world, "ada")


class TestADefectOfOurs:
    """What should not be raised and is costs its own event or peer, and nothing else."""

    def test_in_one_event_leaves_the_others(self, world, monkeypatch):
        ada, ben = Member(world, "ada"), Member(world, "ben")
        told: list[Exception] = []
        world.sfu.guard.tell = told.append
        broken = world.sfu._peers["ada"].transport
        monkeypatch.setattr(broken, "receive_datagram", lambda *args: 1 / 0)
        checks = [(member.address, check(member.local.ice, member.ice, nominate=True)) for member in (ada, ben)]
        world.deliver(checks)
        assert ada.take() == []
        assert len(ben.take()) == 1
        assert [type(error) for error in told] == [ZeroDivisionError]
        assert world.sfu.all_drops()["failed"] == 1

    def test_in_one_peers_timer_leaves_the_others_and_is_tried_again(self, world, monkeypatch):
        ada, ben = Member(world, "ada"), Member(world, "ben")
        ben.publish(video())
        ben.send_video(0xB0, key=True)
        monkeypatch.setattr(world.sfu._peers["ada"].transport, "handle_timer", lambda now: 1 / 0)
        world.advance(20.0)  # without checks the timers of both are due after 15
        assert [event.transport for event in world.take(TransportInterrupted)] == ["ben"]
        assert 4 <= world.sfu.guard.failures <= 20
        monkeypatch.undo()
        world.advance(15.0)
        assert {event.transport for event in world.take(TransportFailed)} == {"ada", "ben"}
        assert ada.world.sfu.transports == 2

    def test_in_one_streams_repair_leaves_the_others(self, world, monkeypatch):
        ada, ben = Member(world, "ada"), Member(world, "ben")
        for member in (ada, ben):
            member.publish(video())
            for seq in (1, 2, 5):
                member.send_video(0xA0 if member is ada else 0xB0, key=seq == 1, seq=seq)
        (encoding,) = world.sfu._peers["ada"].ups["v"].encodings
        monkeypatch.setattr(encoding, "repair", lambda *args: 1 / 0)
        world.advance(0.3)
        assert ada.rtcp(Nack) == []
        assert ben.rtcp(Nack)
        assert world.sfu.guard.failures

    def test_in_one_room_leaves_the_others(self, world, monkeypatch):
        for room in ("one", "another"):
            member = Member(world, room, room)
            member.publish(video())
            member.send_video(0xA0, key=True)
            world.sfu._busy.add(world.sfu._rooms[room])
        asked: list[str] = []
        monkeypatch.setattr(world.sfu._rooms["one"], "handle_timer", lambda now: 1 / 0)
        monkeypatch.setattr(world.sfu._rooms["another"], "handle_timer", lambda now: asked.append("another"))
        world.advance(0.1)
        assert asked == ["another"]


def test_a_report_tells_of_a_new_stream_alone(world):
    """It begins again under another SSRC, with a loss, and the slow path has not been told when the report is due."""
    eve = Member(world, "eve")
    eve.publish(video())

    def packet(ssrc: int, seq: int) -> tuple[Address, bytes]:
        rtp = Rtp(ssrc, seq, vp8(seq & 0x7FFF, key=True), 0, 96, True, {MID: b"v"})
        return eve.address, eve._protect.protect(bytes(rtp))

    world.deliver(packet(0xA0, 1000 + number) for number in range(300))
    world.relay.reports(world.now + 2.0)
    world.deliver()
    assert [block.ssrc for report in eve.rtcp(ReceiverReport) for block in report.reports] == [0xA0]
    world.relay.process([packet(0xA1, 5000), packet(0xA1, 5011)], world.now)
    world.relay.reports(world.now + 4.0)
    world.deliver()
    blocks = [block for report in eve.rtcp(ReceiverReport) for block in report.reports]
    assert [(block.ssrc, block.fraction_lost) for block in blocks] == [(0xA1, 10 * 256 // 12)]


def test_a_compound_of_too_many_packets_is_not_read(world):
    ada, ben = Member(world, "ada"), Member(world, "ben")
    parameters = ben.subscribe(video("x"), ada.publish(video()))
    ada.send_video(0xA0, key=True)
    world.advance(1.0)
    ada.take()
    wanted = PictureLossIndication(1, parameters.ssrc)
    ben.send_rtcp(*[wanted] * (MAX_PACKETS + 1))
    assert ada.rtcp(PictureLossIndication) == []
    assert world.sfu.all_drops()["bad_rtcp"] == 1
    ben.send_rtcp(*[wanted] * MAX_PACKETS)
    assert len(ada.rtcp(PictureLossIndication)) == 1


class TestAnSsrcOfAnotherSection:
    def test_is_refused_and_nothing_is_left_of_the_section(self, world):
        ada = Member(world, "ada")
        ada.publish(audio("a"))
        ada.publish(video("v"))
        ada.send_audio(0x55)
        ada.send_video(0xA0, key=True)
        world.advance(0.2)
        world.take()
        with pytest.raises(RefusalError, match="bad_sdp"):
            ada.publish(video("v", ssrc=0x55))
        assert TrackStopped("ada", "ada:v") in world.take()
        world.advance(1.0)
        assert world.sfu.statistics()["sources"] == used(world)[1] == 1
        ada.publish(video("v"))
        world.sfu.close_transport("ada", world.now)
        assert world.sfu.statistics()["sources"] == used(world)[1] == 0
        assert world.sfu.guard.failures == 0

    def test_of_the_same_offer_too(self, world):
        ada = Member(world, "ada")
        ada.publish(video("v", ssrc=0x55))
        with pytest.raises(RefusalError, match="bad_sdp"):
            ada.publish(video("w", ssrc=0x55))


class TestAnEventThatFoundTheQueueFull:
    """Nobody says again which SSRC a stream has and what a forward carries: the tables do."""

    def lose(self, world: World, sender: Member) -> None:
        """Let a stream begin, and nobody be told."""
        rtp = Rtp(0xA0, 999, vp8(999, key=True), 0, 96, True, {MID: b"v"})
        world.relay.process([(sender.address, sender._protect.protect(bytes(rtp)))], world.now)
        assert len(world.relay.take_events()) == 2

    def test_is_made_up_for(self, world):
        ada, ben = Member(world, "ada"), Member(world, "ben")
        parameters = ben.subscribe(video("x"), ada.publish(video()))
        self.lose(world, ada)
        for _ in range(30):
            ada.send_video(0xA0)
            world.advance(0.05)
        ben.send_rtcp(PictureLossIndication(1, parameters.ssrc))
        _, control = ada.received()
        assert any(isinstance(each, PictureLossIndication) and each.media_ssrc == 0xA0 for each in control)
        assert any(isinstance(each, ReceiverReport) and each.reports for each in control)
        (down,) = world.sfu._peers["ben"].downs.values()
        assert down.shown in down.wanted
        assert not down.awaits(int(world.relay.forwards_view[down.forward]["source"]))


def test_a_repeated_request_of_the_same_number_is_one_request(world):
    ada, ben = Member(world, "ada"), Member(world, "ben")
    parameters = ben.subscribe(video("x"), ada.publish(video()))
    ada.send_video(0xA0, key=True)
    for numbers, keyframes in (((7, 7, 7), 1), ((7,), 0), ((8, 8), 1), ((7,), 1)):
        asked = 0
        for number in numbers:
            world.advance(2 * KEYFRAME_EVERY_S)
            ada.take()
            ben.send_rtcp(FullIntraRequest(1, 0, ((parameters.ssrc, number),)))
            asked += len(ada.rtcp(PictureLossIndication))
        assert asked == keyframes


def test_a_guess_by_payload_type_gives_way_to_the_mid(world):
    ada, ben = Member(world, "ada"), Member(world, "ben")
    ben.subscribe(audio("m"), ada.publish(audio("a")))
    ada.send(Rtp(0x77, 1000, b"sound", 0, 111, False, {}))
    ada.send_audio(0x99)
    assert hears(ada, ben, 0x99)


def test_what_a_closed_transport_has_left_in_the_queue_is_nobodys(world):
    eve = Member(world, "eve")
    guess = Rtp(0x77, 1000, b"sound", 0, 111, False, {})
    world.relay.process([(eve.address, eve._protect.protect(bytes(guess)))], world.now)
    world.sfu.close_transport("eve", world.now)
    new = Member(world, "new", room="another", connect=False)
    world.sfu.publish("new", audio("a"), world.now)
    world.deliver()
    assert world.sfu._peers["new"].ups["a"].encodings[0].ssrc is None
    new.connect()
