"""People who are in a conversation with a device: what the others are told, and how it ends. WHIP without HTTP."""

import pytest

from server.errors import RefusalError
from server.media.events import TransportFailed, TransportFailure
from server.signalling.auth import Claims
from server.signalling.messages import Admit, Join, Leave, Move, PeerJoined, PeerLeft, Ready, Remove, SendBack
from tests.offers import offer, section
from tests.pair import TENANT, WALL, Desk, Link
from tests.server.test_relaying import FakeSfu

CAMERA = offer(section("video", "sendonly"))


class Clinic(Desk):
    """A desk whose rooms have a media server."""

    def __init__(self):
        self.media = FakeSfu()
        super().__init__(media=self)

    def sfu(self, room):
        return self.media

    def device(self, link):
        """What `whip.py` does with a POST; returns the transport and the seat."""
        seats = [seat for seat in self.stored.values() if seat.room == link.room.id]
        self.registry.open(link.room, seats, self.now)
        claims = Claims(TENANT, link.room, link.origin, link.role, link.name, link.single_use, None)
        room, person = self.registry.enter_device(claims, self.now, WALL)
        room.join_device(person, self.now)
        answer = room.paths.relay.publish_device(person.id, person.role, CAMERA, self.now)
        room.paths.flush(self.now)
        self.settle()
        return answer.transport, person

    def live(self):
        return self.registry.rooms[self.room.id]

    def end(self, transport):
        self.live().paths.relay.close_device(transport, self.now)
        self.live().paths.flush(self.now)
        self.settle()


@pytest.fixture
def clinic():
    return Clinic()


@pytest.fixture
def clinician(clinic):
    clinician = clinic.clinician()
    clinician.say(Join())
    clinician.hear()
    return clinician


def test_a_device_alone_is_its_links_participant_until_its_end(clinic, clinician):
    transport, person = clinic.device(Link(clinic.room, "clinician", "Dermatoscope"))
    heard = clinician.hear()
    [joined] = [message for message in heard if isinstance(message, PeerJoined)]
    assert (joined.peer.id, joined.peer.name, joined.peer.connection) == (person.id, "Dermatoscope", "online")
    assert not joined.peer.direct
    assert [message.to for message in heard if isinstance(message, Move)] == ["relayed"]
    clinic.end(transport)
    assert PeerLeft(id=person.id, why="left") in clinician.hear()
    assert person.state == "left" and not clinic.media.transports


def test_it_stays_without_a_socket(clinic, clinician):
    _, person = clinic.device(Link(clinic.room, "clinician"))
    clinic.pass_time(200)
    assert person.state == "joined"


def test_one_that_dies_leaves(clinic, clinician):
    transport, person = clinic.device(Link(clinic.room, "clinician"))
    event = TransportFailed(transport, TransportFailure.TIMEOUT)
    clinic.live().paths.receive_media_event(event, clinic.now)
    clinic.settle()
    assert PeerLeft(id=person.id, why="left") in clinician.hear()


def test_the_devices_of_one_link_are_one_participant(clinic, clinician):
    link = Link(clinic.room, "clinician", single_use=False)
    (one, person), (two, other) = clinic.device(link), clinic.device(link)
    assert person is other and one != two
    clinic.end(one)
    assert person.state == "joined"
    clinic.end(two)
    assert person.state == "left"


@pytest.mark.parametrize("out", [None, Remove, SendBack])
def test_a_device_of_a_reusable_link_is_nobody_elses(clinic, clinician, out):
    """Somebody who waits, or was put out, holds the same secret as somebody who is in the conversation."""
    link = Link(clinic.room, "patient", single_use=False)
    shown, other = clinic.hello(link), clinic.hello(link, instance="other")
    for page in (shown, other):
        page.say(Ready())
    clinician.say(Admit(participant=shown.id))
    shown.say(Join())
    if out is not None:
        clinician.say(out(participant=other.id))
    with pytest.raises(RefusalError, match="not_admitted"):
        clinic.device(link)
    assert not clinic.media.transports


