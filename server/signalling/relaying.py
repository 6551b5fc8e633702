"""One room's use of the media server: whose connection carries what, in which codec, and what is to be negotiated yet.

Driven by `rooms.py` (people) and `whip.py` (devices); told by the media plane what becomes of its transports. Sans-IO:
after every call the caller drains `next_event`.

    offer ──> media_negotiation.py ──> Sfu: transport, publish, subscribe ──> answer, and NeedsOffer to the others

Above 500 lines, but one thing: what each of a room's offers changes for all the others.

A transport is named `<room>.<number>`, so that a media event finds its room (`room_of`); a source `<transport>:<mid>`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import cast

from server.errors import ProtocolError, RefusalError
from server.media import events
from server.media.parameters import CodecParameters, IceParameters, Kind, LocalParameters, SendParameters
from server.signalling.connections import MAX_SENDING, Connection, MediaPort, Person, Source
from server.signalling.media_answer import Agreed, write_answer
from server.signalling.media_negotiation import (
    MAX_SECTIONS,
    Offer,
    choose_flavour,
    one_way,
    pick_audio,
    pick_video,
    read_offer,
)
from server.signalling.messages import RelayAnswer, RelayOffer, Rid, Role, Section, SessionDescription, Wishes

START_BPS = 300_000
"""libwebrtc's own start bitrate."""
MAX_DEVICES = 4
"""WHIP and WHEP connections of one participant: a dermatoscope, an ultrasound cart, a wall display, one to spare."""
MAX_DEVICE_SOURCES = 6
"""Tracks that the devices of one room publish. With those of the browsers of twelve people they fit into one message:
64 KiB hold an offer of 30 sections with all codecs that Chromium may name, and none of 31."""

ASK_EVERY_S = 0.5
"""Between two requests to one browser: who comes and goes must not have the others use up what they may send."""


@dataclass(frozen=True)
class RelayedEvent:
    """Something that the room has to tell its people, or its topology."""


@dataclass(frozen=True)
class NeedsOffer(RelayedEvent):
    """A participant's browser is to offer (`RelayWanted`): sections are missing, or what they carry has changed."""

    participant: str
    audio: int
    video: int
    fresh: bool = False
    """The connection that it has is dead here."""


@dataclass(frozen=True)
class EncodingsWanted(RelayedEvent):
    """Which layers of a browser's camera somebody watches (`Encode`); empty: nobody."""

    participant: str
    rids: tuple[str, ...]


@dataclass(frozen=True)
class SpeakersChanged(RelayedEvent):
    """Who speaks, loudest first."""

    participants: tuple[str, ...]


@dataclass(frozen=True)
class Connected(RelayedEvent):
    """A participant's browser has ICE and DTLS with the media server."""

    participant: str


@dataclass(frozen=True)
class Interrupted(RelayedEvent):
    """Its checks have stopped for 15 s; `Connected` again when they are back."""

    participant: str


@dataclass(frozen=True)
class Failed(RelayedEvent):
    """Its connection is dead and closed here. Unless the reason is `fingerprint`, a fresh one has been asked for."""

    participant: str
    reason: events.TransportFailure


@dataclass(frozen=True)
class DevicesChanged(RelayedEvent):
    """A device of a participant's has come, or gone."""

    participant: str
    number: int
    """Those that they have now."""
    in_all: int
    """Those of the whole room."""


@dataclass(frozen=True)
class DeviceAnswer:
    """What a device over WHIP or WHEP is answered."""

    transport: str
    ufrag: str
    """Ours: it names the ICE session."""
    sdp: str = field(repr=False)


@dataclass(frozen=True)
class Restarted:
    """What a device's new ICE credentials are answered."""

    local: LocalParameters
    kind: str
    """Of the section that has our candidates."""
    mid: str


def room_of(event: events.MediaEvent) -> str:
    """Return the room that a media event belongs to."""
    room: str = getattr(event, "room", "")
    transport: str = getattr(event, "transport", "")
    return room or transport.rpartition(".")[0]


