"""DTLS against other stacks' settings (pyOpenSSL) and against itself; time is a number, also for lost flights."""

from datetime import timedelta
from struct import pack, unpack_from

import pytest
from OpenSSL import SSL

from server.errors import InvalidStateError
from server.media.dtls import (
    CERTIFICATE_ROTATION,
    HANDSHAKE_TIMEOUT_S,
    MAX_HANDSHAKE_DATAGRAMS,
    MTU_BYTES,
    RETRANSMIT_FIRST_S,
    Certificate,
    Certificates,
    DtlsConnected,
    DtlsDrop,
    DtlsEndpoint,
    DtlsFailed,
    fingerprint,
)
from server.media.events import TransportFailure
from server.media.parameters import Fingerprint, SrtpProfile
from tests.transportpeers import HOME, MOBILE, WALL, DtlsPeer, drain, exchange, p256, rsa2048

CERTIFICATE = Certificate.generate(WALL)
FAILED = {reason: [DtlsFailed(reason)] for reason in TransportFailure}


def endpoint(peer: DtlsPeer, role: str = "server", announced=None) -> DtlsEndpoint:
    return DtlsEndpoint(CERTIFICATE, (peer.fingerprint("sha-256"),) if announced is None else announced, role)


def handshake(ours: DtlsEndpoint, peer: DtlsPeer) -> list:
    if peer.role == "server":
        ours.start(HOME, 0.0)
        exchange(ours, peer, 0.0, first=lambda: peer.feed([data for data, _ in ours.datagrams_to_send(0.0)]))
    else:
        exchange(ours, peer, 0.0)
    return drain(ours)


@pytest.mark.parametrize("make_key", [p256, rsa2048], ids=["P-256", "RSA-2048"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_peers_with_either_key_connect_in_either_role(make_key, role):
    peer = DtlsPeer(make_key(), server=role == "client")
    ours = endpoint(peer, role)
    [event] = handshake(ours, peer)
    assert isinstance(event, DtlsConnected)
    assert peer.connected
    client, server = peer.keys(16, 12)
    if role == "server":
        assert (event.profile, event.receive_key, event.send_key) == (SrtpProfile.AEAD_AES_128_GCM, client, server)
    else:
        assert {event.receive_key, event.send_key} == set(peer.keys(*LENGTHS[event.profile]))
        assert event.receive_key == peer.keys(*LENGTHS[event.profile])[1]
    assert peer.connection.get_cipher_name().startswith("ECDHE-")
    assert ours.get_timer() is None


LENGTHS = {
    SrtpProfile.AEAD_AES_128_GCM: (16, 12),
    SrtpProfile.AEAD_AES_256_GCM: (32, 12),
    SrtpProfile.AES128_CM_SHA1_80: (16, 14),
}


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM", SrtpProfile.AEAD_AES_128_GCM),
        (b"SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM", SrtpProfile.AEAD_AES_256_GCM),
        (b"SRTP_AES128_CM_SHA1_80", SrtpProfile.AES128_CM_SHA1_80),
    ],
)
def test_as_server_our_order_of_profiles_counts(offered, chosen):
    peer = DtlsPeer(profiles=offered)
    [event] = handshake(endpoint(peer), peer)
    assert event.profile == chosen
    assert (event.receive_key, event.send_key) == peer.keys(*LENGTHS[chosen])
    assert event.receive_key.hex() not in repr(event)


@pytest.mark.parametrize("offered", [b"", b"SRTP_AES128_CM_SHA1_32"])
def test_without_a_profile_in_common_there_is_no_media(offered):
    peer = DtlsPeer(profiles=offered)
    assert handshake(endpoint(peer), peer) == FAILED[TransportFailure.DTLS_REFUSED]


@pytest.mark.parametrize("role", ["server", "client"])
def test_another_certificate_fails_on_both_sides(role):
    peer = DtlsPeer(server=role == "client")
    ours = endpoint(peer, role, announced=(DtlsPeer().fingerprint("sha-256"),))
    assert handshake(ours, peer) == FAILED[TransportFailure.FINGERPRINT]
    assert "alert" in str(peer.error)
    assert ours.get_timer() is None


def test_an_alert_that_was_lost_is_told_again_and_not_for_ever():
    peer = DtlsPeer()
    ours = endpoint(peer, announced=(DtlsPeer().fingerprint("sha-256"),))
    flight = peer.feed()
    for data in flight:
        ours.receive_datagram(data, HOME, 0.0)
    for data in peer.feed([data for data, _ in ours.datagrams_to_send(0.0)]):
        ours.receive_datagram(data, HOME, 0.0)
    alert = ours.datagrams_to_send(0.0)
    assert alert
    repeated = []
    for second in range(1, 50):
        ours.receive_datagram(flight[0], HOME, second)
        ours.receive_datagram(flight[0], HOME, second + 0.01)
        repeated += ours.datagrams_to_send(second)
    assert repeated == 8 * alert
    peer.feed([data for data, _ in repeated])
    assert "alert" in str(peer.error)


