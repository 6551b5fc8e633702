"""Conversations through the media server: real browsers, the real pages, in rooms that are never direct."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests import media
from tests.browsers import Page, chromium, firefox, press, until_heard, until_moving, until_state
from tests.live import live_server
from tests.walk import REMOTE, enter_as_clinician, until_told, wait_to_be_let_in, who_am_i


def tile_of(participant: str) -> str:
    """Return the selector of the picture of one of several others."""
    return f'[data-view=call] video[data-peer="{participant}"]'


async def is_relayed(page: Page) -> bool:
    """Whether the page's media runs through the media server, and through nothing else."""
    return bool(await page.evaluate("__colloque.client.path === 'relayed'"))


async def test_two_chromium_and_what_they_switch_off() -> None:
    async with live_server() as live, chromium(3, hz=440) as here, chromium(5, hz=660) as there:
        room = await live.room(topology="relay-only")
        patient, clinician = await there.new_page(), await here.new_page()
        await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada"))
        await enter_as_clinician(clinician, await live.link(room, "clinician", name="Dr Hopper"))
        await press(clinician, "admit")
        await until_state(patient, "call")
        await until_moving(patient, REMOTE, camera=3)
        await until_moving(clinician, REMOTE, camera=5)
        await until_heard(patient, REMOTE, 440)
        await until_heard(clinician, REMOTE, 660)
        assert await is_relayed(patient)
        assert await is_relayed(clinician)

        await press(patient, "toggle-camera")
        await clinician.wait_for_selector(".tile[data-dark]")
        await press(patient, "toggle-camera")
        await until_moving(clinician, REMOTE, camera=5)

        await patient.reload()
        await until_moving(clinician, REMOTE, camera=5)
        await until_moving(patient, REMOTE, camera=3)


async def test_chromium_and_firefox() -> None:
    async with live_server() as live, chromium(6, hz=440) as here, firefox(hz=700) as there:
        room = await live.room(topology="relay-only")
        patient, clinician = await there.new_page(), await here.new_page()
        await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada"))
        await enter_as_clinician(clinician, await live.link(room, "clinician", name="Dr Hopper"))
        await press(clinician, "admit")
        await until_state(patient, "call")
        await until_moving(patient, REMOTE, camera=6)
        await until_moving(clinician, REMOTE, camera=None)
        await until_heard(patient, REMOTE, 440)
        await until_heard(clinician, REMOTE, 700)
        assert await is_relayed(patient)
        assert await is_relayed(clinician)


@pytest.mark.alone  # four browsers are all that two cores can carry
@pytest.mark.timeout(240)
async def test_a_third_and_a_fourth_person_come_to_a_direct_call_and_go() -> None:
    """Each decodes all the others; when two are left, they are direct again."""
    async with live_server() as live, AsyncExitStack() as stack:
        room = await live.room()
        pages: dict[int, Page] = {}
        people = {1: "clinician", 2: "patient", 3: "guest", 4: "guest"}
        for camera, role in people.items():
            browser = await stack.enter_async_context(chromium(camera, hz=300 + 100 * camera, size=media.SMALL))
            pages[camera] = page = await browser.new_page()
            link = await live.link(room, role, name=f"Person {camera}")  # type: ignore[arg-type]
            if role == "clinician":
                await enter_as_clinician(page, link)
                continue
            await wait_to_be_let_in(page, link)
            await until_told(pages[1], "[data-visitors] [data-participant]", f"Person {camera}")
            await press(pages[1], "admit")
            await until_state(page, "call")
            ids = {number: await who_am_i(other) for number, other in pages.items()}
            for number, other in pages.items():
                for shown in pages:
                    if shown != number:
                        await until_moving(other, tile_of(ids[shown]), camera=shown, timeout=40_000)
        assert all([await is_relayed(page) for page in pages.values()])
        await until_heard(pages[2], tile_of(ids[4]), 700)

        await press(pages[4], "leave")
        await press(pages[3], "leave")
        await pages[1].wait_for_function("() => __colloque.client.path === 'direct'", timeout=40_000)
        await until_moving(pages[1], tile_of(ids[2]), camera=2)
        await until_moving(pages[2], tile_of(ids[1]), camera=1)
