"""The browser library in real Chromium pages, against a real server, without our pages around it.

Each page is a blank one of the server's origin that imports the modules. A person is reached as `client`, their devices
as `devices`, the element that shows the other as `video` (the pages' `Screen` plays it); every event is kept in
`events` with the milliseconds of the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from server.records import Role
from tests.browsers import chromium, read_counter, until_heard, until_moving
from tests.live import Live, live_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLINICIAN, PATIENT = 3, 5
"""Whose camera is whose."""

BACK_WITHIN_MS = 5000
"""A reload or a network change is over by then."""

_SETUP = """async ({secret, media}) => {
  const {Client} = await import('/static/js/rtc/client.js');
  const {Devices} = await import('/static/js/rtc/devices.js');
  const {browserPlatform} = await import('/static/js/rtc/platform.js');
  const {Screen} = await import('/static/js/ui/elements/screen.js');
  const storage = {
    get: () => sessionStorage.resume ?? null,
    set: value => value === null ? delete sessionStorage.resume : sessionStorage.resume = value,
  };
  const devices = new Devices();
  const client = new Client({
    url: location.origin.replace('http', 'ws') + '/ws', tenant: 'clinique', secret, storage,
    platform: {...browserPlatform(), WebSocket: WIRE},
  });
  const events = [];
  const types = ['state', 'signalling', 'peerjoined', 'peerleft', 'media', 'quality', 'occupied', 'refused', 'problem'];
  for (const type of types)
    client.addEventListener(type, ({detail}) => events.push({type, at: performance.now(), ...detail}));
  const screen = new Screen(Object.assign(document.createElement('video'), {autoplay: true, playsInline: true}), '');
  document.body.replaceChildren(screen.element);
  client.addEventListener('track', ({detail}) => screen.show(detail.stream));
  Object.assign(globalThis, {client, devices, events});
  Object.defineProperty(globalThis, 'video', {get: () => screen.element, configurable: true});
  client.attach(devices);
  client.connect();
  if (media) await devices.open({audio: true, video: true});
}"""

# Records every RTCPeerConnection, so that a test can look behind the library: the direct ones have a data channel.
_SPY = """globalThis.connections = [];
globalThis.relays = [];
globalThis.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...args) { super(...args); relays.push(this); }
  createDataChannel(...args) {
    relays.splice(relays.indexOf(this), 1);
    connections.push(this);
    return super.createDataChannel(...args);
  }
};"""

# Counts the moments at which an element that had a picture has none.
WATCH_FOR_BLACK = """() => {
  globalThis.blackFrames = 0;
  const look = () => {
    if (video.readyState < 2 || video.videoWidth === 0) blackFrames += 1;
    requestAnimationFrame(look);
  };
  look();
}"""

# What there is to know when a picture stays away.
_PICTURE = """async () => {
  const all = connections.length ? [...(await connections.at(-1).getStats()).values()] : [];
  const facts = (type, names) => all.filter(entry => entry.type === type && entry.kind === 'video')
    .map(entry => names.map(name => `${name} ${entry[name]}`).join(', '));
  return JSON.stringify({
    received: facts('inbound-rtp', ['packetsReceived', 'framesReceived', 'framesDecoded', 'pliCount']),
    sent: facts('outbound-rtp', ['packetsSent', 'framesEncoded', 'active', 'qualityLimitationReason']),
    source: facts('media-source', ['frames', 'width', 'framesPerSecond']),
    connections: connections.map(c => [c.signalingState, c.iceConnectionState, c.connectionState].join(' ')),
    video: [video.readyState, video.videoWidth, video.paused, video.currentTime, document.visibilityState],
    tracks: (video.srcObject?.getTracks() ?? []).map(t => [t.kind, t.readyState, t.muted].join(' ')),
    state: client.state, camera: devices.state('video'),
    events: events.slice(-20).map(e => `${Math.round(e.at)} ${e.type} ${e.state ?? e.code ?? e.level ?? ''}`),
  }, null, 1);
}"""

_FORGER = r"""class extends WebSocket {
  send(text) {
    super.send(text.replaceAll(/(fingerprint:sha-256 )(..)/g, (_, head, byte) => head + (byte === 'AA' ? 'BB' : 'AA')));
  }
}"""


class Person:
    """One page with the library in it."""

    def __init__(self, page: Page, live: Live, secret: str, wire: str = "WebSocket") -> None:
        self.page = page
        self._live = live
        self._secret = secret
        self._wire = wire

    async def open(self, *, media: bool = True) -> None:
        """Load the page; also what a reload does."""
        await self.page.goto(f"{self._live.origin}/")
        setup = _SETUP.replace("WIRE", self._wire)
        await self.page.evaluate(setup, {"secret": self._secret, "media": media})

    async def until(self, expression: str, *, timeout: float = 15_000) -> None:
        """Wait until an expression holds; on failure say what had happened."""
        try:
            await self.page.wait_for_function(expression, timeout=timeout)
        except Exception as error:
            events = await self.page.evaluate(
                "events.slice(-25).map(e => `${Math.round(e.at)} ${e.type} ${e.state ?? e.code ?? ''}`)"
            )
            raise AssertionError(f"not within {timeout} ms: {expression}\n" + "\n".join(events)) from error

    async def run(self, expression: str, arg: Any = None) -> Any:
        return await self.page.evaluate(expression, arg)

    async def elsewhere(self) -> Person:
        """Another device with the same link."""
        browser = self.page.context.browser
        assert browser is not None
        context = await browser.new_context(bypass_csp=True)
        await context.add_init_script(_SPY)
        return Person(await context.new_page(), self._live, self._secret)

    async def sees(self, camera: int, *, timeout: float = 15_000) -> None:
        try:
            await until_moving(self.page, "video", camera=camera, timeout=timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await self.page.evaluate(_PICTURE)}") from None


@asynccontextmanager
async def conversation(
    live: Live, browsers: tuple[Browser, Browser], **wires: str
) -> AsyncIterator[tuple[Person, Person]]:
    """A clinician and a patient, each in a browser of their own, both in the conversation."""
    room = await live.room()
    people = []
    roles: tuple[Role, Role] = ("clinician", "patient")
    for role, browser in zip(roles, browsers, strict=True):
        context = await browser.new_context(bypass_csp=True)
        await context.add_init_script(_SPY)
        secret = (await live.link(room, role, name="Canary")).partition("#")[2]
        people.append(Person(await context.new_page(), live, secret, wires.get(role, "WebSocket")))
    clinician, patient = people
    await clinician.open()
    await clinician.run("client.join()")
    await clinician.until("client.state === 'joined'")
    await patient.open()
    await patient.run("client.join()")
    await clinician.until("client.visitors[0]?.state === 'waiting'")
    await clinician.run("client.admit(client.visitors[0].id)")
    await patient.until("client.state === 'joined'")
    yield clinician, patient
    for person in people:
        await person.page.context.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live() -> AsyncIterator[Live]:
    async with live_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers() -> AsyncIterator[tuple[Browser, Browser]]:
    async with chromium(camera=CLINICIAN, hz=440) as one, chromium(camera=PATIENT, hz=660) as other:
        yield one, other


async def test_two_people_see_and_hear_each_other(live: Live, browsers: tuple[Browser, Browser]) -> None:
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        await patient.sees(CLINICIAN)
        await until_heard(clinician.page, "video", 660)
        await until_heard(patient.page, "video", 440)
        for person in (clinician, patient):
            assert await person.run("connections.length") == 1
            assert await person.run("[...client.peers.values()][0].media") == "connected"
            await person.until("events.some(e => e.type === 'quality' && e.level === 'good' && e.framesDecoded > 10)")
            assert await person.run("events.findLast(e => e.type === 'quality').route.local") == "host"
            assert await person.run("connections[0].getTransceivers().map(t => t.currentDirection)") == ["sendrecv"] * 2
            assert await person.run("connections[0].sctp.state") == "connected"
            assert not await person.run("events.filter(e => e.type === 'problem')")


async def test_a_camera_goes_off_and_on_without_negotiation(live: Live, browsers: tuple[Browser, Browser]) -> None:
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        before = await patient.run("connections[0].localDescription.sdp")
        await patient.run("devices.setEnabled('video', false)")
        await clinician.until("[...client.peers.values()][0].camera === 'off'")
        still = await read_counter(clinician.page, "video")
        await patient.run("devices.setEnabled('video', true)")
        await clinician.until("[...client.peers.values()][0].camera === 'on'")
        await clinician.sees(PATIENT)
        assert still != await read_counter(clinician.page, "video")
        assert await patient.run("connections[0].localDescription.sdp") == before


@pytest.mark.parametrize("who", ["clinician", "patient"])
async def test_a_reload_is_over_within_seconds(live: Live, browsers: tuple[Browser, Browser], who: str) -> None:
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        await patient.sees(CLINICIAN)
        goes, stays = (clinician, patient) if who == "clinician" else (patient, clinician)
        camera, other = (CLINICIAN, PATIENT) if who == "clinician" else (PATIENT, CLINICIAN)
        before = await goes.run("client.self.id")
        await stays.run(WATCH_FOR_BLACK)
        at = asyncio.get_running_loop().time()
        await goes.open()
        await goes.until("client.state === 'joined'")
        await stays.until("connections.length === 2 && [...client.peers.values()][0].media === 'connected'")
        await stays.sees(camera)
        await goes.sees(other)
        took_ms = (asyncio.get_running_loop().time() - at) * 1000
        assert took_ms < BACK_WITHIN_MS, f"{took_ms:.0f} ms"
        assert await goes.run("client.self.id") == before
        assert not await stays.run("events.some(e => e.type === 'peerleft')"), "the same participant"
        assert not await stays.run("blackFrames"), "the old picture stays until the new one is there"
        assert await stays.run("connections[0].connectionState") == "closed"


async def test_offline_for_10_s_then_online(live: Live, browsers: tuple[Browser, Browser]) -> None:
    """The browser's own idea of offline: WebSockets are cut and the events fire; loopback media goes on."""
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        before = await patient.run("connections[0].localDescription.sdp.match(/ufrag:(\\S+)/)[1]")
        await patient.page.context.set_offline(True)
        await patient.until("client.signalling === 'reconnecting'", timeout=6000)
        await clinician.until("[...client.peers.values()][0].connection === 'reconnecting'", timeout=6000)
        await clinician.sees(PATIENT)
        await patient.page.wait_for_timeout(6000)
        await patient.page.context.set_offline(False)
        await patient.until("client.signalling === 'online' && client.state === 'joined'", timeout=BACK_WITHIN_MS)
        restarted = "ufrag => connections[0].localDescription.sdp.match(/ufrag:(\\S+)/)[1] !== ufrag"
        await patient.page.wait_for_function(restarted, arg=before, timeout=BACK_WITHIN_MS)
        await clinician.sees(PATIENT, timeout=BACK_WITHIN_MS)
        await patient.sees(CLINICIAN, timeout=BACK_WITHIN_MS)
        for person in (clinician, patient):
            assert await person.run("connections.length") == 1
            assert not await person.run("events.some(e => e.type === 'peerleft')")


