"""The room in a page of somebody else's: the example host page, served from another origin, through the SDK.

The room is at http://localhost:PORT, the host at http://127.0.0.1:ANOTHER: another name and another port.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests import bidi, browsers
from tests.browsers import chromium, firefox, press, until_heard, until_moving, until_state
from tests.live import Live, live_server
from tests.walk import REMOTE, allow_devices, until_told, wait_to_be_let_in

EXAMPLES = Path(__file__).resolve().parents[2] / "web" / "examples"
CLINIC, HOME = 9, 10
"""Cameras."""
GIVES_UP_MS = 15_000
"""When the SDK tells its page that the room does not answer."""


class Host:
    """The example host page on an origin of its own; `colloque` is where its rooms are."""

    def __init__(self) -> None:
        self.origin = self.colloque = ""

    @property
    def page(self) -> str:
        return f"{self.origin}/clinic.html"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """A file of `web/examples`; in the page, the address of the rooms is ours."""
        path = EXAMPLES / request.match_info["name"]
        if path.suffix != ".html":
            return web.FileResponse(path)
        text = path.read_text()
        assert 'content="http://localhost:8080"' in text
        return web.Response(
            text=text.replace('content="http://localhost:8080"', f'content="{self.colloque}"'), content_type="text/html"
        )


@asynccontextmanager
async def example_host() -> AsyncIterator[Host]:
    app = web.Application()
    server = TestServer(app, host="127.0.0.1")
    serving = Host()
    app.router.add_get("/{name}", serving.serve)
    async with server:
        serving.origin = str(server.make_url("/")).rstrip("/")
        yield serving


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with example_host() as serving:
        yield serving


@pytest.fixture
async def live(host: Host) -> AsyncIterator[Live]:
    """A server whose clinic lets the host embed its rooms."""
    async with live_server(tenant={"origins": (host.origin,)}) as server:
        host.colloque = server.origin
        yield server


async def mounted(page: browsers.Page, host: Host, link: str) -> None:
    """Open the host page and paste a link."""
    await page.goto(host.page)
    await page.fill("#link", link)
    await page.click("#open button")


async def journal(page: browsers.Page, what: str, *, timeout: float = 20_000) -> str:
    """Wait for a line of the host's journal: an event that it got, or a command that was carried out."""
    await page.wait_for_function(
        'what => !!document.querySelector(`#journal [data-what="${what}"]`)', arg=what, timeout=timeout
    )
    return str(
        await page.evaluate(
            "what => [...document.querySelectorAll(`#journal [data-what='${what}']`)].at(-1).innerText", what
        )
    )


async def test_a_call_inside_the_frame_and_its_events_and_commands(live: Live, host: Host) -> None:
    room = await live.room()
    async with chromium(CLINIC, hz=440) as clinic, chromium(HOME, hz=660) as home:
        clinician, patient = await clinic.new_page(), await home.new_page()
        await wait_to_be_let_in(patient, await live.link(room, "patient", name="Ada Lovelace"))
        await mounted(clinician, host, await live.link(room, "clinician", name="Dr Hopper"))
        assert "clinician" in await journal(clinician, "ready")
        inside = clinician.frames[1]
        await allow_devices(inside)
        await press(inside, "join")
        await journal(clinician, "joined")

        await until_told(clinician, "#visitors", "Ada Lovelace")
        await clinician.click("#visitors button")
        await until_state(patient, "call")
        assert "Ada Lovelace" in await journal(clinician, "peerjoined")
        await until_moving(inside, REMOTE, camera=HOME)
        await until_heard(inside, REMOTE, 660)
        await until_moving(patient, REMOTE, camera=CLINIC)
        await clinician.wait_for_selector("#room[data-quality]")

        await clinician.click('[data-command="setMicrophone"][data-argument="false"]')
        await patient.wait_for_selector("[data-view=call] [data-muted]")
        assert "off" in await journal(clinician, "media")
        await clinician.click('[data-command="setMicrophone"][data-argument="true"]')
        await until_heard(patient, REMOTE, 440)

        await clinician.click('[data-command="endRoom"]')
        await journal(clinician, "ended")
        await until_state(patient, "ended")


async def test_firefox_embeds_too(live: Live, host: Host) -> None:
    room = await live.room()
    async with firefox() as browser:
        page = await browser.new_page()
        await mounted(page, host, await live.link(room, "patient", name="Ada"))
        assert "patient" in await journal(page, "ready")
        inside: bidi.Page = await page.child()
        await allow_devices(inside)
        await press(inside, "enter-waiting")
        await journal(page, "waiting")
        await page.click('[data-command="endRoom"]')
        assert "not_permitted" in await journal(page, "refused"), "a patient ends nothing"


