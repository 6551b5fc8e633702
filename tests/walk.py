"""The ways through the room's page, clicked as people click them; for a page of either browser. [IO]

welcome -> devices -> waiting -> call          the person to be let in
welcome -> devices -> call                     the clinician
"""

from __future__ import annotations

from tests.browsers import Page, open_page, press, until_state

REMOTE = "[data-view=call] video[data-peer]"
SELF = "[data-view=call] video[data-self]"


def observed(link: str) -> str:
    """Return the link with `?debug=1`: the page then lets a test read its client."""
    return link.replace("#", "?debug=1#", 1)


async def choose_devices(page: Page, link: str) -> None:
    """Open a link and allow camera and microphone."""
    await open_page(page, observed(link))
    await allow_devices(page)


async def allow_devices(page: Page) -> None:
    """From the welcome on; a clinician whose browser has allowed everything before is not asked."""
    if await until_state(page, "welcome", "devices") == "welcome":
        await press(page, "allow-devices")
    await until_state(page, "devices")


async def wait_to_be_let_in(page: Page, link: str) -> None:
    """Go to the waiting room."""
    await choose_devices(page, link)
    await press(page, "enter-waiting")
    await until_state(page, "waiting")


async def enter_as_clinician(page: Page, link: str) -> None:
    """Go to the conversation."""
    await choose_devices(page, link)
    await press(page, "join")
    await until_state(page, "call")


async def meet(clinician: Page, clinician_link: str, patient: Page, patient_link: str) -> None:
    """Bring both into the conversation."""
    await wait_to_be_let_in(patient, patient_link)
    await enter_as_clinician(clinician, clinician_link)
    await press(clinician, "admit")
    await until_state(patient, "call")


async def who_am_i(page: Page) -> str:
    """Return the participant id of the person at this page."""
    return str(await page.evaluate("__colloque.client.self.id"))


async def until_online(page: Page, *, timeout: float = 20_000) -> None:
    """Wait until the page has its link to the server."""
    await page.wait_for_function("() => __colloque.client.signalling === 'online'", timeout=timeout)


async def until_told(page: Page, selector: str, text: str, *, timeout: float = 20_000) -> None:
    """Wait until an element that is seen says this, among other things."""
    expression = """([selector, text]) => [...document.querySelectorAll(selector)]
      .some(element => element.checkVisibility() && element.textContent.includes(text))"""
    await page.wait_for_function(expression, arg=[selector, text], timeout=timeout)
