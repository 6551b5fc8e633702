"""Who may, and who is who: certificates that are not the announced ones, old DTLS, people sent away, other rooms."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import aiohttp
import pytest

from loadtest import sdp
from loadtest.generator import Generator, LoadError, Local, bound_socket
from server.media.parameters import DtlsParameters, Endpoint, Fingerprint, IceParameters
from server.records import RoomRecord
from tests.browsers import chromium, until_state
from tests.devices import LOOPBACK, MANY, Device, Devices
from tests.live import Live, live_server
from tests.offers import offer, section
from tests.participant import Participant
from tests.transportpeers import check
from tests.walk import wait_to_be_let_in

TOLD_S = 2.0
STOPPED_S = 1.0
STRANGE = ":".join(["AB"] * 32)

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def clinic() -> AsyncIterator[tuple[Live, Devices, Generator]]:
    async with live_server(http=MANY, media=LOOPBACK) as live, aiohttp.ClientSession(live.origin) as http:
        with Generator(bound_socket(), "127.80.0.1", legs=32) as generator:
            generator.engine.media_on = True
            yield live, Devices(live, http, generator), generator


async def transports(live: Live) -> int:
    """Return how many the media server has."""
    async with live.api.get("/metrics") as answer:
        found = re.search(r"^colloque_media_transports (\S+)", await answer.text(), re.MULTILINE)
    assert found
    return int(float(found[1]))


# A certificate that is not the announced one (row 4) ------------------------------------------------------------------


@pytest.mark.alone
async def test_a_device_whose_offer_was_altered_is_told_and_gets_nothing() -> None:
    async with clinic() as (live, devices, generator):
        room = await live.room()
        camera = await devices.publish(room, await devices.token(room))
        honest = generator.open_leg
        generator.open_leg = lambda: _altered(honest())  # type: ignore[method-assign]
        began = time.monotonic()
        with pytest.raises(LoadError, match="DTLS"):
            await devices.watch(room, await devices.token(room))
        assert time.monotonic() - began <= TOLD_S
        async with asyncio.timeout(TOLD_S):
            while await transports(live) > 1:  # noqa: ASYNC110  (another process)
                await asyncio.sleep(0.05)
        await devices.end(camera)


def _altered(local: Local) -> Local:
    """The same end of a transport, announcing another's certificate."""
    return replace(local, dtls=DtlsParameters((Fingerprint("sha-256", STRANGE),), local.dtls.role))


# What somebody between a page and the server would do to its SDP, each way.
_ALTER = {
    "offer": """(() => {
      const send = WebSocket.prototype.send;
      WebSocket.prototype.send = function (data) {
        const altered = String(data).includes('"relayOffer"')
          ? data.replace(/(a=fingerprint:sha-256 )[0-9A-F:]+/g, '$1STRANGE') : data;
        if (altered !== data) globalThis.__alteredAt ??= Date.now();
        return send.call(this, altered);
      };
    })();""",
    "answer": """(() => {
      const set = RTCPeerConnection.prototype.setRemoteDescription;
      RTCPeerConnection.prototype.setRemoteDescription = function ({type, sdp}) {
        globalThis.__alteredAt ??= Date.now();
        return set.call(this, {type, sdp: sdp.replace(/(a=fingerprint:sha-256 )[0-9A-Fa-f:]+/g, '$1STRANGE')});
      };
    })();""",
}
_NOTE = """globalThis.__toldAt = null;
const look = () => {
  if (__colloque?.client) __colloque.client.addEventListener('problem', ({detail}) => {
    if (detail.code === 'relay_untrusted') globalThis.__toldAt ??= Date.now();
  });
  else setTimeout(look, 20);
};
globalThis.__colloque ??= undefined; look();"""


@pytest.mark.alone
@pytest.mark.parametrize("what", ["offer", "answer"])
async def test_a_page_whose_description_was_altered_is_told(what: str) -> None:
    """The server hears of it too, from the handshake's alert, and no media passes."""
    async with live_server() as live, chromium(3, hz=440) as browser:
        room = await live.room(topology="relay-only")
        url = await live.link(room, "patient", name="Ada")
        page = await browser.new_page()
        await page.add_init_script(_ALTER[what].replace("STRANGE", STRANGE))
        clinician = await Participant.arrive(live, await live.link(room, "clinician"))
        await clinician.send("ready")
        await clinician.send("join")
        await wait_to_be_let_in(page, url)
        await page.evaluate(_NOTE)
        visitor = await page.evaluate("__colloque.client.self.id")
        await clinician.send("admit", participant=visitor)
        await until_state(page, "call")
        await page.wait_for_function("() => globalThis.__toldAt", timeout=15_000)
        seconds = await page.evaluate("(__toldAt - __alteredAt) / 1000")
        print(f"altered {what}: the person is told after {seconds:.2f} s")
        assert seconds <= TOLD_S
        async with live.api.get("/metrics") as answer:
            text = await answer.text()
        assert "colloque_media_received_packets_total 0.0" in text
        await clinician.close()


