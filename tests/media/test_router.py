"""What a room does with its tracks: layers, keyframes, repair, and what publishers are told to send."""

import pytest

from server.media.events import EncodingsWanted
from server.media.parameters import CodecParameters
from server.media.router import UNWATCHED_AFTER_S
from server.media.rtp.rtcp import (
    FullIntraRequest,
    Nack,
    PictureLossIndication,
    ReceiverReport,
    ReportBlock,
    SenderReport,
)
from server.media.sourcewatch import STALE_S
from server.media.speakers import SpeakerOrder
from server.media.uptrack import KEYFRAME_EVERY_S
from tests.sfupeers import Member, World, video

RIDS = ("q", "h", "f")
SSRCS = {"q": 0xA0, "h": 0xA4, "f": 0xA8}
NTP = 0xE000_1234_0000_0000


@pytest.fixture
def world() -> World:
    return World()


class Stage:
    """Ada sends three encodings; Ben watches."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ada, self.ben = Member(world, "ada"), Member(world, "ben")
        source = self.ada.publish(video(rids=RIDS))
        self.stream = self.ben.subscribe(video("x"), source)
        self.asked: set[int] = set()

    def play(self, seconds: float, *rids: str, key: bool = False) -> list[str]:
        """Let encodings come; return which Ben saw, in order, each once."""
        seen: list[str] = []
        for _ in range(round(seconds / 0.05)):
            for rid in rids:
                timestamp = round(self.world.now * 90_000) + 1000 * SSRCS[rid]
                self.asked |= {pli.media_ssrc for pli in self.ada.rtcp(PictureLossIndication)}
                self.ada.send_video(SSRCS[rid], rid=rid, key=key or SSRCS[rid] in self.asked, timestamp=timestamp)
                self.asked.discard(SSRCS[rid])
                arrived = self.ben.media()
                if arrived and seen[-1:] != [rid]:
                    seen.append(rid)
            key = False
            self.world.advance(0.05)
        return seen


def test_the_highest_is_carried_until_something_else_is_asked_for(world):
    stage = Stage(world)
    assert stage.play(0.5, *RIDS, key=True) == ["f"]
    stage.ben.prefer("x", "q")
    assert stage.ada.rtcp(PictureLossIndication)[0].media_ssrc == SSRCS["q"]
    stage.ada.send_video(SSRCS["f"], rid="f")
    assert len(stage.ben.media()) == 1, "the old layer goes on until the new one can begin"
    stage.ada.send_video(SSRCS["q"], rid="q", key=True)
    assert stage.play(0.5, *RIDS) == ["q"]


def test_a_switch_is_one_stream_on_one_time_line(world):
    """The clocks of both layers known, the new one's timestamps continue the old one's to the tick."""
    stage = Stage(world)
    stage.play(0.2, *RIDS, key=True)
    for rid in RIDS:
        stage.ada.send_rtcp(SenderReport(SSRCS[rid], NTP, 7_000_000 + 1000 * SSRCS[rid], 1, 1))
    stage.ada.send_video(SSRCS["f"], rid="f", timestamp=7_000_000 + 1000 * SSRCS["f"] + 3000)
    stage.ben.prefer("x", "h")
    stage.ada.send_video(SSRCS["h"], rid="h", key=True, timestamp=7_000_000 + 1000 * SSRCS["h"] + 6000)
    before, after = stage.ben.media()[-2:]
    assert (after.ssrc, after.seq) == (before.ssrc, (before.seq + 1) & 0xFFFF)
    assert after.timestamp - before.timestamp == 3000


def test_what_does_not_come_gives_way_to_the_next_lower_and_back(world):
    stage = Stage(world)
    assert stage.play(0.5, *RIDS, key=True) == ["f"]
    assert stage.play(STALE_S + 0.6, "q", "h")[-1] == "h"
    assert stage.play(STALE_S + 0.6, "q")[-1] == "q"
    assert stage.play(0.6, *RIDS)[-1] == "f"


def test_when_nothing_comes_the_layer_asked_for_is_waited_for(world):
    stage = Stage(world)
    stage.play(0.3, *RIDS, key=True)
    world.advance(STALE_S + 1)
    assert stage.play(0.3, *RIDS) == ["f"]


def test_the_layer_asked_for_has_its_chance_before_a_lower_one_is_shown(world):
    """Encoders begin with the lowest: a moment of it would cost two keyframes, and the first of the better one."""
    stage = Stage(world)
    assert stage.play(0.3, "q", key=True) == []
    assert stage.play(0.3, *RIDS, key=True) == ["f"]


def test_a_layer_that_never_comes_is_not_waited_for_long(world):
    stage = Stage(world)
    assert stage.play(STALE_S + 0.5, "q", key=True) == ["q"]


def test_pause_and_back(world):
    stage = Stage(world)
    stage.play(0.3, *RIDS, key=True)
    stage.ben.prefer("x", None)
    assert stage.play(0.3, *RIDS) == []
    stage.ben.prefer("x", "h")
    assert stage.play(0.3, *RIDS) == ["h"]


def test_the_publisher_is_told_at_once_what_to_begin_and_later_what_to_end(world):
    stage = Stage(world)
    stage.play(0.3, *RIDS, key=True)
    assert world.take(EncodingsWanted)[-1] == EncodingsWanted("ada", "v", ("f",))
    stage.ben.prefer("x", "q")
    assert world.take(EncodingsWanted) == [EncodingsWanted("ada", "v", ("q", "f"))]
    stage.play(0.3, *RIDS)
    assert world.take(EncodingsWanted) == []
    stage.play(UNWATCHED_AFTER_S, *RIDS)
    assert world.take(EncodingsWanted) == [EncodingsWanted("ada", "v", ("q",))]
    world.sfu.unsubscribe("ben", "x", world.now)
    world.advance(UNWATCHED_AFTER_S + 0.1)
    assert world.take(EncodingsWanted) == [EncodingsWanted("ada", "v", ())]


def test_a_look_away_costs_no_keyframe(world):
    stage = Stage(world)
    stage.play(0.3, *RIDS, key=True)
    world.take()
    stage.ben.prefer("x", None)
    world.advance(0.2)
    stage.ben.prefer("x", "f")
    stage.play(UNWATCHED_AFTER_S + 0.5, *RIDS)
    assert world.take(EncodingsWanted) == []


def test_many_who_want_a_keyframe_cost_one_request(world):
    ada = Member(world, "ada")
    source = ada.publish(video())
    watchers = [Member(world, f"w{number}") for number in range(5)]
    streams = [each.subscribe(video("x"), source) for each in watchers]
    ada.send_video(0xA0, key=True)
    world.advance(1.0)
    ada.take()

    def everybody_asks() -> None:
        for watcher, stream in zip(watchers, streams, strict=True):
            watcher.send_rtcp(PictureLossIndication(1, stream.ssrc), FullIntraRequest(1, 0, ((stream.ssrc, 1),)))

    everybody_asks()
    everybody_asks()
    assert len(ada.rtcp(PictureLossIndication)) == 1
    world.advance(KEYFRAME_EVERY_S + 0.1)
    assert len(ada.rtcp(PictureLossIndication)) == 1, "who asked too soon is not forgotten"
    everybody_asks()
    ada.send_video(0xA0, key=True)
    world.advance(1.0)
    assert ada.rtcp(PictureLossIndication) == [], "the keyframe has come in the meantime"


def test_layers_are_asked_each_for_itself(world):
    stage = Stage(world)
    stage.play(0.3, *RIDS, key=True)
    cat = Member(world, "cat")
    stage.ada.take()
    cat.subscribe(video("x"), "ada:v")
    stage.ben.prefer("x", "q")
    assert {pli.media_ssrc for pli in stage.ada.rtcp(PictureLossIndication)} == {SSRCS["f"], SSRCS["q"]}


@pytest.mark.parametrize(
    ("feedback", "request_type"),
    [(("ccm fir",), FullIntraRequest), (("nack pli", "ccm fir"), PictureLossIndication), (("nack",), None)],
)
def test_asked_in_the_way_that_was_negotiated(world, feedback, request_type):
    codec = CodecParameters("VP8", 96, 90_000, feedback=feedback, rtx_payload_type=97)
    ada, ben = Member(world, "ada"), Member(world, "ben")
    stream = ben.subscribe(video("x"), ada.publish(video(codec=codec)))
    ada.send_video(0xA0, key=True)
    world.advance(1.0)
    ada.take()
    ben.send_rtcp(PictureLossIndication(1, stream.ssrc))
    asked = [type(each) for each in ada.received()[1]]
    assert asked == ([request_type] if request_type else [])


def test_a_lost_packet_is_asked_for_once_a_round_trip_until_it_comes(world):
    ada, ben = Member(world, "ada"), Member(world, "ben")
    ben.subscribe(video("x"), ada.publish(video()))
    for seq in (10, 11, 14):
        ada.send_video(0xA0, key=seq == 10, seq=seq)
    world.advance(0.06)
    (nack,) = ada.rtcp(Nack)
    assert (nack.media_ssrc, nack.seqs) == (0xA0, (12, 13))
    ada.send_video(0xA0, seq=12)
    world.advance(0.2)
    nacks = ada.rtcp(Nack)
    assert 1 <= len(nacks) <= 2
    assert {nack.seqs for nack in nacks} == {(13,)}
    ada.send_video(0xA0, seq=13)
    world.advance(0.5)
    assert ada.rtcp(Nack) == []


def test_a_round_trip_is_learnt_from_reports(world):
    """A publisher far away is not asked ten times for what is on its way."""
    ada, ben = Member(world, "ada"), Member(world, "ben")
    ada.subscribe(video("y"), ben.publish(video()))
    ben.send_video(0xB0, key=True)
    ben.send_rtcp(SenderReport(0xB0, NTP, 0, 1, 1))
    world.advance(0.06)
    (ours,) = ada.rtcp(SenderReport)
    world.advance(0.5)
    ada.send_rtcp(ReceiverReport(1, (ReportBlock(ours.ssrc, 0, 0, 0, 0, ours.ntp >> 16 & 0xFFFFFFFF, 0),)))
    ada.publish(video())
    for seq in (10, 12):
        ada.send_video(0xA0, key=seq == 10, seq=seq)
    ada.take()
    world.advance(0.4)
    assert len(ada.rtcp(Nack)) == 1


def test_order_of_speakers_is_kept_but_for_who_takes_over():
    order = SpeakerOrder()
    for name in "abcd":
        assert order.add(name)
    assert not order.add("a")
    assert not order.hear({"c": 90.0}, 0.0)
    assert not order.hear({"c": 90.0}, 0.5)
    assert order.hear({"c": 90.0, "b": 80.0}, 0.7)
    assert order.order == ["c", "a", "b", "d"]
    order.remove("c")
    assert not order.hear({}, 1.0)
    assert order.order == ["a", "b", "d"]
