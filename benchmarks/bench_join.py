"""Join: from the click to the first decoded picture of the other, between two Chromium through the real pages. [IO]

Direct and through the media server, in turns.

Method and meaning of each figure: README.md.
"""

from __future__ import annotations

import argparse

import playwright.async_api as playwright

from benchmarks.report import Figures, percentile, progress
from server.records import Topology
from server.signalling.messages import Path
from tests.browsers import chromium, press, read_counter
from tests.live import Live, live_server
from tests.walk import REMOTE, choose_devices, enter_as_clinician

_CLINICIAN, _PATIENT = 1, 2
"""Their cameras."""
_TOPOLOGY: dict[Path, Topology] = {"direct": "auto", "relayed": "relay-only"}

# Runs before the page's own scripts: notes the click, and when a picture of somebody else was first shown.
_WATCH = """
addEventListener('click', event => {
  if (event.target.closest('[data-testid="enter-waiting"]')) globalThis.clickedAt = performance.now();
}, {capture: true});
globalThis.firstFrame = new Promise(resolve => {
  const watched = new WeakSet();
  const watch = () => {
    for (const video of document.querySelectorAll('video[data-peer]')) {
      if (!watched.has(video)) video.requestVideoFrameCallback(() => resolve(performance.now()));
      watched.add(video);
    }
  };
  new MutationObserver(watch).observe(document, {subtree: true, childList: true, attributes: true});
});
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often to join."""
    parser.add_argument("--runs", type=int, default=20, help="joins of each kind (default: %(default)s)")


async def run(arguments: argparse.Namespace) -> Figures:
    """Join and join again, each time in a new room."""
    async with live_server() as live, chromium(_CLINICIAN, hz=440) as one, chromium(_PATIENT, hz=660) as other:
        figures = Figures(arguments.runs, {"chromium": one.version})
        times: dict[Path, list[float]] = {"direct": [], "relayed": []}
        for number in range(arguments.runs + 1):
            for path, taken in times.items():
                milliseconds = await _join(live, one, other, path)
                if number == 0:
                    continue  # the browsers load their codecs
                taken.append(milliseconds)
                progress(f"{path} join {number}/{arguments.runs}: {milliseconds:.0f} ms")
    for path, taken in times.items():
        figures.add(f"{path}.first_frame_p50_ms", "ms", percentile(taken, 0.5))
        figures.add(f"{path}.first_frame_p95_ms", "ms", percentile(taken, 0.95))
        figures.add(f"{path}.first_frame_ms", "ms", *taken)
    return figures


async def _join(live: Live, one: playwright.Browser, other: playwright.Browser, path: Path) -> float:
    """Return the milliseconds from a patient's click, admitted already, to the clinician's first picture."""
    room = await live.room(topology=_TOPOLOGY[path])
    clinician, patient = await one.new_page(), await other.new_page()
    await patient.add_init_script(_WATCH)
    await enter_as_clinician(clinician, await live.link(room, "clinician", name="Dr Martin"))
    await choose_devices(patient, await live.link(room, "patient", name="Ada"))
    await press(clinician, "admit")
    await clinician.wait_for_selector('[data-testid="admit"]', state="hidden")
    await press(patient, "enter-waiting")
    milliseconds = float(await patient.evaluate("firstFrame.then(shownAt => shownAt - clickedAt)"))
    counter = await read_counter(patient, REMOTE)
    if counter is None or counter.camera != _CLINICIAN:
        raise RuntimeError(f"the first picture is not the clinician's: {counter}")
    await clinician.close()
    await patient.close()
    return milliseconds
