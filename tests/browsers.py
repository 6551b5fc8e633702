"""Real browsers with a camera and a microphone that tests can recognise. [IO]

    async with chromium(camera=1, hz=440) as one, firefox(hz=660) as other:
        page = await one.new_page()
        await open_page(page, link)
        await press(page, "allow-devices")
        await until_moving(page, "video[data-peer]", camera=2)

Both browsers are Debian's. Chromium is driven by Playwright and films `tests/media.py`; Firefox is driven by
`tests/bidi.py` and has its own fake devices: a picture of slowly changing colour and a tone. Either way a page has the
same methods.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import playwright.async_api as playwright

from tests import bidi, media

CHROMIUM = "/usr/bin/chromium"
FIREFOX = "/usr/bin/firefox-esr"

_CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)

_FIREFOX_PREFERENCES: dict[str, Any] = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    "intl.locale.requested": "fr",
    "intl.accept_languages": "fr",
}

TONE_FLOOR_DB = 12.0
"""A tone is heard when it stands this far above the loudest other frequency. Opus and echo control leave 20 or so."""


class Page(Protocol):
    """What a test needs of a page; a Playwright page or frame and a `bidi.Page` all have it."""

    async def goto(self, url: str) -> Any: ...
    async def evaluate(self, expression: str, arg: Any = None) -> Any: ...
    async def wait_for_function(self, expression: str, *, arg: Any = None, timeout: float = ...) -> Any: ...
    async def wait_for_selector(self, selector: str, *, timeout: float = ...) -> Any: ...
    async def click(self, selector: str, *, timeout: float = ...) -> Any: ...
    async def fill(self, selector: str, text: str) -> Any: ...
    async def inner_text(self, selector: str) -> str: ...


class Counter(NamedTuple):
    """What a frame of our film says."""

    camera: int
    frame: int


@asynccontextmanager
async def chromium(
    camera: int = 1,
    *,
    hz: int = 440,
    size: tuple[int, int] = (media.WIDTH, media.HEIGHT),
    permission: str = "grant",
    command: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> AsyncIterator[playwright.Browser]:
    """Start Chromium with a camera and a microphone of its own.

    Args:
        camera: Number of the film, 0 to 15 (see `tests/media.py`).
        hz: Tone of the microphone.
        size: Of its pictures.
        permission: How the browser answers a page that asks for devices: `grant`, `deny`, or `ask` (nobody answers).
        command: Runs the browser behind this command, for instance `("ip", "netns", "exec", "patient")`.
        arguments: More Chromium switches.
    """
    answer = {"grant": ["--use-fake-ui-for-media-stream"], "deny": ["--use-fake-ui-for-media-stream=deny"], "ask": []}
    switches = [
        *_CHROMIUM_ARGUMENTS,
        *answer[permission],
        f"--use-file-for-fake-video-capture={media.camera_file(camera, size)}",
        f"--use-file-for-fake-audio-capture={media.tone_file(hz)}",
        *arguments,
    ]
    with tempfile.TemporaryDirectory(prefix="colloque-chromium-") as directory:
        executable = CHROMIUM
        if command:
            wrapper = Path(directory) / "chromium"
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(command)} {CHROMIUM} "$@"\n')
            wrapper.chmod(0o700)
            executable = str(wrapper)
        async with playwright.async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=executable, args=switches)
            try:
                yield browser
            finally:
                await browser.close()


@asynccontextmanager
async def firefox(*, hz: int = 660, preferences: dict[str, Any] | None = None) -> AsyncIterator[bidi.Browser]:
    """Start Firefox with its own fake devices: a picture that changes colour and a tone.

    Args:
        hz: Tone of the microphone.
        preferences: Laid over those of the tests.
    """
    chosen = {**_FIREFOX_PREFERENCES, "media.navigator.audio.fake_frequency": hz, **(preferences or {})}
    with tempfile.TemporaryDirectory(prefix="colloque-firefox-", ignore_cleanup_errors=True) as profile:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in chosen.items()]
        (Path(profile) / "user.js").write_text("".join(lines))
        process = await asyncio.create_subprocess_exec(
            FIREFOX,
            *("--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(60):
                url = await _listening_address(process)
            drain = asyncio.create_task(_drain(process))
            async with bidi.connect(url) as browser:
                yield browser
            await asyncio.wait_for(process.wait(), 15)
            await drain
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def open_page(page: Page, url: str) -> None:
    """Go to this address. Chromium gives up a load during which a network interface came or went, as they do while a
    test builds its namespaces: the address is then asked for again, as a person would."""
    for last in (False, False, True):
        try:
            await page.goto(url)
        except playwright.Error as error:
            if last or "ERR_NETWORK_CHANGED" not in error.message:
                raise
        else:
            return


async def press(page: Page, testid: str, *, timeout: float = 15_000) -> None:
    """Click the element with this `data-testid`, once it is there and enabled."""
    await page.click(f'[data-testid="{testid}"]', timeout=timeout)


async def until_state(page: Page, *states: str, timeout: float = 20_000) -> str:
    """Wait until the page (`main[data-state]`) shows one of these states, and return which."""
    expression = "states => { const s = document.querySelector('main')?.dataset.state; return states.includes(s) && s }"
    await page.wait_for_function(expression, arg=list(states), timeout=timeout)
    return str(await page.evaluate("document.querySelector('main').dataset.state"))


async def read_counter(page: Page, selector: str) -> Counter | None:
    """Read the picture that a `<video>` shows just now.

    Returns:
        Which camera and which frame; None when nothing is shown, or what is shown is not a frame of our films.
    """
    cells = await page.evaluate(_READ_CELLS, [selector, media.COLUMNS, media.ROWS])
    if cells is None:
        return None
    whites = [luma > 128 for luma in cells]
    value = sum(white << (len(whites) - 1 - place) for place, white in enumerate(whites))
    frame, inverted, camera = value >> 16, value >> 8 & 0xFF, value & 0xFF
    if frame ^ inverted != 0xFF or (camera >> 4) ^ (camera & 0xF) != 0xF:
        return None
    return Counter(camera >> 4, frame)


async def until_moving(page: Page, selector: str, *, camera: int | None, timeout: float = 20_000) -> None:
    """Wait until a `<video>` shows a picture that advances.

    Args:
        page: Where to look.
        selector: The element.
        camera: Whose picture it must be; None for a picture that only has to change (Firefox's own fake camera).
        timeout: Milliseconds.

    Raises:
        AssertionError: It stood still, was black, or was somebody else's; says what was seen.
    """
    seen: list[object] = []
    deadline = asyncio.get_running_loop().time() + timeout / 1000
    while asyncio.get_running_loop().time() < deadline:
        if camera is None:
            picture = await page.evaluate(_READ_CELLS, [selector, 4, 5])
            value: object = picture and tuple(round(luma) for luma in picture)
        else:
            value = await read_counter(page, selector)
        if value is not None and value not in seen and (not isinstance(value, Counter) or value.camera == camera):
            seen.append(value)
            if len(seen) >= 4:
                return
        await asyncio.sleep(0.08)
    raise AssertionError(f"{selector} does not move: saw {seen}, last {await read_counter(page, selector)}")


async def frames_shown(page: Page, selector: str) -> int:
    """Return how many decoded frames a `<video>` has shown, its next one included; 0 when none comes within 2 s."""
    expression = """selector => new Promise(resolve => {
      document.querySelector(selector)?.requestVideoFrameCallback((_, frame) => resolve(frame.presentedFrames));
      setTimeout(resolve, 2000, 0);
    })"""
    return int(await page.evaluate(expression, selector))


async def tone_level(page: Page, selector: str, hz: int, *, seconds: float = 2.0) -> float:
    """Return how far a tone stands out of what an element plays, in dB over the loudest other frequency up to 3 kHz.

    Nothing is heard, 0, when the element is missing, muted, paused or has no sound. The loudest moment counts: the
    tones of the tests beep.
    """
    return float(await page.evaluate(_TONE, [selector, hz, seconds * 1000]))


async def until_heard(page: Page, selector: str, hz: int, *, timeout: float = 20_000) -> None:
    """Wait until a tone is heard.

    Raises:
        AssertionError: It was not; says how loud it was.
    """
    level = 0.0
    deadline = asyncio.get_running_loop().time() + timeout / 1000
    while asyncio.get_running_loop().time() < deadline:
        level = await tone_level(page, selector, hz)
        if level >= TONE_FLOOR_DB:
            return
    raise AssertionError(f"{hz} Hz is not heard in {selector}: {level:.1f} dB over the rest")


async def until_not_heard(page: Page, selector: str, hz: int, *, timeout: float = 10_000) -> None:
    """Wait until a tone is heard no more: what was said before a microphone was muted may still be on its way.

    Raises:
        AssertionError: It still is; says how loud.
    """
    level = TONE_FLOOR_DB
    deadline = asyncio.get_running_loop().time() + timeout / 1000
    while level >= TONE_FLOOR_DB / 2:
        assert asyncio.get_running_loop().time() < deadline, (
            f"{hz} Hz is heard in {selector}: {level:.1f} dB over the rest"
        )
        level = await tone_level(page, selector, hz)


async def _listening_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = []
    while line := (await process.stderr.readline()).decode(errors="replace"):
        said.append(line)
        if "WebDriver BiDi listening on" in line:
            return line.split()[-1]
    raise RuntimeError(f"Firefox did not start: {''.join(said)}")


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Keep Firefox's standard error from filling its pipe."""
    assert process.stderr is not None
    while await process.stderr.read(65_536):
        pass


_READ_CELLS = """([selector, columns, rows]) => {
  const video = document.querySelector(selector);
  if (!video || video.readyState < 2 || !video.videoWidth || !video.checkVisibility()) return null;
  const cell = 8;
  const canvas = Object.assign(document.createElement('canvas'), {width: columns * cell, height: rows * cell});
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  const means = [];
  for (let row = 0; row < 3; row++) for (let column = 0; column < columns; column++) {
    let sum = 0;
    for (let y = 3; y < 5; y++) for (let x = 3; x < 5; x++) {
      const at = ((row * cell + y) * canvas.width + column * cell + x) * 4;
      sum += 0.3 * data[at] + 0.6 * data[at + 1] + 0.1 * data[at + 2];
    }
    means.push(sum / 4);
  }
  return means;
}"""

# Recorded and analysed afterwards rather than with an AnalyserNode: Firefox runs no AudioContext on a machine without a
# sound card. Each window of 4096 samples is held against a comb of frequencies (Goertzel, Hann window).
_TONE = """async ([selector, hz, ms]) => {
  const element = document.querySelector(selector);
  const tracks = element?.srcObject?.getAudioTracks() ?? [];
  if (!tracks.length || element.muted || element.volume === 0 || element.paused) return 0;
  const recorder = new MediaRecorder(new MediaStream(tracks), {mimeType: 'audio/webm; codecs=opus'});
  const parts = [];
  recorder.ondataavailable = event => parts.push(event.data);
  const stopped = new Promise(resolve => recorder.onstop = resolve);
  recorder.start();
  await new Promise(resolve => setTimeout(resolve, ms));
  recorder.stop();
  await stopped;
  const bytes = await new Blob(parts).arrayBuffer();
  if (!bytes.byteLength) return 0;
  const sound = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(bytes);
  const samples = sound.getChannelData(0), size = 4096;
  const hann = Float32Array.from({length: size}, (_, n) => 0.5 - 0.5 * Math.cos(2 * Math.PI * n / size));
  const power = (start, frequency) => {
    const turn = 2 * Math.cos(2 * Math.PI * frequency / sound.sampleRate);
    let last = 0, before = 0;
    for (let n = 0; n < size; n++) [last, before] = [samples[start + n] * hann[n] + turn * last - before, last];
    return 10 * Math.log10((last * last + before * before - turn * last * before) / size + 1e-12);
  };
  const others = [];
  for (let f = 150; f < 3000; f += 20) if (Math.abs(f / hz - 1) > 0.15) others.push(f);
  let best = 0;
  for (let start = 0; start + size <= samples.length; start += size) {
    const tone = power(start, hz);
    if (tone > -40) best = Math.max(best, tone - Math.max(...others.map(frequency => power(start, frequency))));
  }
  return best;
}"""
