"""Direct or relayed: why, when and how a room moves between the two. One state machine per room, sans-IO.

Driven by `paths.py`: people come and go, their connections to the media server come and go, they report on their direct
ones and on the moves; after each call the driver drains `next_event` and asks `get_timer`.

                       ┌────────────── cancelled: back-off, and a mesh if more than two ──────────────┐
                       v                                                                              │
      ┌──────────── direct ──reason──> wait for connections ──all there──> move to relayed ──all ready──> relayed ─┐
      │                ^                     └── 8 s: given up                                                     │
      │                └──all ready── move to direct <──no reason for a while, two people, the link lives──────────┘
      └─ alone: direct, without ceremony

A move is make-before-break: both paths carry, each client shows the new one as soon as it has it, and only when all say
so is the old one given up (`moved`). Nothing is lost by a move that fails, so the machine tries, and waits longer after
each failure. When the direct path is dead there is nothing to wait for: everybody moves at once, and a deadline that
passes does not take them back to it.

    Why relayed    more than two people; a recording; host or operator want it (`policy`);
                   the link of a pair (see `links.py`): dead, bad, or longer by TURN
    Why direct     none of these any more, for a while; or the media server lost somebody and the link lives
                   (not during a recording, which would miss it)

Nothing else is remembered: after each input `_decide` looks at the whole and does what is due. Cost: linear in the
people, with more than two and a mesh linear in the pairs. Memory: about 200 bytes per person, two reports per pair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

from server.signalling.links import Link
from server.signalling.messages import MoveReason, Path, PathReport

Policy = Literal["auto", "direct-only", "relay-only"]
Outcome = Literal["moved", "cancelled", "needless"]

MOVE_S: Final = 8.0
"""How long everybody has to be ready: twice what ICE over TCP and a keyframe take on a bad mobile network."""
WARM_AFTER_S: Final = 1.0
"""After joining: by then the first direct picture is there, and the second connection costs it nothing."""
BACK_OFF_S: Final = (30.0, 60.0, 120.0, 240.0, 300.0)
"""Before the next try of a planned move: what failed for a minute mostly fails for ten, and a move costs bandwidth."""
URGENT_BACK_OFF_S: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""The same while nothing gets through directly: there is nothing to be disturbed."""
REST_S: Final[dict[MoveReason, float]] = {
    "headcount": 10.0,
    "recording": 10.0,
    "policy": 0.0,
    "failure": 10.0,
    "turn": 10.0,
    "quality": 60.0,
}
"""How long a reason is gone before the room returns; at once when somebody says so. Loss cannot be measured on a path
that carries nothing: a minute, over which most disturbances of a home network have passed."""
MAX_REST_S: Final = 600.0
STEADY_S: Final = 300.0
"""Leaving the direct path this soon after a return is flapping: each time the rest doubles."""


@dataclass(frozen=True)
class TopologyEvent:
    """Something that has to be told or done."""


@dataclass(frozen=True)
class RelayNeeded(TopologyEvent):
    """A participant is to hold a connection to the media server now."""

    participant: str


@dataclass(frozen=True)
class LinksChanged(TopologyEvent):
    """Pairs of people who were here before are to make, or to close, their direct connection."""

    pairs: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class MoveStarted(TopologyEvent):
    """Everybody is to make the other path."""

    move: int
    to: Path
    reason: MoveReason


@dataclass(frozen=True)
class MoveEnded(TopologyEvent):
    """The room is on this path now: the new one when `moved`, otherwise the old one."""

    move: int
    path: Path
    reason: MoveReason
    outcome: Outcome


@dataclass(slots=True)
class _Person:
    entered_at: float
    online: bool = True
    asked: bool = False
    """For a connection to the media server."""
    relayed: bool = False
    """That connection is there."""
    lost: bool = False
    """It was there, and is not any more."""
    deaf: bool = False
    """Nothing comes through it, they say: known long before their checks are missed here."""
    said: Literal["", "ready", "failed"] = ""
    """About the move under way."""


@dataclass(slots=True)
class _Move:
    number: int
    to: Path
    reason: MoveReason
    deadline: float

    @property
    def urgent(self) -> bool:
        return self.reason == "failure"