def test_beside_the_page_nobody_comes_or_goes(clinic):
    clinician, patient = clinic.call()
    link = clinic.link
    assert link.origin == patient.seat.seat.origin
    transport, person = clinic.device(link)
    assert person is patient.seat
    clinic.end(transport)
    heard = clinician.hear()
    assert not [message for message in heard if isinstance(message, (PeerJoined, PeerLeft))]
    assert person.state == "joined"


@pytest.mark.parametrize("how", [Remove, SendBack])
def test_who_is_put_out_is_out_with_their_devices(clinic, how):
    clinician, patient = clinic.call()
    clinic.device(clinic.link)
    clinician.say(how(participant=patient.id))
    assert not clinic.media.transports
    with pytest.raises(RefusalError):
        clinic.device(clinic.link)


@pytest.mark.parametrize(("how", "why", "state"), [(Remove, "removed", "left"), (SendBack, "sentBack", "waiting")])
def test_who_is_here_by_a_device_alone_leaves_once(clinic, how, why, state):
    clinician, patient = clinic.call()
    link, seat = clinic.link, patient.seat
    patient.say(Leave())
    patient.drop()
    clinic.device(link)
    clinician.hear()
    before = len(clinic.facts("participant.left"))
    clinician.say(how(participant=seat.id))
    assert not clinic.media.transports
    assert clinic.facts("participant.left")[before:] == [("participant.left", seat.id, "", why)]
    assert [message for message in clinician.all if isinstance(message, PeerLeft)][1:] == [
        PeerLeft(id=seat.id, why=why)
    ]
    assert seat.state == state
    clinic.pass_time(61)
    assert seat.state == "left"


def test_a_page_that_takes_over_from_the_device_leaves_once(clinic, clinician):
    link = Link(clinic.room, "clinician")
    _, person = clinic.device(link)
    clinic.hello(link)
    assert [fact for fact in clinic.facts("participant.left") if fact[1] == person.id] == [
        ("participant.left", person.id, "", "left")
    ]
    assert clinician.all.count(PeerLeft(id=person.id, why="left")) == 1


def test_who_hangs_up_ends_their_devices(clinic):
    _, patient = clinic.call()
    clinic.device(clinic.link)
    patient.say(Leave())
    assert not clinic.media.transports


def test_a_revoked_link_ends_its_devices(clinic, clinician):
    link = Link(clinic.room, "clinician")
    _, person = clinic.device(link)
    clinic.registry.drop_link(link.origin, "link_revoked", clinic.now)
    clinic.settle()
    assert not clinic.media.transports and person.seat.closed
    with pytest.raises(RefusalError, match="link_revoked"):
        clinic.device(link)


def test_the_end_of_the_room_ends_them(clinic, clinician):
    link = Link(clinic.room, "clinician")
    clinic.device(link)
    clinic.registry.end_room(clinic.room.id, "host", "host", clinic.now)
    clinic.settle()
    assert not clinic.media.transports


def test_a_page_takes_over_from_the_device(clinic, clinician):
    link = Link(clinic.room, "clinician")
    _, person = clinic.device(link)
    clinician.hear()
    page = clinic.hello(link)
    assert page.seat is person and person.state == "admitted"
    assert not clinic.media.transports
    assert PeerLeft(id=person.id, why="left") in clinician.hear()
    page.say(Join())
    assert person.state == "joined" and not person.by_device
    clinic.device(link)
    page.drop()
    clinic.pass_time(61)
    assert person.state == "left" and not clinic.media.transports


def test_not_before_the_page_has_joined(clinic, clinician):
    page = clinic.clinician()
    with pytest.raises(RefusalError, match="not_joined"):
        clinic.device(clinic.link)
    assert page.seat.state == "admitted"


def test_only_who_was_admitted(clinic, clinician):
    link = Link(clinic.room, "patient")
    with pytest.raises(RefusalError, match="not_admitted"):
        clinic.device(link)
    waiting = clinic.hello(link)
    waiting.say(Ready())
    with pytest.raises(RefusalError, match="not_admitted"):
        clinic.device(link)
    assert not clinic.media.transports
