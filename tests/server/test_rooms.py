"""Rooms: seats, the waiting room, roles, what each is told and what is written down."""

import pytest

from server.records import SeatRecord
from server.signalling.messages import (
    Admit,
    Candidate,
    Describe,
    Distrust,
    EndRoom,
    IceCandidate,
    IceServers,
    Join,
    Leave,
    PeerCandidate,
    PeerChanged,
    PeerDescribed,
    PeerDistrusts,
    PeerJoined,
    PeerLeft,
    Ping,
    Ready,
    RefreshIceServers,
    Refuse,
    Refused,
    Remove,
    RoomEnded,
    SendBack,
    SessionDescription,
    SetMedia,
    StateChanged,
    Tell,
    Told,
    Transfer,
    Transferred,
    Visitors,
    Welcome,
)
from server.signalling.participants import MOVES
from tests.pair import Client, Desk, Link, codes
from tests.server.test_negotiation import OFFER


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -- the way in -------------------------------------------------------------------------------------------------------


def test_the_way_of_a_patient(desk):
    clinician = desk.clinician()
    welcome, state = clinician.hear()
    assert (welcome.state, welcome.role, state.state) == ("admitted", "clinician", "admitted")
    clinician.say(Join())

    patient = desk.patient()
    (welcome,) = patient.hear()
    assert (welcome.state, welcome.role, welcome.name, welcome.language) == ("arrived", "patient", "Ada", "fr")
    assert welcome.room == desk.room.id

    assert patient.say(Ready()) == [StateChanged(state="waiting", place=1, expected=True)]
    clinician.say(Admit(participant=patient.id))
    (admitted,) = patient.hear()
    assert admitted.state == "admitted"
    assert [server.username for server in admitted.ice_servers] == [patient.id]

    (joined,) = patient.say(Join(microphone="on", camera="missing"))
    assert joined.state == "joined"
    (peer,) = joined.peers
    assert (peer.id, peer.name, peer.role, peer.polite) == (clinician.id, "Dr Martin", "clinician", True)
    told = clinician.last(PeerJoined).peer
    assert (told.id, told.camera, told.microphone, told.polite) == (patient.id, "missing", "on", False)

    kinds = [kind for kind, *_ in desk.facts()]
    assert kinds == [
        "participant.arrived", "participant.joined",
        "participant.arrived", "participant.waiting", "participant.admitted", "participant.joined",
    ]  # fmt: skip
    assert desk.facts("participant.admitted") == [("participant.admitted", clinician.id, patient.id, "")]


def test_before_admission_there_are_no_names_no_peers_and_no_ice_servers(desk):
    clinician = desk.clinician()
    clinician.say(Join())
    patient = desk.waiting()
    clinician.say(Tell(participant=patient.id, text="Dans dix minutes"))
    desk.pass_time(3)
    said = [message for message in patient.all if not isinstance(message, Welcome)]
    assert {type(message) for message in said} == {StateChanged, Told, Ping}
    for message in said:
        assert not isinstance(message, (PeerJoined, PeerChanged, Visitors, IceServers))
        if isinstance(message, StateChanged):
            assert message.peers is None
            assert message.ice_servers is None
    assert "Dr Martin" not in str([getattr(message, "name", "") for message in patient.all])
    assert codes(patient.say(RefreshIceServers())) == ["bad_order"]


def test_who_is_admitted_while_choosing_devices_need_not_wait(desk):
    clinician, patient = desk.clinician(), desk.patient()
    clinician.say(Admit(participant=patient.id))
    desk.announce()
    assert clinician.last(Visitors).visitors[0].state == "admitted"
    assert patient.session.phase == "arrived"  # nobody's camera goes on before they have seen it
    (state,) = patient.say(Ready())
    assert state.state == "admitted"


def test_places_and_expectation_are_told_as_they_change(desk):
    first, second = desk.waiting(), desk.waiting(name="Bob")
    assert second.last(StateChanged) == StateChanged(state="waiting", place=2, expected=False)
    clinician = desk.clinician()
    desk.announce()
    assert second.hear()[-1] == StateChanged(state="waiting", place=2, expected=True)
    clinician.say(Refuse(participant=first.id))
    desk.announce()
    assert second.hear() == [StateChanged(state="waiting", place=1, expected=True)]
    clinician.drop()
    desk.announce()
    assert second.hear() == [StateChanged(state="waiting", place=1, expected=False)]
    desk.announce()
    assert second.hear() == []