@pytest.mark.parametrize(
    ("algorithms", "good"),
    [
        (["sha-256"], True),
        (["sha-384"], True),
        (["sha-512"], True),
        (["SHA-256"], True),
        (["sha-256", "wrong sha-256"], True),  # several certificates
        (["sha-256", "wrong sha-512"], False),  # the strongest decides
        (["wrong sha-256"], False),
        (["sha-1"], False),
        ([], False),
    ],
)
def test_which_fingerprints_count(algorithms, good):
    peer = DtlsPeer()
    announced = []
    for name in algorithms:
        if name == "sha-1":
            announced.append(Fingerprint("sha-1", "AA:" * 19 + "AA"))
        elif name.startswith("wrong"):
            announced.append(DtlsPeer().fingerprint(name.split()[1]))
        else:
            announced.append(Fingerprint(name, peer.fingerprint(name.lower()).value))
    [event] = handshake(endpoint(peer, announced=tuple(announced)), peer)
    assert isinstance(event, DtlsConnected) == good


@pytest.mark.parametrize(
    "settings",
    [
        {"suites": "eNULL:aNULL:@SECLEVEL=0"},
        {"suites": "AES128-GCM-SHA256"},  # no forward secrecy
        {"suites": "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0", "versions": (0xFEFF, 0xFEFF)},  # DTLS 1.0
    ],
    ids=["NULL", "RSA key exchange", "DTLS 1.0"],
)
@pytest.mark.parametrize("role", ["server", "client"])
def test_weak_handshakes_are_refused(settings, role):
    peer = DtlsPeer(rsa2048(), server=role == "client", **settings)
    assert handshake(endpoint(peer, role), peer) == FAILED[TransportFailure.DTLS_REFUSED]
    assert not peer.connected


def test_flights_fit_the_mtu_and_fill_it():
    peer = DtlsPeer()
    ours = endpoint(peer)
    for data in peer.feed():
        ours.receive_datagram(data, HOME, 0.0)
    flight = [data for data, _ in ours.datagrams_to_send(0.0)]
    assert all(len(data) <= MTU_BYTES for data in flight)
    assert len(flight) == 1  # several records, one datagram
    assert flight[0].count(b"\xfe\xfd") >= 4


class Lossy:
    """Two of our endpoints, a clock, and a network that loses the datagrams that it is told to."""

    def __init__(self, lost: set[int]) -> None:
        certificates = [Certificate.generate(WALL) for _ in range(2)]
        self.server = DtlsEndpoint(certificates[0], (certificates[1].fingerprint,), "server")
        self.client = DtlsEndpoint(certificates[1], (certificates[0].fingerprint,), "client")
        self.lost = lost
        self.sent = 0
        self.now = 0.0

    def run(self) -> None:
        self.server.start(HOME, self.now)
        self.client.start(MOBILE, self.now)
        while True:
            if not self.deliver():
                timers = [t for t in (self.client.get_timer(), self.server.get_timer()) if t is not None]
                if not timers:
                    return
                self.now = max(self.now, min(timers))
                self.client.handle_timer(self.now)
                self.server.handle_timer(self.now)

    def deliver(self) -> bool:
        moved = False
        for source, target, address in ((self.client, self.server, HOME), (self.server, self.client, MOBILE)):
            for data, _ in source.datagrams_to_send(self.now):
                moved = True
                self.sent += 1
                if self.sent - 1 not in self.lost:
                    target.receive_datagram(data, address, self.now)
        return moved


@pytest.mark.parametrize("lost", [{n} for n in range(5)] + [{0, 1, 2}, {1, 2, 4}, {2, 3, 5, 6}], ids=str)
def test_lost_flights_are_sent_again(lost):
    net = Lossy(lost)
    net.run()
    [client], [server] = drain(net.client), drain(net.server)
    assert isinstance(client, DtlsConnected)
    assert isinstance(server, DtlsConnected)
    assert (client.send_key, client.receive_key) == (server.receive_key, server.send_key)
    assert net.now <= 2.0
    if any(n < 3 for n in lost):
        assert net.now >= RETRANSMIT_FIRST_S


def test_nothing_lost_takes_no_time():
    net = Lossy(set())
    net.run()
    assert net.now == 0.0
    assert net.sent == 4


def test_repetitions_back_off_and_end():
    net = Lossy(set(range(1, 1000)))  # the first ClientHello arrives, and nothing ever again
    net.run()
    assert drain(net.client) == FAILED[TransportFailure.DTLS_TIMEOUT]
    assert drain(net.server) == FAILED[TransportFailure.DTLS_TIMEOUT]
    assert net.now == HANDSHAKE_TIMEOUT_S
    assert net.sent <= 2 * 14