@dataclass(slots=True)
class _BackOff:
    """When the next try is due."""

    steps_s: tuple[float, ...]
    failures: int = 0
    retry_at: float = 0.0

    def fail(self, now: float) -> None:
        self.retry_at = now + self.steps_s[min(self.failures, len(self.steps_s) - 1)]
        self.failures += 1

    def reset(self) -> None:
        self.failures, self.retry_at = 0, 0.0


class Topology:
    """The path of one room.

    Args:
        policy: The room's.
        media: Whether there is a media server; without, every room is direct.
        max_direct: People in one direct conversation: of more than these, a mesh has the first.
        max_relayed: People in one relayed conversation.
    """

    def __init__(self, policy: Policy, *, media: bool, max_direct: int, max_relayed: int) -> None:
        self._free = policy == "auto" and media
        self._uses_media = policy != "direct-only" and media
        self._max_direct = max_direct
        self._max_relayed = max_relayed
        self._home: Path = "relayed" if policy == "relay-only" and media else "direct"
        self.path: Path = self._home
        """The one that carries; during a move, the old one."""
        self._people: dict[str, _Person] = {}
        self._links: dict[frozenset[str], Link] = {}
        self._held: set[MoveReason] = set()
        self._move: _Move | None = None
        self._number = 0
        self._mesh = False
        """More than two people, and the media server does not come about: direct, each with each."""
        self._wanted_at: float | None = None
        """Since when a move waits for connections."""
        self._starved = False
        """The last move was given up before it began, for want of connections."""
        self._planned = _BackOff(BACK_OFF_S)
        self._urgent = _BackOff(URGENT_BACK_OFF_S)
        self._reason: MoveReason | None = None
        """Why relayed, as last decided."""
        self._rest_until = 0.0
        self._flaps = 0
        self._returned_at = float("-inf")
        self._timer: float | None = None
        self._events: deque[TopologyEvent] = deque()

    # Views -----------------------------------------------------------------------------------------------------------

    @property
    def move(self) -> MoveStarted | None:
        """The move under way, for who comes in the middle of it."""
        move = self._move
        return MoveStarted(move.number, move.to, move.reason) if move is not None else None

    @property
    def free(self) -> bool:
        """Whether there is a choice: both paths are there, and the room's policy allows both."""
        return self._free

    @property
    def people(self) -> list[str]:
        """Who is in the conversation, in the order of coming."""
        return list(self._people)

    @property
    def capacity(self) -> int:
        """People that the conversation may have now."""
        if not self._uses_media or self._mesh:
            return self._max_direct
        return self._max_relayed

    def direct(self, one: str, other: str) -> bool:
        """Whether two people are to hold a direct connection."""
        return frozenset((one, other)) in self._links

    # People ----------------------------------------------------------------------------------------------------------

    def enter(self, participant: str, now: float) -> None:
        """Somebody joins the conversation. During a move, everybody gets the time that the newcomer needs."""
        self._people[participant] = _Person(now)
        if self._move is not None:
            self._move.deadline = max(self._move.deadline, now + MOVE_S)
        self._decide(now, newcomer=participant)

    def leave(self, participant: str, now: float) -> None:
        """Somebody is no longer in the conversation."""
        del self._people[participant]
        self._links = {pair: link for pair, link in self._links.items() if participant not in pair}
        self._decide(now)

    def attach(self, participant: str, *, same_page: bool, now: float) -> None:
        """A socket is there again; with another page, everything that the page held is gone."""
        person = self._people[participant]
        person.online = True
        if not same_page:
            person.relayed = person.lost = person.deaf = person.asked = False
            person.entered_at, person.said = now, ""
            for pair, link in self._links.items():
                if participant in pair:
                    link.renew()
        self._decide(now)

    def detach(self, participant: str, now: float) -> None:
        """A socket is gone; media may go on."""
        self._people[participant].online = False
        self._decide(now)

    # What they say ---------------------------------------------------------------------------------------------------

    def connected(self, participant: str, now: float) -> None:
        """A connection to the media server is there."""
        person = self._people.get(participant)
        if person is None:
            return
        person.relayed, person.lost, person.deaf = True, False, False
        self._decide(now)

    def disconnected(self, participant: str, now: float) -> None:
        """A connection to the media server is gone, or silent."""
        person = self._people.get(participant)
        if person is None:
            return
        person.lost = person.lost or person.relayed
        person.relayed = False
        self._decide(now)

    def report(self, sender: str, report: PathReport, now: float) -> None:
        """Take what one end of a direct connection says about it; of one that is not to be there: nothing."""
        link = self._links.get(frozenset((sender, report.to)))
        if link is not None:
            self._people[sender].deaf = not report.relay_alive
            link.receive(sender, report, now, may_clear=self._move is None)
            self._decide(now)

    def ready(self, participant: str, move: int, now: float) -> None:
        """Somebody has the new path. About a move that is over: nothing, it crossed the end on the wire."""
        self._say(participant, move, "ready", now)

    def failed(self, participant: str, move: int, now: float) -> None:
        """Somebody cannot have the new path."""
        self._say(participant, move, "failed", now)

    def hold(self, reason: MoveReason, wanted: bool, now: float) -> None:
        """Want the room relayed, or not any more, for a reason that people have nothing to do with.

        Args:
            reason: `recording`; `policy`, host or operator want it; `headcount`, a device knows the media server alone.
            wanted: Until it is said that not any more. Said anew, it is worth a try whatever failed before.
            now: Monotonic seconds.
        """
        if wanted and reason not in self._held:
            self._planned.reset()
        (self._held.add if wanted else self._held.discard)(reason)
        self._decide(now)

    # Driver ----------------------------------------------------------------------------------------------------------

    def next_event(self) -> TopologyEvent | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        return self._timer

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._decide(now)

    # Deciding --------------------------------------------------------------------------------------------------------

    def _decide(self, now: float, newcomer: str = "") -> None:
        self._timer = None
        if self._starved and self._all_connected():
            self._starved = False
            self._planned.reset()
        to, reason = self._aim(now)
        if self._move is not None:
            self._go_on(self._move, to, now)
        if self._move is None and to != self.path:
            self._begin(to, reason, now)
        if to == self.path:
            self._wanted_at = None
        self._relink(newcomer)
        self._ask(to, now)

    def _aim(self, now: float) -> tuple[Path, MoveReason]:
        """Return where the room should be, and why."""
        if not self._free:
            return self._home, "policy"
        reason, link = self._why_relayed()
        if reason is None and self._reason is not None:
            self._rest_until = now + min(MAX_REST_S, REST_S[self._reason] * 2.0**self._flaps)
        self._reason = reason
        if len(self._people) <= 2 and self._mesh:  # it may have been for the network of who left
            self._mesh = False
            self._planned.reset()
        if len(self._people) <= 1:
            self._flaps, self._rest_until, self._returned_at = 0, 0.0, float("-inf")
            self._planned.reset()
            self._urgent.reset()
        lives = link is not None and link.lives(now)
        if lives and self.path == "relayed" and "recording" not in self._held and self._somebody_lost():
            return "direct", "failure"
        if reason is not None:
            return "relayed", reason
        if self.path == "relayed" and len(self._people) > 1 and not (lives and self._reached(self._rest_until, now)):
            return "relayed", "recovered"
        return "direct", "recovered"

    def _why_relayed(self) -> tuple[MoveReason | None, Link | None]:
        """Return the reason that counts most, and the link of two people."""
        link = next(iter(self._links.values()), None) if len(self._people) == 2 else None
        troubles = [link.trouble for link in self._links.values() if link.trouble is not None]
        if "failure" in troubles and self.path == "direct":
            return "failure", link
        if self._held:
            return min(self._held), link
        if len(self._people) > 2:
            return "headcount", link
        return (troubles[0] if troubles else None), link

    def _begin(self, to: Path, reason: MoveReason, now: float) -> None:
        """Start a move as soon as it is time for it and everybody can take part."""
        urgent = reason == "failure"
        if len(self._people) <= 1:
            self._start(to, reason, now)
            self._settle(now)
            return
        if not self._reached((self._urgent if urgent else self._planned).retry_at, now):
            self._mesh = self._mesh or (self.path == "direct" and len(self._people) > 2)  # nobody waits for a back-off
            return
        if self._wanted_at is None:
            self._wanted_at = now
        if urgent or self._all_connected(to):
            self._start(to, reason, now)
        elif self._reached(self._wanted_at + MOVE_S, now):
            self._starved = True
            self._put_off(reason, now)

    def _start(self, to: Path, reason: MoveReason, now: float) -> None:
        self._number += 1
        self._move = _Move(self._number, to, reason, now + MOVE_S)
        self._wanted_at = None
        for person in self._people.values():
            person.said = ""
        if self._people:
            self._events.append(MoveStarted(self._number, to, reason))
            self._reached(self._move.deadline, now)

    def _go_on(self, move: _Move, to: Path, now: float) -> None:
        """End the move under way, if it is time."""
        said = {person.said for person in self._people.values()}
        hopeless = move.urgent and not self._old_path_lives(now)
        if to != move.to:
            self._cancel(move, "needless", now)
        elif said <= {"ready"} or len(self._people) <= 1:
            self._settle(now)
        elif "failed" in said and not hopeless:
            self._cancel(move, "cancelled", now)
        elif self._reached(move.deadline, now):
            if hopeless:
                move.deadline = now + MOVE_S
                self._reached(move.deadline, now)
            else:
                self._cancel(move, "cancelled", now)

    def _settle(self, now: float) -> None:
        move = self._move
        assert move is not None
        if move.to == "direct":
            self._returned_at = now if len(self._people) > 1 else float("-inf")
        elif move.reason in ("failure", "quality", "turn"):
            self._flaps = self._flaps + 1 if now - self._returned_at < STEADY_S else 0
        self.path, self._move, self._mesh = move.to, None, False
        self._planned.reset()
        self._urgent.reset()
        if self._people:
            self._events.append(MoveEnded(move.number, move.to, move.reason, "moved"))

    def _cancel(self, move: _Move, outcome: Outcome, now: float) -> None:
        self._move = None
        self._events.append(MoveEnded(move.number, self.path, move.reason, outcome))
        if outcome == "cancelled":
            self._put_off(move.reason, now)

    def _put_off(self, reason: MoveReason, now: float) -> None:
        """A move did not come about: wait before the next try, and make do with what there is."""
        back_off = self._urgent if reason == "failure" else self._planned
        back_off.fail(now)
        self._wanted_at = None
        self._mesh = self.path == "direct" and len(self._people) > 2
        self._reached(back_off.retry_at, now)

    def _relink(self, newcomer: str) -> None:
        """Say which pairs are to be connected directly from now on."""
        wanted = set(self._pairs())
        changed = wanted ^ self._links.keys()
        self._links = {pair: self._links.get(pair) or Link() for pair in wanted}
        if told := tuple(pair for pair in changed if newcomer not in pair):
            self._events.append(LinksChanged(told))

    def _pairs(self) -> Iterator[frozenset[str]]:
        everybody = list(self._people)
        if self._uses_media and not self._free:
            return
        if self._free and len(everybody) > 2:
            if self.path == "relayed":
                return
            if not self._mesh:
                yield from self._links  # who was there before moves, who comes publishes relayed at once
                return
        first = everybody[: self._max_direct] if self._free else everybody
        yield from map(frozenset, combinations(first, 2))

    def _ask(self, to: Path, now: float) -> None:
        """Have connections to the media server made: at leisure, or at once when they are wanted."""
        if not self._uses_media:
            return
        wanted = "relayed" in (self.path, to) or self._move is not None
        for participant, person in self._people.items():
            if person.online and not person.asked and (wanted or self._reached(person.entered_at + WARM_AFTER_S, now)):
                person.asked = True
                self._events.append(RelayNeeded(participant))

    # Inside ----------------------------------------------------------------------------------------------------------

    def _say(self, participant: str, move: int, said: Literal["ready", "failed"], now: float) -> None:
        if self._move is not None and self._move.number == move:
            self._people[participant].said = said
            self._decide(now)

    def _all_connected(self, to: Path = "relayed") -> bool:
        """Whether everybody can take part in a move."""
        return all(
            person.online and ((person.relayed and not person.deaf) or to == "direct")
            for person in self._people.values()
        )

    def _somebody_lost(self) -> bool:
        return any(person.lost or person.deaf for person in self._people.values())

    def _old_path_lives(self, now: float) -> bool:
        if self.path == "relayed":
            return not self._somebody_lost()
        return all(link.lives(now) for link in self._links.values())

    def _reached(self, at: float, now: float) -> bool:
        """Whether a time has come; if it has not, `handle_timer` is wanted then."""
        if now < at:
            self._timer = at if self._timer is None else min(at, self._timer)
        return now >= at
