"""ICE-lite against checks built with aioice's codec; time is a number."""

import hmac
import struct
import zlib

import pytest
from aioice import stun

from server.media.ice import (
    GONE_AFTER_S,
    MAX_ADDRESSES,
    SILENT_AFTER_S,
    AddressExpired,
    AddressValidated,
    IceDrop,
    IceLiteAgent,
    IceTimedOut,
    Nominated,
    local_ufrag,
    new_credentials,
)
from server.media.parameters import Endpoint, IceParameters
from tests.transportpeers import HOME, LOCAL, MOBILE, REMOTE, STRANGER, check, drain, request


@pytest.fixture
def agent():
    return IceLiteAgent(LOCAL, REMOTE, now=0.0)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def sized(message: bytes) -> bytes:
    return message[:2] + struct.pack("!H", len(message) - 20) + message[4:]


def sign(message: bytes, key: str = LOCAL.pwd) -> bytes:
    """MESSAGE-INTEGRITY over what is there, in a second implementation of it."""
    covered = message[:2] + struct.pack("!H", len(message) - 20 + 24) + message[4:]
    return sized(message + attribute(0x0008, hmac.new(key.encode(), covered, "sha1").digest()))


def fingerprint(message: bytes) -> bytes:
    covered = message[:2] + struct.pack("!H", len(message) - 20 + 8) + message[4:]
    return sized(message + attribute(0x8028, struct.pack("!I", zlib.crc32(covered) ^ 0x5354554E)))


def answer(agent: IceLiteAgent) -> stun.Message:
    [(data, _)] = agent.datagrams_to_send(0.0)
    return stun.parse_message(data)


@pytest.mark.parametrize("source", [HOME, Endpoint("2001:db8::1", 1), Endpoint("192.0.2.1", 9, "tcp")])
def test_a_check_is_answered_with_the_address_it_came_from(agent, source):
    data = check()
    agent.receive_datagram(data, source, 1.0)
    [(response, to)] = agent.datagrams_to_send(1.0)
    message = stun.parse_message(response)
    assert to == source
    assert message.message_class == stun.Class.RESPONSE
    assert message.transaction_id == data[8:20]
    assert message.attributes["XOR-MAPPED-ADDRESS"] == (source.ip, source.port)
    assert message.check_message_integrity(LOCAL.pwd.encode())
    assert "FINGERPRINT" in message.attributes
    assert drain(agent) == [AddressValidated(source)]
    assert agent.is_validated(source)
    assert agent.nominated is None


def test_use_candidate_nominates_once(agent):
    for at in (1.0, 3.5):
        agent.receive_datagram(check(nominate=True), HOME, at)
    assert drain(agent) == [AddressValidated(HOME), Nominated(HOME)]
    assert agent.nominated == HOME


def test_no_integrity_is_refused(agent):
    """The codec reads such a message without complaint."""
    message = request(nominate=True)
    message.add_fingerprint()
    agent.receive_datagram(bytes(message), HOME, 1.0)
    assert agent.drops == {IceDrop.NO_INTEGRITY: 1}
    assert answer(agent).error_code == 400
    assert not drain(agent)
    assert not agent.is_validated(HOME)


def test_attributes_after_integrity_are_ignored(agent):
    """Neither USE-CANDIDATE nor ICE-CONTROLLED counts there, and neither does a value that does not even parse."""
    unsigned = attribute(0x0025, b"") + attribute(0x8029, bytes(8)) + attribute(0x0020, b"?")
    signed = sign(bytes(request()))
    agent.receive_datagram(fingerprint(sized(signed + unsigned)), HOME, 1.0)
    assert drain(agent) == [AddressValidated(HOME)]
    assert not agent.drops


def test_a_user_name_after_integrity_is_none(agent):
    unnamed = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"PRIORITY": 1})
    signed = sign(bytes(unnamed))
    agent.receive_datagram(fingerprint(sized(signed + attribute(0x0006, b"ours:theirs"))), HOME, 1.0)
    assert agent.drops == {IceDrop.UNKNOWN_USER: 1}