@pytest.mark.parametrize("tenant", ["clinique", "nowhere"])
async def test_a_page_that_is_not_in_the_list_gets_an_empty_frame(tenant: str, host: Host) -> None:
    async with live_server() as live, chromium() as browser:
        host.colloque = live.origin
        link = (await live.link(await live.room(), "patient")).replace("/t/clinique/", f"/t/{tenant}/")
        page = await browser.new_page()
        await page.clock.install()
        async with page.expect_console_message(lambda said: "frame-ancestors" in said.text):
            await mounted(page, host, link)
        await page.clock.fast_forward(GIVES_UP_MS)
        assert "unreachable" in await journal(page, "error")
        inside = page.frames[1]
        assert await inside.evaluate("document.querySelector('main[data-state]')") is None
        async with live.api.get(f"/t/{tenant}/embed") as answer:
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


async def test_an_example_link_to_elsewhere_is_not_opened(live: Live, host: Host) -> None:
    async with chromium() as browser:
        page = await browser.new_page()
        await mounted(page, host, "http://127.0.0.1:9/t/clinique/r#AAAAAAAAAAAAAAAAAAAAAA")
        await until_told(page, "#refusal", "n’est pas de")
        assert len(page.frames) == 1


async def test_forged_messages_are_ignored_on_both_sides(live: Live, host: Host) -> None:
    """A stranger's frame on the same host page says what the room would say, and what the host would say."""
    room = await live.room()
    async with chromium() as browser:
        page = await browser.new_page()
        await mounted(page, host, await live.link(room, "patient", name="Ada"))
        await journal(page, "ready")
        inside = page.frames[1]
        await inside.evaluate("() => addEventListener('message', event => { globalThis.last = event.data })")
        event = {"colloque": 1, "type": "event", "name": "ended", "detail": {"by": "host", "reason": ""}}
        command = {"colloque": 1, "type": "command", "id": 1, "name": "setLanguage", "argument": "en"}

        # From a sibling frame of the very same, listed origin; then from each window to itself.
        said = f"parent.postMessage({json.dumps(event)}, '*'); parent.frames[0].postMessage({json.dumps(command)}, '*')"
        await page.evaluate(
            """script => new Promise(loaded => {
              const sibling = document.createElement('iframe');
              sibling.srcdoc = `<script>${script}</` + 'script>';
              sibling.onload = loaded;
              document.body.append(sibling);
            })""",
            said,
        )
        await inside.wait_for_function("() => globalThis.last?.name === 'setLanguage'")
        await page.evaluate("message => postMessage(message, '*')", event)
        await inside.evaluate("message => { last = null; postMessage(message, '*') }", command)
        await inside.wait_for_function("() => globalThis.last?.name === 'setLanguage'")
        await page.wait_for_timeout(300)
        assert await page.evaluate("document.querySelector('[data-what=ended]')") is None
        assert await inside.evaluate("document.documentElement.lang") == "fr"

        # The same from the host's own window is obeyed: it was who said it that counted.
        await page.evaluate("message => frames[0].postMessage(message, '*')", command)
        await inside.wait_for_function("() => document.documentElement.lang === 'en'")


async def test_a_page_of_an_unlisted_origin_is_never_spoken_to(live: Live) -> None:
    """Opened as a window by a stranger, the embedded room has nobody around it: it neither answers nor obeys."""
    link = (await live.link(await live.room(), "patient")).replace("/r#", "/embed#")
    async with chromium() as browser, example_host() as stranger:
        page = await browser.new_page()
        stranger.colloque = live.origin
        await page.goto(stranger.page)
        await page.evaluate(
            "() => { globalThis.heard = []; addEventListener('message', event => heard.push(event.data)) }"
        )
        async with page.expect_popup() as opening:
            await page.evaluate("link => { globalThis.room = open(link) }", link)
        popup = await opening.value
        await until_state(popup, "welcome")
        for message in (
            {"colloque": 1, "type": "connect"},
            {"colloque": 1, "type": "command", "id": 1, "name": "setLanguage", "argument": "en"},
        ):
            await page.evaluate("message => room.postMessage(message, '*')", message)
        await asyncio.sleep(0.5)
        assert await page.evaluate("heard.length") == 0
        assert await popup.evaluate("document.documentElement.lang") == "fr"
