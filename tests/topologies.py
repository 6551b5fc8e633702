"""A stage for the topology of one room: people whose browsers do at once what they are asked, and a clock."""

from __future__ import annotations

from typing import Any

from server.signalling.messages import PathReport
from server.signalling.topology import (
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


def started(events: list[object]) -> list[tuple[str, str]]:
    return [(event.to, event.reason) for event in events if isinstance(event, MoveStarted)]


def ended(events: list[object]) -> list[tuple[str, str]]:
    return [(event.path, event.outcome) for event in events if isinstance(event, MoveEnded)]