@pytest.mark.parametrize(
    ("spoil", "drop", "code"),
    [
        (lambda: check(key="x" * 24), IceDrop.BAD_INTEGRITY, 401),
        (lambda: check(IceParameters("other", LOCAL.pwd)), IceDrop.UNKNOWN_USER, None),
        (lambda: check(remote=IceParameters("other", "")), IceDrop.UNKNOWN_USER, None),
        (lambda: sign(bytes(request())), IceDrop.BAD_FINGERPRINT, None),
        (lambda: check()[:-1] + bytes([check()[-1] ^ 1]), IceDrop.BAD_FINGERPRINT, None),
        (lambda: fingerprint(sign(bytes(request())))[:-2] + b"??", IceDrop.BAD_FINGERPRINT, None),
        (lambda: check(role="ICE-CONTROLLED"), IceDrop.ROLE_CONFLICT, 487),
        (lambda: b"", IceDrop.MALFORMED, None),
        (lambda: check()[:-4], IceDrop.MALFORMED, None),
        (lambda: check() + bytes(4), IceDrop.MALFORMED, None),
        (lambda: sized(check()[:-3]), IceDrop.MALFORMED, None),
        (lambda: sized(check() + bytes(2)), IceDrop.MALFORMED, None),
        (lambda: sized(bytes(request()) + attribute(0x8022, bytes(1480))), IceDrop.MALFORMED, None),
        (lambda: sized(bytes(request()) + 40 * attribute(0x8022, b"")), IceDrop.MALFORMED, None),
        (lambda: fingerprint(sign(sized(bytes(request()) + attribute(0x0024, b"")))), IceDrop.MALFORMED, None),
        (lambda: b"\x00\x11" + check()[2:], IceDrop.NOT_A_REQUEST, None),
        (lambda: b"\x01\x01" + check()[2:], IceDrop.NOT_A_REQUEST, None),
        (lambda: b"\x00\x03" + check()[2:], IceDrop.NOT_A_REQUEST, None),
    ],
)
def test_what_is_no_check_of_our_peer_is_dropped(agent, spoil, drop, code):
    agent.receive_datagram(spoil(), HOME, 1.0)
    assert agent.drops == {drop: 1}
    assert not drain(agent)
    answers = agent.datagrams_to_send(1.0)
    assert [stun.parse_message(data).error_code for data, _ in answers] == ([code] if code else [])


def test_what_must_be_understood_and_is_not_is_named(agent):
    message = sized(bytes(request()) + attribute(0x7ABC, b"new") + attribute(0xFABC, b"optional"))
    agent.receive_datagram(fingerprint(sign(message)), HOME, 1.0)
    [(data, _)] = agent.datagrams_to_send(1.0)
    assert stun.parse_message(data).error_code == 420
    assert attribute(0x000A, b"\x7a\xbc") in data
    assert agent.drops == {IceDrop.UNKNOWN_ATTRIBUTE: 1}


def test_no_answer_is_larger_than_three_requests(agent):
    bare = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes={"USERNAME": "ours:theirs"})
    requests = [check(), check(key="x"), check(role="ICE-CONTROLLED"), fingerprint(bytes(bare))]
    requests.append(fingerprint(sign(bytes(bare))))
    requests.append(fingerprint(sign(sized(bytes(bare) + b"".join(attribute(0x7A00 + i, b"") for i in range(25))))))
    for data in requests:
        agent.receive_datagram(data, Endpoint("2001:db8::1", 1), 1.0)
        [(response, _)] = agent.datagrams_to_send(1.0)
        assert len(response) <= 3 * len(data)


def test_a_captured_check_draws_nothing_elsewhere(agent):
    captured = check(nominate=True)
    agent.receive_datagram(captured, HOME, 1.0)
    agent.receive_datagram(captured, STRANGER, 1.1)
    assert agent.drops == {IceDrop.REPLAYED: 1}
    assert agent.nominated == HOME
    assert not agent.is_validated(STRANGER)
    agent.receive_datagram(captured, HOME, 1.5)  # its own repetition is answered
    assert len(agent.datagrams_to_send(1.5)) == 2