# Old DTLS, RSA and P-256 (row 5) --------------------------------------------------------------------------------------


@contextmanager
def bridge(server: tuple[str, int], remote: IceParameters, ours: IceParameters) -> Iterator[tuple[int, list[bytes]]]:
    """Let a program that knows no ICE talk DTLS to the media server: this socket does the checks.

    Yields:
        The port for the program, and what the server has sent it.
    """
    outside, inside = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    outside.settimeout(0.02)
    inside.settimeout(0.02)
    inside.bind(("127.0.0.1", 0))
    heard: list[bytes] = []
    over = Event()

    def carry() -> None:
        program = None
        outside.sendto(check(remote, ours, nominate=True), server)
        while not over.is_set():
            try:
                data, program = inside.recvfrom(4096)
                outside.sendto(data, server)
            except TimeoutError:
                pass
            try:
                data = outside.recv(4096)
                if program and 20 <= data[0] <= 63:
                    heard.append(data)
                    inside.sendto(data, program)
            except TimeoutError:
                pass

    thread = Thread(target=carry)
    thread.start()
    try:
        yield inside.getsockname()[1], heard
    finally:
        over.set()
        thread.join()
        outside.close()
        inside.close()


def certificate(folder: Path, key: str) -> tuple[Path, Path, Fingerprint]:
    """Make one with openssl: its file, its key's, and its fingerprint."""
    kinds = {"rsa": ["-newkey", "rsa:2048"], "p256": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}
    made, secret = folder / f"{key}.crt", folder / f"{key}.key"
    asked = ["openssl", "req", "-x509", *kinds[key], "-nodes", "-subj", "/CN=peer", "-keyout", secret, "-out", made]
    subprocess.run(asked, check=True, capture_output=True)
    told = subprocess.run(
        ["openssl", "x509", "-in", made, "-noout", "-fingerprint", "-sha256"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return made, secret, Fingerprint("sha-256", told.strip().partition("=")[2])


@pytest.mark.parametrize(("version", "key"), [("-dtls1", "p256"), ("-dtls1_2", "p256"), ("-dtls1_2", "rsa")])
async def test_openssl_s_client(tmp_path: Path, version: str, key: str) -> None:
    made, secret, print_ = certificate(tmp_path, key)
    async with clinic() as (live, devices, _):
        room = await live.room()
        ours = IceParameters("ours", "o" * 24)
        answer = await _described(live, devices, room, ours, print_)
        with bridge(answer.remote.endpoint[:2], answer.remote.ice, ours) as (port, heard):
            argv = ["openssl", "s_client", version, "-connect", f"127.0.0.1:{port}", "-cert", made, "-key", secret]
            argv += ["-use_srtp", "SRTP_AES128_CM_SHA1_80", "-cipher", "ALL:@SECLEVEL=0", "-mtu", "1200"]
            done = await asyncio.to_thread(
                lambda: subprocess.run(argv, input="", capture_output=True, text=True, timeout=20, check=False)
            )
        said = done.stdout + done.stderr
        assert heard, said
        if version == "-dtls1":
            assert done.returncode != 0
            assert any(data[0] == 21 and data[14] == 70 for data in heard), said  # alert: protocol_version
        else:
            assert done.returncode == 0, said
            assert re.search(r"Cipher is ECDHE-ECDSA-\w+-GCM", said)
            assert "SRTP Extension negotiated, profile=SRTP_AES128_CM_SHA1_80" in said


async def _described(
    live: Live, devices: Devices, room: RoomRecord, ours: IceParameters, print_: Fingerprint
) -> sdp.Description:
    """POST an offer by hand."""
    section_ = sdp.Section("audio", "0", "sendonly", 0x30000000, 0, sdp.OFFERED)
    text = sdp.write(ours, DtlsParameters((print_,), "client"), Endpoint("127.0.0.1", 9), [section_])
    headers = {"Authorization": f"Bearer {await devices.token(room)}", "Content-Type": "application/sdp"}
    async with aiohttp.request("POST", f"{live.origin}/whip/{room.id}", data=text.encode(), headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        return sdp.read(await answer.text())


# Sent away, and elsewhere (row 19) ------------------------------------------------------------------------------------


async def stopped_after(devices: Devices, viewer: Device, since: float, count: int) -> float:
    """Return the seconds since then, when it had so many, until a viewer's last packet: none follows for 1.5 s."""
    last = since
    while time.monotonic() < last + 1.5:
        await asyncio.sleep(0.02)
        if devices.received(viewer) != count:
            count, last = devices.received(viewer), time.monotonic()
            assert last < since + 10, "it does not stop"
    return last - since


@pytest.mark.alone
@pytest.mark.parametrize("way", ["revoked", "removed", "room ended"])
async def test_media_stops_within_a_second(way: str) -> None:
    """A patient's device goes on sending, and asks for nothing: the server alone stops it."""
    async with clinic() as (live, devices, _):
        room = await live.room()
        link, secret = await live.store.mint_link(room, "patient", "Ada")
        clinician = await Participant.arrive(live, await live.link(room, "clinician"))
        patient = await Participant.arrive(live, f"{live.origin}/t/clinique/r#{secret}")
        await clinician.send("ready")
        await clinician.send("join")
        await patient.send("ready")
        await clinician.next("visitors")
        await clinician.send("admit", participant=patient.id)
        await patient.next("state")
        await patient.send("join")
        await clinician.next("peerJoined")
        await devices.publish(room, secret)
        viewer = await devices.watch(room, await devices.token(room))
        await devices.until_received(viewer, 50)
        since, count = time.monotonic(), devices.received(viewer)
        if way == "revoked":
            assert (await live.api.post(f"/api/v1/rooms/{room.id}/links/{link.id}/revoke")).status < 300
        elif way == "removed":
            await clinician.send("remove", participant=patient.id)
        else:
            assert (await live.api.post(f"/api/v1/rooms/{room.id}/end")).status < 300
        seconds = await stopped_after(devices, viewer, since, count)
        print(f"{way}: media stops after {seconds:.2f} s")
        assert seconds <= STOPPED_S
        await clinician.close()
        await patient.close()


async def test_nothing_crosses_rooms() -> None:
    async with clinic() as (live, devices, generator):
        here, there = await live.room(), await live.room()
        await devices.publish(here, await devices.token(here))
        at_home = await devices.watch(here, await devices.token(here))
        elsewhere = await devices.watch(there, await devices.token(there))
        token = await devices.token(there)
        await devices.until_received(at_home, 200)
        assert devices.received(elsewhere) == 0
        assert not [stream for stream in generator.engine.streams() if stream[0] == elsewhere.leg]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        async with aiohttp.ClientSession(live.origin) as http:
            body = offer(section("audio", "recvonly")).encode()
            async with http.post(f"/whep/{here.id}", data=body, headers=headers) as answer:
                assert answer.status == 401  # another room's token


async def test_an_observer_publishes_nothing() -> None:
    """Not with a client of their own either: neither over the wire protocol nor over WHIP."""
    async with clinic() as (live, _, _):
        room = await live.room(topology="relay-only")
        url = await live.link(room, "observer")
        clinician = await Participant.arrive(live, await live.link(room, "clinician"))
        await clinician.send("ready")
        await clinician.send("join")
        observer = await Participant.arrive(live, url)
        await observer.send("ready")
        await clinician.send("admit", participant=observer.id)
        while (await observer.next("state"))["state"] != "admitted":
            pass
        await observer.send("join")
        await observer.next("relayWanted")
        sdp_text = offer(section("audio", "sendonly"), section("video", "sendonly"))
        await observer.send("relayOffer", connection="x" * 22, description={"type": "offer", "sdp": sdp_text})
        answered = await _either(observer, "relayAnswer", "problem")
        if answered["type"] == "relayAnswer":
            assert "a=recvonly" not in answered["description"]["sdp"]
            assert "a=sendrecv" not in answered["description"]["sdp"]
        else:
            assert answered["code"] == "not_permitted"
        await observer.close()
        await clinician.close()


async def _either(participant: Participant, *kinds: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (message := await participant.received.get())["type"] not in kinds:
            pass
        return message
