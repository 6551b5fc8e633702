"""One client's state machine: order, permission, rate, heartbeats. No sockets, no sleeps."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import InvalidStateError
from server.signalling import messages
from server.signalling.messages import (
    Admit,
    Candidate,
    ClientMessage,
    Describe,
    Distrust,
    EndRoom,
    Hello,
    IceCandidate,
    Join,
    Leave,
    MoveFailed,
    MoveReady,
    Occupied,
    PathReport,
    Ping,
    Pong,
    Problem,
    Ready,
    RefreshIceServers,
    Refuse,
    Refused,
    RelayOffer,
    Remove,
    SendBack,
    SessionDescription,
    SetLanguage,
    SetMedia,
    Tell,
    Transfer,
    Welcome,
    Wishes,
    tag,
)
from server.signalling.session import ACCEPTS, ORDERS, HelloReceived, Phase, Session
from tests.pair import WALL, Client, Desk, Link

HELLO = Hello(version=1, tenant="clinique", instance="page", secret="s")
SAMPLES = {
    Hello: HELLO,
    Ready: Ready(),
    Join: Join(),
    Leave: Leave(),
    Pong: Pong(),
    Describe: Describe(to="x", description=SessionDescription(type="offer", sdp="")),
    Candidate: Candidate(to="x", candidate=IceCandidate(candidate="")),
    Distrust: Distrust(to="x"),
    RelayOffer: RelayOffer(connection="c", description=SessionDescription(type="offer", sdp="")),
    Wishes: Wishes(wishes=[]),
    PathReport: PathReport(to="x", alive=True),
    MoveReady: MoveReady(move=1),
    MoveFailed: MoveFailed(move=1),
    RefreshIceServers: RefreshIceServers(),
    SetMedia: SetMedia(microphone="on", camera="on"),
    SetLanguage: SetLanguage(language="en"),
    Admit: Admit(participant="x"),
    Refuse: Refuse(participant="x"),
    SendBack: SendBack(participant="x"),
    Remove: Remove(participant="x"),
    Transfer: Transfer(participant="x", room="y"),
    Tell: Tell(participant="x", text="t"),
    EndRoom: EndRoom(),
}


def bring(desk: Desk, phase: Phase, role: str) -> Client:
    """Return a client in this phase."""
    if phase is Phase.NEW:
        return desk.socket()
    if phase is Phase.HELLO:
        client = desk.socket()
        client.session.receive(msgspec.json.encode(HELLO), desk.now)
        client.session.next_event()
        return client
    link = Link(desk.room, role=role)
    if phase is Phase.OCCUPIED:
        desk.hello(link)
        return desk.hello(link)
    client = desk.hello(link)
    person = client.seat
    if phase is Phase.WAITING:
        client.say(Ready())
    elif phase in (Phase.ADMITTED, Phase.JOINED):
        desk.live().admit(person, person.id, desk.now) if role != "clinician" else None
        client.say(Ready()) if role != "clinician" else None
        if phase is Phase.JOINED:
            client.say(Join())
    elif phase is Phase.LEFT:
        client.say(Leave())
    client.hear()
    assert client.session.phase == phase
    return client


CASES = [
    (phase, role, kind)
    for role in ("patient", "clinician")
    for phase in Phase
    for kind in get_args(ClientMessage)
    if phase is not Phase.CLOSED
    if not (role == "clinician" and phase in (Phase.ARRIVED, Phase.WAITING))
]


@pytest.mark.parametrize(("phase", "role", "kind"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_message_in_every_phase(phase, role, kind):
    client = bring(Desk(), phase, role)
    heard = client.say(SAMPLES[kind])
    refused = [message.code for message in heard if isinstance(message, Refused)]
    problems = [message.code for message in heard if isinstance(message, Problem)]
    seated = phase in (Phase.ARRIVED, Phase.WAITING, Phase.ADMITTED, Phase.JOINED, Phase.LEFT)
    if not seated:
        expected = [] if kind in ACCEPTS[phase] else ["bad_order"]
        assert (refused, problems) == (expected, [])
        assert bool(client.closed) == bool(expected)
    elif kind is Hello:
        assert (refused, client.closed) == (["bad_order"], "bad_order")
    else:
        assert refused == []
        if kind in ORDERS and role != "clinician":
            assert problems == ["not_permitted"]
        elif kind not in ACCEPTS[phase]:
            assert problems == ["bad_order"]
        else:
            assert "bad_order" not in problems


def test_the_tables_name_every_message_and_phase():
    assert set(ACCEPTS) == set(Phase)
    assert set().union(*ACCEPTS.values()) == set(get_args(ClientMessage)) == set(SAMPLES)


def test_a_problem_names_what_it_answers_and_speaks_the_language():
    client = Desk().patient()
    client.say(SetLanguage(language="en"))
    assert client.say(Join()) == [Problem(code="bad_order", message="en:bad_order", re="join")]


def test_hello_has_two_phases():
    desk = Desk()
    session = desk.socket().session
    session.receive(msgspec.json.encode(HELLO), desk.now)
    assert session.phase is Phase.HELLO
    assert session.next_event() == HelloReceived(HELLO)
    assert session.next_event() is None
    assert session.outbox == []


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (Hello(version=2, tenant="clinique", instance="page", secret="s"), "version_unsupported"),
        (Hello(version=0, tenant="clinique", instance="page", secret="s"), "version_unsupported"),
        (Hello(version=1, tenant="clinique", instance="page"), "bad_message"),
    ],
)
def test_hellos_that_are_refused_at_once(hello, code):
    client = Desk().socket()
    (refused,) = client.say(hello)
    assert (refused.code, refused.retry, client.closed) == (code, False, code)


def test_a_refusal_comes_in_the_language_of_the_hello():
    client = Desk().socket()
    (refused,) = client.say(Hello(version=9, tenant="clinique", instance="page", secret="s", language="en"))
    assert refused.message == "en:version_unsupported"


def test_occupied_then_take_over():
    desk = Desk()
    link = Link(desk.room)
    first = desk.hello(link)
    second = desk.hello(link)
    assert second.hear() == [Occupied()]
    desk.pass_time(6)
    assert not second.closed  # the question may take a while
    desk.hello(link, on=second, take_over=True)
    assert isinstance(second.hear()[-1], Welcome)
    assert first.closed == "taken_over"


def test_messages_after_the_end_change_nothing():
    desk = Desk()
    client = desk.patient()
    client.session.end("internal")
    desk.settle()
    assert client.say(Ready()) == []
    assert client.session.get_timer() is None
    client.session.end("dead")
    assert client.session.ending == "internal"


def test_welcome_out_of_order_is_our_own_mistake():
    desk = Desk()
    with pytest.raises(InvalidStateError):
        desk.socket().session.welcome(None, HELLO, desk.now, WALL)


# -- time -------------------------------------------------------------------------------------------------------------


def test_the_first_message_comes_within_five_seconds():
    desk = Desk()
    client = desk.socket()
    assert client.session.get_timer() == desk.now + 5
    desk.pass_time(4.9)
    assert not client.closed
    desk.pass_time(0.15)
    (refused,) = client.hear()
    assert (refused.code, refused.retry) == ("hello_timeout", True)


def test_we_are_not_counted_against_the_client_while_the_store_is_slow():
    desk = Desk()
    client = desk.socket()
    client.session.receive(msgspec.json.encode(HELLO), desk.now)
    desk.pass_time(30, answering=lambda _: False)
    assert not client.closed


def test_pings_and_death():
    desk = Desk()
    client = desk.patient()
    client.hear()
    desk.pass_time(3.1)
    assert client.hear() == [Ping(), Ping()]
    silent_since = client.session.heard_at
    desk.pass_time(4.5, answering=lambda _: False)
    assert client.closed == "dead"
    assert client.all[-1].code == "dead"
    assert client.all[-1].retry
    assert desk.now - silent_since >= 4.0
    assert [type(message) for message in client.hear()].count(Ping) == 2  # one to lose


def test_death_is_noticed_within_a_tick():
    desk = Desk()
    client = desk.patient()
    desk.pass_time(3.95, answering=lambda _: False)
    assert not client.closed
    desk.pass_time(0.1, answering=lambda _: False)
    assert client.closed == "dead"


@pytest.mark.parametrize("sign", ["message", "heartbeat"])
def test_any_sign_of_life_counts(sign):
    desk = Desk()
    client = desk.patient()
    for _ in range(10):
        desk.pass_time(3, answering=lambda _: False)
        if sign == "message":
            client.say(SetLanguage(language="fr"))
        else:
            client.session.heartbeat(desk.now)
    assert not client.closed


# -- rate -------------------------------------------------------------------------------------------------------------


def test_a_flood_is_cut_off():
    desk = Desk()
    client = desk.patient()
    sent = 0
    while not client.closed and sent < 20_000:
        desk.now += 0.6 / 20_000
        client.send('{"type":"pong"}')
        sent += 1
    assert client.closed == "rate_limited"
    assert 400 <= sent <= 440
    assert client.last(Refused).retry


@pytest.mark.parametrize("data", ["nonsense", '{"type":"leave"}'])
def test_heartbeats_and_problems_count_for_the_rate(data):
    desk = Desk(message_burst=10)
    client = desk.patient()
    for _ in range(12):
        client.session.heartbeat(desk.now)
    desk.settle()
    assert client.closed == "rate_limited"


def test_the_sustained_rate_is_borne():
    desk = Desk()
    client = desk.patient()
    for _ in range(5_000):
        desk.now += 1 / 50
        client.send('{"type":"pong"}')
    assert not client.closed


def test_large_messages_count_for_more():
    """What one page sends at once does not fill the queue of another."""
    clinician, patient = (desk := Desk()).call()
    for _ in range(40):
        if clinician.closed:
            break
        large = SessionDescription(type="offer", sdp="v=0\r\n" + "a=x:" + "y" * 60_000)
        clinician.send(msgspec.json.encode(Describe(to=patient.id, description=large)))
    heard = [message.re for message in clinician.all if isinstance(message, Problem)]
    assert clinician.closed == "rate_limited"
    assert len(heard) * 60_000 < desk.config.max_queued_bytes


def test_offers_to_the_media_server_in_a_full_room_are_borne():
    """Twelve people come within six seconds: each page offers again for each of them, 24 sections at last."""
    clinician, _ = (desk := Desk()).call()
    for people in range(12):
        desk.now += 0.5
        text = "v=0\r\n" + "a=x:" + "y" * 1_500 * (2 + 2 * people)
        description = SessionDescription(type="offer", sdp=text)
        clinician.send(msgspec.json.encode(RelayOffer(connection="c", description=description)))
    assert not clinician.closed


# -- anything ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(SAMPLES)), st.integers(0, 4)), max_size=40), st.data()
)
def test_no_order_of_messages_breaks_the_machines(steps, data):
    """Four people say anything to each other in any order, drop and return: no exception, and the rooms stay true."""
    desk = Desk()
    links = [Link(desk.room, role=role) for role in ("clinician", "patient", "guest", "observer")]
    people: list[Client | None] = [desk.hello(link) for link in links]
    resumes = [person.resume for person in people if person]
    seats = [person.id for person in people if person]
    for who, kind, target in steps:
        client = people[who]
        if client is None or client.closed:
            if client is not None:
                client.drop()
            people[who] = desk.hello(links[who], resume=resumes[who])
            continue
        if kind is Hello:
            client.drop()
            people[who] = None
            desk.pass_time(data.draw(st.sampled_from([0.0, 1.0, 61.0])))
            continue
        message = SAMPLES[kind]
        name = {"to": "to", "participant": "participant"}
        fields = {name[f]: seats[target % 4] for f in kind.__struct_fields__ if f in name}
        client.say(msgspec.structs.replace(message, **fields))
        desk.announce()
    for room in desk.registry.rooms.values():
        for person in room.participants.values():
            if person.session is not None:
                assert isinstance(person.session, Session)
                assert person.session.participant is person
                assert not person.seat.closed
            if person.seat.resume_digest:
                assert desk.registry.by_resume[person.seat.resume_digest] is person
        for one in desk.clients:
            if one.session.participant is not None and not one.session.participant.seat.admitted:
                assert not [m for m in one.hear() if tag(m) == "peerJoined" and one.session.phase == "waiting"]
    assert set(desk.stored) <= set(seats) | set(desk.stored)


def test_encoding_of_everything_that_was_ever_sent():
    desk = Desk()
    clinician, patient = desk.call()
    for message in (*clinician.all, *patient.all):
        assert msgspec.json.decode(messages.encode(message))["type"] == tag(message)
