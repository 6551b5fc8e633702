"""When a room moves between direct and relayed: every edge of the state machine, with numbers for time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from server.signalling.links import BAD_FOR_S, CONNECT_S, FRESH_S
from server.signalling.messages import PathReport
from server.signalling.topology import (
    BACK_OFF_S,
    MOVE_S,
    REST_S,
    STEADY_S,
    URGENT_BACK_OFF_S,
    WARM_AFTER_S,
    LinksChanged,
    MoveEnded,
    MoveStarted,
    RelayNeeded,
    Topology,
)

GOOD = {"alive": True, "loss": 0.0, "rtt_ms": 40.0, "relay_rtt_ms": 30.0}
DEAD = {"alive": False}
LOSSY = {**GOOD, "loss": 0.15}
SLOW = {**GOOD, "rtt_ms": 700.0}
DETOUR = {**GOOD, "turn": True, "rtt_ms": 120.0}


class Stage:
    """A room whose browsers do at once what they are asked, unless they are in `stubborn`; and a clock."""

    def __init__(self, policy: Any = "auto", *, media: bool = True) -> None:
        self.topology = Topology(policy, media=media, max_direct=4, max_relayed=12)
        self.now = 1000.0
        self.stubborn: set[str] = set()
        """Their connections to the media server do not come about."""
        self.unready: set[str] = set()
        """They do not say that they are ready."""
        self.link: dict[str, Any] = GOOD
        """How direct connections fare."""
        self.events: list[object] = []
        """All but `RelayNeeded`."""
        self.asked: list[tuple[float, str]] = []
        self.at: list[tuple[float, object]] = []

    def drain(self) -> None:
        while (event := self.topology.next_event()) is not None:
            if isinstance(event, RelayNeeded):
                self.asked.append((self.now, event.participant))
                if event.participant not in self.stubborn:
                    self.topology.connected(event.participant, self.now)
                continue
            self.events.append(event)
            self.at.append((self.now, event))
            if isinstance(event, MoveStarted):
                for person in self.topology.people:
                    if person not in self.unready:
                        self.topology.ready(person, event.move, self.now)

    def enter(self, *people: str) -> list[object]:
        for person in people:
            self.topology.enter(person, self.now)
            self.drain()
        return self.take()

    def leave(self, person: str) -> list[object]:
        self.topology.leave(person, self.now)
        self.drain()
        return self.take()

    def report(self, sender: str, to: str, **view: Any) -> list[object]:
        self.topology.report(sender, PathReport(to=to, **{**self.link, **view}), self.now)
        self.drain()
        return self.take()

    def pass_time(self, seconds: float, *, reports: bool = True) -> list[object]:
        """Half a second at a time; every 2 s each end reports on its links."""
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            at = self.topology.get_timer()
            if at is not None and at <= self.now:
                self.topology.handle_timer(self.now)
                self.drain()
                again = self.topology.get_timer()
                assert again is None or again > self.now, "a timer that is due has been dealt with"
            if reports and self.now % 2 == 0:
                for sender in self.topology.people:
                    for to in self.topology.people:
                        if sender != to and self.topology.direct(sender, to):
                            self.topology.report(sender, PathReport(to=to, **self.link), self.now)
                            self.drain()
        return self.take()

    def take(self) -> list[object]:
        taken, self.events = self.events, []
        return taken

    def pair(self) -> None:
        """Two people on a direct path that has been well for a while, with warm connections."""
        self.enter("a", "b")
        assert self.pass_time(4) == []
        assert self.topology.path == "direct"

    def relayed_pair(self) -> None:
        self.pair()
        self.topology.hold("recording", True, self.now)
        self.drain()
        self.take()
        assert self.topology.path == "relayed"


@pytest.fixture
def stage() -> Stage:
    return Stage()


def started(events: list[object]) -> list[tuple[str, str]]:
    return [(event.to, event.reason) for event in events if isinstance(event, MoveStarted)]


def ended(events: list[object]) -> list[tuple[str, str]]:
    return [(event.path, event.outcome) for event in events if isinstance(event, MoveEnded)]


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


# -- failure ----------------------------------------------------------------------------------------------------------


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