async def test_ice_restarts_that_cross_leave_one_picture(live: Live, browsers: tuple[Browser, Browser]) -> None:
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        for _ in range(4):
            await asyncio.gather(clinician.run("client.restartIce()"), patient.run("client.restartIce()"))
        for person, camera in ((clinician, PATIENT), (patient, CLINICIAN)):
            await person.until(
                "connections[0].signalingState === 'stable' && connections[0].connectionState === 'connected'"
            )
            await person.sees(camera)
            assert await person.run("connections.length") == 1
        ufrags = [
            await person.run(f"connections[0].{side}Description.sdp.match(/ufrag:(\\S+)/)[1]")
            for person, side in ((clinician, "local"), (patient, "remote"))
        ]
        assert ufrags[0] == ufrags[1]


async def test_another_device_takes_the_seat(live: Live, browsers: tuple[Browser, Browser]) -> None:
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        before = await patient.run("client.self.id")
        elsewhere = await patient.elsewhere()
        await elsewhere.open()
        await elsewhere.until("events.some(e => e.type === 'occupied')")
        assert await patient.run("client.state") == "joined", "asking disturbs nobody"
        await elsewhere.run("client.takeOver()")
        await elsewhere.run("client.join()")
        await elsewhere.until("client.state === 'joined'")
        await patient.until("client.state === 'refused' && events.some(e => e.code === 'taken_over')")
        assert await elsewhere.run("client.self.id") == before
        await clinician.sees(PATIENT)
        await elsewhere.sees(CLINICIAN)
        await elsewhere.page.context.close()


@pytest.mark.alone
async def test_a_forged_fingerprint_gives_no_media_and_both_are_told(
    live: Live, browsers: tuple[Browser, Browser]
) -> None:
    """SECURITY.md row 4: what the server relayed is not the certificate that answers."""
    async with conversation(live, browsers, patient=_FORGER) as (clinician, patient):
        for person in (clinician, patient):
            await person.until("events.some(e => e.type === 'media' && e.state === 'failed')", timeout=4000)
            joined, failed = await person.run(
                "[events.find(e => e.type === 'peerjoined').at, events.find(e => e.state === 'failed').at]"
            )
            assert failed - joined < 2000, f"told after {failed - joined:.0f} ms"
            assert await person.run("events.find(e => e.state === 'failed').reason") == "untrusted"
            assert await read_counter(person.page, "video") is None
