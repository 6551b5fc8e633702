"""One seat of a live room: who it is, where they stand, who sits on it. The rules of the room are in `rooms.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from server.errors import InvalidStateError
from server.records import SeatRecord
from server.signalling.messages import Connection, Message, Role, ServerMessage, State, TrackState

MOVES: Final[dict[State, frozenset[State]]] = {
    "arrived": frozenset({"waiting", "admitted", "left"}),
    "waiting": frozenset({"admitted", "left"}),
    "admitted": frozenset({"joined", "waiting", "left"}),
    "joined": frozenset({"waiting", "admitted", "left"}),
    "left": frozenset({"arrived", "waiting", "admitted"}),
}
"""Where a participant may go from each state."""

RANK: Final[dict[Role, int]] = {"clinician": 0, "guest": 1, "patient": 2, "observer": 3}
"""Of two peers the one with the higher rank is polite; the id decides among equals."""


class Seated(Protocol):
    """What a room asks of the session that sits on a seat."""

    def send(self, message: ServerMessage) -> None:
        """Put a message in the outbox."""

    def end(self, code: str, reason: str = "", last: ServerMessage | None = None) -> None:
        """Say why (`last`, or a `refused` with the code) and close."""

    def problem(self, code: str, about: type[Message]) -> None:
        """Say that a message was not carried out."""


@dataclass(slots=True, eq=False)
class Participant:
    """One seat of a live room."""

    seat: SeatRecord = field(repr=False)
    """What is durable about it; replaced, never changed."""
    state: State
    since: float
    """When it came into this state."""
    session: Seated | None = None
    instance: str = ""
    """The page load that sits on it, or sat on it last."""
    microphone: TrackState = "off"
    camera: TrackState = "off"
    gone_at: float = 0.0
    """While nobody sits on it: when the others are told that it is left."""
    by_device: bool = False
    """They are in the conversation without a page: a device of theirs is, over WHIP or WHEP (`devices.py`)."""
    told: tuple[int, bool] | None = None
    """Place and expectation, as last told while waiting."""

    @property
    def id(self) -> str:
        """The ParticipantId."""
        return self.seat.id

    @property
    def role(self) -> Role:
        """What they may do."""
        return self.seat.role

    @property
    def connection(self) -> Connection:
        """Whether somebody sits here now."""
        return "online" if self.session is not None or self.by_device else "reconnecting"

    @property
    def is_host(self) -> bool:
        """Whether this is a clinician who is here, so that people who wait are expected."""
        return self.seat.role == "clinician" and self.session is not None and self.state in ("admitted", "joined")

    def move(self, state: State, now: float) -> None:
        """Change state.

        Raises:
            InvalidStateError: `MOVES` has no such way.
        """
        if state not in MOVES[self.state]:
            raise InvalidStateError(f"{self.state} -> {state}")
        self.by_device = self.by_device and self.state != "joined"
        self.state, self.since, self.told = state, now, None

    def tell(self, message: ServerMessage) -> None:
        """Send to whoever sits here; to nobody otherwise."""
        if self.session is not None:
            self.session.send(message)
