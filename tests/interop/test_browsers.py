"""The harness itself: what it says it sees and hears is what a browser shows and plays; it notices when it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.browsers import chromium, firefox, frames_shown, read_counter, tone_level, until_heard, until_moving

_LOOPBACK = """<!doctype html><meta charset="utf-8"><video autoplay playsinline></video><script>
(async () => {
  const stream = await navigator.mediaDevices.getUserMedia({audio: true, video: true});
  const [here, there] = [new RTCPeerConnection(), new RTCPeerConnection()];
  here.onicecandidate = e => there.addIceCandidate(e.candidate);
  there.onicecandidate = e => here.addIceCandidate(e.candidate);
  there.ontrack = e => document.querySelector('video').srcObject = e.streams[0];
  for (const track of stream.getTracks()) here.addTrack(track, stream);
  await here.setLocalDescription();
  await there.setRemoteDescription(here.localDescription);
  await there.setLocalDescription();
  await here.setRemoteDescription(there.localDescription);
  globalThis.stream = stream;
})();
</script>"""


@pytest.fixture
async def loopback() -> AsyncIterator[str]:
    """A page that sends its devices to itself over WebRTC."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_LOOPBACK, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def test_chromium_is_seen_and_heard_and_told_from_another(loopback: str) -> None:
    async with chromium(camera=11, hz=620) as browser:
        page = await browser.new_page()
        await page.goto(loopback)
        await until_moving(page, "video", camera=11)
        await until_heard(page, "video", 620)
        assert await tone_level(page, "video", 440) < 10, "a tone that nobody plays"
        with pytest.raises(AssertionError, match="does not move"):
            await until_moving(page, "video", camera=12, timeout=1500)
        await page.evaluate("stream.getTracks().forEach(track => track.enabled = false)")
        await page.wait_for_timeout(1000)
        assert await read_counter(page, "video") is None, "a camera that is off"
        assert await tone_level(page, "video", 620) < 10, "a microphone that is off"


async def test_firefox_is_seen_and_heard(loopback: str) -> None:
    async with firefox(hz=700) as browser:
        page = await browser.new_page()
        await page.goto(loopback)
        await until_moving(page, "video", camera=None)
        await until_heard(page, "video", 700)
        assert await frames_shown(page, "video") > 0
        assert await tone_level(page, "video", 440) < 10, "a tone that nobody plays"