def test_silence_stops_sending_at_15_s_and_ends_it_at_30(agent):
    agent.receive_datagram(check(nominate=True), HOME, 1.0)
    drain(agent)
    assert agent.get_timer() == 1.0 + SILENT_AFTER_S
    agent.handle_timer(15.9)
    assert not drain(agent)
    agent.handle_timer(16.0)
    assert drain(agent) == [Nominated(None)]
    assert agent.nominated is None
    assert agent.is_validated(HOME)
    assert agent.get_timer() == 1.0 + GONE_AFTER_S
    agent.handle_timer(31.0)
    assert drain(agent) == [AddressExpired(HOME), IceTimedOut()]
    assert agent.get_timer() is None
    agent.datagrams_to_send(31.0)
    agent.receive_datagram(check(nominate=True), HOME, 31.5)
    assert not drain(agent)
    assert not agent.datagrams_to_send(31.5)


def test_a_check_after_silence_resumes(agent):
    agent.receive_datagram(check(nominate=True), HOME, 1.0)
    agent.handle_timer(16.0)
    drain(agent)
    agent.receive_datagram(check(), HOME, 20.0)
    assert drain(agent) == [Nominated(HOME)]


def test_nobody_comes(agent):
    assert agent.get_timer() == GONE_AFTER_S
    agent.receive_datagram(check(key="x"), STRANGER, 29.0)  # a stranger keeps nothing alive
    agent.handle_timer(GONE_AFTER_S)
    assert drain(agent) == [IceTimedOut()]


def test_checks_keep_it_alive(agent):
    for tick in range(40):
        agent.receive_datagram(check(nominate=True), HOME, 2.5 * tick)
        agent.handle_timer(2.5 * tick)
    assert drain(agent) == [AddressValidated(HOME), Nominated(HOME)]


def test_migration_follows_the_last_nomination(agent):
    """As libwebrtc changes networks: the new pair is checked first, then nominated, its priority lower."""
    agent.receive_datagram(check(nominate=True, priority=100), HOME, 1.0)
    agent.receive_datagram(check(priority=50), MOBILE, 2.0)
    assert agent.nominated == HOME
    agent.receive_datagram(check(nominate=True, priority=50), MOBILE, 2.1)
    assert agent.nominated == MOBILE
    agent.receive_datagram(check(priority=100), HOME, 2.2)
    assert agent.nominated == MOBILE
    assert agent.is_validated(HOME)  # media from there is still welcome


def test_an_agent_that_nominates_everything_gets_its_best_pair(agent):
    """RFC 5245's aggressive nomination: whatever the order, the higher priority wins."""
    for _ in range(3):
        agent.receive_datagram(check(nominate=True, priority=100), HOME, 1.0)
        agent.receive_datagram(check(nominate=True, priority=50), MOBILE, 1.1)
        assert agent.nominated == HOME
    agent.receive_datagram(check(nominate=True, priority=200), STRANGER, 1.2)
    assert agent.nominated == STRANGER


def test_a_new_nat_address_takes_over(agent):
    """The first check from it nominates: same priority, or a lower one once the old address is quiet."""
    agent.receive_datagram(check(nominate=True, priority=100), HOME, 1.0)
    agent.receive_datagram(check(nominate=True, priority=100), MOBILE, 2.0)
    assert agent.nominated == MOBILE
    agent.receive_datagram(check(nominate=True, priority=10), STRANGER, 6.9)
    assert agent.nominated == MOBILE
    agent.receive_datagram(check(nominate=True, priority=10), STRANGER, 7.1)
    assert agent.nominated == STRANGER


def test_an_address_without_checks_expires(agent):
    agent.receive_datagram(check(), MOBILE, 0.0)
    for tick in range(13):
        agent.receive_datagram(check(nominate=True), HOME, 2.5 * tick)
    drain(agent)
    agent.handle_timer(29.9)
    assert agent.is_validated(MOBILE)
    agent.handle_timer(30.0)
    assert drain(agent) == [AddressExpired(MOBILE)]
    assert not agent.is_validated(MOBILE)


def test_a_closed_connection_is_forgotten_at_once(agent):
    tcp = Endpoint("192.0.2.1", 9, "tcp")
    agent.receive_datagram(check(nominate=True), tcp, 1.0)
    drain(agent)
    agent.forget(tcp)
    assert drain(agent) == [Nominated(None), AddressExpired(tcp)]
    agent.receive_datagram(check(nominate=True), HOME, 2.0)
    assert agent.nominated == HOME