def test_clinicians_see_who_is_outside_once_for_many_changes(desk):
    clinician = desk.clinician()
    desk.announce()
    clinician.hear()
    visitors = [desk.patient(name=f"P{number}") for number in range(5)]
    for visitor in visitors:
        visitor.say(Ready())
    desk.now += 2
    desk.announce()
    (told,) = clinician.hear()
    assert [visitor.name for visitor in told.visitors] == ["P0", "P1", "P2", "P3", "P4"]
    assert {visitor.since_ms for visitor in told.visitors} == {2000}
    visitors[0].drop()
    desk.announce()
    assert clinician.last(Visitors).visitors[0].connection == "reconnecting"


# -- the conversation -------------------------------------------------------------------------------------------------


def test_signals_reach_the_peer_unchanged_with_the_senders_instance(desk):
    clinician, patient = desk.call()
    description = SessionDescription(type="offer", sdp=OFFER)
    assert clinician.say(Describe(to=patient.id, description=description)) == []
    assert patient.hear() == [PeerDescribed(sender=clinician.id, instance="page", description=description)]
    candidate = IceCandidate(candidate="", sdp_mid="0")
    patient.say(Candidate(to=clinician.id, candidate=candidate))
    assert clinician.hear() == [PeerCandidate(sender=patient.id, instance="page", candidate=candidate)]
    patient.say(Distrust(to=clinician.id))
    assert clinician.hear() == [PeerDistrusts(sender=patient.id, instance="page")]


def test_signals_go_to_nobody_but_a_peer_in_the_same_conversation(desk):
    _clinician, patient = desk.call()
    waiting = desk.waiting(name="Bob")
    elsewhere = Desk()
    elsewhere.registry, elsewhere.touched = desk.registry, desk.touched
    elsewhere.clients = desk.clients
    elsewhere.room = desk.new_room()
    stranger = elsewhere.clinician()
    stranger.say(Join())
    for target in (waiting.id, stranger.id, patient.id, "nobody"):
        assert codes(patient.say(Distrust(to=target))) == ["unknown_participant"]
        said = Candidate(to=target, candidate=IceCandidate(candidate=""))
        assert codes(patient.say(said)) == ["unknown_participant"]
    assert not [m for m in (*waiting.all, *stranger.all) if isinstance(m, PeerCandidate)]


def test_bad_descriptions_are_refused_and_not_relayed(desk):
    clinician, patient = desk.call()
    bad = SessionDescription(type="offer", sdp=OFFER.replace("a=rtcp-mux\r\n", ""))
    assert codes(patient.say(Describe(to=clinician.id, description=bad))) == ["bad_sdp"]
    worse = IceCandidate(candidate="candidate:1 1 udp")
    assert codes(patient.say(Candidate(to=clinician.id, candidate=worse))) == ["bad_sdp"]
    assert clinician.hear() == []


def test_an_observer_may_listen_but_not_send(desk):
    clinician = desk.clinician()
    clinician.say(Join())
    observer = desk.joined(clinician, role="observer")
    sending = SessionDescription(type="offer", sdp=OFFER)
    assert codes(observer.say(Describe(to=clinician.id, description=sending))) == ["not_permitted"]
    listening = SessionDescription(type="offer", sdp=OFFER.replace("a=sendrecv", "a=recvonly"))
    assert observer.say(Describe(to=clinician.id, description=listening)) == []


def test_each_pair_has_one_polite_side(desk):
    clinician, _ = desk.call()
    desk.joined(clinician, role="guest")
    desk.joined(clinician, role="observer")
    people = list(desk.live().joined())
    for one in people:
        for other in people:
            if one is not other:
                polite = desk.live()._peer_view(other, one).polite
                assert polite != desk.live()._peer_view(one, other).polite
                assert polite or one.role != "observer"
    assert not any(desk.live()._peer_view(other, people[0]).polite for other in people[1:])


def test_a_full_conversation_takes_nobody_else(desk):
    clinician = desk.clinician()
    clinician.say(Join())
    for number in range(3):
        desk.joined(clinician, name=f"P{number}")
    fifth = desk.waiting()
    clinician.say(Admit(participant=fifth.id))
    assert codes(fifth.say(Join())) == ["room_full"]
    assert fifth.session.phase == "admitted"


def test_media_changes_are_told_once(desk):
    clinician, patient = desk.call()
    patient.say(SetMedia(microphone="on", camera="off"))
    (changed,) = clinician.hear()
    assert (changed.peer.camera, changed.peer.microphone) == ("off", "on")
    patient.say(SetMedia(microphone="on", camera="off"))
    assert clinician.hear() == []


def test_join_said_again_repeats_the_answer(desk):
    clinician, patient = desk.call()
    (again,) = patient.say(Join())
    assert [peer.id for peer in again.peers] == [clinician.id]
    assert clinician.hear() == []


