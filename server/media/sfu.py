"""The Sfu: the one media object that signalling talks to, one per media worker.

Driven by: worker.py. Sans-IO, the five verbs, and `receive_relay_events` for what the relay passes up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from server.media.dtls import Certificate
from server.media.events import MediaEvent
from server.media.fastpath.relay import Event, Relay
from server.media.parameters import (
    DtlsParameters,
    Endpoint,
    HeaderExtension,
    IceParameters,
    LocalParameters,
    SendParameters,
    TrackParameters,
)


class Sfu:
    """All rooms of one media worker.

    Args:
        relay: The fast path that it programs.
        certificate: Ours, for new transports; `self.certificate`, which the driver changes once a day.
        candidates: What answers announce, best first.
        random: Returns so many random bytes.
    """

    wake: Callable[[], None] = staticmethod(lambda: None)
    """Called after every change that signalling makes: the driver's reason to drain."""

    def __init__(
        self,
        relay: Relay,
        certificate: Certificate,
        candidates: Sequence[Endpoint],
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        raise NotImplementedError

    def open_transport(
        self,
        id: str,
        room: str,
        participant: str,
        ice: IceParameters | None,
        dtls: DtlsParameters,
        extensions: Sequence[HeaderExtension],
        now: float,
    ) -> LocalParameters:
        """Make a transport. `ice` is the peer's; None as long as it is unknown.

        Raises:
            RefusalError: `room_full`, the room or the worker has as many as it may have.
            InvalidStateError: The id is taken.
        """
        raise NotImplementedError

    def restart_ice(self, id: str, ice: IceParameters | None, now: float) -> LocalParameters:
        """Take the peer's new credentials, and return ours; media goes on along the old path for the while."""
        raise NotImplementedError

    def close_transport(self, id: str, now: float) -> None:
        """Close it: from this call on nothing of it is forwarded, and nothing to it. If it is not there: nothing."""
        raise NotImplementedError

    def publish(self, transport: str, track: TrackParameters, now: float) -> str:
        """Take a track of the peer. The same mid again replaces codec and encodings, where they differ.

        Args:
            transport: Whose.
            track: `codecs[0]` is what the peer sends; encodings lowest first; none: one without rid, found by its mid.
            now: Monotonic seconds.

        Returns:
            The source's id, `<transport>:<mid>`.
        """
        raise NotImplementedError

    def unpublish(self, transport: str, mid: str, now: float) -> None:
        """Take it no longer. Nothing happens if it is not there."""
        raise NotImplementedError

    def subscribe(self, transport: str, track: TrackParameters, source: str, now: float) -> SendParameters:
        """Forward a source of the same room to a peer, as soon and as long as it is there with the same codec.

        The same mid with the same source and codec again changes nothing and answers the same; otherwise it is a new
        stream. Until `prefer` says something else, the highest encoding is asked for.

        Args:
            transport: Whose.
            track: The peer's section; `codecs[0]` is what is sent, under this peer's payload types.
            source: Its id; it need not be there yet.
            now: Monotonic seconds.
        """
        raise NotImplementedError

    def unsubscribe(self, transport: str, mid: str, now: float) -> None:
        """Forward it no longer. Nothing happens if it is not there."""
        raise NotImplementedError

    def prefer(self, transport: str, mid: str, rid: str | None, max_temporal: int = 7, now: float = 0.0) -> None:
        """Ask for an encoding; None pauses. The best that really arrives takes the place of one that does not."""
        raise NotImplementedError

    def next_event(self) -> MediaEvent | None:
        """Take the oldest event for signalling."""
        raise NotImplementedError

    def receive_relay_events(self, events: Iterable[Event], now: float) -> None:
        """Take what `Relay.take_events` gave."""
        raise NotImplementedError

    def receive_datagram(self, data: bytes, addr: Endpoint, now: float) -> None:
        """Take one STUN or DTLS datagram from anywhere. Bytes from the network never raise."""
        raise NotImplementedError

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Endpoint]]:
        """Take what is to be sent as it is: STUN and DTLS."""
        raise NotImplementedError

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        raise NotImplementedError