class RelayedRoom:
    """What one room does with media.

    Args:
        room: Its id.
        sfu: Where its transports live.

    Attributes:
        start_bps: What the next answer lets an encoder begin with.
    """

    def __init__(self, room: str, sfu: MediaPort) -> None:
        self.start_bps = START_BPS
        self._room = room
        self._sfu = sfu
        self._people: dict[str, Person] = {}
        self._connections: dict[str, Connection] = {}
        self._sources: dict[str, Source] = {}
        self._flowing: set[str] = set()
        self._flavour = "VP8"
        self._numbers = count(1)
        self._review_at: float | None = None
        self._events: deque[RelayedEvent] = deque()

    # People ----------------------------------------------------------------------------------------------------------

    def enter(self, participant: str, now: float) -> None:
        """Count somebody in: they are in the conversation, and may connect."""
        self._people.setdefault(participant, Person())
        self._prefer(now)

    def leave(self, participant: str, now: float) -> None:
        """Close everything of theirs at once."""
        person = self._people.pop(participant, None)
        if person is not None:
            for connection in person.connections():
                self._close(connection, now)
            self._prefer(now)
            self._review(now)

    def close(self, now: float) -> None:
        """Close everything: the room is over."""
        self._people.clear()
        for connection in [*self._connections.values()]:
            self._close(connection, now)

    def invite(self, participant: str, now: float, fresh: bool = False) -> None:
        """Ask somebody's browser for its first offer (`NeedsOffer`), or for a fresh connection. Idempotent."""
        person = self._people.get(participant)
        if person is None or (not fresh if person.browser is not None else person.invited):
            return
        if person.browser is not None:
            self._close(person.browser, now)
        person.invited = True
        self._events.append(NeedsOffer(participant, *self.sections(participant), fresh))

    def sections(self, participant: str) -> tuple[int, int]:
        """Return how many receiving sections somebody's browser needs, for sound and for pictures.

        Never more than an offer may have beside its own two; were people let in without end, sound would come first.
        """
        found = {"audio": 0, "video": 0}
        for other in self._people:
            if other != participant:
                theirs = Counter(source.kind for source in self._sources.values() if source.participant == other)
                for kind in found:
                    found[kind] += max(1, theirs[kind])
        audio = min(found["audio"], MAX_SECTIONS - 2)
        return audio, min(found["video"], MAX_SECTIONS - 2 - audio)

    def connected(self, participant: str) -> bool:
        """Whether somebody's browser can be sent media now."""
        person = self._people.get(participant)
        return person is not None and person.browser is not None and person.browser.alive

    # Browsers --------------------------------------------------------------------------------------------------------

    def offer(self, participant: str, role: Role, message: RelayOffer, now: float) -> RelayAnswer:
        """Answer the offer of a participant's browser.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: `not_permitted`: not in the conversation, or an observer who would send; `room_full`.
        """
        person = self._person(participant)
        person.invited = False
        if message.description.type != "offer":
            raise ProtocolError("bad_sdp", "the media server takes offers only")
        offer = read_offer(message.description.sdp)
        if role == "observer" and any(section.sends for section in offer.sections):
            raise RefusalError("not_permitted")
        connection = person.browser
        if connection is not None and (
            connection.name != message.connection or connection.offer.dtls.fingerprints != offer.dtls.fingerprints
        ):
            self._close(connection, now)
            connection = None
        if connection is None:
            connection = person.browser = self._open(participant, message.connection, offer, now)
            person.question = ()
        elif connection.offer.ice != offer.ice:
            connection.local = self._sfu.restart_ice(connection.transport, offer.ice, now)
        connection.offer = offer
        connection.efficient = frozenset(message.efficient)
        answer = self._agree(connection, now)
        self._review(now)
        sections = [
            Section(
                mid=mid,
                participant=source.participant,
                kind=cast("Kind", source.kind),
                source=source.id,
                device=source.device,
            )
            for mid, source in ((mid, self._sources[id]) for mid, id in connection.told.items())
        ]
        return RelayAnswer(
            connection=message.connection,
            description=SessionDescription(type="answer", sdp=answer),
            sections=sections,
            start_bps=self.start_bps,
        )

    def wish(self, participant: str, message: Wishes, now: float) -> None:
        """Pass on how large somebody shows what they receive."""
        person = self._people.get(participant)
        if person is None or person.browser is None:
            return
        connection = person.browser
        for mid, rid in {wish.mid: wish.rid for wish in message.wishes}.items():
            source = self._sources.get(connection.carried.get(mid, ""))
            new = mid not in connection.wishes or connection.wishes[mid] != rid
            if source is not None and source.kind == "video" and new:
                connection.wishes[mid] = rid
                self._sfu.prefer(connection.transport, mid, self._layer(rid), now=now)

    # Devices (WHIP, WHEP) --------------------------------------------------------------------------------------------

    def publish_device(self, participant: str, role: Role, text: str, now: float) -> DeviceAnswer:
        """Let a device of somebody's publish in their name.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: `not_permitted`, `wrong_way`, `too_many_devices`, `no_common_codec`, `room_full`.
        """
        person = self._person(participant)
        if role == "observer":
            raise RefusalError("not_permitted")
        offer = one_way(read_offer(text), "sendonly")
        return self._device(person, participant, offer, "", now)

    def subscribe_device(self, participant: str, only: str, text: str, now: float) -> DeviceAnswer:
        """Let a device of somebody's watch everybody else, or `only` one.

        Raises:
            ProtocolError: `bad_sdp`.
            RefusalError: As above, and `unknown_participant`.
        """
        person = self._person(participant)
        if only and (only not in self._people or only == participant):
            raise RefusalError("unknown_participant")
        offer = one_way(read_offer(text), "recvonly")
        return self._device(person, participant, offer, only, now)

    def restart_device(self, transport: str, ice: IceParameters, now: float) -> Restarted:
        """Answer a device's new ICE credentials with ours.

        Raises:
            RefusalError: `not_found`: it is gone.
        """
        connection = self._connections.get(transport)
        if connection is None or connection.bundled is None:
            raise RefusalError("not_found")
        connection.offer = replace(connection.offer, ice=ice)
        connection.local = self._sfu.restart_ice(transport, ice, now)
        return Restarted(connection.local, connection.bundled.kind, connection.bundled.mid)

    def is_restart(self, transport: str, ice: IceParameters) -> bool:
        """Whether these are other credentials than a device's present ones."""
        connection = self._connections.get(transport)
        return connection is not None and connection.offer.ice != ice

    def devices(self, participant: str) -> int:
        """Return how many devices of somebody's are there."""
        person = self._people.get(participant)
        return len(person.devices) if person is not None else 0

    def published(self, participant: str) -> set[str]:
        """Return which kinds of media somebody publishes."""
        return {source.kind for source in self._sources.values() if source.participant == participant}

    def has_device(self, transport: str) -> bool:
        """Whether a device's transport is still there."""
        return transport in self._connections

    def close_device(self, transport: str, now: float) -> None:
        """Close a device's transport. Nothing happens if it is gone."""
        connection = self._connections.get(transport)
        if connection is not None:
            self._close(connection, now)
            self._review(now)

    # The media plane -------------------------------------------------------------------------------------------------

    def receive_media_event(self, event: events.MediaEvent, now: float) -> None:
        """Take an event of the media plane whose `room_of` is this room."""
        if isinstance(event, events.SpeakersChanged):
            self._events.append(SpeakersChanged(event.participants))
            return
        connection = self._connections.get(getattr(event, "transport", ""))
        if connection is None:
            return
        browser = bool(connection.name)
        match event:
            case events.TransportConnected() | events.TransportResumed():
                connection.alive = True
                if browser:
                    self._events.append(Connected(connection.participant))
            case events.TransportInterrupted():
                connection.alive = False
                if browser:
                    self._events.append(Interrupted(connection.participant))
            case events.TransportFailed(reason=reason):
                self._close(connection, now)
                if browser:
                    self._events.append(Failed(connection.participant, reason))
                    if reason not in (events.TransportFailure.FINGERPRINT, events.TransportFailure.CLOSED):
                        self.invite(connection.participant, now, fresh=True)
                self._review(now)
            case events.TrackStarted(source=source):
                self._flowing.add(source)
            case events.TrackStopped(source=source):
                self._flowing.discard(source)
            case events.EncodingsWanted(mid=mid, rids=rids):
                source_ = connection.sources.get(mid)
                if browser and source_ is not None and source_.kind == "video":
                    self._events.append(EncodingsWanted(connection.participant, tuple(rid or "f" for rid in rids)))

    def next_event(self) -> RelayedEvent | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        return self._review_at

    def handle_timer(self, now: float) -> None:
        """Make the requests that were too early."""
        if self._review_at is not None and now >= self._review_at:
            self._review(now)

    # Inside: connections ---------------------------------------------------------------------------------------------

    def _person(self, participant: str) -> Person:
        person = self._people.get(participant)
        if person is None:
            raise RefusalError("not_permitted")
        return person

    def _open(self, participant: str, name: str, offer: Offer, now: float) -> Connection:
        number = next(self._numbers)
        transport = f"{self._room}.{number}"
        local = self._sfu.open_transport(
            transport, self._room, participant, offer.ice, offer.dtls, offer.extensions, now
        )
        connection = Connection(transport, participant, name, offer, local, number)
        self._connections[transport] = connection
        return connection

    def _device(self, person: Person, participant: str, offer: Offer, only: str, now: float) -> DeviceAnswer:
        if len(person.devices) >= MAX_DEVICES:
            raise RefusalError("too_many_devices")
        flavours = offer.video_flavours
        if flavours is None:
            common = any(pick_audio(section) for section in offer.sections if section.sends or section.receives)
        else:
            common = self._choose([*self._flavours(), flavours], may_improve=False) is not None
        if not common:
            raise RefusalError("no_common_codec")
        publishing = sum(section.sends for section in offer.sections)
        published = sum(len(other.sources) for other in self._connections.values() if not other.name)
        if published + min(publishing, MAX_SENDING) > MAX_DEVICE_SOURCES:
            raise RefusalError("room_full")
        connection = self._open(participant, "", offer, now)
        connection.only = only
        person.devices[connection.transport] = connection
        answer = self._agree(connection, now)
        if connection.flavour is not None:
            connection.flavours = frozenset({connection.flavour})  # it is not asked again: what it has been told stays
        self._tell_devices(participant)
        self._review(now)
        return DeviceAnswer(connection.transport, connection.local.ice.ufrag, answer)

    def _close(self, connection: Connection, now: float) -> None:
        """Close a transport: what it publishes is gone for everybody."""
        self._connections.pop(connection.transport, None)
        person = self._people.get(connection.participant)
        if person is not None:
            person.devices.pop(connection.transport, None)
            if person.browser is connection:
                person.browser, person.invited = None, False
        for mid in [*connection.sources]:
            self._withdraw(connection, mid, now)
        self._sfu.close_transport(connection.transport, now)
        if not connection.name:
            self._tell_devices(connection.participant)

    def _tell_devices(self, participant: str) -> None:
        person = self._people.get(participant)
        in_all = sum(len(other.devices) for other in self._people.values())
        self._events.append(DevicesChanged(participant, len(person.devices) if person else 0, in_all))

    def _withdraw(self, connection: Connection, mid: str, now: float) -> None:
        source = connection.sources.pop(mid)
        self._sfu.unpublish(connection.transport, mid, now)
        del self._sources[source.id]
        self._flowing.discard(source.id)
        for other in self._connections.values():
            for carrying in [mid for mid, id in other.carried.items() if id == source.id]:
                self._empty(other, carrying, now)

    def _empty(self, connection: Connection, mid: str, now: float) -> None:
        """Let a receiving section carry nothing, until something else needs it."""
        del connection.carried[mid]
        connection.wishes.pop(mid, None)
        self._sfu.unsubscribe(connection.transport, mid, now)

    # Inside: the codec -----------------------------------------------------------------------------------------------

    def _flavours(self) -> list[frozenset[str]]:
        return [connection.flavours for connection in self._connections.values() if connection.flavours is not None]

    def _choose(self, everybody: list[frozenset[str]], may_improve: bool) -> str | None:
        efficient = {name for connection in self._connections.values() for name in connection.efficient}
        return choose_flavour(self._flavour, everybody, efficient, may_improve)

    def _settle(self, connection: Connection) -> None:
        """Let a connection's new offer take part in the choice of the room's codec."""
        if not any(section.kind == "video" and section.sends for section in connection.offer.sections):
            connection.efficient = frozenset()
        connection.flavours = connection.offer.video_flavours
        seen = any(source in self._flowing for source, what in self._sources.items() if what.kind == "video")
        chosen = self._choose(self._flavours(), may_improve=not seen)
        if chosen is None:  # they stay without pictures, instead of everybody
            connection.flavours = None
        else:
            self._flavour = chosen

    # Inside: the answer ----------------------------------------------------------------------------------------------

    def _agree(self, connection: Connection, now: float) -> str:
        """Take a connection's new offer; return the answer.

        Raises:
            RefusalError: `bad_sdp`, `room_full`, by the Sfu. A connection that was never answered is closed; another
                goes on, and what was new in the offer is not carried.
        """
        self._settle(connection)
        try:
            return self._answer(connection, now)
        except RefusalError:
            if not connection.version:
                self._close(connection, now)
            raise

    def _answer(self, connection: Connection, now: float) -> str:
        """Bring the Sfu in line with a connection's offer, and write the answer."""
        chosen = self._flavour if connection.flavours is not None else None
        picked: dict[str, tuple[CodecParameters, ...]] = {}
        for section in connection.offer.sections:
            if section.usable:
                picked[section.mid] = pick_audio(section) if section.kind == "audio" else pick_video(section, chosen)
        sending = connection.taken(picked)
        for mid, source in [*connection.sources.items()]:
            if mid not in sending or sending[mid].kind != source.kind:
                self._withdraw(connection, mid, now)
        for mid, section in sending.items():
            id = self._sfu.publish(connection.transport, section.track(picked[mid], "recvonly"), now)
            source = Source(id, connection.participant, section.kind, picked[mid][0].name, not connection.name)
            connection.sources[mid] = self._sources[id] = source
        streams = self._fill(connection, picked, now)
        agreed = []
        for section in connection.offer.sections:
            mid = section.mid
            id = connection.carried.get(mid, "") if section.receives else ""
            agreed.append(
                Agreed(
                    section,
                    picked[mid] or section.codecs[:1] if section.usable else (),
                    takes=mid in sending,
                    gives=bool(id) or (not connection.name and section.receives and bool(picked[mid])),
                    stream=streams.get(mid) if id else None,
                    whose=self._sources[id].participant if id else "",
                    source=id,
                )
            )
        connection.version += 1
        connection.flavour = chosen
        connection.bundled = next((entry.section for entry in agreed if entry.codecs), None)
        connection.told = dict(connection.carried)
        return write_answer(
            connection.offer, connection.local, agreed, connection.number, connection.version, self.start_bps
        )

    def _fill(
        self, connection: Connection, picked: Mapping[str, tuple[CodecParameters, ...]], now: float
    ) -> dict[str, SendParameters]:
        """Let each receiving section carry something: what it did, or what nobody carries to this peer yet.

        Raises:
            RefusalError: `room_full`: the Sfu has no place for another stream. Those that there are go on.
        """
        receiving = {s.mid: s for s in connection.offer.sections if s.receives and picked[s.mid]}
        for mid, id in [*connection.carried.items()]:
            if mid not in receiving or receiving[mid].kind != self._sources[id].kind:
                self._empty(connection, mid, now)
        missing = self._missing(connection)
        for mid, section in receiving.items():
            if mid not in connection.carried:
                source = next((source for source in missing if source.kind == section.kind), None)
                if source is not None:
                    missing.remove(source)
                    connection.carried[mid] = source.id
        streams = {}
        for mid, id in connection.carried.items():
            section, source = receiving[mid], self._sources[id]
            codecs = pick_audio(section, source.codec) if section.kind == "audio" else picked[mid]
            track = section.track(codecs, "sendonly")
            try:
                streams[mid] = self._sfu.subscribe(connection.transport, track, id, now)
            except RefusalError:
                for empty in [*connection.carried.keys() - streams.keys()]:
                    self._empty(connection, empty, now)
                raise
            if mid in connection.wishes:
                self._sfu.prefer(connection.transport, mid, self._layer(connection.wishes[mid]), now=now)
        return streams

    def _layer(self, wish: Rid | None) -> Rid | None:
        """Return the encoding for a wish. Where one watches one: the whole picture, alone on its way."""
        return "f" if wish is not None and len(self._people) <= 2 else wish

    def _prefer(self, now: float) -> None:
        """Two people have become three, or three two: ask for everybody's layers again."""
        for connection in self._connections.values():
            for mid, wish in connection.wishes.items():
                self._sfu.prefer(connection.transport, mid, self._layer(wish), now=now)

    def _missing(self, connection: Connection) -> list[Source]:
        """Return what a connection should carry and does not."""
        carried = set(connection.carried.values())
        receives = {section.kind for section in connection.offer.sections if section.receives}
        return [
            source
            for source in self._sources.values()
            if source.id not in carried
            and source.participant != connection.participant
            and connection.only in ("", source.participant)
            and (connection.name or source.kind in receives)
        ]

    def _review(self, now: float) -> None:
        """Ask for another offer where a browser lacks something; give devices what they have room for.

        While a request is unanswered there is no other: the answer to the offer has all that came meanwhile.
        """
        self._review_at = None
        for connection in self._connections.values():
            if not connection.name and self._missing(connection):
                chosen = connection.flavour
                receiving = (section for section in connection.offer.sections if section.receives)
                picked = {s.mid: pick_audio(s) if s.kind == "audio" else pick_video(s, chosen) for s in receiving}
                with suppress(RefusalError):  # of a device that watches: it is not whoever has brought this about
                    self._fill(connection, picked, now)
        for participant, person in self._people.items():
            if person.browser is None or person.invited:
                continue
            browser = person.browser
            missing = tuple(source.id for source in self._missing(browser))
            gone = tuple(mid for mid, id in browser.told.items() if browser.carried.get(mid) != id)
            other_codec = browser.flavours is not None and browser.flavour != self._flavour
            if not (missing or gone or other_codec):
                person.question = ()
                continue
            question = (*self.sections(participant), missing, gone, self._flavour)
            if question == person.question:
                continue
            if now < (at := person.asked_at + ASK_EVERY_S):
                self._review_at = at if self._review_at is None else min(at, self._review_at)
            else:
                person.question, person.invited, person.asked_at = question, True, now
                self._events.append(NeedsOffer(participant, *self.sections(participant)))
