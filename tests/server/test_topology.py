"""When a room moves between direct and relayed: every edge of the state machine, with numbers for time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from server.signalling.links import BAD_FOR_S
from server.signalling.topology import (
    BACK_OFF_S,
    MOVE_S,
    REST_S,
    STEADY_S,
    WARM_AFTER_S,
    LinksChanged,
    MoveEnded,
    MoveStarted,
)
from tests.topologies import DEAD, DETOUR, GOOD, LOSSY, SLOW, Stage, ended, started


@pytest.fixture
def stage() -> Stage:
    return Stage()


# -- where rooms begin ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "media", "path", "direct", "asked", "capacity"),
    [
        ("auto", True, "direct", True, True, 12),
        ("auto", False, "direct", True, False, 4),
        ("direct-only", True, "direct", True, False, 4),
        ("direct-only", False, "direct", True, False, 4),
        ("relay-only", True, "relayed", False, True, 12),
        ("relay-only", False, "direct", True, False, 4),
    ],
)
def test_where_a_room_begins(policy, media, path, direct, asked, capacity):
    stage = Stage(policy, media=media)
    assert stage.enter("a", "b") == []
    assert stage.topology.path == path
    assert stage.topology.direct("a", "b") == stage.topology.direct("b", "a") == direct
    assert stage.topology.capacity == capacity
    assert stage.pass_time(5) == []
    assert {person for _, person in stage.asked} == ({"a", "b"} if asked else set())


@pytest.mark.parametrize(("policy", "media"), [("direct-only", True), ("auto", False), ("relay-only", True)])
@pytest.mark.parametrize("view", [DEAD, LOSSY, SLOW, DETOUR])
def test_a_fixed_room_never_moves(policy, media, view):
    stage = Stage(policy, media=media)
    stage.enter("a", "b", "c")
    direct = stage.topology.direct("a", "c")
    assert direct == (policy != "relay-only")
    stage.link = view
    assert stage.pass_time(120) == []
    stage.topology.hold("recording", True, stage.now)
    assert stage.pass_time(120) == []


def test_connections_are_warmed_after_the_first_picture(stage):
    stage.enter("a")
    stage.pass_time(0.5)
    assert stage.asked == []
    stage.pass_time(30)
    assert stage.asked == [(1000.0 + WARM_AFTER_S, "a")]
    stage.enter("b")
    stage.pass_time(3)
    assert stage.asked[1:] == [(1030.5 + WARM_AFTER_S, "b")]


# -- a third person ---------------------------------------------------------------------------------------------------


def test_a_third_person_comes_and_goes(stage):
    stage.pair()
    events = stage.enter("c")
    assert stage.asked[-1] == (stage.now, "c")  # at once
    assert events == [
        MoveStarted(1, "relayed", "headcount"),
        MoveEnded(1, "relayed", "headcount", "moved"),
        LinksChanged((frozenset("ab"),)),
    ]
    assert stage.topology.path == "relayed"
    assert not any(stage.topology.direct(*pair) for pair in ("ab", "ac", "bc"))
    assert stage.pass_time(60) == []

    assert stage.leave("c") == [LinksChanged((frozenset("ab"),))]
    left_at = stage.now
    assert started(stage.pass_time(20)) == [("direct", "recovered")]
    assert stage.at[-1][0] == left_at + REST_S["headcount"]
    assert stage.topology.path == "direct"
    assert stage.topology.direct("a", "b")


def test_the_third_person_has_no_direct_links_while_the_first_two_move(stage):
    stage.pair()
    stage.unready = {"c"}
    stage.enter("c")
    assert stage.topology.move == MoveStarted(1, "relayed", "headcount")
    assert stage.topology.direct("a", "b")
    assert not stage.topology.direct("a", "c")
    assert stage.topology.path == "direct"


def test_a_return_waits_for_a_link_that_lives(stage):
    stage.pair()
    stage.enter("c")
    stage.leave("a")  # b and c were never connected directly
    assert stage.topology.direct("b", "c")
    assert stage.pass_time(60, reports=False) == []
    stage.report("b", "c")
    assert stage.topology.path == "relayed"
    assert started(stage.report("c", "b")) == [("direct", "recovered")]
    stage.pass_time(2)
    assert stage.topology.path == "direct"


def test_a_third_person_who_comes_back_during_the_return_ends_it(stage):
    stage.pair()
    stage.enter("c")
    stage.leave("c")
    stage.unready = {"b"}
    stage.pass_time(12)
    assert stage.topology.move == MoveStarted(2, "direct", "recovered")
    assert stage.enter("c") == [
        MoveEnded(2, "relayed", "recovered", "needless"),
        LinksChanged((frozenset("ab"),)),
    ]
    assert stage.topology.path == "relayed"
    assert stage.pass_time(60) == []


def test_a_move_whose_reason_leaves_is_needless(stage):
    stage.pair()
    stage.unready = {"b"}
    stage.enter("c")
    assert stage.leave("c") == [MoveEnded(1, "direct", "headcount", "needless")]
    stage.unready = set()
    assert started(stage.enter("c")) == [("relayed", "headcount")]  # no back-off for that
    assert stage.topology.path == "relayed"


def test_who_leaves_is_not_waited_for(stage):
    stage.pair()
    stage.unready = {"c"}
    stage.enter("c")
    stage.enter("d")
    stage.topology.ready("d", 1, stage.now)
    assert stage.leave("c") == [MoveEnded(1, "relayed", "headcount", "moved"), LinksChanged((frozenset("ab"),))]


def test_a_newcomer_in_the_middle_of_a_move_gets_their_time(stage):
    stage.pair()
    stage.unready = {"b", "d"}
    stage.enter("c")
    stage.pass_time(MOVE_S - 1)
    stage.enter("d")
    assert stage.topology.move == MoveStarted(1, "relayed", "headcount")
    assert stage.pass_time(MOVE_S - 1) == []
    assert ended(stage.pass_time(2)) == [("direct", "cancelled")]


def test_twelve_people_come_at_once(stage):
    stage.enter(*(f"p{number}" for number in range(12)))
    stage.pass_time(2)
    assert stage.topology.path == "relayed"


# -- when it does not come about --------------------------------------------------------------------------------------


def test_somebody_is_never_ready_then_a_mesh_and_longer_and_longer_back_off(stage):
    stage.pair()
    stage.unready = {"b"}
    began = stage.now
    stage.enter("c")
    events = stage.pass_time(MOVE_S)
    assert events[0] == MoveEnded(1, "direct", "headcount", "cancelled")
    assert isinstance(events[1], LinksChanged)
    assert set(events[1].pairs) == {frozenset("ac"), frozenset("bc")}
    assert stage.topology.capacity == 4
    assert all(stage.topology.direct(*pair) for pair in ("ab", "ac", "bc"))
    stage.enter("d")
    assert all(stage.topology.direct(*pair) for pair in ("ad", "bd", "cd"))

    stage.at.clear()
    stage.pass_time(1500)
    tries = [at for at, event in stage.at if isinstance(event, MoveStarted)]
    waits = [later - earlier - MOVE_S for earlier, later in zip([began, *tries], tries, strict=False)]
    assert waits[:6] == [*BACK_OFF_S, BACK_OFF_S[-1]]

    stage.unready = set()
    stage.pass_time(310)
    assert stage.topology.path == "relayed"
    assert stage.topology.capacity == 12
    assert not stage.topology.direct("a", "b")


def test_a_third_person_who_comes_during_a_back_off_is_in_a_mesh_at_once(stage):
    stage.pair()
    stage.unready = {"b"}
    stage.topology.hold("recording", True, stage.now)
    stage.drain()
    stage.pass_time(MOVE_S + 1)
    assert started(stage.enter("c")) == []
    assert stage.topology.direct("a", "c")
    assert stage.topology.direct("b", "c")


def test_after_a_mesh_the_next_third_person_is_a_new_try(stage):
    stage.pair()
    stage.unready = {"c"}
    stage.enter("c")
    stage.pass_time(MOVE_S + 1)
    assert stage.topology.capacity == 4
    assert stage.leave("c") == []
    assert stage.topology.capacity == 12
    assert started(stage.enter("d")) == [("relayed", "headcount")]


def test_a_mesh_has_only_the_first(stage):
    stage.stubborn = {"c"}
    stage.enter("a", "b", "c", "d", "e", "f")
    stage.pass_time(MOVE_S + 1)
    assert stage.topology.path == "direct"
    assert stage.topology.direct("a", "d")
    assert not stage.topology.direct("a", "e")


def test_somebody_says_that_the_new_path_cannot_be_had(stage):
    stage.pair()
    stage.unready = {"a", "b"}
    stage.enter("c")
    stage.topology.failed("a", 1, stage.now)
    stage.drain()
    assert ended(stage.take()) == [("direct", "cancelled")]
    assert stage.pass_time(BACK_OFF_S[0] - 1) == []


def test_a_connection_that_is_not_there_delays_a_planned_move_and_then_ends_it(stage):
    stage.pair()
    stage.stubborn = {"c"}
    assert stage.enter("c") == []
    assert stage.pass_time(3) == []
    stage.topology.connected("c", stage.now)
    stage.drain()
    assert ended(stage.take()) == [("relayed", "moved")]

    other = Stage()
    other.pair()
    other.stubborn = {"c"}
    other.enter("c")
    (links,) = other.pass_time(MOVE_S)
    assert isinstance(links, LinksChanged)
    assert other.topology.direct("a", "c")
    assert other.topology.move is None
    other.pass_time(5)
    other.topology.connected("c", other.now)  # now there is no reason to wait for the back-off
    other.drain()
    assert started(other.take()) == [("relayed", "headcount")]


def test_a_late_word_about_another_move_counts_for_nothing(stage):
    stage.pair()
    stage.unready = {"b"}
    stage.enter("c")
    stage.topology.ready("b", 7, stage.now)
    stage.topology.failed("b", 0, stage.now)
    stage.drain()
    assert stage.topology.move == MoveStarted(1, "relayed", "headcount")


def test_a_cancelled_return_stays_relayed(stage):
    stage.relayed_pair()
    stage.unready = {"a"}
    stage.topology.hold("recording", False, stage.now)
    events = stage.pass_time(REST_S["recording"] + MOVE_S + 1)
    assert started(events) == [("direct", "recovered")]
    assert ended(events) == [("relayed", "cancelled")]
    assert stage.topology.path == "relayed"
    stage.unready = set()
    assert stage.pass_time(BACK_OFF_S[0] - 2) == []
    assert ended(stage.pass_time(4)) == [("direct", "moved")]


# -- recording --------------------------------------------------------------------------------------------------------


def test_a_recording_wants_the_room_relayed(stage):
    stage.pair()
    stage.topology.hold("recording", True, stage.now)
    stage.drain()
    assert started(stage.take()) == [("relayed", "recording")]
    assert stage.pass_time(60) == []
    stage.topology.hold("recording", False, stage.now)
    assert stage.pass_time(REST_S["recording"] - 1) == []
    assert started(stage.pass_time(2)) == [("direct", "recovered")]


def test_whoever_says_so_moves_the_room_and_brings_it_back_at_once(stage):
    stage.pair()
    stage.unready = {"a"}
    stage.topology.hold("policy", True, stage.now)
    stage.drain()
    assert started(stage.take()) == [("relayed", "policy")]
    assert ended(stage.pass_time(MOVE_S + 1)) == [("direct", "cancelled")]
    stage.topology.hold("policy", False, stage.now)
    stage.unready = set()
    stage.topology.hold("policy", True, stage.now)
    stage.drain()
    assert ended(stage.take()) == [("relayed", "moved")], "said anew, it is tried anew"
    assert stage.pass_time(600) == []
    stage.topology.hold("policy", False, stage.now)
    stage.drain()
    assert ended(stage.take()) == [("direct", "moved")]


def test_a_recording_that_begins_while_somebody_is_alone(stage):
    stage.enter("a")
    stage.topology.hold("recording", True, stage.now)
    stage.drain()
    assert stage.topology.path == "relayed"
    stage.enter("b")
    assert stage.topology.move is None
    assert stage.topology.path == "relayed"
    stage.leave("b")
    assert stage.topology.path == "relayed"


# -- quality ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (LOSSY, "quality"),
        (SLOW, "quality"),
        (DETOUR, "turn"),
        ({**SLOW, "relay_rtt_ms": 400.0}, None),  # the media server is no nearer
        ({**SLOW, "relay_rtt_ms": None}, None),
        ({**DETOUR, "relay_rtt_ms": 50.0}, None),
        ({**DETOUR, "turn": False}, None),
        ({**DETOUR, "rtt_ms": None}, None),
        ({**GOOD, "loss": 0.09}, None),
    ],
)
def test_what_is_bad_enough(stage, view, reason):
    stage.pair()
    stage.link = view
    events = stage.pass_time(30)
    assert started(events) == ([("relayed", reason)] if reason else [])
    if reason:
        began = next(at for at, event in stage.at if isinstance(event, MoveStarted))
        assert BAD_FOR_S <= began - 1004.0 <= BAD_FOR_S + 2


def test_a_short_disturbance_is_none(stage):
    stage.pair()
    for _ in range(10):
        stage.link = LOSSY
        assert stage.pass_time(4) == []
        stage.link = GOOD
        assert stage.pass_time(2) == []


def test_one_end_is_enough(stage):
    stage.pair()
    for _ in range(4):
        stage.now += 2
        stage.report("a", "b", **LOSSY)
        stage.report("b", "a")
    assert stage.topology.path == "relayed"


def test_quality_that_flaps_is_tried_less_and_less_often(stage):
    """The direct path is lossy whenever it carries, and looks well when it does not."""
    stage.pair()
    returns = []
    for _ in range(6):
        stage.link = LOSSY
        while stage.topology.path == "direct":
            stage.pass_time(1)
        stage.link = GOOD
        left_at = stage.now
        while stage.topology.path == "relayed":
            stage.pass_time(1)
        returns.append(stage.now - left_at)
    assert returns[0] == pytest.approx(REST_S["quality"], abs=3)
    for earlier, later in pairwise(returns[:4]):
        assert later == pytest.approx(2 * earlier, rel=0.1)
    assert max(returns) < 610


def test_after_a_steady_while_the_rest_is_short_again(stage):
    stage.pair()
    for _ in range(3):
        stage.link = LOSSY
        stage.pass_time(10)
        assert stage.topology.path == "relayed"
        stage.link = GOOD
        stage.pass_time(300)
        assert stage.topology.path == "direct"
    stage.pass_time(STEADY_S)
    stage.link = LOSSY
    stage.pass_time(10)
    stage.link = GOOD
    stage.pass_time(REST_S["quality"] + 4)
    assert stage.topology.path == "direct"


# -- sockets and pages ------------------------------------------------------------------------------------------------


def test_a_planned_move_waits_for_who_reconnects(stage):
    stage.pair()
    stage.topology.detach("b", stage.now)
    stage.drain()
    assert stage.enter("c") == []
    stage.pass_time(2)
    stage.topology.attach("b", same_page=True, now=stage.now)
    stage.drain()
    assert started(stage.take()) == [("relayed", "headcount")]


def test_failure_waits_for_nobody(stage):
    stage.pair()
    stage.topology.detach("b", stage.now)
    stage.unready = {"b"}
    assert started(stage.report("a", "b", **DEAD)) == [("relayed", "failure")]
    stage.topology.attach("b", same_page=True, now=stage.now)
    stage.topology.ready("b", 1, stage.now)
    stage.drain()
    assert stage.topology.path == "relayed"


def test_another_page_makes_another_connection(stage):
    stage.relayed_pair()
    stage.asked.clear()
    stage.topology.attach("b", same_page=True, now=stage.now)
    stage.drain()
    assert stage.asked == []
    stage.topology.detach("b", stage.now)
    stage.topology.attach("b", same_page=False, now=stage.now)
    stage.drain()
    assert stage.asked == [(stage.now, "b")]
    assert stage.take() == []


def test_another_page_in_the_middle_of_a_move_has_to_be_ready_itself(stage):
    stage.pair()
    stage.unready = {"a"}
    stage.enter("c")
    stage.topology.detach("b", stage.now)
    stage.topology.attach("b", same_page=False, now=stage.now)
    stage.topology.ready("a", 1, stage.now)
    stage.drain()
    assert stage.take() == []
    stage.topology.ready("b", 1, stage.now)
    stage.drain()
    assert ended(stage.take()) == [("relayed", "moved")]


# -- few people -------------------------------------------------------------------------------------------------------


def test_who_is_left_alone_is_direct_without_ceremony(stage):
    stage.enter("a", "b", "c")
    stage.pass_time(2)
    stage.take()
    stage.leave("a")
    stage.unready = {"c"}
    stage.take()
    assert stage.leave("b") == [MoveStarted(2, "direct", "recovered"), MoveEnded(2, "direct", "recovered", "moved")]
    assert stage.topology.path == "direct"
    stage.take()
    assert stage.leave("c") == []
    assert stage.enter("d", "e") == []
    assert stage.topology.direct("d", "e")


def test_everybody_leaves_in_the_middle_of_a_move(stage):
    stage.pair()
    stage.unready = {"a", "b"}
    stage.topology.hold("recording", True, stage.now)
    stage.drain()
    stage.leave("a")
    stage.leave("b")
    assert stage.topology.move is None
    assert stage.topology.get_timer() is None
    assert stage.topology.path == "relayed"  # it is still to be recorded


def test_somebody_leaves_in_the_middle_of_a_return(stage):
    stage.relayed_pair()
    stage.unready = {"a", "b"}
    stage.topology.hold("recording", False, stage.now)
    stage.pass_time(REST_S["recording"] + 2)
    assert stage.topology.move == MoveStarted(2, "direct", "recovered")
    assert stage.leave("a") == [MoveEnded(2, "direct", "recovered", "moved")]


def test_the_next_patient_does_not_pay_for_the_network_of_the_one_before(stage):
    stage.pair()
    for _ in range(3):
        stage.link = LOSSY
        while stage.topology.path == "direct":
            stage.pass_time(1)
        stage.link = GOOD
        while stage.topology.path == "relayed":
            stage.pass_time(1)
    stage.leave("b")
    stage.enter("c")
    stage.pass_time(4)
    stage.link = LOSSY
    stage.pass_time(10)
    assert stage.topology.path == "relayed"
    stage.link = GOOD
    stage.pass_time(REST_S["quality"] + 4)
    assert stage.topology.path == "direct"


def test_the_connection_of_the_page_before_does_not_count(stage):
    stage.pair()
    stage.stubborn = {"b"}
    stage.topology.attach("b", same_page=False, now=stage.now)
    stage.drain()
    assert stage.enter("c") == []
    stage.topology.connected("b", stage.now)
    stage.drain()
    assert started(stage.take()) == [("relayed", "headcount")]


def test_what_was_said_of_the_link_of_the_page_before_does_not_count(stage):
    stage.relayed_pair()
    stage.topology.hold("recording", False, stage.now)
    stage.pass_time(REST_S["recording"] - 1)
    stage.topology.attach("b", same_page=False, now=stage.now)
    stage.drain()
    assert started(stage.pass_time(5, reports=False)) == []
    assert started(stage.pass_time(4)) == [("direct", "recovered")]


def test_people_who_are_not_here_change_nothing(stage):
    stage.pair()
    stage.topology.connected("x", stage.now)
    stage.topology.disconnected("x", stage.now)
    stage.drain()
    assert stage.take() == []