def test_leave_and_come_back(desk):
    clinician, patient = desk.call()
    assert patient.say(Leave()) == [StateChanged(state="left")]
    assert clinician.hear()[0] == PeerLeft(id=patient.id, why="left")
    (joined,) = patient.say(Join())
    assert joined.state == "joined"
    assert isinstance(clinician.hear()[0], PeerJoined)


def test_who_left_without_admission_comes_back_to_wait(desk):
    patient = desk.waiting()
    patient.say(Leave())
    assert patient.say(Join()) == [StateChanged(state="waiting", place=1)]


# -- seats and sockets ------------------------------------------------------------------------------------------------


def test_the_others_see_reconnecting_then_the_same_participant(desk):
    clinician, patient = desk.call()
    link = Link(desk.room, origin=patient.seat.seat.origin)
    seat = patient.id
    patient.drop()
    (changed,) = [m for m in clinician.hear() if isinstance(m, PeerChanged)]
    assert (changed.peer.id, changed.peer.connection) == (seat, "reconnecting")
    desk.pass_time(30)
    back = desk.hello(link, resume=patient.resume, instance="reloaded")
    welcome, state = back.hear()
    assert (welcome.id, welcome.state, welcome.resume) == (seat, "joined", patient.resume)
    assert [peer.id for peer in state.peers] == [clinician.id]
    assert state.ice_servers
    changed = clinician.last(PeerChanged).peer
    assert (changed.connection, changed.instance) == ("online", "reloaded")
    assert [kind for kind, *_ in desk.facts()][-2:] == ["participant.reconnecting", "participant.resumed"]


@pytest.mark.parametrize(("instance", "code"), [("page", "dead"), ("another tab", "taken_over")])
def test_the_newest_socket_wins(desk, instance, code):
    clinician, patient = desk.call()
    again = desk.hello(Link(desk.room, origin=patient.seat.seat.origin), resume=patient.resume, instance=instance)
    assert again.last(Welcome).state == "joined"
    refused = patient.hear()[-1]
    assert (refused.code, refused.retry) == (code, instance == "page"), "late hellos of one page must not end its call"
    assert patient.closed == code
    patient.drop()  # the late end of the old socket does not touch the seat
    assert [m for m in clinician.hear() if isinstance(m, PeerChanged)][-1].peer.connection == "online"


def test_after_sixty_seconds_left_but_not_in_the_queue_again(desk):
    clinician, patient = desk.call()
    link, seat = Link(desk.room, origin=patient.seat.seat.origin), patient.id
    patient.drop()
    desk.pass_time(59.9)
    assert PeerLeft(id=seat, why="timeout") not in clinician.hear()
    desk.pass_time(0.2)
    assert PeerLeft(id=seat, why="timeout") in clinician.hear()
    assert clinician.last(Visitors).visitors[0].state == "left"
    desk.pass_time(3600)
    back = desk.hello(link, resume=patient.resume)
    assert (back.last(Welcome).id, back.last(Welcome).state) == (seat, "admitted")
    assert back.say(Join())[0].state == "joined"


def test_who_was_not_admitted_queues_again(desk):
    desk.clinician()
    patient, other = desk.waiting(), desk.waiting(name="Bob")
    link = Link(desk.room, origin=patient.seat.seat.origin)
    patient.drop()
    desk.pass_time(30)
    patient = desk.hello(link, resume=patient.resume)
    assert patient.last(StateChanged).place == 1  # within the minute nobody loses their place
    patient.drop()
    desk.pass_time(61)
    assert other.last(StateChanged).place == 1
    back = desk.hello(link, resume=patient.resume)
    assert back.last(Welcome).state == "arrived"
    assert back.say(Ready())[0].place == 2


# -- what clinicians do -----------------------------------------------------------------------------------------------


def test_refuse_with_a_reason(desk):
    clinician, patient = desk.clinician(), desk.waiting()
    link, seat = Link(desk.room, origin=patient.seat.seat.origin), patient.id
    clinician.say(Refuse(participant=seat, reason="Complet aujourd’hui"))
    (refused,) = [m for m in patient.hear() if isinstance(m, Refused)]
    assert (refused.code, refused.reason, refused.retry) == ("refused", "Complet aujourd’hui", False)
    assert refused.message == "fr:refused"
    assert desk.stored[seat].closed == "refused"
    assert codes(desk.hello(link, resume=patient.resume).hear()) == ["refused"]
    assert codes(desk.hello(link).hear()) == ["refused"]
    assert "Complet" not in str(desk.effects)


def test_send_back(desk):
    clinician, patient = desk.call()
    clinician.say(SendBack(participant=patient.id, reason="Un instant"))
    (state,) = patient.hear()
    assert (state.state, state.place, state.reason, state.ice_servers) == ("waiting", 1, "Un instant", None)
    assert clinician.last(PeerLeft).why == "sentBack"
    said = Candidate(to=clinician.id, candidate=IceCandidate(candidate=""))
    assert codes(patient.say(said)) == ["bad_order"]  # it crossed the order on the wire
    assert codes(patient.say(Join())) == ["bad_order"]
    clinician.say(Admit(participant=patient.id))
    assert patient.say(Join())[0].state == "joined"


