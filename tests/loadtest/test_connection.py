"""The load participant's way to keys, against our own server's transport in memory; its SDP; the generator's socket."""

import asyncio
import random
from datetime import UTC, datetime

import pytest

from loadtest import sdp
from loadtest.connection import Connection, Remote
from loadtest.generator import Generator, LoadError, bound_socket
from server.media.dtls import Certificate
from server.media.parameters import DtlsParameters, Endpoint, IceParameters
from server.media.transport import Transport
from tests.transportpeers import RecordingRelay

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SERVER, CLIENT = Endpoint("192.0.2.1", 10_000), Endpoint("192.0.2.9", 40_000)
OURS, THEIRS = IceParameters("load", "l" * 24), IceParameters("server", "s" * 24)


def meet(loss: float = 0.0, pwd: str = THEIRS.pwd) -> tuple[Connection, RecordingRelay]:
    """Let a participant and a server find each other, packets of both lost at random."""
    dice = random.Random(7)
    certificate, own = Certificate.generate(AT), Certificate.generate(AT)
    relay = RecordingRelay()
    peer = DtlsParameters((own.fingerprint,), "client")
    server = Transport("t", relay, certificate, THEIRS, OURS, peer, 0.0)
    remote = Remote(IceParameters(THEIRS.ufrag, pwd), DtlsParameters((certificate.fingerprint,), "server"), SERVER)
    connection = Connection(own, OURS, remote, 0.0)
    for step in range(1500):
        now = step / 100
        outgoing = connection.handle_time(now)
        while outgoing:
            for data in outgoing:
                if dice.random() >= loss:
                    server.receive_datagram(data, CLIENT, now)
            server.handle_timer(now)
            back = [data for data, _ in server.datagrams_to_send(now) if dice.random() >= loss]
            outgoing = [data for received in back for data in connection.receive_datagram(received, now)]
        if connection.done and relay.keys:
            break
    return connection, relay


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_both_sides_get_the_same_keys(loss):
    connection, relay = meet(loss)
    keys = connection.keys
    assert keys is not None
    assert relay.keys == [(keys.profile, keys.send_key, keys.receive_key)]
    assert relay.nominated == [CLIENT]


def test_an_answer_signed_by_somebody_else_is_none():
    connection, relay = meet(pwd="wrong" * 5)
    assert not connection.done
    assert not relay.keys


def test_what_we_write_can_be_read():
    dtls = DtlsParameters((Certificate.generate(AT).fingerprint,), "client")
    sections = [
        sdp.Section("audio", "0", ssrc=1, extensions=sdp.OFFERED),
        sdp.Section("video", "v", "recvonly", payload_type=99),
    ]
    read = sdp.read(sdp.write(OURS, dtls, CLIENT, sections))
    assert read.remote.ice == OURS
    assert read.remote.dtls.fingerprints == dtls.fingerprints
    assert read.remote.endpoint == CLIENT
    audio, video = read.sections
    assert (audio.mid, audio.direction, audio.payload_type, audio.extensions) == ("0", "sendonly", 111, sdp.OFFERED)
    assert (video.mid, video.direction, video.payload_type, video.extensions) == ("v", "recvonly", 99, {})


def test_a_description_without_a_transport_is_refused():
    with pytest.raises(ValueError, match="credentials"):
        sdp.read("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n")


async def test_packets_find_their_legs_over_one_socket():
    """Two legs on loopback addresses of their own send each other media; losses and delays are seen."""
    key = bytes(28)
    with Generator(bound_socket(), "127.77.0.1") as generator:
        ada, ben = generator.open_leg(), generator.open_leg()
        for one, other in ((ada, ben), (ben, ada)):
            generator.engine.set_remote(one.leg, other.ip, other.port)
            generator.engine.set_keys(one.leg, 7, key, key)
        generator.engine.add_sender(ada.leg, 0xA0, 96, True)
        generator.engine.add_sender(ben.leg, 0xB0, 111, False)
        generator.engine.media_on = True
        for _ in range(500):
            await asyncio.sleep(0.01)
            if {0xA0, 0xB0} <= {ssrc for _, ssrc, received, _ in generator.engine.streams() if received > 50}:
                break
        window = generator.window()
    found = {ssrc: leg for leg, ssrc, _, _ in generator.engine.streams()}
    assert found == {0xA0: ben.leg, 0xB0: ada.leg}
    assert window.loss == 0
    assert window.counts["sampled"] > 0
    assert 0 < window.delay_ms(0.5) < 100


async def test_nobody_there(monkeypatch):
    monkeypatch.setattr("loadtest.generator.JOIN_TIMEOUT_S", 0.2)
    with Generator(bound_socket(), "127.77.1.1") as generator:
        remote = Remote(THEIRS, DtlsParameters(()), Endpoint("127.77.1.99", 9))
        with pytest.raises(LoadError):
            await generator.connect(generator.open_leg(), remote)
