"""How the media of one room goes: its `Topology` (when it moves) and its `RelayedRoom` (what the media server carries).

    Room ──people──> Paths ──> Topology ────RelayNeeded──────> RelayedRoom ──> Sfu
      ^                 ^          ^ └─MoveStarted, Ended─┐        │  ^
      └──messages───────┘          └─────Connected─────────────────┘  └── media events

Driven by `rooms.py`. What both have to say is handed on by `flush`; every method does so itself except those in which
the room first tells the news that this is about (`enter`, `leave`, `attach`).
What a participant is told while nobody sits on their seat would be lost, so what still counts is said again by `greet`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, get_args

from server.errors import RefusalError
from server.media.events import MediaEvent, TransportFailure
from server.signalling.connections import MediaPort
from server.signalling.messages import (
    Encode,
    Move,
    MoveCancelled,
    Moved,
    MoveFailed,
    MoveReady,
    Path,
    PathReport,
    RelayOffer,
    RelayWanted,
    Rid,
    Role,
    ServerMessage,
    Speakers,
    Wishes,
)
from server.signalling.relaying import (
    Connected,
    DevicesChanged,
    EncodingsWanted,
    Failed,
    Interrupted,
    NeedsOffer,
    RelayedEvent,
    RelayedRoom,
    SpeakersChanged,
)
from server.signalling.topology import (
    LinksChanged,
    MoveEnded,
    MoveStarted,
    Policy,
    RelayNeeded,
    Topology,
    TopologyEvent,
)

_RIDS: Final[tuple[Rid, ...]] = get_args(Rid)


class MediaSource(Protocol):
    """What a registry needs of the media plane (`media/worker.py`)."""

    def sfu(self, room: str) -> MediaPort:
        """Return the Sfu that has the room, or is to have it."""


@dataclass(slots=True)
class PathSettings:
    """What all rooms have in common about their paths."""

    max_direct: int
    """People in one direct conversation."""
    max_relayed: int = 12
    """People in one relayed conversation."""
    media: MediaSource | None = None
    """None: there is no media server, every room is direct."""
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Moves by reason and outcome, for the metrics: whoever shows them takes them out."""


class Conversation(Protocol):
    """What paths need of their room."""

    def tell_person(self, participant: str, message: ServerMessage) -> None:
        """Send to whoever sits on a seat; to nobody otherwise."""

    def relink(self, pairs: Iterable[frozenset[str]]) -> None:
        """Tell both of each pair that `Peer.direct` has changed."""

    def path_moved(self, path: Path, reason: str) -> None:
        """Write down that the room moved."""

    def relay_refused(self, participant: str) -> None:
        """Tell somebody that the media server refuses their certificate: somebody stands in between."""

    def devices_changed(self, participant: str, number: int, now: float) -> None:
        """Somebody has so many devices at the media server now."""

    def wake_paths_at(self, at: float) -> None:
        """Have `handle_timer` called."""