def test_addresses_are_bounded_and_the_nominated_one_stays(agent):
    agent.receive_datagram(check(nominate=True, priority=9), HOME, 1.0)
    for port in range(1, 40):
        agent.receive_datagram(check(), Endpoint("192.0.2.9", port), 2.0)
    validated = [port for port in range(1, 40) if agent.is_validated(Endpoint("192.0.2.9", port))]
    assert validated == list(range(40 - MAX_ADDRESSES + 1, 40))
    assert agent.nominated == HOME
    expired = drain(agent, AddressExpired)
    assert len(expired) == 39 - (MAX_ADDRESSES - 1)


def test_restart_serves_both_until_the_new_one_nominates(agent):
    agent.receive_datagram(check(nominate=True), HOME, 1.0)
    local, remote = IceParameters("ours2", "p" * 24), IceParameters("theirs2", "q" * 24)
    agent.restart(local, remote)
    assert agent.ufrags == ("ours", "ours2")
    drain(agent)
    agent.datagrams_to_send(1.0)

    agent.receive_datagram(check(nominate=True), HOME, 2.0)
    agent.receive_datagram(check(local, remote), MOBILE, 2.1)
    answers = [stun.parse_message(data) for data, _ in agent.datagrams_to_send(2.1)]
    assert [a.check_message_integrity(k) for a, k in zip(answers, (b"o" * 24, b"p" * 24), strict=True)] == [True, True]
    assert agent.nominated == HOME

    agent.receive_datagram(check(local, remote, nominate=True), MOBILE, 2.2)
    assert agent.nominated == MOBILE
    assert agent.ufrags == ("ours2",)
    agent.receive_datagram(check(nominate=True), HOME, 2.3)
    assert agent.drops == {IceDrop.UNKNOWN_USER: 1}
    assert drain(agent) == [AddressValidated(MOBILE), Nominated(MOBILE)]


def test_restart_on_the_same_address_ends_the_old_credentials(agent):
    """Nothing changes but the credentials: no event, and no second generation left."""
    agent.receive_datagram(check(nominate=True), HOME, 1.0)
    drain(agent)
    agent.restart(IceParameters("ours2", "p" * 24), REMOTE)
    agent.receive_datagram(check(IceParameters("ours2", "p" * 24), nominate=True), HOME, 2.0)
    assert agent.ufrags == ("ours2",)
    assert not drain(agent)


def test_two_restarts_leave_two_generations(agent):
    for number in (2, 3):
        agent.restart(IceParameters(f"ours{number}", "p" * 24), None)
    assert agent.ufrags == ("ours2", "ours3")


def test_a_stranger_leaves_nothing_behind(agent):
    """Ten thousand datagrams of every wrong kind: answers are bounded, nothing else is kept."""
    kinds = [check(key="x"), check(IceParameters("other", "x")), b"\x00\x01" + bytes(30), check()[:40]]
    for number in range(10_000):
        agent.receive_datagram(kinds[number % 4], Endpoint("203.0.113.1", number), 1.0)
    assert len(agent.datagrams_to_send(1.0)) == 64
    assert not agent._addresses
    assert not agent._transactions
    assert agent.next_event() is None
    assert agent.drops.total() == 10_000


def test_transactions_are_bounded(agent):
    for _ in range(1000):
        agent.receive_datagram(check(), HOME, 1.0)
    assert len(agent._transactions) == 256


@pytest.mark.parametrize(
    ("data", "ufrag"),
    [
        (check(), "ours"),
        (check(key="forged"), "ours"),
        (bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)), None),
        (b"", None),
        (check()[:30], None),
    ],
    ids=["genuine", "forged", "unnamed", "empty", "cut"],
)
def test_whose_check_it_is(data, ufrag):
    assert local_ufrag(data) == ufrag


def test_credentials_are_long_enough_and_never_the_same():
    made = {new_credentials() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each.ufrag) >= 4 and len(each.pwd) >= 22 and each.pwd not in repr(each) for each in made)