@pytest.mark.parametrize("restart", [False, True])
def test_removed_for_good(desk, restart):
    clinician, patient = desk.call()
    link = Link(desk.room, origin=patient.seat.seat.origin)
    clinician.say(Remove(participant=patient.id, reason="Au revoir"))
    assert patient.hear() == [Refused(code="removed", message="fr:removed", reason="Au revoir")]
    assert clinician.last(PeerLeft).why == "removed"
    assert [kind for kind, *_ in desk.facts()][-2:] == ["participant.removed", "participant.left"]
    later = desk.restart() if restart else desk
    assert codes(later.hello(link, resume=patient.resume).hear()) == ["removed"]
    assert codes(later.hello(link, take_over=True).hear()) == ["removed"]


def test_transfer(desk):
    clinician, patient = desk.call()
    clinician.say(Transfer(participant=patient.id, room="other"))
    ((session, wanted),) = desk.transfers
    assert (session, wanted.participant, wanted.room) == (clinician.session, patient.id, "other")
    assert session.transfer(wanted.participant, "new-secret", desk.now)
    desk.settle()
    assert patient.hear() == [Transferred(secret="new-secret")]
    assert patient.closed == "transferred"
    assert clinician.last(PeerLeft).why == "transferred"
    assert not session.transfer(wanted.participant, "another", desk.now)  # gone already
    desk.settle()
    assert codes(clinician.hear()) == ["unknown_participant"]


def test_nobody_is_transferred_who_could_not_be_told(desk):
    clinician, patient = desk.call()
    seat = patient.id
    patient.drop()
    assert codes(clinician.say(Transfer(participant=seat, room="other"))) == ["unknown_participant"]


def test_tell_reaches_only_who_is_outside(desk):
    clinician, patient = desk.call()
    waiting = desk.waiting(name="Bob")
    waiting.hear()
    clinician.say(Tell(participant=waiting.id, text="10 minutes"))
    assert waiting.hear() == [Told(text="10 minutes")]
    assert codes(clinician.say(Tell(participant=patient.id, text="?"))) == ["unknown_participant"]


def test_end_for_all(desk):
    clinician, patient = desk.call()
    waiting = desk.waiting(name="Bob")
    link = Link(desk.room, origin=patient.seat.seat.origin)
    clinician.say(EndRoom(reason="Bonne journée"))
    for client in (clinician, patient, waiting):
        assert client.last(RoomEnded) == RoomEnded(by="clinician", reason="Bonne journée")
        assert client.closed == "room_ended"
    assert not desk.registry.rooms
    assert codes(desk.hello(link, resume=patient.resume).hear()) == ["room_ended"]
    assert list(desk.facts("room.ended")) == [("room.ended", clinician.id, "", "clinician")]
    assert {fact[1] for fact in desk.facts("participant.left")} == {clinician.all[0].id, patient.all[0].id}


ORDERS = (Admit, Refuse, SendBack, Remove)


@pytest.mark.parametrize("order", ORDERS)
def test_clinicians_are_not_commanded_and_ghosts_are_unknown(desk, order):
    clinician, _ = desk.call()
    colleague = desk.clinician(name="Dr Durand")
    assert codes(clinician.say(order(participant=colleague.id))) == ["not_permitted"]
    assert codes(clinician.say(order(participant="nobody"))) == ["unknown_participant"]
    assert not colleague.closed


def test_a_refusal_that_comes_too_late_ends_no_conversation(desk):
    clinician, patient = desk.call()
    assert codes(clinician.say(Refuse(participant=patient.id))) == ["not_permitted"]
    assert patient.session.phase == "joined"


# -- inside -----------------------------------------------------------------------------------------------------------


def test_every_state_can_be_reached_and_left():
    assert set(MOVES) == {state for targets in MOVES.values() for state in targets}
    for state, targets in MOVES.items():
        assert targets
        assert state not in targets


def test_every_durable_change_is_stored(desk):
    clinician, patient = desk.call()
    seat: SeatRecord = desk.stored[patient.id]
    assert seat == patient.seat.seat
    assert (seat.admitted, seat.closed, seat.role) == (True, "", "patient")
    clinician.say(SendBack(participant=patient.id))
    assert not desk.stored[patient.id].admitted


def test_participants_do_not_print_their_names(desk):
    patient: Client = desk.patient(name="Canari")
    assert "Canari" not in repr(patient.seat) + repr(patient.all) + repr(desk.link.room)
