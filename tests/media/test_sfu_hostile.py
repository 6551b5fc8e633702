"""A whole Sfu in memory, and one peer in it whose browser has been changed: nobody else notices."""

import pytest

from server.media.sfu import Sfu
from tests.relayed import Rtp, vp8
from tests.sfupeers import MID, Member, World, audio, video


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
