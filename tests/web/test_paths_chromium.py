"""A room that moves between its two paths, as the library of two real Chromium pages takes part in it.

The reason to move is made up: what the pages report of their direct connection is replaced on its way to the server.
What a person sees and hears meanwhile is measured in `tests/interop`; here it is which path carries what.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browsers import chromium, until_heard
from tests.live import Live, live_server
from tests.web.test_rtc_chromium import CLINICIAN, PATIENT, WATCH_FOR_BLACK, Person, conversation

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

_LIAR = """class extends WebSocket {
  send(text) {
    const message = JSON.parse(text);
    super.send(message.type === 'pathReport' ? JSON.stringify({...message, ...globalThis.lie}) : text);
  }
}"""
_DETOUR = {"turn": True, "rttMs": 300, "relayRttMs": 5}
"""The direct connection takes the longer way: a reason to move, and to return soon after it is gone."""
_PEER = "[...client.peers.values()][0]"
_SENDS = "connection => connection.getSenders().filter(sender => sender.track).length"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live() -> AsyncIterator[Live]:
    async with live_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers() -> AsyncIterator[tuple[Browser, Browser]]:
    async with chromium(camera=CLINICIAN, hz=440) as one, chromium(camera=PATIENT, hz=660) as other:
        yield one, other


async def _until_warm(*people: Person) -> None:
    """Until everybody's connection to the media server stands by, and would carry the other's picture."""
    for person in people:
        await person.until(f"client.paths.relayed === 'connected' && {_PEER}.shown.coming('video', 'relayed')")


async def _tell(lie: dict[str, Any], *people: Person) -> None:
    for person in people:
        await person.run("lie => { globalThis.lie = lie }", lie)


async def _shown(person: Person) -> list[str]:
    ways: list[str] = await person.run(f"['audio', 'video'].map(kind => {_PEER}.shown.way(kind))")
    return ways


async def test_there_and_back_without_a_black_frame(live: Live, browsers: tuple[Browser, Browser]) -> None:
    async with conversation(live, browsers, clinician=_LIAR, patient=_LIAR) as (clinician, patient):
        people = (clinician, patient)
        await clinician.sees(PATIENT)
        await patient.sees(CLINICIAN)
        await _until_warm(*people)
        for person in people:
            assert await person.run(f"relays.map({_SENDS})") == [0], "it stands by without tracks"
            assert await _shown(person) == ["direct", "direct"]
            await person.run(WATCH_FOR_BLACK)
        for path, carries, silent in (("relayed", "relays", "connections"), ("direct", "connections", "relays")):
            await _tell(_DETOUR if path == "relayed" else {}, *people)
            for person in people:
                await person.until(f"client.path === '{path}'", timeout=60_000)
                assert await _shown(person) == [path, path]
            for person in people:
                await person.until(f"{silent}.map({_SENDS}).join() === '0'")
                assert await person.run(f"{carries}.map({_SENDS})") == [2]
                assert await person.run(f"{_PEER}.media") == "connected"
            await clinician.sees(PATIENT)
            await patient.sees(CLINICIAN)
            await until_heard(clinician.page, "video", 660)
            await until_heard(patient.page, "video", 440)
        for person in people:
            assert await person.run("client.paths.history.map(({to, moved}) => `${to} ${moved}`)") == [
                "relayed true",
                "direct true",
            ]
            assert not await person.run("blackFrames")
            assert not await person.run("events.some(e => ['peerleft', 'problem'].includes(e.type))")
            assert await person.run("[connections.length, relays.length]") == [1, 1], "both were kept"


@pytest.mark.alone
async def test_a_direct_path_that_dies_is_left_at_once(live: Live, browsers: tuple[Browser, Browser]) -> None:
    """Nothing comes any more, though ICE is well: what a dead radio looks like for the first seconds."""
    async with conversation(live, browsers) as (clinician, patient):
        await clinician.sees(PATIENT)
        await patient.sees(CLINICIAN)
        await _until_warm(clinician, patient)
        stop = "connections[0].getSenders().forEach(sender => sender.replaceTrack(null)), performance.now()"
        died = [await person.run(f"({stop})") for person in (clinician, patient)]
        for person, at in zip((clinician, patient), died, strict=True):
            await person.until(f"{_PEER}.shown.way('video') === 'relayed' && {_PEER}.shown.way('audio') === 'relayed'")
            move = await person.run("client.paths.history.at(-1)")
            assert move["reason"] == "failure"
            assert move["startedAt"] - at < 3000, "noticed"
        await clinician.sees(PATIENT)
        await patient.sees(CLINICIAN)
        await asyncio.gather(*(person.until("client.path === 'relayed'") for person in (clinician, patient)))


async def test_cameras_off_and_a_hidden_page_move_too(live: Live, browsers: tuple[Browser, Browser]) -> None:
    async with conversation(live, browsers, clinician=_LIAR, patient=_LIAR) as (clinician, patient):
        await clinician.sees(PATIENT)
        await _until_warm(clinician, patient)
        await patient.run("devices.setEnabled('video', false)")
        await patient.run("devices.setEnabled('audio', false)")
        await clinician.run(f"client.showSize({_PEER}.id, '', null)")
        await clinician.until(f"{_PEER}.camera === 'off' && {_PEER}.microphone === 'off'")
        await _tell(_DETOUR, clinician, patient)
        for person in (clinician, patient):
            await person.until("client.path === 'relayed'", timeout=60_000)
        await patient.run("devices.setEnabled('video', true)")
        await clinician.run(f"client.showSize({_PEER}.id, '', {{width: 1280, height: 720}})")
        await clinician.sees(PATIENT)
        assert (await _shown(clinician))[1] == "relayed"
