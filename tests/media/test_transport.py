"""One transport between a peer in memory and a relay that records; time is a number."""

from struct import pack

import psutil
import pytest
from pylibsrtp import Policy, Session

from server.media.dtls import HANDSHAKE_TIMEOUT_S, Certificate
from server.media.events import (
    TransportConnected,
    TransportFailed,
    TransportFailure,
    TransportInterrupted,
    TransportResumed,
)
from server.media.fastpath.relay import EventKind, Relay
from server.media.parameters import DtlsParameters, Endpoint, IceParameters, SrtpProfile
from server.media.rtp.rtcp import PictureLossIndication, ReceiverReport, serialize_compound
from server.media.transport import RtcpReceived, Transport, TransportDrop
from tests.transportpeers import (
    HOME,
    LOCAL,
    MOBILE,
    REMOTE,
    STRANGER,
    WALL,
    DtlsPeer,
    RecordingRelay,
    check,
    drain,
    exchange,
    p256,
    rsa2048,
)

CERTIFICATE = Certificate.generate(WALL)
PLI = PictureLossIndication(1, 2)


class Call:
    """A transport, its relay and its peer."""

    def __init__(self, peer: DtlsPeer | None = None, parameters: DtlsParameters | None = None) -> None:
        self.relay = RecordingRelay()
        self.peer = peer or DtlsPeer()
        self.transport = Transport(
            "anna", self.relay, CERTIFICATE, LOCAL, REMOTE, parameters or self.peer.parameters, now=0.0
        )

    def check(self, now: float = 0.0, addr: Endpoint = HOME, **settings) -> None:
        self.transport.receive_datagram(check(**settings), addr, now)

    def shake_hands(self, now: float = 0.0, addr: Endpoint = HOME) -> None:
        exchange(self.transport, self.peer, now, addr)

    def connect(self) -> None:
        self.check(nominate=True)
        self.shake_hands()
        assert drain(self.transport) == [TransportConnected("anna")]

    def hear_dtls(self, now: float = 0.0) -> list[bytes]:
        return [data for data, _ in self.transport.datagrams_to_send(now) if 20 <= data[0] <= 63]


@pytest.fixture
def call():
    return Call()


@pytest.mark.parametrize("make_key", [p256, rsa2048])
def test_a_peer_connects_and_the_relay_knows_all(make_key):
    call = Call(DtlsPeer(make_key()))
    call.connect()
    client, server = call.peer.keys(16, 12)
    assert call.relay.keys == [(SrtpProfile.AEAD_AES_128_GCM, client, server)]
    assert call.relay.allowed == {HOME}
    assert call.relay.nominated == [HOME]
    assert call.relay.slots == {call.transport.slot}
    assert call.transport.connected


def test_a_peer_that_insists_on_being_server_gets_a_client():
    call = Call(DtlsPeer(rsa2048(), server=True))
    call.check()
    assert not call.hear_dtls()  # validated is not nominated
    call.check(nominate=True)
    exchange(call.transport, call.peer, 0.0, first=lambda: call.peer.feed(call.hear_dtls()))
    assert drain(call.transport) == [TransportConnected("anna")]
    [(_, receive, _)] = call.relay.keys
    assert receive in {call.peer.keys(16, 12)[1], call.peer.keys(16, 14)[1], call.peer.keys(32, 12)[1]}
    assert call.transport.parameters([]).dtls.role == "client"


def test_what_our_answer_says(call):
    parameters = call.transport.parameters([HOME])
    assert parameters.ice == LOCAL
    assert parameters.dtls == DtlsParameters((CERTIFICATE.fingerprint,), "server")
    assert parameters.candidates == (HOME,)
    assert LOCAL.pwd not in repr(parameters)


def test_handshake_before_nomination_connects_with_it(call):
    call.check()
    call.shake_hands()
    assert call.relay.keys
    assert not drain(call.transport)
    call.check(nominate=True)
    assert drain(call.transport) == [TransportConnected("anna")]


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_stranger_cannot_race_the_handshake(call, when):
    """ASVS 17.2.6: a ClientHello from an address without a valid check, before, during and after the peer's."""
    attacker = DtlsPeer()

    def attack() -> None:
        for data in attacker.feed():
            call.transport.receive_datagram(data, STRANGER, 0.0)
        assert all(to != STRANGER for _, to in call.transport.datagrams_to_send(0.0))

    if when == "before":
        attack()
        call.connect()
    elif when == "during":
        call.check(nominate=True)
        hello = call.peer.feed()
        attack()
        exchange(call.transport, call.peer, 0.0, first=lambda: hello)
        assert drain(call.transport) == [TransportConnected("anna")]
    else:
        call.connect()
        attack()
    assert call.transport.drops == {TransportDrop.UNVALIDATED: 1}
    assert call.transport.connected
    assert not attacker.connected
    assert len(call.relay.keys) == 1


