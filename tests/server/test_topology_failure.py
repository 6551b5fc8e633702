"""When nothing gets through, directly or by the media server: how a room moves at once."""

from __future__ import annotations

import pytest

from server.signalling.links import CONNECT_S, FRESH_S
from server.signalling.topology import (
    MOVE_S,
    REST_S,
    URGENT_BACK_OFF_S,
    MoveEnded,
)
from tests.topologies import DEAD, GOOD, LOSSY, Stage, ended, started


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_the_death_of_the_direct_path_moves_at_once(stage):
    stage.pair()
    assert started(stage.report("a", "b", **DEAD)) == [("relayed", "failure")]
    assert stage.topology.path == "relayed"
    stage.link = DEAD
    assert stage.pass_time(120) == []
    stage.link = GOOD
    assert started(stage.pass_time(REST_S["failure"] - 1)) == []
    assert started(stage.pass_time(4)) == [("direct", "recovered")]


def test_without_a_warm_connection_the_deadline_takes_nobody_back_to_a_dead_path(stage):
    stage.stubborn = {"b"}
    stage.pair()
    stage.unready = {"a", "b"}
    stage.link = DEAD
    assert started(stage.report("a", "b")) == [("relayed", "failure")]
    assert stage.pass_time(5 * MOVE_S) == []
    stage.topology.failed("a", 1, stage.now)
    stage.topology.connected("b", stage.now)
    for person in "ab":
        stage.topology.ready(person, 1, stage.now)
    stage.drain()
    assert stage.take() == [MoveEnded(1, "relayed", "failure", "moved")]


def test_a_direct_path_that_heals_first_is_kept(stage):
    stage.pair()
    stage.unready = {"b"}
    stage.report("a", "b", **DEAD)
    assert stage.topology.move is not None
    assert ended(stage.pass_time(MOVE_S + 1)) == [("direct", "cancelled")]
    assert stage.pass_time(120) == []  # it lives: there is no reason any more


def test_a_dying_path_is_tried_again_soon(stage):
    stage.pair()
    stage.unready = {"b"}
    for number in range(4):
        stage.link = DEAD
        stage.report("a", "b")
        stage.link = GOOD
        stage.pass_time(MOVE_S + 1)
        stage.report("a", "b", **DEAD)
        began = stage.now
        while stage.topology.move is None:
            stage.now += 0.5
            stage.topology.handle_timer(stage.now)
            stage.drain()
        assert stage.now - began <= URGENT_BACK_OFF_S[number]


def test_a_link_that_never_lived_gets_the_time_to_connect(stage):
    stage.enter("a", "b")
    stage.link = DEAD
    stage.now += 1
    assert stage.report("a", "b") == []
    stage.now += CONNECT_S - 0.5
    assert stage.report("a", "b") == []
    stage.now += 0.5
    assert started(stage.report("a", "b")) == [("relayed", "failure")]


def test_failure_goes_before_a_back_off(stage):
    stage.pair()
    stage.unready = {"b"}
    stage.topology.hold("recording", True, stage.now)
    stage.drain()
    stage.pass_time(MOVE_S + 2)
    assert stage.topology.move is None
    stage.unready = set()
    stage.take()
    assert started(stage.report("a", "b", **DEAD)) == [("relayed", "failure")]


def test_the_media_server_loses_somebody_and_the_link_lives(stage):
    stage.pair()
    stage.link = LOSSY
    stage.pass_time(8)
    assert stage.topology.path == "relayed"
    stage.link = GOOD
    stage.pass_time(4)
    stage.take()
    stage.topology.disconnected("a", stage.now)
    stage.drain()
    assert started(stage.take()) == [("direct", "failure")]
    assert stage.topology.path == "direct"
    stage.topology.connected("a", stage.now)
    assert stage.pass_time(60) == []


def test_somebody_hears_nothing_through_the_media_server_and_the_link_lives(stage):
    stage.pair()
    stage.link = LOSSY
    stage.pass_time(8)
    stage.link = GOOD
    stage.pass_time(4)
    stage.take()
    assert started(stage.report("a", "b", relay_alive=False)) == [("direct", "failure")]
    assert stage.topology.path == "direct"
    stage.topology.hold("recording", True, stage.now)
    stage.report("a", "b", relay_alive=False)
    assert started(stage.take()) == [], "nobody is moved to a path that does not reach them"
    assert started(stage.report("a", "b")) == [("relayed", "recording")]


def test_somebody_who_hears_nothing_is_on_a_new_page_or_connection(stage):
    stage.pair()
    stage.report("a", "b", relay_alive=False)
    stage.topology.connected("a", stage.now)
    stage.topology.hold("recording", True, stage.now)
    stage.drain()
    assert started(stage.take()) == [("relayed", "recording")]


def test_the_media_server_loses_somebody_during_a_recording_or_among_three(stage):
    stage.relayed_pair()
    stage.pass_time(4)
    stage.topology.disconnected("a", stage.now)
    stage.drain()
    assert stage.take() == []
    stage.topology.hold("recording", False, stage.now)
    stage.drain()
    assert started(stage.take()) == [("direct", "failure")]

    three = Stage()
    three.enter("a", "b", "c")
    three.topology.hold("headcount", True, three.now)
    three.pass_time(4)
    three.topology.disconnected("a", three.now)
    assert started(three.pass_time(60)) == []


@pytest.mark.parametrize("reason", ["policy", "headcount"])
def test_the_media_server_loses_one_of_two_who_are_relayed_by_order_or_for_a_device(stage, reason):
    """Order or device, a conversation that goes on is more: and back, when the media server is there again."""
    stage.pair()
    stage.topology.hold(reason, True, stage.now)
    stage.pass_time(4)
    assert stage.topology.path == "relayed"
    stage.topology.disconnected("a", stage.now)
    stage.drain()
    assert started(stage.take()) == [("direct", "failure")]
    assert stage.topology.path == "direct"
    stage.pass_time(60)
    assert stage.topology.path == "direct"
    stage.topology.connected("a", stage.now)
    assert started(stage.pass_time(4)) == [("relayed", reason)]


def test_a_recording_with_an_order_is_a_recording(stage):
    stage.relayed_pair()
    stage.topology.hold("policy", True, stage.now)
    stage.pass_time(4)
    stage.topology.disconnected("a", stage.now)
    stage.drain()
    assert stage.take() == []


def test_old_reports_say_nothing(stage):
    stage.relayed_pair()
    stage.pass_time(FRESH_S + 1, reports=False)
    stage.topology.hold("recording", False, stage.now)
    assert stage.pass_time(60, reports=False) == []
    stage.report("a", "b")
    assert stage.topology.path == "relayed"
    stage.now += FRESH_S + 1
    stage.report("b", "a")
    assert stage.topology.path == "relayed"
    stage.report("a", "b")
    assert stage.topology.path == "direct"


def test_a_report_on_a_link_that_is_not_to_be_there(stage):
    stage.enter("a", "b", "c")
    stage.pass_time(2)
    stage.take()
    assert stage.report("a", "b", **DEAD) == []
    assert stage.report("a", "nobody", **DEAD) == []
