"""Direct, relayed, direct again: what two people at real pages notice of it, which is to be nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from tests.browsers import press, until_heard, until_moving
from tests.interop.deployment import Deployment, Person, admit, back_after, participant, running
from tests.interop.natlab import LAB_TIMEOUT_S, Site
from tests.presented import Presented
from tests.switches import CLINICIAN, CLINICIAN_HZ, PATIENT, PATIENT_HZ, WARM, SwitchedCall, switched_call
from tests.walk import REMOTE

pytestmark = pytest.mark.timeout(LAB_TIMEOUT_S)

PICTURE_GAP_MS = 300
SOUND_GAP_MS = 100
KEPT = 0.8
DEATH_S = 3.0
TIMES = 2
MEDIA_PORTS = "10000:10007"
"""Of the deployment: its default port, and one per worker."""

_NOTE_LOSSES = """() => { globalThis.losses = [];
  for (const type of ['peerleft', 'problem']) __colloque.client.addEventListener(type, () => losses.push(type)); }"""
_HIDE = """hidden => {
  Object.defineProperty(document, 'visibilityState', {configurable: true, get: () => hidden ? 'hidden' : 'visible'});
  Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});
  document.querySelector('main').style.display = hidden ? 'none' : '';
  document.dispatchEvent(new Event('visibilitychange', {bubbles: true}));
}"""
_ENDED = "() => __colloque.client.paths.history.find(({endedAt}) => endedAt != null)"


async def everybody_is_still_there(call: SwitchedCall) -> None:
    """Nobody left, nothing was refused, and both see and hear the other."""
    for page in call.pages:
        assert await page.evaluate("losses") == []
        assert await page.evaluate("document.querySelector('main').dataset.state") == "call"
    clinician, patient = call.pages
    await until_moving(clinician, REMOTE, camera=PATIENT)
    await until_moving(patient, REMOTE, camera=CLINICIAN)
    await until_heard(clinician, REMOTE, PATIENT_HZ)
    await until_heard(patient, REMOTE, CLINICIAN_HZ)


@pytest.mark.alone
async def test_nobody_notices() -> None:
    async with switched_call() as call:
        for page in call.pages:
            await page.evaluate(_NOTE_LOSSES)
        await asyncio.sleep(3)  # until the rate has risen to what the picture needs
        for _ in range(TIMES):
            for to in ("relayed", "direct"):
                switch = await call.switch(to)
                print(switch)
                assert switch.picture_gap_ms <= PICTURE_GAP_MS
                assert switch.sound_gap_ms <= SOUND_GAP_MS
                assert switch.rate_kept >= KEPT
                assert switch.size_kept >= KEPT
        for page in call.pages:
            moves = await page.evaluate("__colloque.client.paths.history.map(({to, moved}) => [to, moved])")
            assert moves == [["relayed", True], ["direct", True]] * TIMES
        await everybody_is_still_there(call)


async def test_cameras_off_microphones_muted_and_a_page_that_nobody_looks_at() -> None:
    """Nothing lives on the old path; the new one is there all the same, and carries what is switched on again."""
    async with switched_call() as call:
        patient = call.pages[1]
        for page in call.pages:
            await page.evaluate(_NOTE_LOSSES)
            await press(page, "toggle-camera")
            await press(page, "toggle-microphone")
        await call.until("() => [...__colloque.client.peers.values()][0].camera === 'off'")
        await patient.evaluate(_HIDE, True)
        for to in ("relayed", "direct", "relayed"):
            await call.order("relayed" if to == "relayed" else "auto")
            await call.until("to => __colloque.client.path === to", to)
        await patient.evaluate(_HIDE, False)
        for page in call.pages:
            await press(page, "toggle-camera")
            await press(page, "toggle-microphone")
        await everybody_is_still_there(call)
        await call.until("() => [...__colloque.client.peers.values()][0].shown.way('video') === 'relayed'")


class Lab:
    """A call in the lab, direct, with both connections to the media server standing by."""

    def __init__(self, deployment: Deployment, clinic: Site, home: Site, people: tuple[Person, Person]) -> None:
        self.deployment = deployment
        self.clinic = clinic
        self.home = home
        self.people = people

    async def order(self, path: str) -> None:
        """Say which way the room is to go, as an operator does."""
        await asyncio.to_thread(self.deployment.order, path)

    async def record(self) -> list[Presented]:
        """Begin to note what both see and hear."""
        return [await Presented.begin(person.page) for person in self.people]

    async def everywhere(self, expression: str, *, timeout_s: float = 20.0) -> list[Any]:
        """Wait until this is true at both pages, and return what it is."""
        waits = (person.page.wait_for_function(expression, timeout=timeout_s * 1000) for person in self.people)
        return [await found.json_value() for found in await asyncio.gather(*waits)]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@asynccontextmanager
async def lab_call(deployment: Deployment) -> AsyncIterator[Lab]:
    """Bring two people together; at the end they are who they were, and see each other."""
    deployment.lab.clear()
    clinic, home = deployment.lab.site("cone"), deployment.lab.site("cone")
    async with deployment.consultation(clinic, home, presented=True) as people:
        await admit(*people)
        ids = [await participant(person) for person in people]
        call = Lab(deployment, clinic, home, people)
        await call.everywhere(WARM)
        yield call
        assert [await participant(person) for person in people] == ids
        for person, other in zip(people, reversed(people), strict=True):
            assert await person.page.evaluate("document.querySelector('main').dataset.state") == "call"
            await until_moving(person.page, REMOTE, camera=other.camera)


@contextmanager
def nobody_reaches_the_media_server(deployment: Deployment) -> Iterator[None]:
    """By UDP or TCP, not even coturn."""
    rules = [["INPUT", "-p", kind, "--dport", MEDIA_PORTS, "-j", "DROP"] for kind in ("udp", "tcp")]
    for rule in rules:
        deployment.lab.public.run("iptables", "-I", *rule)
    try:
        yield
    finally:
        for rule in rules:
            deployment.lab.public.run("iptables", "-D", *rule)


@pytest.mark.alone
async def test_a_new_path_that_fails_is_given_up_unnoticed(deployment: Deployment) -> None:
    """Nothing reaches the media server from the moment that the room begins to move: all stays as it was."""
    async with lab_call(deployment) as call:
        recorders = await call.record()
        await asyncio.sleep(1)
        for recorder in recorders:
            await recorder.take()
        ordered = asyncio.create_task(call.order("relayed"))
        await call.people[0].page.wait_for_function("() => __colloque.client.paths.move !== null", polling=10)
        with nobody_reaches_the_media_server(deployment):
            await ordered
            moves = await call.everywhere(_ENDED)
            await asyncio.sleep(1)
        for person, recorder, move in zip(call.people, recorders, moves, strict=True):
            assert (move["to"], move["reason"], move["moved"]) == ("relayed", "policy", False)
            assert move["readyAt"] is None
            assert await person.page.evaluate("__colloque.client.path") == "direct"
            seen = await recorder.take()
            print(f"given up: {seen.picture_gap_ms():.0f} ms, {seen.sound_gap_ms():.0f} ms")
            assert seen.picture_gap_ms() <= PICTURE_GAP_MS
            assert seen.sound_gap_ms() <= SOUND_GAP_MS


@pytest.mark.alone
async def test_a_direct_path_that_dies_is_replaced(deployment: Deployment) -> None:
    """Nothing passes between the two any more, though both reach the server."""
    async with lab_call(deployment) as call:
        recorders = await call.record()
        await asyncio.sleep(1)
        for recorder in recorders:
            await recorder.take()
        deployment.lab.part(call.clinic, call.home)
        died = time.time()
        seconds = await asyncio.gather(*(back_after(person, died + 0.2) for person in call.people))
        print(f"dead: pictures after {seconds[0]:.2f} and {seconds[1]:.2f} s")
        await asyncio.sleep(1)
        for recorder in recorders:
            seen = await recorder.take()
            print(f"dead: {seen.picture_gap_ms():.0f} ms without a picture, {seen.sound_gap_ms():.0f} ms without sound")
            assert seen.picture_gap_ms() <= DEATH_S * 1000
            assert seen.sound_gap_ms() <= DEATH_S * 1000
        await call.everywhere("() => __colloque.client.path === 'relayed'")
