"""Who receives whom in the scenarios of the relay benchmark."""

from benchmarks.scenario import SCENARIOS


def test_in_a_consultation_each_receives_the_other():
    rooms = list(SCENARIOS["consultations"].seats(3))
    assert [len(room) for room in rooms] == [2, 2, 2]
    assert [seat.number for room in rooms for seat in room] == list(range(6))
    for ada, ben in rooms:
        assert ada.publishes and ben.publishes
        assert [other.number for other in ada.receives] == [ben.number]
        assert [other.number for other in ben.receives] == [ada.number]


def test_in_a_fan_out_all_receive_the_one():
    (room,) = SCENARIOS["fanout30"].seats(1)
    publisher, *receivers = room
    assert publisher.publishes and not publisher.receives
    assert len(receivers) == 30
    assert {tuple(other.number for other in seat.receives) for seat in receivers} == {(0,)}
    assert not any(seat.publishes for seat in receivers)


def test_streams_are_counted_once_each():
    for scenario in SCENARIOS.values():
        (room,) = scenario.seats(1)
        assert scenario.streams_per_room == 2 * sum(len(seat.receives) for seat in room)


def test_nobody_shares_a_stream_number():
    seats = [seat for room in SCENARIOS["consultations"].seats(50) for seat in room]
    numbers = [seat.ssrc(kind) for seat in seats for kind in ("audio", "video")]
    assert len(set(numbers)) == len(numbers)
