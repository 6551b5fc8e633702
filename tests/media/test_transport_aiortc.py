"""A transport on a real socket, called by an independent stack: aiortc's ICE (a full agent) and DTLS. [IO]"""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceCandidate, RTCIceGatherer, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from pylibsrtp import Policy, Session

from server.clock import now, wall_now
from server.media.dtls import Certificate
from server.media.events import TransportConnected, TransportFailed, TransportFailure
from server.media.ice import new_credentials
from server.media.parameters import DtlsParameters, Endpoint, Fingerprint, IceParameters, SrtpProfile
from server.media.transport import Transport
from tests.transportpeers import DtlsPeer, RecordingRelay, drain

RTP = bytes.fromhex("80600001 00000002 00000003") + b"picture"
POLICIES = {
    SrtpProfile.AES128_CM_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
    SrtpProfile.AEAD_AES_128_GCM: Policy.SRTP_PROFILE_AEAD_AES_128_GCM,
    SrtpProfile.AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
}


class Driver(asyncio.DatagramProtocol):
    """What the media worker does, for one transport: drain after every mutation, then wait."""

    transport: Transport
    socket: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.relay = RecordingRelay()
        self.events: asyncio.Queue = asyncio.Queue()
        self.media: asyncio.Queue = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        self.socket = transport

    def datagram_received(self, data: bytes, addr) -> None:
        if data[0] >= 128:
            self.media.put_nowait(data)
        else:
            self.transport.receive_datagram(data, Endpoint(addr[0], addr[1]), now())
            self.pump()

    def pump(self) -> None:
        for event in drain(self.transport):
            self.events.put_nowait(event)
        for data, to in self.transport.datagrams_to_send(now()):
            self.socket.sendto(data, (to.ip, to.port))
        if self._timer:
            self._timer.cancel()
        timer = self.transport.get_timer()
        if timer is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, timer - now()), self._on_timer)

    def _on_timer(self) -> None:
        self.transport.handle_timer(now())
        self.pump()

    def close(self) -> None:
        self.transport.close(now())
        self.pump()
        self.socket.close()


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    """aioice leaves loopback out of its candidates; a test needs nothing else."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@asynccontextmanager
async def called_by_aiortc(our_role: str = "server", announced: Fingerprint | None = None):
    """Our transport and aiortc's two, ready to be started."""
    gatherer = RTCIceGatherer(iceServers=[])
    await gatherer.gather()
    theirs = gatherer.getLocalParameters()
    ice = RTCIceTransport(gatherer)
    ice._connection.ice_controlling = True
    certificate = RTCCertificate.generateCertificate()
    dtls = RTCDtlsTransport(ice, [certificate])
    dtls._set_role("server" if our_role == "client" else "client")  # as its peer connection does

    _, driver = await asyncio.get_running_loop().create_datagram_endpoint(Driver, local_addr=("127.0.0.1", 0))
    sha256 = next(f for f in certificate.getFingerprints() if f.algorithm == "sha-256")
    peer = DtlsParameters(
        (announced or Fingerprint(sha256.algorithm, sha256.value),), "server" if our_role == "client" else "client"
    )
    local = new_credentials()
    remote = IceParameters(theirs.usernameFragment, theirs.password)
    driver.transport = Transport("anna", driver.relay, Certificate.generate(wall_now()), local, remote, peer, now())
    driver.pump()
    port = driver.socket.get_extra_info("sockname")[1]
    await ice.addRemoteCandidate(RTCIceCandidate(1, "1", "127.0.0.1", port, 2130706431, "udp", "host"))
    await ice.addRemoteCandidate(None)

    async def start() -> None:
        await ice.start(RTCIceParameters(local.ufrag, local.pwd, iceLite=True))
        own = driver.transport.parameters([]).dtls
        fingerprints = [RTCDtlsFingerprint(f.algorithm, f.value) for f in own.fingerprints]
        await dtls.start(RTCDtlsParameters(fingerprints, role=own.role))

    try:
        yield driver, start, dtls
    finally:
        driver.close()
        await dtls.stop()
        await ice.stop()


def srtp(profile: SrtpProfile, key: bytes, direction: int) -> Session:
    return Session(Policy(key=key, ssrc_type=direction, srtp_profile=POLICIES[profile]))


@pytest.mark.parametrize("our_role", ["server", "client"])
async def test_aiortc_connects_and_both_read_each_others_media(our_role):
    async with called_by_aiortc(our_role) as (driver, start, dtls):
        await asyncio.wait_for(start(), 10)
        assert await asyncio.wait_for(driver.events.get(), 10) == TransportConnected("anna")
        assert dtls.state == "connected"
        [(profile, receive_key, send_key)] = driver.relay.keys
        if our_role == "server":
            assert profile == SrtpProfile.AEAD_AES_128_GCM  # aiortc itself would rather have the 256 bits

        await dtls._send_rtp(RTP)
        protected = await asyncio.wait_for(driver.media.get(), 10)
        assert srtp(profile, receive_key, Policy.SSRC_ANY_INBOUND).unprotect(protected) == RTP

        answer = RTP[:11] + b"\x09" + RTP[12:]
        assert dtls._rx_srtp.unprotect(srtp(profile, send_key, Policy.SSRC_ANY_OUTBOUND).protect(answer)) == answer
        assert driver.relay.nominated[-1] in driver.relay.allowed


async def test_aiortc_with_another_certificate_than_announced_fails_on_both_sides():
    async with called_by_aiortc(announced=DtlsPeer().fingerprint("sha-256")) as (driver, start, dtls):
        await asyncio.wait_for(start(), 10)
        expected = TransportFailed("anna", TransportFailure.FINGERPRINT)
        assert await asyncio.wait_for(driver.events.get(), 2) == expected
        assert dtls.state == "failed"
        assert not driver.relay.keys
