"""Every state of the room's page in a real browser: it is reached, it is accessible, and this is what it looks like.

Each state is taken on a phone and a desk, light and dark, in French and English, without leaving the page, since that
is how a person changes them too. Pictures of two of the eight, of all with SCREENSHOTS=all, are kept in
`test-output/screenshots/<state>/` for people to look at.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browsers import chromium
from tests.live import Live, live_server
from tests.web.states import FAR_END, STATES, PageState, Script, Stage, visitor

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "test-output" / "screenshots"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 800}
AXE_ON = {("fr", "phone", "light"), ("en", "desk", "dark")}
"""Both layouts, both palettes and both languages; the other six combinations hold nothing else."""
EVERY_PICTURE = os.environ.get("SCREENSHOTS") == "all"
LINK = "abcdefghijklmnopqrstuv"

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]


@dataclass(frozen=True)
class World:
    """What all tests of the module share."""

    live: Live
    browser: Browser


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="world")
async def _world() -> AsyncIterator[World]:
    no_mdns = "--disable-features=WebRtcHideLocalIpsWithMdns"  # the second connection of the page cannot resolve it
    async with live_server() as live, chromium(arguments=[no_mdns]) as browser:
        yield World(live, browser)


async def _stage(world: World, state: PageState) -> Stage:
    """Bring a fresh page into a state."""
    context = await world.browser.new_context(viewport=DESK, java_script_enabled=state.javascript, locale="fr-FR")
    page = await context.new_page()
    page.set_default_timeout(60_000)  # the machine may be busy with other browsers
    await page.add_init_script(FAR_END + state.before)
    script = Script(role=state.role, opening=list(state.opening), peers=list(state.peers))
    stage = Stage(page, f"{world.live.origin}/t/{world.live.tenant.slug}/r?debug=1#{LINK}", script)
    await state.reach(stage)
    await stage.until(state.state, state.code)
    return stage


async def _axe(page: Page) -> list[str]:
    """Return what axe-core finds wrong, one line each."""
    await page.evaluate(AXE.read_text())  # not a <script>: the page's security policy would refuse it
    found: dict[str, Any] = await page.evaluate(
        "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
    )
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
async def test_state(world: World, state: PageState) -> None:
    stage = await _stage(world, state)
    page = stage.page
    folder = PICTURES / state.name
    folder.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []
    try:
        for language in ("fr", "en") if state.javascript else ("fr",):
            if state.javascript and language != "fr":
                await page.evaluate("() => document.querySelector('[data-language]').click()")
                await page.wait_for_function("l => document.documentElement.lang === l", arg=language)
            for device, size in (("phone", PHONE), ("desk", DESK)):
                await page.set_viewport_size(size)  # type: ignore[arg-type]
                for scheme in ("light", "dark"):
                    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
                    if state.javascript:
                        await page.evaluate(_PAINTED)
                    place = f"{language}-{device}-{scheme}"
                    if EVERY_PICTURE or (language, device, scheme) in AXE_ON:
                        await page.screenshot(path=folder / f"{place}.png", full_page=state.state != "call")
                    if state.javascript:
                        wide = await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
                        wrong += [f"{place}: {wide} px wider than the screen"] if wide > 0 else []
                    if state.javascript and (language, device, scheme) in AXE_ON:
                        wrong += [f"{place}: {line}" for line in await _axe(page)]
        if state.javascript:
            wrong += await page.evaluate(_UNSAID)
    finally:
        await page.context.close()
    assert wrong == []


_PAINTED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
_UNSAID = r"""() => [...document.querySelectorAll('main *, dialog *')]
  .flatMap(element => [
    element.getAttribute('aria-label'),
    ...[...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data),
  ])
  .filter(text => text && (/^[a-z_]+\.[a-zA-Z_]+$/.test(text.trim()) || /\{\w+\}/.test(text)))
  .map(text => `no words for ${text}`)"""
"""Keys that reached the page instead of their sentence, and placeholders that nobody filled."""


@pytest.mark.parametrize("size", [(360, 740), (740, 360), (640, 400), (320, 560)], ids=str)
@pytest.mark.parametrize("name", ["welcome", "devices", "waiting-message", "call", "clinician-call-list"])
async def test_everything_can_be_reached_on_a_small_screen(world: World, name: str, size: tuple[int, int]) -> None:
    """A phone upright and on its side, a desk at 200 % (640x400), and 320 px (WCAG 1.4.10): nothing is cut off."""
    state = next(state for state in STATES if state.name == name)
    stage = await _stage(world, state)
    try:
        await stage.page.set_viewport_size({"width": size[0], "height": size[1]})
        folder = PICTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        await stage.page.screenshot(path=folder / f"{size[0]}x{size[1]}.png")
        cut = await stage.page.evaluate(_CUT_OFF)
    finally:
        await stage.page.context.close()
    assert cut == []


_CUT_OFF = r"""() => [...document.querySelectorAll('button, select, summary, input')]
  .filter(element => element.checkVisibility({visibilityProperty: true}) && !element.closest('dialog:not([open])'))
  .flatMap(element => {
    element.scrollIntoView({block: 'center'});
    const box = element.getBoundingClientRect();
    const name = element.dataset.testid ?? element.textContent.trim();
    const small = element.matches('.choice input') ? 24 : 44;
    const problems = [];
    const [width, height] = [Math.round(box.width), Math.round(box.height)];
    const inside = box.left > -1 && box.right < innerWidth + 1 && box.top > -1 && box.bottom < innerHeight + 1;
    const spills = element.scrollWidth > element.clientWidth + 1 && !element.matches('select');
    if (!inside) problems.push(`${name} is outside`);
    if (width < small || height < small) problems.push(`${name} is ${width}x${height}`);
    if (spills) problems.push(`${name} spills over`);
    return problems;
  })"""


async def test_a_patient_needs_only_the_keyboard(world: World) -> None:
    """Tab and Enter lead from the explanation into the call and out again; the focus is always seen."""
    stage = await _stage(world, next(state for state in STATES if state.name == "welcome"))
    page, script = stage.page, stage.script
    try:
        assert await page.evaluate("() => document.activeElement.tagName") == "H1"
        await _tab_to(page, "allow-devices")
        await page.keyboard.press("Enter")
        await stage.until("devices")
        assert await page.evaluate("() => document.activeElement.tagName") == "H1"
        await _tab_to(page, "enter-waiting")
        await page.keyboard.press("Enter")
        await stage.until("waiting")
        script.say(type="state", state="admitted", iceServers=[])
        await stage.until("call")
        await page.keyboard.press("m")
        await page.wait_for_selector('[data-testid="toggle-microphone"][data-media="off"]')
        await _tab_to(page, "settings")
        await page.keyboard.press("Enter")
        await page.wait_for_selector('[data-dialog="settings"][open]')
        await page.keyboard.press("Escape")
        await page.wait_for_selector('[data-dialog="settings"]:not([open])', state="attached")
        assert await page.evaluate("() => document.activeElement.dataset.testid") == "settings"
        await _tab_to(page, "leave")
        await page.keyboard.press("Enter")
        await stage.until("ended")
        await _tab_to(page, "come-back")
        await page.keyboard.press("Enter")
        await stage.until("call")
    finally:
        await page.context.close()


async def _tab_to(page: Page, testid: str) -> None:
    """Press Tab until this control has the focus, and see that it shows."""
    for _ in range(30):
        await page.keyboard.press("Tab")
        focused = await page.evaluate(
            """() => {
              const {dataset, ownerDocument} = document.activeElement;
              return {id: dataset.testid, ring: getComputedStyle(ownerDocument.activeElement).outlineStyle};
            }"""
        )
        if focused["id"] == testid:
            assert focused["ring"] == "solid", f"the focus on {testid} is not seen"
            return
    raise AssertionError(f"{testid} is not reached with Tab")


async def test_an_arrival_is_announced_to_the_clinician(world: World) -> None:
    """In a live region, in the title of the tab, and on the button; once, however often the list is sent."""
    stage = await _stage(world, next(state for state in STATES if state.name == "clinician-alone"))
    page, script = stage.page, stage.script
    waits = visitor("Odette Lefèvre")
    try:
        script.say(type="visitors", visitors=[waits])
        await page.wait_for_function(
            "words => document.querySelector('[data-live=polite]').textContent === words",
            arg="Odette Lefèvre est dans la salle d’attente.",
        )
        assert (await page.title()).startswith("(1) ")
        await page.evaluate("() => { document.querySelector('[data-live=polite]').textContent = '' }")
        script.say(type="visitors", visitors=[waits | {"sinceMs": 9000}])
        await stage.press("admit")
        assert await page.inner_text("[data-live=polite]") == ""
        assert script.commands("admit") == [{"type": "admit", "participant": waits["id"]}]
    finally:
        await page.context.close()


async def test_what_a_clinician_writes_reaches_the_right_person(world: World) -> None:
    stage = await _stage(world, next(state for state in STATES if state.name == "clinician-refuse"))
    page, script = stage.page, stage.script
    try:
        await page.fill("#ask-input", "Le secrétariat vous rappelle.")
        await stage.press("confirm")
        await page.wait_for_selector("dialog[open]", state="hidden")
        refusal = {"type": "refuse", "participant": "visitor-Lefèvre", "reason": "Le secrétariat vous rappelle."}
        assert script.commands("refuse") == [refusal]
    finally:
        await page.context.close()


async def test_somebody_sent_back_comes_in_again_without_a_click(world: World) -> None:
    stage = await _stage(world, next(state for state in STATES if state.name == "call"))
    page, script = stage.page, stage.script
    try:
        script.say(type="state", state="waiting", place=1, reason="Je règle un détail.")
        await stage.until("waiting")
        assert "Je règle un détail." in await page.inner_text("[data-messages]")
        assert await page.locator("video[data-peer]").count() == 0
        script.say(type="state", state="admitted", iceServers=[])
        await stage.until("call")
    finally:
        await page.context.close()


async def test_a_tap_lets_the_others_be_heard(world: World) -> None:
    stage = await _stage(world, next(state for state in STATES if state.name == "call-autoplay-refused"))
    page = stage.page
    try:
        assert await page.evaluate("() => document.querySelector('video[data-peer]').muted")
        await page.evaluate("() => fakeDevices.allowSound()")
        await stage.press("unmute-audio")
        await page.wait_for_selector('[data-testid="unmute-audio"]', state="hidden")
        assert not await page.evaluate("() => document.querySelector('video[data-peer]').muted")
    finally:
        await page.context.close()


async def test_a_lost_link_to_the_server_never_hides_the_picture(world: World) -> None:
    stage = await _stage(world, next(state for state in STATES if state.name == "call"))
    page, script = stage.page, stage.script
    try:
        assert script.socket is not None
        script.deaf = True
        await script.socket.close(code=1011)
        await page.wait_for_function("() => document.querySelector('[data-banner]').textContent !== ''")
        assert await page.locator("video[data-peer]").is_visible()
        await stage.until("call")
    finally:
        await page.context.close()