def test_a_server_waits_for_the_client_and_not_for_ever():
    ours = endpoint(DtlsPeer())
    assert ours.get_timer() is None
    ours.start(HOME, 5.0)
    assert ours.get_timer() == 5.0 + HANDSHAKE_TIMEOUT_S
    assert not ours.datagrams_to_send(5.0)
    ours.handle_timer(5.0 + HANDSHAKE_TIMEOUT_S)
    assert drain(ours) == FAILED[TransportFailure.DTLS_TIMEOUT]


def test_starting_twice_is_our_own_mistake():
    ours = endpoint(DtlsPeer())
    ours.start(HOME, 0.0)
    with pytest.raises(InvalidStateError):
        ours.start(HOME, 0.0)


def test_answers_follow_the_path():
    peer = DtlsPeer()
    ours = endpoint(peer)
    for data in peer.feed():
        ours.receive_datagram(data, HOME, 0.0)
    ours.move(MOBILE)
    assert {to for _, to in ours.datagrams_to_send(0.0)} == {MOBILE}


@pytest.mark.parametrize("junk", [b"\x16\xfe\xfd" + bytes(30), bytes(64), b"\x17" * 1200, b"\x16\xfe\xfd\x00"])
def test_junk_does_not_end_a_handshake_or_a_connection(junk):
    peer = DtlsPeer()
    ours = endpoint(peer)
    ours.receive_datagram(junk, HOME, 0.0)
    [event] = handshake(ours, peer)
    assert isinstance(event, DtlsConnected)
    for _ in range(1000):
        ours.receive_datagram(junk, HOME, 1.0)
    assert not drain(ours)
    peer.connection.send(b"still there")
    for data in peer._output():
        ours.receive_datagram(data, HOME, 1.0)
    assert not drain(ours)


def test_too_large_and_too_many_never_reach_openssl():
    ours = endpoint(DtlsPeer())
    ours.receive_datagram(b"\x16" * 2049, HOME, 0.0)
    record = b"\x16\x00\x00" + bytes(8) + pack("!H", 1)
    for _ in range(MAX_HANDSHAKE_DATAGRAMS + 10):
        ours.receive_datagram(record + b"\0", HOME, 0.0)
    assert ours.drops == {DtlsDrop.TOO_LARGE: 1, DtlsDrop.TOO_MANY: 10}


def test_goodbye_in_both_directions():
    peer = DtlsPeer()
    ours = endpoint(peer)
    handshake(ours, peer)
    for data in peer.close():
        ours.receive_datagram(data, HOME, 1.0)
    assert drain(ours) == FAILED[TransportFailure.CLOSED]

    peer = DtlsPeer()
    ours = endpoint(peer)
    handshake(ours, peer)
    ours.close(1.0)
    peer.feed([data for data, _ in ours.datagrams_to_send(1.0)])
    assert peer.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    assert not drain(ours)


def test_a_lost_last_flight_is_repeated_when_the_client_repeats_its_own():
    """We are connected then, our timer is off: the client's repetition is what brings ours."""
    net = Lossy({3})
    net.run()
    assert isinstance(drain(net.client)[0], DtlsConnected)
    assert net.now >= RETRANSMIT_FIRST_S


def test_our_certificate():
    [name] = {CERTIFICATE.fingerprint.algorithm}
    assert name == "sha-256"
    assert len(CERTIFICATE.fingerprint.value.split(":")) == 32
    peer = DtlsPeer()
    handshake(endpoint(peer), peer)
    seen = peer.connection.get_peer_certificate(as_cryptography=True)
    assert fingerprint(seen, "sha-256") == CERTIFICATE.fingerprint
    assert seen.public_key().curve.name == "secp256r1"
    assert seen.not_valid_before_utc < WALL < seen.not_valid_after_utc
    with pytest.raises(InvalidStateError):
        fingerprint(seen, "md5")


def test_certificates_change_daily():
    certificates = Certificates()
    first = certificates.current(WALL)
    assert certificates.current(WALL + CERTIFICATE_ROTATION - timedelta(seconds=1)) is first
    second = certificates.current(WALL + CERTIFICATE_ROTATION)
    assert second.fingerprint != first.fingerprint


def test_records_are_cut_where_they_end():
    """What leaves us is whole records: their lengths add up, in every datagram."""
    peer = DtlsPeer(rsa2048())
    ours = endpoint(peer)
    for data in peer.feed():
        ours.receive_datagram(data, HOME, 0.0)
    for data, _ in ours.datagrams_to_send(0.0):
        at = 0
        while at < len(data):
            at += 13 + unpack_from("!H", data, at + 11)[0]
        assert at == len(data)
