"""The seat outlives everything but the end of the room: reloads, a second device, restarts, being sent back.

All through the real pages; nobody clicks unless the page asks them to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page

from tests.browsers import chromium, open_page, press, until_heard, until_moving, until_state
from tests.live import Live, live_server
from tests.walk import (
    REMOTE,
    allow_devices,
    enter_as_clinician,
    meet,
    observed,
    until_online,
    until_told,
    wait_to_be_let_in,
    who_am_i,
)

CLINICIAN, PATIENT = 3, 5
"""Their cameras."""
BACK_S = 5.0
"""The call is back within this time, once the network is."""


@pytest.fixture
async def live() -> AsyncIterator[Live]:
    async with live_server() as server:
        yield server


@pytest.fixture
async def clinic() -> AsyncIterator[Browser]:
    async with chromium(CLINICIAN, hz=440) as browser:
        yield browser


@pytest.fixture
async def home() -> AsyncIterator[Browser]:
    async with chromium(PATIENT, hz=660) as browser:
        yield browser


async def until_both_seen(clinician: Page, patient: Page) -> None:
    await until_moving(clinician, REMOTE, camera=PATIENT)
    await until_moving(patient, REMOTE, camera=CLINICIAN)


async def test_a_reload_comes_back_by_itself(live: Live, clinic: Browser, home: Browser) -> None:
    room = await live.room()
    clinician, patient = await clinic.new_page(), await home.new_page()
    await meet(clinician, await live.link(room, "clinician"), patient, await live.link(room, "patient"))
    await until_both_seen(clinician, patient)

    for page in (patient, clinician):  # how soon, is measured in test_network_changes.py
        before = await who_am_i(page)
        await page.reload()
        await until_both_seen(clinician, patient)
        assert await who_am_i(page) == before
    await until_heard(clinician, REMOTE, 660)
    await until_heard(patient, REMOTE, 440)


async def test_a_reload_in_the_waiting_room_keeps_the_place(live: Live, home: Browser) -> None:
    room = await live.room()
    first, second = await home.new_page(), await home.new_page()
    await wait_to_be_let_in(first, await live.link(room, "patient", name="Ada"))
    await wait_to_be_let_in(second, await live.link(room, "guest", name="Grace"))
    before, place = await who_am_i(first), await first.inner_text("[data-place]")
    assert place != await second.inner_text("[data-place]")
    await first.reload()
    await until_state(first, "waiting")
    assert await who_am_i(first) == before
    await until_told(first, "[data-place]", place)


async def test_the_same_link_on_a_second_device_asks_and_then_takes_over(
    live: Live, clinic: Browser, home: Browser
) -> None:
    room = await live.room()
    link = await live.link(room, "patient", name="Ada")
    clinician, computer = await clinic.new_page(), await home.new_page()
    await meet(clinician, await live.link(room, "clinician"), computer, link)
    seat = await who_am_i(computer)

    telephone = await home.new_page()  # each page of Playwright's has a storage of its own
    await open_page(telephone, observed(link))
    await until_state(telephone, "problem")
    assert await telephone.get_attribute("main", "data-code") == "occupied"
    await until_moving(computer, REMOTE, camera=CLINICIAN)

    await press(telephone, "continue-here")
    await until_state(computer, "problem")
    assert await computer.get_attribute("main", "data-code") == "taken_over"
    await allow_devices(telephone)
    await press(telephone, "enter-waiting")
    await until_state(telephone, "call")
    assert await who_am_i(telephone) == seat
    await until_both_seen(clinician, telephone)


async def test_leaving_and_coming_back_does_not_queue_again(live: Live, clinic: Browser, home: Browser) -> None:
    room = await live.room()
    clinician, patient = await clinic.new_page(), await home.new_page()
    await meet(clinician, await live.link(room, "clinician"), patient, await live.link(room, "patient"))
    seat = await who_am_i(patient)
    await press(patient, "leave")
    await until_state(patient, "ended")
    await clinician.wait_for_selector("[data-view=call] [data-alone]")
    await press(patient, "come-back")
    await until_state(patient, "call")
    assert await who_am_i(patient) == seat
    await until_both_seen(clinician, patient)


@pytest.mark.alone
async def test_the_conversation_outlives_a_restart_of_the_server(live: Live, clinic: Browser, home: Browser) -> None:
    room = await live.room()
    clinician, patient = await clinic.new_page(), await home.new_page()
    await meet(clinician, await live.link(room, "clinician"), patient, await live.link(room, "patient"))
    await until_both_seen(clinician, patient)
    seats = [await who_am_i(clinician), await who_am_i(patient)]

    assert await live.stop() == 0
    await until_both_seen(clinician, patient)
    await live.restart()

    started = time.monotonic()
    await asyncio.gather(until_online(clinician), until_online(patient))
    assert time.monotonic() - started < BACK_S
    assert [await who_am_i(clinician), await who_am_i(patient)] == seats
    await until_both_seen(clinician, patient)
    await press(patient, "toggle-microphone")
    await clinician.wait_for_selector("[data-view=call] [data-muted]")


async def test_what_a_clinician_does_with_somebody_who_waits(live: Live, clinic: Browser, home: Browser) -> None:
    room = await live.room()
    clinician, patient = await clinic.new_page(), await home.new_page()
    await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada"))
    await enter_as_clinician(clinician, await live.link(room, "clinician"))

    await _act(clinician, "visitors", "tell", "Dix minutes de retard, pardon.")
    await until_told(patient, "[data-messages]", "Dix minutes de retard, pardon.")

    await press(clinician, "admit")
    await until_state(patient, "call")
    await until_moving(patient, REMOTE, camera=CLINICIAN)
    await _act(clinician, "present", "send-back", "Je prépare vos résultats.")
    await until_state(patient, "waiting")
    await until_told(patient, "[data-messages]", "Je prépare vos résultats.")
    assert await patient.evaluate("document.querySelectorAll('video[data-peer]').length") == 0

    await press(clinician, "admit")
    await until_state(patient, "call")
    await until_moving(patient, REMOTE, camera=CLINICIAN)
    await _act(clinician, "present", "remove", "Erreur de personne.")
    await until_state(patient, "problem")
    assert await patient.get_attribute("main", "data-code") == "removed"
    await until_told(patient, "[data-view=problem] [data-reason]", "Erreur de personne.")
    await patient.reload()
    await until_state(patient, "problem")

    another = await home.new_page()
    await wait_to_be_let_in(another, await live.link(room, "guest", name="Grace"))
    await _act(clinician, "visitors", "refuse", "Le cabinet ferme.")
    await until_state(another, "problem")
    assert await another.get_attribute("main", "data-code") == "refused"
    await until_told(another, "[data-view=problem] [data-reason]", "Le cabinet ferme.")


async def _act(clinician: Page, where: str, action: str, words: str) -> None:
    """Open the menu of the only person in a list, choose, write, and confirm."""
    row = clinician.locator(f"[data-{where}] [data-participant]:not([hidden])").first
    await row.locator("summary").click()
    await row.locator(f'[data-testid="{action}"]').click()
    await clinician.fill("#ask-input", words)
    await press(clinician, "confirm")