def test_even_an_alert_from_a_stranger_ends_nothing(call):
    call.check(nominate=True)
    fatal = b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x02\x28"
    call.transport.receive_datagram(fatal, STRANGER, 0.0)
    call.shake_hands()
    assert drain(call.transport) == [TransportConnected("anna")]


def test_another_certificate_fails_both_sides_without_keys():
    call = Call(parameters=DtlsPeer().parameters)
    call.check(nominate=True)
    call.shake_hands()
    assert drain(call.transport) == [TransportFailed("anna", TransportFailure.FINGERPRINT)]
    assert "alert" in str(call.peer.error)
    assert not call.relay.keys
    assert call.relay.nominated == [HOME, None]
    assert not call.transport.connected


def test_a_lost_alert_is_told_again_through_the_path():
    call = Call(parameters=DtlsPeer().parameters)
    call.check(nominate=True)
    call.shake_hands()
    drain(call.transport)
    call.check(1.0)  # checks are still answered
    call.transport.receive_datagram(DtlsPeer().feed()[0], HOME, 1.0)
    [alert] = call.hear_dtls(1.0)
    assert alert[0] == 21


def test_nobody_comes():
    call = Call()
    assert call.transport.get_timer() == 30.0
    call.transport.handle_timer(30.0)
    assert drain(call.transport) == [TransportFailed("anna", TransportFailure.TIMEOUT)]


def test_a_path_without_a_handshake(call):
    for tick in range(9):
        call.check(2.5 * tick, nominate=True)
        call.transport.handle_timer(2.5 * tick)
    assert drain(call.transport) == [TransportFailed("anna", TransportFailure.DTLS_TIMEOUT)]
    assert HANDSHAKE_TIMEOUT_S <= 2.5 * 8


def test_silence_pauses_and_a_check_resumes(call):
    call.connect()
    call.transport.handle_timer(15.0)
    assert drain(call.transport) == [TransportInterrupted("anna")]
    assert call.relay.nominated[-1] is None
    call.transport.send_rtcp([PLI])
    assert not call.relay.rtcp
    call.check(20.0)
    assert drain(call.transport) == [TransportResumed("anna")]
    assert call.relay.nominated[-1] == HOME
    call.transport.send_rtcp([PLI])
    assert call.relay.rtcp == [serialize_compound([PLI])]


def test_silence_for_30_s_ends_it_and_lets_nothing_in(call):
    call.connect()
    call.transport.handle_timer(15.0)
    call.transport.handle_timer(30.0)
    assert drain(call.transport, TransportFailed) == [TransportFailed("anna", TransportFailure.TIMEOUT)]
    assert not call.relay.allowed
    assert call.relay.nominated[-1] is None
    assert call.relay.slots  # until it is closed: nobody else gets the slot while forwards point to it
    call.check(31.0, nominate=True)
    assert not call.relay.allowed
    assert call.transport.get_timer() is None


def test_media_and_dtls_follow_the_peer(call):
    call.connect()
    call.check(5.0, MOBILE)
    assert call.relay.allowed == {HOME, MOBILE}
    assert call.relay.nominated == [HOME]
    call.check(5.1, MOBILE, nominate=True)
    assert call.relay.nominated == [HOME, MOBILE]
    call.transport.datagrams_to_send(5.1)
    call.transport.close(6.0)
    assert [to for _, to in call.transport.datagrams_to_send(6.0)] == [MOBILE]
    assert not drain(call.transport)


def test_ice_restart_keeps_the_handshake(call):
    call.connect()
    local, remote = IceParameters("ours2", "p" * 24), IceParameters("theirs2", "q" * 24)
    call.transport.restart_ice(local, remote, 5.0)
    assert call.transport.parameters([]).ice == local
    call.check(5.1)
    assert call.transport.datagrams_to_send(5.1)
    call.check(5.2, MOBILE, local=local, remote=remote, nominate=True)
    assert call.relay.nominated == [HOME, MOBILE]
    assert len(call.relay.keys) == 1
    assert not drain(call.transport)
    assert call.transport.connected


def test_a_closed_tcp_connection_leaves_the_path():
    call = Call()
    tcp = Endpoint("192.0.2.1", 9, "tcp")
    call.check(addr=tcp, nominate=True)
    call.shake_hands(addr=tcp)
    drain(call.transport)
    call.transport.disconnected(tcp, 1.0)
    assert drain(call.transport) == [TransportInterrupted("anna")]
    assert not call.relay.allowed
    call.check(2.0, nominate=True)
    assert drain(call.transport) == [TransportResumed("anna")]


def test_an_address_taken_by_a_forged_source_comes_back_with_the_next_check():
    relay, peer = Relay(), DtlsPeer()
    ours, theirs = (
        Transport(name, relay, CERTIFICATE, IceParameters(name, "p" * 24), None, peer.parameters, now=0.0)
        for name in ("anna", "mallory")
    )
    for at, transport in enumerate((ours, theirs, ours)):
        transport.receive_datagram(check(transport.parameters([]).ice, nominate=True), HOME, float(at))
        relay.process([(HOME, b"\x16\xfe\xfd" + bytes(10))], float(at))
        assert [event[1] for event in relay.take_events()] == [transport.slot]


