"""The registry of rooms: whose seat a hello opens, how long rooms live, and what ends from outside."""

import msgspec
import pytest

from server.errors import RefusalError
from server.ids import digest
from server.signalling import registry
from server.signalling.auth import Claims
from server.signalling.messages import (
    Admit,
    Hello,
    Join,
    Leave,
    Occupied,
    PeerLeft,
    Ready,
    RoomEnded,
    Welcome,
)
from tests.pair import TENANT, WALL, Desk, Link, codes


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_another_device_is_asked_and_may_take_over(desk):
    clinician, patient = desk.call()
    link, seat = Link(desk.room, origin=patient.seat.seat.origin), patient.id
    phone = desk.hello(link, instance="phone")
    assert phone.hear() == [Occupied()]
    assert not patient.closed
    desk.hello(link, instance="phone", take_over=True, on=phone)
    welcome = phone.last(Welcome)
    assert (welcome.id, welcome.state) == (seat, "admitted")  # its camera is chosen first
    assert welcome.resume != patient.resume
    assert patient.closed == "taken_over"
    assert clinician.last(PeerLeft).id == seat
    assert desk.facts("participant.taken_over") == [("participant.taken_over", seat, "", "")]

    old = desk.hello(link, resume=patient.resume)
    assert old.hear() == [Occupied()]  # the old device's resume secret opens nothing any more


def test_an_empty_seat_is_taken_without_asking(desk):
    patient = desk.waiting()
    link, seat = Link(desk.room, origin=patient.seat.seat.origin), patient.id
    patient.drop()
    other = desk.hello(link, instance="phone")
    assert other.last(Welcome).id == seat
    assert desk.stored[seat].resume_digest == digest(other.resume)
    assert desk.registry.live_seat(digest(patient.resume)) is None


def test_a_reusable_link_gives_each_device_a_seat(desk):
    link = Link(desk.room, single_use=False)
    one, other = desk.hello(link), desk.hello(link)
    assert one.id != other.id
    one.drop()
    assert desk.hello(link, resume=one.resume).id == desk.stored[one.last(Welcome).id].id


def test_the_seats_of_one_link_are_bounded(desk, monkeypatch):
    monkeypatch.setattr(registry, "MAX_SEATS_PER_LINK", 3)
    link = Link(desk.room, single_use=False)
    first, *_ = [desk.hello(link) for _ in range(3)]
    assert codes(desk.hello(link).hear()) == ["room_full"]
    seat = first.id
    first.drop()
    desk.pass_time(61, answering=lambda client: True)
    assert desk.hello(link).id == seat  # who left longest ago gives the place


def test_the_place_of_somebody_admitted_who_left_is_given_away_last_and_without_the_admission(desk, monkeypatch):
    monkeypatch.setattr(registry, "MAX_SEATS_PER_LINK", 2)
    clinician, link = desk.clinician(), Link(desk.room, single_use=False)
    admitted, other = desk.hello(link), desk.hello(link)
    seat, second = admitted.id, other.id
    admitted.say(Ready())
    clinician.say(Admit(participant=seat))
    admitted.say(Join(), Leave())
    desk.pass_time(1)
    for client in (admitted, other):
        client.drop()
    desk.pass_time(61)
    assert desk.hello(link).id == second
    last = desk.hello(link)
    assert (last.id, last.last(Welcome).state) == (seat, "arrived")
    assert last.say(Ready())[0].state == "waiting"
    assert not desk.stored[seat].admitted


def test_a_resume_secret_that_is_replaced_while_it_is_looked_up_opens_nothing(desk):
    _, patient = desk.call()
    link = Link(desk.room, origin=patient.seat.seat.origin)
    late = desk.socket()
    late.session.receive(msgspec.json.encode(Hello(version=1, tenant="clinique", instance="p", resume="r")), desk.now)
    claims = Claims(TENANT, link.room, link.origin, link.role, link.name, link.single_use, patient.seat.seat)
    phone = desk.hello(link, instance="phone", take_over=True)
    seat = phone.id
    phone.drop()
    event = late.session.next_event()
    with pytest.raises(RefusalError, match="link_unknown"):
        late.session.welcome(claims, event.hello, desk.now, WALL)
    assert desk.hello(link, resume=phone.resume).id == seat


def test_seats_survive_a_restart(desk):
    _clinician, patient = desk.call()
    link = Link(desk.room, origin=patient.seat.seat.origin)
    later = desk.restart()
    back = later.hello(link, resume=patient.resume)
    assert (back.last(Welcome).id, back.last(Welcome).state) == (patient.id, "admitted")
    assert back.say(Join())[0].state == "joined"
    stranger = later.hello(link, instance="other")
    assert stranger.hear() == [Occupied()]


def test_a_room_leaves_memory_when_nobody_needs_it(desk):
    clinician, patient = desk.call()
    for client in (clinician, patient):
        client.drop()
    desk.pass_time(59)
    assert desk.registry.rooms
    desk.pass_time(140)
    assert not desk.registry.rooms
    assert not desk.registry.by_resume
    assert not desk.registry._timers


def test_a_room_in_use_stays_in_memory(desk):
    desk.call()
    desk.pass_time(200)
    assert desk.registry.rooms
    assert len(desk.registry._timers) <= 2


def test_the_end_by_the_host(desk):
    _, patient = desk.call()
    desk.registry.end_room(desk.room.id, "host", "host", desk.now)
    desk.settle()
    assert patient.hear() == [RoomEnded(by="host")]


def test_a_dropped_link_closes_its_seats(desk):
    clinician, patient = desk.call()
    link = Link(desk.room, origin=patient.seat.seat.origin)
    desk.registry.drop_link(link.origin, "link_revoked", desk.now)
    desk.settle()
    assert codes(patient.hear()) == ["link_revoked"]
    assert clinician.last(PeerLeft).why == "removed"
    assert codes(desk.hello(link, resume=patient.resume).hear()) == ["link_revoked"]


def test_counts(desk):
    desk.call()
    desk.waiting(name="Bob")
    assert desk.live().counts() == {"joined": 2, "waiting": 1}
    assert desk.registry.counts() == {"arrived": 0, "waiting": 1, "admitted": 0, "joined": 2, "left": 0}
