"""Direct and relayed, as the people of a room are told: topology, media server and room together."""

from __future__ import annotations

from itertools import count
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.media.events import (
    EncodingsWanted,
    MediaEvent,
    SpeakersChanged,
    TransportConnected,
    TransportFailed,
    TransportFailure,
    TransportInterrupted,
    TransportResumed,
)
from server.signalling.messages import (
    Admit,
    Encode,
    Join,
    Leave,
    Message,
    Move,
    MoveCancelled,
    Moved,
    MoveFailed,
    MoveReady,
    PathReport,
    PeerChanged,
    PeerJoined,
    PeerLeft,
    Problem,
    Ready,
    RelayAnswer,
    RelayOffer,
    RelayWanted,
    Remove,
    SendBack,
    SessionDescription,
    Speakers,
    StateChanged,
    Transfer,
    Wish,
    Wishes,
)
from server.signalling.relaying import room_of
from tests.offers import camera_and, offer, section
from tests.pair import Client, Desk, Link
from tests.server.test_relaying import FakeSfu

M = TypeVar("M", bound=Message)


class Clinic(Desk):
    """A desk with a media server, whose pages do at once what they are asked, unless they are in `unready`."""

    def __init__(self, **config: Any) -> None:
        self.sfus: dict[str, FakeSfu] = {}
        super().__init__(media=self, **config)
        self.unready: set[str] = set()
        self.deaf: set[str] = set()
        """They do not make the connection that they are asked for."""
        self._done: dict[Client, int] = {}
        self._names: dict[Client, str] = {}
        self._numbers = count()

    def sfu(self, room: str) -> FakeSfu:
        return self.sfus.setdefault(room, FakeSfu())

    @property
    def media(self) -> FakeSfu:
        return self.sfus[self.room.id]

    def transports(self, client: Client) -> list[str]:
        return [id for id, participant in self.media.transports.items() if participant == client.id]

    def tell_media(self, event: MediaEvent) -> None:
        """What `SignallingEndpoint.receive_media_event` does."""
        room = self.registry.rooms.get(room_of(event))
        if room is not None:
            room.paths.receive_media_event(event, self.now)
        self.settle()

    def offer(self, client: Client) -> list[Any]:
        """Make the connection to the media server, or offer again on it; ICE and DTLS take no time."""
        wanted = client.last(RelayWanted)
        if client not in self._names or wanted.fresh:
            self._names[client] = f"c{next(self._numbers)}"
        pairs = max(1, wanted.audio)
        hearing = [section("audio", "recvonly"), section("video", "recvonly")] * pairs
        text = offer(*hearing) if client.seat.role == "observer" else camera_and(pairs)
        description = SessionDescription(type="offer", sdp=text)
        before = set(self.transports(client))
        heard = client.say(RelayOffer(connection=self._names[client], description=description))
        for transport in set(self.transports(client)) - before:
            self.tell_media(TransportConnected(transport))
        return heard

    def work(self) -> None:
        """Let the pages answer what they heard."""
        busy = True
        while busy:
            busy = False
            for client in list(self.clients):
                heard = client.all[self._done.get(client, 0) :]
                self._done[client] = len(client.all)
                for message in heard:
                    if isinstance(message, RelayWanted) and client.id not in self.deaf:
                        busy = True
                        self.offer(client)
                    elif isinstance(message, Move) and client.id not in self.unready:
                        busy = True
                        client.say(MoveReady(move=message.move))

    def spend(self, seconds: float, **link: Any) -> None:
        """Pass time; pages work, and report every 2 s on their direct connections."""
        until = self.now + seconds
        while self.now < until:
            self.pass_time(0.5)
            self.work()
            if round(self.now * 2) % 4 == 0:
                self.report(**link)

    def spend_coarsely(self, seconds: int) -> None:
        """The same in steps of 2 s."""
        for _ in range(seconds // 2):
            self.now += 2
            self.registry.handle_timer(self.now)
            self.announce()
            self.work()
            self.report()

    def report(self, **link: Any) -> None:
        for client in list(self.clients):
            for peer, direct in self.links(client).items():
                if direct and client.session.phase == "joined":
                    client.say(PathReport(to=peer, **{"alive": True, "rtt_ms": 40.0, "relay_rtt_ms": 30.0, **link}))
        self.work()

    def links(self, client: Client) -> dict[str, bool]:
        """What a page knows of its direct connections."""
        links: dict[str, bool] = {}
        for message in client.all:
            if isinstance(message, StateChanged) and message.peers is not None:
                links = {peer.id: peer.direct for peer in message.peers}
            elif isinstance(message, (PeerJoined, PeerChanged)):
                links[message.peer.id] = message.peer.direct
            elif isinstance(message, PeerLeft):
                links.pop(message.id, None)
        return links


def heard(client: Client, kind: type[M]) -> list[M]:
    return [message for message in client.all if isinstance(message, kind)]


@pytest.fixture
def clinic() -> Clinic:
    return Clinic()


@pytest.fixture
def pair(clinic: Clinic) -> tuple[Client, Client]:
    """Two people who talk directly, with warm connections."""
    clinician, patient = clinic.call()
    clinic.spend(4)
    assert clinic.live().paths.path == "direct"
    return clinician, patient


def third(clinic: Clinic, clinician: Client, **link: Any) -> Client:
    return clinic.joined(clinician, **{"role": "guest", "name": "Marie", **link})


# -- coming and going -------------------------------------------------------------------------------------------------


def test_a_connection_is_asked_for_after_the_first_picture(clinic):
    clinician, patient = clinic.call()
    clinic.pass_time(0.5)
    assert heard(patient, RelayWanted) == []
    clinic.pass_time(0.6)
    assert heard(patient, RelayWanted) == [RelayWanted(audio=1, video=1)]
    (answer,) = clinic.offer(patient)
    assert isinstance(answer, RelayAnswer)
    assert heard(clinician, Move) == []
    assert clinician.last(StateChanged).path == "direct"


def test_the_third_person_comes_and_leaves(clinic, pair):
    clinician, patient = pair
    guest = third(clinic, clinician)
    state = guest.last(StateChanged)
    assert state.path == "direct"
    assert [peer.direct for peer in state.peers] == [False, False]
    assert not clinician.last(PeerJoined).peer.direct
    assert heard(guest, RelayWanted)
    clinic.work()
    for client in (clinician, patient, guest):
        assert heard(client, Move) == [Move(move=1, to="relayed", reason="headcount")]
        assert heard(client, Moved) == [Moved(move=1, path="relayed")]
        assert set(clinic.links(client).values()) == {False}
    assert clinic.facts("path.moved") == [("path.moved", "server", "", "relayed:headcount")]
    assert len(clinic.media.transports) == 3

    guest.say(Leave())
    assert clinic.links(clinician) == {patient.id: True}
    assert len(clinic.media.transports) == 2
    clinic.spend(14)
    assert clinician.last(Moved) == Moved(move=2, path="direct")
    assert clinic.facts("path.moved")[1][3] == "direct:recovered"
    moves = clinic.registry.path_settings.moves
    assert moves == {("headcount", "moved"): 1, ("recovered", "moved"): 1}


def test_a_fourth_person_finds_the_room_relayed(clinic, pair):
    third(clinic, pair[0])
    clinic.spend(3)
    fourth = third(clinic, pair[0], name="Luc")
    assert fourth.last(StateChanged).path == "relayed"
    assert heard(fourth, RelayWanted)
    assert heard(fourth, Move) == []


def test_who_comes_and_goes_has_the_others_offer_at_leisure(clinic, pair):
    clinician, _ = pair
    guests = [third(clinic, clinician, name=name) for name in ("Luc", "Zoé")]
    clinic.spend(3)
    asked = len(heard(clinician, RelayWanted))
    for guest in guests:
        guest.say(Leave())
        clinic.work()
    assert len(heard(clinician, RelayWanted)) == asked + 1
    clinic.spend(1)
    assert len(heard(clinician, RelayWanted)) == asked + 2


def test_twelve_people_and_no_thirteenth(clinic, pair):
    for number in range(10):
        third(clinic, pair[0], name=f"P{number}")
    clinic.spend(1)
    extra = clinic.waiting(role="guest")
    pair[0].say(Admit(participant=extra.id))
    assert extra.say(Join()) == [Problem(code="room_full", message="fr:room_full", re="join")]


def test_without_the_media_server_a_mesh_of_four(clinic, pair):
    clinician, patient = pair
    clinic.deaf = {patient.id}
    guest = clinic.waiting(role="guest")
    clinic.deaf.add(guest.id)
    clinician.say(Admit(participant=guest.id))
    guest.say(Join())
    clinic.spend(9)
    assert clinic.links(guest) == {clinician.id: True, patient.id: True}
    assert clinic.links(clinician) == {guest.id: True, patient.id: True}
    fourth = third(clinic, clinician)
    assert set(clinic.links(fourth).values()) == {True}
    fifth = clinic.waiting(role="guest")
    clinician.say(Admit(participant=fifth.id))
    assert fifth.say(Join())[0].code == "room_full"


def test_one_who_is_never_ready_takes_everybody_back(clinic, pair):
    clinician, patient = pair
    clinic.unready = {patient.id}
    guest = third(clinic, clinician)
    clinic.work()
    patient.say(MoveFailed(move=1))
    for client in (clinician, patient, guest):
        assert heard(client, MoveCancelled) == [MoveCancelled(move=1, path="direct")]
        assert set(clinic.links(client).values()) == {True}
    assert clinic.facts("path.moved") == []
    assert clinic.registry.path_settings.moves == {("headcount", "cancelled"): 1}


def test_a_desk_without_media_server_hears_nothing_of_it():
    desk = Desk()
    clinician, patient = desk.call()
    desk.pass_time(5)
    guest = desk.joined(clinician, role="guest")
    kinds = {type(message) for client in (clinician, patient, guest) for message in client.all}
    assert not kinds & {RelayWanted, Move}
    assert [peer.direct for peer in guest.last(StateChanged).peers] == [True, True]
    said = [
        RelayOffer(connection="c", description=SessionDescription(type="offer", sdp=camera_and(1))),
        Wishes(wishes=[]),
    ]
    assert [problem.code for problem in guest.say(*said)] == ["not_permitted"] * 2


# -- the direct path --------------------------------------------------------------------------------------------------


def test_a_dead_direct_path_moves_at_once(clinic, pair):
    clinician, patient = pair
    clinician.say(PathReport(to=patient.id, alive=False))
    assert patient.last(Move) == Move(move=1, to="relayed", reason="failure")
    clinic.work()
    assert patient.last(Moved) == Moved(move=1, path="relayed")
    clinic.spend(10, alive=False)
    assert clinic.links(patient) == {clinician.id: True}
    clinic.spend(16)
    assert clinician.last(Moved) == Moved(move=2, path="direct")


def test_a_dead_direct_path_without_a_warm_connection(clinic):
    clinician, patient = clinic.call()
    clinic.report()
    clinician.say(PathReport(to=patient.id, alive=False))
    assert heard(patient, RelayWanted) and heard(clinician, RelayWanted)
    assert heard(patient, Move)
    clinic.work()
    assert patient.last(Moved).path == "relayed"


def test_reports_about_nobody(clinic, pair):
    clinician, patient = pair
    for to in ("nobody", patient.id):
        assert patient.say(PathReport(to=to, alive=False))[0].code == "unknown_participant"
    clinician.say(Leave())
    assert patient.say(PathReport(to=clinician.id, alive=False))[0].code == "unknown_participant"


def test_quality(clinic, pair):
    clinic.spend(10, loss=0.2)
    assert pair[0].last(Moved) == Moved(move=1, path="relayed")
    assert heard(pair[0], Move)[0].reason == "quality"


# -- sockets, pages, servers ------------------------------------------------------------------------------------------


def test_a_kept_page_in_the_middle_of_a_move(clinic, pair):
    clinician, patient = pair
    clinic.unready = {patient.id}
    third(clinic, clinician)
    clinic.work()
    transport = clinic.transports(patient)
    secret, link = patient.resume, Link(clinic.room)
    patient.drop()
    back = clinic.hello(link, resume=secret)
    assert back.last(StateChanged).path == "direct"
    assert heard(back, Move) == [Move(move=1, to="relayed", reason="headcount")]
    assert heard(back, RelayWanted) == []
    assert clinic.transports(back) == transport
    back.say(MoveReady(move=1))
    assert clinician.last(Moved) == Moved(move=1, path="relayed")


def test_who_brings_a_move_about_by_coming_back_is_told_once(clinic, pair):
    _, patient = pair
    secret, link = patient.resume, Link(clinic.room)
    patient.drop()
    clinic.live().paths.hold("recording", True, clinic.now)
    back = clinic.hello(link, resume=secret)
    assert heard(back, Move) == [Move(move=1, to="relayed", reason="recording")]


def test_who_speaks_is_told_when_the_room_has_moved(clinic, pair):
    clinician, patient = pair
    clinic.unready = {patient.id}
    third(clinic, clinician)
    clinic.work()
    clinic.tell_media(SpeakersChanged(clinic.room.id, (clinician.id,)))
    assert heard(patient, Speakers) == []
    clinician.hear()
    patient.say(MoveReady(move=1))
    told = clinician.hear()
    moved, speakers = Moved(move=1, path="relayed"), Speakers(participants=[clinician.id])
    assert told.index(moved) < told.index(speakers)
    assert heard(patient, Speakers) == [speakers]


def test_another_page_in_the_middle_of_a_move(clinic, pair):
    clinician, patient = pair
    clinic.unready = {clinician.id}
    third(clinic, clinician)
    clinic.work()
    (before,) = clinic.transports(patient)
    secret = patient.resume
    patient.drop()
    back = clinic.hello(resume=secret, instance="another")
    assert before not in clinic.transports(back)
    assert heard(back, RelayWanted) and heard(back, Move)
    clinic.unready = set()
    clinician.say(MoveReady(move=1))
    assert heard(clinician, Moved) == []  # the new page is not there yet
    clinic.work()
    assert clinician.last(Moved) == Moved(move=1, path="relayed")


def test_what_was_asked_while_nobody_sat_there_is_asked_again(clinic, pair):
    clinician, patient = pair
    third(clinic, clinician)
    clinic.spend(1)
    secret = patient.resume
    (transport,) = clinic.transports(patient)
    patient.drop()
    third(clinic, clinician, name="Luc")
    clinic.tell_media(EncodingsWanted(transport, "1", ("q", "f")))
    clinic.tell_media(SpeakersChanged(clinic.room.id, (clinician.id,)))
    clinic.tell_media(TransportFailed(transport, TransportFailure.TIMEOUT))
    back = clinic.hello(resume=secret)
    assert back.last(RelayWanted).fresh
    assert back.last(Encode) == Encode(rids=["q", "f"])
    assert back.last(Speakers) == Speakers(participants=[clinician.id])


def test_after_a_restart_rooms_begin_again(clinic, pair):
    clinician, patient = pair
    guest = third(clinic, clinician)
    clinic.spend(3)
    after = Clinic()
    after.stored, after.room = dict(clinic.stored), clinic.room
    pages = []
    for client, role in ((clinician, "clinician"), (patient, "patient"), (guest, "guest")):
        page = after.hello(Link(clinic.room, role=role), resume=client.resume)
        page.say(Join())
        pages.append(page)
    first, second, last = pages
    assert first.last(StateChanged).path == "direct"
    assert [peer.direct for peer in second.last(StateChanged).peers] == [True]
    assert [peer.direct for peer in last.last(StateChanged).peers] == [False, False]
    after.work()
    assert last.last(Moved) == Moved(move=1, path="relayed")


# -- the media server -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [Remove, SendBack, Transfer])
def test_who_is_put_out_is_silenced_at_once(clinic, pair, order):
    clinician, patient = pair
    third(clinic, clinician)
    clinic.spend(2)
    assert clinic.transports(patient)
    whose = patient.id
    if order is Transfer:
        clinic.live().transfer(clinician.seat, whose, "secret", clinic.now)
    else:
        clinician.say(order(participant=whose))
    assert whose not in clinic.media.transports.values()
    assert len(clinic.media.transports) == 2


def test_the_end_of_a_room_closes_everything(clinic, pair):
    third(clinic, pair[0])
    clinic.spend(2)
    assert len(clinic.media.transports) == 3
    clinic.registry.end_room(clinic.room.id, "host", "host", clinic.now)
    clinic.settle()
    assert clinic.media.transports == {}


def test_a_room_that_everybody_forgot_leaves_nothing(clinic, pair):
    for client in pair:
        client.drop()
    clinic.pass_time(70)
    assert clinic.registry.rooms == {}
    assert clinic.media.transports == {}
    clinic.tell_media(TransportConnected(f"{clinic.room.id}.1"))


def test_a_certificate_that_is_not_the_offered_one(clinic, pair):
    (transport,) = clinic.transports(pair[1])
    pair[1].hear()
    clinic.tell_media(TransportFailed(transport, TransportFailure.FINGERPRINT))
    assert Problem(code="relay_untrusted", message="fr:relay_untrusted", re="relayOffer") in pair[1].hear()


def test_a_connection_that_falls_silent_takes_a_pair_back_to_a_direct_path_that_lives(clinic, pair):
    clinic.spend(10, loss=0.2)
    clinic.spend(4)
    (transport,) = clinic.transports(pair[0])
    clinic.tell_media(TransportInterrupted(transport))
    assert pair[1].last(Move) == Move(move=2, to="direct", reason="failure")
    clinic.work()
    assert pair[1].last(Moved) == Moved(move=2, path="direct")


def test_a_new_connection_instead_of_one_that_was_there_is_not_there_yet(clinic, pair):
    clinician, patient = pair
    description = SessionDescription(type="offer", sdp=camera_and(1))
    patient.say(RelayOffer(connection="mine", description=description))
    clinic.deaf = {patient.id}
    third(clinic, clinician)
    clinic.work()
    assert heard(patient, Move) == []
    (transport,) = clinic.transports(patient)
    clinic.tell_media(TransportConnected(transport))
    assert heard(patient, Move)


def test_observers_receive_and_do_not_send(clinic, pair):
    observer = clinic.joined(pair[0], role="observer", name="Eve")
    both = SessionDescription(type="offer", sdp=camera_and(1))
    assert observer.say(RelayOffer(connection="o", description=both))[-1].code == "not_permitted"
    only = offer(section("audio", "recvonly"), section("video", "recvonly"))
    heard_ = observer.say(
        RelayOffer(connection="o", description=SessionDescription(type="offer", sdp=only)),
        Wishes(wishes=[Wish(mid="1", rid="q")]),
    )
    assert isinstance(heard_[0], RelayAnswer)
    assert not [message for message in heard_ if isinstance(message, Problem)]


def test_a_recording_is_wanted(clinic, pair):
    paths = clinic.live().paths
    paths.hold("recording", True, clinic.now)
    clinic.settle()
    clinic.work()
    assert pair[0].last(Moved) == Moved(move=1, path="relayed")
    assert clinic.registry.count_relayed() == 1
    paths.hold("recording", False, clinic.now)
    clinic.spend(14)
    assert pair[0].last(Moved) == Moved(move=2, path="direct")
    assert clinic.registry.count_relayed() == 0


def test_an_order_is_carried_out_where_there_is_a_choice(clinic, pair):
    paths = clinic.live().paths
    assert paths.hold("policy", True, clinic.now)
    clinic.settle()
    clinic.work()
    assert pair[0].last(Moved) == Moved(move=1, path="relayed")
    assert clinic.facts("path.moved")[-1][3] == "relayed:policy"


# -- anything ---------------------------------------------------------------------------------------------------------

WAYS = "leave join drop return reload dead lossy offer broken silent lazy record time".split()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(WAYS)), max_size=40), st.sampled_from([0, 2]))
def test_whatever_happens_the_room_finds_its_way(steps, pace):
    """Four people come, go, reload, fall silent, lose either path: in the end all is as it should be for those here."""
    clinic = Clinic(message_burst=100_000, dead_after_s=1e6, ping_interval_s=1e6)
    links = [Link(clinic.room, role=role) for role in ("clinician", "patient", "guest", "observer")]
    pages: list[Client | None] = [clinic.hello(link) for link in links]
    resumes = [page.resume for page in pages if page]
    first = pages[0]
    assert first is not None
    first.say(Join())
    for page in pages[1:]:
        assert page is not None
        first.say(Admit(participant=page.id))
        page.say(Ready())
    reloads = count()
    for who, step in steps:
        page = pages[who]
        if page is not None and page.closed:
            page.drop()
            page = pages[who] = None
        if step == "time":
            clinic.spend_coarsely(4)
        elif step == "record":
            clinic.live().paths.hold("recording", who == 0, clinic.now)
            clinic.settle()
        elif page is None:
            if step in ("return", "reload", "join"):
                instance = f"again{next(reloads)}" if step == "reload" else f"page{who}"
                pages[who] = clinic.hello(links[who], resume=resumes[who], instance=instance)
        elif step in ("join", "leave"):
            page.say(Join() if step == "join" else Leave())
        elif step == "drop":
            page.drop()
            pages[who] = None
        elif step in ("dead", "lossy"):
            for peer in clinic.links(page):
                page.say(PathReport(to=peer, alive=step == "lossy", loss=0.3))
        elif step == "lazy":
            clinic.unready ^= {page.id}
        elif step == "offer":
            clinic.work()
        elif clinic.room.id in clinic.sfus:
            for transport in clinic.transports(page)[:1]:
                clinic.tell_media(TransportInterrupted(transport))
                if step == "broken":
                    clinic.tell_media(TransportFailed(transport, TransportFailure.TIMEOUT))
                else:
                    clinic.tell_media(TransportResumed(transport))
        clinic.spend_coarsely(pace)
        room = clinic.live()
        joined = {person.id for person in room.joined()}
        assert set(clinic.media.transports.values()) <= joined if clinic.sfus else True

    clinic.unready = set()
    clinic.live().paths.hold("recording", False, clinic.now)
    for who, page in enumerate(pages):
        if page is None or page.closed:
            pages[who] = clinic.hello(links[who], resume=resumes[who], instance=f"page{who}", take_over=True)
    clinic.spend_coarsely(1200)
    room = clinic.live()
    joined = {person.id for person in room.joined()}
    assert room.paths.path == ("relayed" if len(joined) > 2 else "direct")
    for page in pages:
        assert page is not None
        if page.id in joined:
            assert set(clinic.links(page)) == joined - {page.id}
            assert set(clinic.links(page).values()) <= {len(joined) == 2}
            assert path_of(page) == room.paths.path
            assert len(clinic.transports(page)) == 1


def path_of(page: Client) -> str:
    """What a page knows of where media goes."""
    last = [message for message in page.all if isinstance(message, (StateChanged, Moved, MoveCancelled))][-1]
    return last.path