def test_the_peers_goodbye(call):
    call.connect()
    for data in call.peer.close():
        call.transport.receive_datagram(data, HOME, 1.0)
    assert drain(call.transport) == [TransportFailed("anna", TransportFailure.CLOSED)]
    call.check(2.0, MOBILE, nominate=True)  # checks may go on: nothing comes of them
    assert not call.relay.allowed
    assert call.relay.nominated[-1] is None


def test_closing_gives_the_slot_back_once(call):
    call.connect()
    call.transport.close(1.0)
    call.transport.close(1.0)
    assert not call.relay.slots
    [goodbye] = call.hear_dtls()
    call.peer.feed([goodbye])
    assert call.peer.connection.get_shutdown()
    call.transport.receive_datagram(check(nominate=True), HOME, 2.0)
    call.transport.handle_timer(60.0)
    assert not call.transport.datagrams_to_send(60.0)
    assert call.transport.get_timer() is None
    assert not drain(call.transport)


def test_rtcp_is_parsed_or_counted(call):
    packets = (ReceiverReport(1), PLI)
    call.transport.receive_rtcp(serialize_compound(packets), 0.0)
    assert not drain(call.transport)  # nothing before there are keys
    call.connect()
    call.transport.receive_rtcp(serialize_compound(packets), 1.0)
    assert drain(call.transport) == [RtcpReceived("anna", packets)]
    call.transport.receive_rtcp(b"\x81\xc9\x00\x07" + bytes(4), 1.0)
    call.transport.receive_rtcp(b"", 1.0)
    assert not drain(call.transport)
    assert call.transport.drops == {TransportDrop.BAD_RTCP: 2}


@pytest.mark.parametrize("data", [b"", b"\x80\x60" + bytes(20), b"\xff" * 40, b"\x00\x01"])
def test_what_is_neither_stun_nor_dtls(call, data):
    call.transport.receive_datagram(data, HOME, 0.0)
    assert call.transport.drops == {TransportDrop.NOT_OURS: 1}


def test_sixty_thousand_datagrams_from_a_stranger():
    """SECURITY.md row 2: memory stays flat, and the peer connects in the middle of it."""
    call = Call()
    hello = DtlsPeer().feed()[0]
    record = b"\x16\xfe\xfd" + bytes(8) + pack("!H", 1000) + bytes(1000)
    forged = check(key="x" * 24)
    junk = [hello, record, forged, check(local=IceParameters("nobody", "x")), b"\xff" * 1200, b"\x00\x01" + bytes(60)]

    def flood(count: int) -> None:
        for number in range(count):
            call.transport.receive_datagram(junk[number % len(junk)], Endpoint("203.0.113.1", number & 0xFFFF), 0.0)
            if number % 64 == 0:
                call.transport.datagrams_to_send(0.0)

    flood(6000)
    before = psutil.Process().memory_info().rss
    flood(30_000)
    call.connect()
    flood(30_000)
    assert psutil.Process().memory_info().rss - before < 2 * 1024 * 1024
    assert call.transport.connected
    assert call.relay.allowed == {HOME}
    assert call.transport.drops == {TransportDrop.UNVALIDATED: 22_000, TransportDrop.NOT_OURS: 22_000}
    assert call.transport.ice.drops.total() == 22_000


def test_with_the_relay_itself():
    """Checks and handshake through the real fast path: strangers' DTLS is dropped there already."""
    relay, peer = Relay(), DtlsPeer()
    transport = Transport("anna", relay, CERTIFICATE, LOCAL, REMOTE, peer.parameters, now=0.0)

    def arrive(datagrams: list[bytes], address: Endpoint = HOME) -> list[bytes]:
        sent = relay.process([(address, data) for data in datagrams], 1.0)
        for kind, _, source, data, at in relay.take_events():
            assert kind in (EventKind.STUN, EventKind.DTLS)
            transport.receive_datagram(data, Endpoint(*source), at)
        for data, to in transport.datagrams_to_send(1.0):
            relay.send(to, data)
        sent += relay.process([], 1.0)
        assert all(to == HOME for to, _ in sent)
        return [data for _, data in sent if data[0] >= 20]

    hello = peer.feed()
    assert not arrive(hello, STRANGER)
    arrive([check(nominate=True)])
    while hello:
        hello = peer.feed(arrive(hello))
    assert drain(transport) == [TransportConnected("anna")]
    transport.send_rtcp([PLI])
    [(to, protected)] = relay.process([], 1.0)
    assert to == HOME
    _, server = peer.keys(16, 12)
    policy = Policy(server, Policy.SSRC_ANY_INBOUND, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_128_GCM)
    assert Session(policy).unprotect_rtcp(protected) == serialize_compound([PLI])