class Paths:
    """The paths of one room.

    Args:
        room: Its id.
        policy: Its topology, as created.
        settings: What all rooms have in common.
        conversation: The room.
    """

    def __init__(self, room: str, policy: Policy, settings: PathSettings, conversation: Conversation) -> None:
        self._room = room
        self._settings = settings
        self._conversation = conversation
        self._uses_media = settings.media is not None and policy != "direct-only"
        self._topology = Topology(
            policy,
            media=settings.media is not None,
            max_direct=settings.max_direct,
            max_relayed=settings.max_relayed,
        )
        self._relay: RelayedRoom | None = None
        self._wanted: dict[str, RelayWanted] = {}
        """Offers asked for, and not yet made."""
        self._encode: dict[str, Encode] = {}
        self._renewed: set[str] = set()
        """Whose page is another than the one that made their connection."""
        self._speakers = Speakers(participants=[])
        self._told_move = 0
        """The last move that was told; one that begins with somebody's coming is told by `flush`."""
        self._armed_at: float | None = None

    # Views -----------------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The path that carries now."""
        return self._topology.path

    @property
    def relay(self) -> RelayedRoom | None:
        """The room at the media server, made when it is first asked for; None where there is none to be had."""
        if self._relay is None and self._uses_media and self._settings.media is not None:
            self._relay = RelayedRoom(self._room, self._settings.media.sfu(self._room))
        return self._relay

    @property
    def capacity(self) -> int:
        """People that may be in the conversation now."""
        return self._topology.capacity

    def direct(self, one: str, other: str) -> bool:
        """Whether two people are to hold a direct connection."""
        return self._topology.direct(one, other)

    # People; `flush` when the room has told the news ------------------------------------------------------------------

    def enter(self, participant: str, now: float, *, by_device: bool = False) -> None:
        """Somebody joins the conversation; with a device alone, they take no part in moves."""
        if self.relay is not None:
            self.relay.enter(participant, now)
        if not by_device:
            self._topology.enter(participant, now)

    def leave(self, participant: str, now: float) -> None:
        """Somebody is no longer in the conversation: what they send and receive at the media server ends with this."""
        self._wanted.pop(participant, None)
        self._encode.pop(participant, None)
        self._renewed.discard(participant)
        if self._relay is not None:
            self._relay.leave(participant, now)
        if participant in self._topology.people:
            self._topology.leave(participant, now)

    def attach(self, participant: str, now: float, *, same_page: bool) -> None:
        """Somebody's socket is there again. Another page makes another connection, in place of the one before."""
        if not same_page:
            self._renewed.add(participant)
            self._encode.pop(participant, None)
        self._topology.attach(participant, same_page=same_page, now=now)

    def greet(self, participant: str) -> None:
        """Tell somebody who has just been told the state of the room what else is under way."""
        if (move := self._topology.move) is not None and move.move == self._told_move:
            self._conversation.tell_person(participant, Move(move=move.move, to=move.to, reason=move.reason))
        if participant in self._wanted:
            self._conversation.tell_person(participant, self._wanted[participant])
        if participant in self._encode:
            self._conversation.tell_person(participant, self._encode[participant])
        if self._speakers.participants and self.path == "relayed":
            self._conversation.tell_person(participant, self._speakers)

    def detach(self, participant: str, now: float) -> None:
        """Somebody's socket is gone; their media may go on."""
        self._topology.detach(participant, now)
        self.flush(now)

    def close(self, now: float) -> None:
        """The room is over, or out of memory: nothing of it stays at the media server."""
        if self._relay is not None:
            self._relay.close(now)
        self._relay, self._uses_media = None, False

    # What they say ---------------------------------------------------------------------------------------------------

    def offer(self, participant: str, role: Role, message: RelayOffer, now: float) -> None:
        """Answer an offer to the media server.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: `not_permitted`, also when this room has no media server; `room_full`, it has no place.
        """
        relay = self._relayed()
        answer = relay.offer(participant, role, message, now)
        self._wanted.pop(participant, None)
        self._renewed.discard(participant)
        if not relay.connected(participant):  # a new connection: that of before is closed
            self._topology.disconnected(participant, now)
        self._conversation.tell_person(participant, answer)  # before what it brings about: the next offer needs it
        self.flush(now)

    def wish(self, participant: str, message: Wishes, now: float) -> None:
        """Pass on what somebody shows, and how large.

        Raises:
            RefusalError: `not_permitted`, this room has no media server.
        """
        self._relayed().wish(participant, message, now)
        self.flush(now)

    def report(self, participant: str, message: PathReport, now: float) -> None:
        """Take what somebody says about a direct connection."""
        self._topology.report(participant, message, now)
        self.flush(now)

    def move_ready(self, participant: str, message: MoveReady, now: float) -> None:
        """Somebody has the new path; about another move than the one under way: it crossed the end on the wire."""
        self._topology.ready(participant, message.move, now)
        self.flush(now)

    def move_failed(self, participant: str, message: MoveFailed, now: float) -> None:
        """Somebody cannot have the new path."""
        self._topology.failed(participant, message.move, now)
        self.flush(now)

    # Orders ----------------------------------------------------------------------------------------------------------

    def hold(self, reason: Literal["policy", "recording"], wanted: bool, now: float) -> bool:
        """Want the room relayed, or not any more: `policy`, host or operator say so; `recording`.

        Returns:
            Whether that is possible: not in a room that has one path only. Then nothing has changed.
        """
        if self._topology.free:
            self._topology.hold(reason, wanted, now)
            self.flush(now)
        return self._topology.free

    # What else happens -----------------------------------------------------------------------------------------------

    def receive_media_event(self, event: MediaEvent, now: float) -> None:
        """Take an event of the media plane whose `room_of` is this room."""
        if self._relay is not None:
            self._relay.receive_media_event(event, now)
            self.flush(now)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._armed_at is not None and now >= self._armed_at:
            self._armed_at = None
        self._topology.handle_timer(now)
        if self._relay is not None:
            self._relay.handle_timer(now)
        self.flush(now)

    # Handing on ------------------------------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Hand on what topology and media have to say, to each other and to the people."""
        while True:
            if (told := self._topology.next_event()) is not None:
                self._carry_out(told, now)
            elif self._relay is not None and (heard := self._relay.next_event()) is not None:
                self._pass_on(heard, now)
            else:
                break
        for at in (self._topology.get_timer(), self._relay.get_timer() if self._relay is not None else None):
            if at is not None and (self._armed_at is None or at < self._armed_at):
                self._armed_at = at
                self._conversation.wake_paths_at(at)

    def _carry_out(self, event: TopologyEvent, now: float) -> None:
        match event:
            case RelayNeeded(participant):
                if self.relay is not None:
                    self.relay.invite(participant, now, fresh=participant in self._renewed)
                self._renewed.discard(participant)
            case LinksChanged(pairs):
                self._conversation.relink(pairs)
            case MoveStarted(move, to, reason):
                self._told_move = move
                self._tell_all(Move(move=move, to=to, reason=reason))
            case MoveEnded(move, path, reason, outcome):
                moved = outcome == "moved"
                self._tell_all(Moved(move=move, path=path) if moved else MoveCancelled(move=move, path=path))
                self._settings.moves[reason, outcome] += 1
                if moved:
                    self._conversation.path_moved(path, reason)
                if self._speakers.participants and moved and path == "relayed":  # those heard before were not told
                    self._tell_all(self._speakers)

    def _pass_on(self, event: RelayedEvent, now: float) -> None:
        match event:
            case NeedsOffer(participant, audio, video, fresh):
                self._wanted[participant] = RelayWanted(audio=audio, video=video, fresh=fresh)
                self._conversation.tell_person(participant, self._wanted[participant])
            case EncodingsWanted(participant, rids):
                self._encode[participant] = Encode(rids=[rid for rid in _RIDS if rid in rids])
                self._conversation.tell_person(participant, self._encode[participant])
            case SpeakersChanged(participants):
                self._speakers = Speakers(participants=list(participants))
                if self.path == "relayed":
                    self._tell_all(self._speakers)
            case DevicesChanged(participant, number, in_all):
                self._topology.hold("headcount", in_all > 0, now)  # a device knows the media server alone
                self._conversation.devices_changed(participant, number, now)
            case Connected(participant):
                self._topology.connected(participant, now)
            case Interrupted(participant):
                self._topology.disconnected(participant, now)
            case Failed(participant, reason):
                self._topology.disconnected(participant, now)
                if reason is TransportFailure.FINGERPRINT:
                    self._conversation.relay_refused(participant)

    def _tell_all(self, message: ServerMessage) -> None:
        for participant in self._topology.people:
            self._conversation.tell_person(participant, message)

    def _relayed(self) -> RelayedRoom:
        if self.relay is None:
            raise RefusalError("not_permitted")
        return self.relay
