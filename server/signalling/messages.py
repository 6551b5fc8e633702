"""One struct per message of the wire protocol: the only JSON encode and decode of the signalling.

PROTOCOL.md tells the story; this module is its grammar. On the wire a message is a JSON object with a `type` and
camelCase members, so that W3C dictionaries (RTCSessionDescriptionInit, RTCIceCandidateInit, RTCIceServer) pass
unchanged. The browser's types are made from it by `typescript.py`:
`python -m server.signalling.messages > web/static/js/rtc/messages.d.ts`.

Unknown members are ignored, so that a newer client can talk to an older server; unknown types are refused.

Above 500 lines, but one thing: what may be said, with nothing of what is done about it.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from server.errors import ProtocolError

VERSION = 1
CLOSE_CODES = {
    "bad_message": 4400,
    "bad_order": 4400,
    "version_unsupported": 4400,
    "link_unknown": 4401,
    "link_not_yet": 4401,
    "link_expired": 4401,
    "link_revoked": 4401,
    "refused": 4403,
    "removed": 4403,
    "transferred": 4403,
    "room_full": 4403,
    "hello_timeout": 4408,
    "dead": 4408,
    "slow_reader": 4408,
    "taken_over": 4409,
    "room_ended": 4410,
    "rate_limited": 4429,
    "too_many_connections": 4429,
    "too_large": 1009,
    "internal": 1011,
    "going_away": 1012,
}
"""WebSocket close code of each reason to close (RFC 6455 section 7.4: 4000 to 4999 are the application's)."""
MAX_MESSAGE_BYTES = 65_536
"""One message, either way. RFC 9429 sets no limit for SDP; a 12-section Chromium offer has about 20 KiB."""

Id = Annotated[str, Meta(min_length=1, max_length=64)]
Secret = Annotated[str, Meta(min_length=1, max_length=4096)]
"""A link secret (22 characters), a resume secret (22 characters) or a JWT."""
Slug = Annotated[str, Meta(min_length=1, max_length=63)]
Sdp = Annotated[str, Meta(max_length=65_536)]
ShortText = Annotated[str, Meta(max_length=500)]
Language = Literal["fr", "en"]
Role = Literal["clinician", "patient", "guest", "observer"]
State = Literal["arrived", "waiting", "admitted", "joined", "left"]
"""`arrived`: said hello, choosing devices. `waiting`: ready, in the waiting room. `admitted`: may join. `joined`: in
the conversation. `left`: gone, the seat is kept until the room ends."""
Connection = Literal["online", "reconnecting"]
TrackState = Literal["on", "off", "missing", "interrupted"]
"""`interrupted`: the device was taken away (a phone call, another program); it may come back by itself."""


class Hidden(Struct, frozen=True):
    """Base of everything that travels: it carries names, secrets, addresses or SDP, so that it never prints them."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Message(Hidden, frozen=True, kw_only=True, rename="camel", tag_field="type", omit_defaults=True):
    """What every message has in common: a `type` on the wire, immutability, defaults left out."""


Path = Literal["direct", "relayed"]
"""Between the browsers, or through our media server."""
Rid = Literal["q", "h", "f"]
"""A quarter, a half, or all of the camera's width and height (RFC 8852)."""
MoveReason = Literal["policy", "headcount", "recording", "quality", "turn", "failure", "recovered"]
"""Why a room moves: its policy, a third person, a recording, loss or delay, TURN is the longer way, nothing gets
through, or none of these any more."""


class IceServer(Hidden, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """RTCIceServer (W3C WebRTC section 4.2.4)."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class SessionDescription(Hidden, frozen=True, kw_only=True, rename="camel"):
    """RTCSessionDescriptionInit; `rollback` never crosses the wire."""

    type: Literal["offer", "answer"]
    sdp: Sdp


class IceCandidate(Hidden, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """RTCIceCandidateInit; an empty `candidate` says that there are no more (RFC 8838)."""

    candidate: Annotated[str, Meta(max_length=1024)]
    sdp_mid: Annotated[str, Meta(max_length=64)] | None = None
    sdp_m_line_index: Annotated[int, Meta(ge=0, le=255)] | None = msgspec.field(default=None, name="sdpMLineIndex")
    username_fragment: Annotated[str, Meta(max_length=256)] | None = None


class Peer(Hidden, frozen=True, kw_only=True, rename="camel"):
    """Another participant in the conversation, as one participant is told of them."""

    id: Id
    role: Role
    name: str
    connection: Connection
    microphone: TrackState
    camera: TrackState
    instance: Id
    """Names the page load at the other end: when it changes, the old RTCPeerConnection is dead, a new one is made."""
    polite: bool
    """Whether *you* are the polite one towards this peer (perfect negotiation). The impolite one offers first."""
    direct: bool = True
    """Whether to hold a direct connection to them; it carries media only while the room's path is direct."""


class Section(Hidden, frozen=True, kw_only=True, rename="camel"):
    """Whose media one receiving section of a relayed connection carries."""

    mid: Annotated[str, Meta(max_length=64)]
    participant: Id
    kind: Literal["audio", "video"]
    source: Id
    """Tells apart what one participant publishes: their browser, and other devices (a dermatoscope over WHIP)."""
    device: bool = False
    """From a device of theirs beside their browser, which shows them."""


class Wish(Hidden, frozen=True, kw_only=True, rename="camel"):
    """How large one received picture is shown."""

    mid: Annotated[str, Meta(max_length=64)]
    rid: Rid | None = None
    """None: it is not to be seen, do not send it."""


class Visitor(Hidden, frozen=True, kw_only=True, rename="camel"):
    """Someone who is not in the conversation, as the clinicians are told of them."""

    id: Id
    role: Role
    name: str
    state: Literal["arrived", "waiting", "admitted", "left"]
    connection: Connection
    since_ms: int
    """How long they have been in this state, in milliseconds, at the time of sending."""


# -- from the client --------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True, tag="hello"):
    """The first message, within 5 s. The secret opens a seat; the resume secret takes the same seat again."""

    version: int
    tenant: Slug
    instance: Id
    """Made by the page at load: the same after a network change, another after a reload."""
    secret: Secret | None = None
    resume: Secret | None = None
    take_over: bool = False
    """The person answered yes to "continue here?"."""
    language: Language | None = None


class Ready(Message, frozen=True, tag="ready"):
    """Devices are chosen: put me in the waiting room."""


class Join(Message, frozen=True, tag="join"):
    """I am admitted and enter the conversation."""

    microphone: TrackState = "on"
    camera: TrackState = "on"


class Leave(Message, frozen=True, tag="leave"):
    """I hang up; the seat is kept, I may come back."""


class Pong(Message, frozen=True, tag="pong"):
    """Answer to `ping`, sent from the message handler: timers of hidden tabs are throttled, message events are not."""


class Describe(Message, frozen=True, tag="description"):
    """An offer or answer for one peer."""

    to: Id
    description: SessionDescription


class Candidate(Message, frozen=True, tag="candidate"):
    """A trickled ICE candidate for one peer (RFC 8838)."""

    to: Id
    candidate: IceCandidate


class Distrust(Message, frozen=True, tag="distrust"):
    """The certificate that answers is not the one in the peer's description: no media (RFC 8827), and they are told."""

    to: Id


class RelayOffer(Message, frozen=True, tag="relayOffer"):
    """The offer of the connection to the media server: the first one, another one wanted, or a new network."""

    connection: Id
    """Names the RTCPeerConnection: another name, another connection, the one before is closed."""
    description: SessionDescription
    efficient: Annotated[list[Annotated[str, Meta(max_length=16)]], Meta(max_length=8)] = []
    """Video codecs that this device encodes in hardware, by their registered names."""


class Wishes(Message, frozen=True, tag="wishes"):
    """What of the relayed pictures is shown, and how large; what is not named stays as it was."""

    wishes: Annotated[list[Wish], Meta(max_length=64)]


class PathReport(Message, frozen=True, tag="pathReport"):
    """How the direct connection to one peer fares, every 2 s while it is there, and at once when it dies."""

    to: Id
    alive: bool
    """Media that should come does come."""
    loss: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The worse of both directions."""
    rtt_ms: Annotated[float, Meta(ge=0, le=60_000)] | None = None
    turn: bool = False
    """It runs through TURN."""
    relay_rtt_ms: Annotated[float, Meta(ge=0, le=60_000)] | None = None
    """Of our own connection to the media server, when there is one."""
    relay_alive: bool = True
    """What should come through the media server does come, or nothing is to be said of that."""


class MoveReady(Message, frozen=True, tag="moveReady"):
    """Everything that lives on the old path arrives here on the new one too, and is what the person sees and hears."""

    move: int


class MoveFailed(Message, frozen=True, tag="moveFailed"):
    """The new path cannot be had."""

    move: int


class RefreshIceServers(Message, frozen=True, tag="refreshIceServers"):
    """Ask for new TURN credentials, before an ICE restart."""


class SetMedia(Message, frozen=True, tag="setMedia"):
    """What my microphone and camera do now, for the others to see."""

    microphone: TrackState
    camera: TrackState


class SetLanguage(Message, frozen=True, tag="setLanguage"):
    """The language in which sentences for people come from now on."""

    language: Language


class Admit(Message, frozen=True, tag="admit"):
    """Clinician: let this visitor into the conversation."""

    participant: Id


class Refuse(Message, frozen=True, tag="refuse"):
    """Clinician: this visitor will not be let in. They are told why."""

    participant: Id
    reason: ShortText = ""


class SendBack(Message, frozen=True, tag="sendBack"):
    """Clinician: return this participant to the waiting room."""

    participant: Id
    reason: ShortText = ""


class Remove(Message, frozen=True, tag="remove"):
    """Clinician: end this participant's presence; their seat is closed."""

    participant: Id
    reason: ShortText = ""


class Transfer(Message, frozen=True, tag="transfer"):
    """Clinician: move this participant to another room of the same tenant, where they are expected."""

    participant: Id
    room: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Tell(Message, frozen=True, tag="tell"):
    """Clinician: a sentence to someone in the waiting room ("10 minutes late, sorry")."""

    participant: Id
    text: Annotated[str, Meta(min_length=1, max_length=500)]


class EndRoom(Message, frozen=True, tag="endRoom"):
    """Clinician: end the consultation for everybody."""

    reason: ShortText = ""


ClientMessage = (
    Hello | Ready | Join | Leave | Pong | Describe | Candidate | RefreshIceServers | SetMedia | SetLanguage
    | Distrust | RelayOffer | Wishes | PathReport | MoveReady | MoveFailed
    | Admit | Refuse | SendBack | Remove | Transfer | Tell | EndRoom
)  # fmt: skip


# -- from the server --------------------------------------------------------------------------------------------------


class Ping(Message, frozen=True, tag="ping"):
    """Sent every `pingIntervalMs`; each end calls the socket dead after `deadAfterMs` without any message."""


class Welcome(Message, frozen=True, tag="welcome"):
    """Answer to `hello`: who you are and where you stand."""

    version: int
    id: Id
    role: Role
    name: str
    state: State
    resume: Secret
    """For this device only; each hello returns the one to use next time."""
    language: Language
    room: Id
    ping_interval_ms: int
    dead_after_ms: int
    room_topology: Literal["auto", "direct-only", "relay-only"] = "auto"


class Occupied(Message, frozen=True, tag="occupied"):
    """The seat is in use on another device: "continue here?". Say hello again with `takeOver` to take it."""


class Refused(Message, frozen=True, tag="refused"):
    """The last message before the server closes the socket. Do not retry with the same secret unless `retry`."""

    code: str
    message: str
    reason: str = ""
    """What the clinician wrote, if they did."""
    retry: bool = False


class Problem(Message, frozen=True, tag="problem"):
    """A message of yours was not carried out; the connection goes on."""

    code: str
    message: str
    re: str
    """The `type` of the message it answers."""


class StateChanged(Message, frozen=True, tag="state"):
    """Where you stand now, and what that gives you."""

    state: State
    place: int | None = None
    """In the waiting room: 1 is next."""
    expected: bool = False
    """In the waiting room: a clinician is here and has seen that you wait."""
    reason: str = ""
    peers: list[Peer] | None = None
    """When joined: everybody else in the conversation."""
    ice_servers: list[IceServer] | None = None
    """From admission on."""
    path: Path = "direct"
    """When joined: where media goes. A `move` that is under way follows."""


class Visitors(Message, frozen=True, tag="visitors"):
    """To clinicians: everybody who is not in the conversation. Replaces the list before."""

    visitors: list[Visitor]


class PeerJoined(Message, frozen=True, tag="peerJoined"):
    """Somebody entered the conversation."""

    peer: Peer


class PeerChanged(Message, frozen=True, tag="peerChanged"):
    """Something about a peer changed; replaces what you knew."""

    peer: Peer


class PeerLeft(Message, frozen=True, tag="peerLeft"):
    """Somebody is no longer in the conversation."""

    id: Id
    why: Literal["left", "timeout", "removed", "sentBack", "transferred"]


class PeerDescribed(Message, frozen=True, tag="peerDescription"):
    """An offer or answer from a peer."""

    sender: Id = msgspec.field(name="from")
    instance: Id
    description: SessionDescription


class PeerCandidate(Message, frozen=True, tag="peerCandidate"):
    """A trickled candidate from a peer."""

    sender: Id = msgspec.field(name="from")
    instance: Id
    candidate: IceCandidate


class PeerDistrusts(Message, frozen=True, tag="peerDistrusts"):
    """A peer refuses our certificate: somebody stands between the two browsers."""

    sender: Id = msgspec.field(name="from")
    instance: Id


class RelayWanted(Message, frozen=True, tag="relayWanted"):
    """Hold a connection to the media server, and offer now: each of these asks for one offer."""

    audio: int
    """Receiving sections for sound, at least."""
    video: int
    """Receiving sections for pictures, at least."""
    fresh: bool = False
    """The connection you have is dead at our end: make a new one."""


class RelayAnswer(Message, frozen=True, tag="relayAnswer"):
    """The media server's answer; its candidates are in it."""

    connection: Id
    description: SessionDescription
    sections: list[Section]
    """What the receiving sections carry; one that is not named carries nothing."""
    start_bps: int = 300_000
    """What the way up may be expected to carry, for the first seconds."""


class Encode(Message, frozen=True, tag="encode"):
    """Which encodings of the camera to send to the media server; empty: nobody watches."""

    rids: list[Rid]


class Move(Message, frozen=True, tag="move"):
    """Make the other path before the old one is broken: send on both, show the new one as soon as it is there."""

    move: int
    to: Path
    reason: MoveReason


class Moved(Message, frozen=True, tag="moved"):
    """Everybody is ready: stop sending on the old path."""

    move: int
    path: Path


class MoveCancelled(Message, frozen=True, tag="moveCancelled"):
    """Not everybody was ready in time: show the old path, stop sending on the new one."""

    move: int
    path: Path


class Speakers(Message, frozen=True, tag="speakers"):
    """Who speaks, loudest first, as the media server hears it; only while the path is relayed."""

    participants: list[Id]


class IceServers(Message, frozen=True, tag="iceServers"):
    """Fresh servers and credentials, for `setConfiguration`."""

    ice_servers: list[IceServer]


class Told(Message, frozen=True, tag="told"):
    """A sentence from the clinician, while you wait."""

    text: str


class Transferred(Message, frozen=True, tag="transferred"):
    """You are expected in another room: say hello there with this secret (a new link; same page)."""

    secret: Secret


class RoomEnded(Message, frozen=True, tag="roomEnded"):
    """The consultation is over for everybody. The server closes the socket after it."""

    by: Literal["clinician", "host", "limit"]
    reason: str = ""


class GoingAway(Message, frozen=True, tag="goingAway"):
    """The server restarts: come back after this many milliseconds, spread at random by the server."""

    retry_after_ms: int


ServerMessage = (
    Ping | Welcome | Occupied | Refused | Problem | StateChanged | Visitors | PeerJoined | PeerChanged | PeerLeft
    | PeerDescribed | PeerCandidate | PeerDistrusts | RelayWanted | RelayAnswer | Encode | Move | Moved | MoveCancelled
    | Speakers | IceServers | Told | Transferred | RoomEnded | GoingAway
)  # fmt: skip

_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_encoder = msgspec.json.Encoder()


def tag(message: Message | type[Message]) -> str:
    """Return the `type` of a message on the wire."""
    return str(message.__struct_config__.tag)


def decode(data: str | bytes) -> ClientMessage:
    """Parse one message from a client.

    Raises:
        ProtocolError: `too_large` above 64 KiB, otherwise `bad_message` with the place of the error, never its content.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError("too_large", f"a message has at most {MAX_MESSAGE_BYTES} bytes")
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        place = str(error).rpartition(" - at ")[2]
        raise ProtocolError("bad_message", f"does not fit the protocol at {place}") from None


def encode(message: ServerMessage) -> bytes:
    """Return the wire text (UTF-8) of one message to a client."""
    return _encoder.encode(message)


if __name__ == "__main__":
    from server.signalling.typescript import declarations

    print(declarations(), end="")
