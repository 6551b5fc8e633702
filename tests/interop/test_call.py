"""From two links to a conversation: real browsers, the real pages, and nobody knows anything but where to click."""

from __future__ import annotations

from tests.browsers import (
    Page,
    chromium,
    firefox,
    frames_shown,
    press,
    read_counter,
    tone_level,
    until_heard,
    until_moving,
    until_not_heard,
    until_state,
)
from tests.live import live_server
from tests.walk import REMOTE, SELF, enter_as_clinician, until_told, wait_to_be_let_in


async def until_met(page: Page, *, camera: int | None, hz: int) -> None:
    """Wait until the other is seen moving, is heard, and pictures go on being decoded."""
    await until_moving(page, REMOTE, camera=camera)
    before = await frames_shown(page, REMOTE)
    await until_heard(page, REMOTE, hz)
    assert await frames_shown(page, REMOTE) > before + 5


async def test_two_chromium_from_their_links_to_the_end() -> None:
    async with live_server() as live, chromium(3, hz=440) as here, chromium(5, hz=660) as there:
        room = await live.room()
        patient, clinician = await there.new_page(), await here.new_page()

        await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada Lovelace"))
        await enter_as_clinician(clinician, await live.link(room, "clinician", name="Dr Hopper"))
        await until_told(clinician, "[data-visitors] [data-participant]", "Ada Lovelace")
        assert await patient.evaluate("document.querySelectorAll('video[data-peer]').length") == 0
        assert "Hopper" not in await patient.inner_text("main"), "no names before admission"

        await press(clinician, "admit")
        await until_state(patient, "call")
        await until_met(patient, camera=3, hz=440)
        await until_met(clinician, camera=5, hz=660)
        mirrored = await read_counter(patient, SELF)
        assert mirrored is not None, "one's own picture"
        assert mirrored.camera == 5
        assert await tone_level(patient, SELF, 660) == 0, "nobody hears themselves"

        await press(patient, "toggle-microphone")
        await clinician.wait_for_selector("[data-view=call] [data-muted]")
        await until_not_heard(clinician, REMOTE, 660)
        await press(patient, "toggle-microphone")
        await until_heard(clinician, REMOTE, 660)
        await press(patient, "toggle-camera")
        await clinician.wait_for_selector(".tile[data-dark]")
        await press(patient, "toggle-camera")
        await until_moving(clinician, REMOTE, camera=5)

        await press(clinician, "end-for-all")
        await press(clinician, "confirm")
        await until_state(patient, "ended")
        await until_state(clinician, "ended")
        for page in (patient, clinician):
            assert await page.evaluate("document.querySelectorAll('video[data-peer]').length") == 0
            assert await page.evaluate("__colloque.devices.stream?.active ?? false") is False, (
                "the camera's light is out"
            )


async def test_a_clinician_in_chromium_and_a_patient_in_firefox() -> None:
    async with live_server() as live, chromium(6, hz=440) as here, firefox(hz=700) as there:
        room = await live.room()
        patient, clinician = await there.new_page(), await here.new_page()
        await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada"))
        await enter_as_clinician(clinician, await live.link(room, "clinician", name="Dr Hopper"))
        await press(clinician, "admit")
        await until_state(patient, "call")
        await until_met(patient, camera=6, hz=440)
        await until_met(clinician, camera=None, hz=700)
        await press(patient, "toggle-microphone")
        await clinician.wait_for_selector("[data-view=call] [data-muted]")
        await press(clinician, "end-for-all")
        await press(clinician, "confirm")
        await until_state(patient, "ended")


async def test_a_clinician_in_firefox_and_a_patient_in_chromium() -> None:
    async with live_server() as live, firefox(hz=700) as here, chromium(7, hz=440) as there:
        room = await live.room()
        clinician, patient = await here.new_page(), await there.new_page()
        await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada"))
        await enter_as_clinician(clinician, await live.link(room, "clinician", name="Dr Hopper"))
        await press(clinician, "admit")
        await until_state(patient, "call")
        await until_met(patient, camera=None, hz=700)
        await until_met(clinician, camera=7, hz=440)
        await press(patient, "leave")
        await until_state(patient, "ended")
        await clinician.wait_for_selector("[data-view=call] [data-alone]")
