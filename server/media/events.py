"""What the media plane tells signalling: facts, in the past tense, drained with `next_event()`.

A transport's facts are made by `transport.py` and pass through the Sfu unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TransportFailure(StrEnum):
    """Why a transport is of no more use. A code for programs; the sentence for people is in the catalogue."""

    FINGERPRINT = "fingerprint"
    """The peer's certificate is not the one that its SDP announced: nobody in the middle gets media."""
    TIMEOUT = "timeout"
    """No valid connectivity check for 30 s, or none ever."""
    DTLS_TIMEOUT = "dtls_timeout"
    """The handshake did not end in time although the path works."""
    DTLS_REFUSED = "dtls_refused"
    """The handshake ended in an error: nothing acceptable in common, or an alert from the peer."""
    CLOSED = "closed"
    """The peer said goodbye (close_notify)."""


@dataclass(frozen=True)
class MediaEvent:
    """Something happened to media."""


@dataclass(frozen=True)
class TransportConnected(MediaEvent):
    """Path nominated, handshake done, keys in the relay: media can flow. Once in a transport's life."""

    transport: str


@dataclass(frozen=True)
class TransportInterrupted(MediaEvent):
    """No valid check from the nominated address for 15 s: sending has stopped, it may resume."""

    transport: str


@dataclass(frozen=True)
class TransportResumed(MediaEvent):
    """Checks are back after `TransportInterrupted`, from the old address or a new one: sending goes on."""

    transport: str


@dataclass(frozen=True)
class TransportFailed(MediaEvent):
    """The transport is dead: no media in or out, no way back; only closing it is left."""

    transport: str
    reason: TransportFailure


@dataclass(frozen=True)
class TrackStarted(MediaEvent):
    """What a decoder can begin with has come: of audio a packet, of video a keyframe. Again after `TrackStopped`."""

    transport: str
    source: str
    """As `Sfu.publish` returned it."""


@dataclass(frozen=True)
class TrackStopped(MediaEvent):
    """Nothing has come for 3 s (muted without silence being sent, hidden tab), or the peer said BYE."""

    transport: str
    source: str


@dataclass(frozen=True)
class EncodingsWanted(MediaEvent):
    """Which encodings of a track somebody watches, lowest first, has changed. Of a track without rids it is `""`."""

    transport: str
    mid: str
    rids: tuple[str, ...]
    """Empty: nobody watches."""


@dataclass(frozen=True)
class SpeakersChanged(MediaEvent):
    """Another order of who spoke last, who speaks now first; everybody whose sound the room has is named."""

    room: str
    participants: tuple[str, ...]
