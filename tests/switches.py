"""A call of two Chromium whose room is moved by order, and what both people notice of it. [IO]

    async with switched_call() as call:
        switch = await call.switch("relayed")
        assert switch.picture_gap_ms <= 300

Shared by `tests/interop/test_switch.py` and `benchmarks/bench_switch.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import playwright.async_api as playwright

from server.records import RoomRecord
from server.signalling.messages import Path
from tests import media
from tests.browsers import chromium, until_heard, until_moving
from tests.live import Live, live_server
from tests.presented import Presented, Seen
from tests.walk import REMOTE, meet

CLINICIAN, PATIENT = 1, 2
"""Their cameras."""
CLINICIAN_HZ, PATIENT_HZ = 440, 660
LATER_S = 3.0
"""After the move: by then rate and resolution are to be what they were."""
_RATE_OVER_S = 2.0
_UNTIL_STILL_S = 1.6
"""From `moved` on, until the old path is silent and what came last has been presented."""

WARM = """() => { const {paths, peers} = __colloque.client, [peer] = peers.values();
  return paths.relayed === 'connected' && peer?.shown.coming('video', 'relayed') && peer.direct === 'connected'; }"""
_MOVED = """to => { const {path, paths, peers} = __colloque.client; const [peer] = peers.values();
  return path === to && paths.move === null && peer.shown.way('video') === to; }"""
_RECEIVED = """async () => {
  const {paths, peers} = __colloque.client, [peer] = peers.values();
  const {report, tracks} = await paths.stats(peer);
  const all = [...report.values()].filter(entry => entry.type === 'inbound-rtp' && entry.kind === 'video');
  const {bytesReceived, timestamp, frameWidth} = all.find(entry => tracks?.has(entry.trackIdentifier) ?? true);
  return [bytesReceived, timestamp, frameWidth ?? 0];
}"""


@dataclass(frozen=True)
class Picture:
    """What somebody receives of the other."""

    bps: float
    width: int


@dataclass(frozen=True)
class Switch:
    """One move, as the worse off of the two people had it."""

    to: Path
    picture_gap_ms: float
    sound_gap_ms: float
    steady_picture_gap_ms: float
    """Before the move, over about as long: what the machine did anyway."""
    steady_sound_gap_ms: float
    rate_kept: float
    """Rate of the received picture `LATER_S` after, of that before."""
    size_kept: float
    ready_ms: float
    """From the word of the server until the new path carried everything."""


class SwitchedCall:
    """The running call; `pages` are the clinician's and the patient's."""

    def __init__(self, live: Live, room: RoomRecord, pages: Sequence[playwright.Page]) -> None:
        self.live = live
        self.room = room
        self.pages = pages
        self.recorders: list[Presented] = []

    @property
    def version(self) -> str:
        """Of the browsers."""
        browser = self.pages[0].context.browser
        return browser.version if browser is not None else ""

    async def order(self, path: str) -> None:
        """Say which way the room is to go."""
        async with self.live.api.put(f"/api/v1/rooms/{self.room.id}/path", json={"path": path}) as answer:
            assert answer.status == 200, await answer.text()

    async def watch(self) -> None:
        """Begin to note what both see and hear."""
        self.recorders = [await Presented.begin(page) for page in self.pages]

    async def seen(self) -> list[Seen]:
        """Return what both saw and heard since the last time."""
        return list(await asyncio.gather(*(recorder.take() for recorder in self.recorders)))

    async def until(self, expression: str, arg: object = None, *, timeout_s: float = 20.0) -> None:
        """Wait until this holds at both pages; every 20 ms, because a hidden page paints nothing."""
        options = {"arg": arg, "timeout": timeout_s * 1000, "polling": 20}
        await asyncio.gather(*(page.wait_for_function(expression, **options) for page in self.pages))  # type: ignore[arg-type]

    async def until_moved(self, to: Path) -> None:
        """Wait until both are on this path, and see it."""
        await self.until(_MOVED, to)

    async def pictures(self) -> list[Picture]:
        """Measure for a while what both receive."""
        before = [await page.evaluate(_RECEIVED) for page in self.pages]
        await asyncio.sleep(_RATE_OVER_S)
        after = [await page.evaluate(_RECEIVED) for page in self.pages]
        return [
            Picture((now[0] - then[0]) * 8000 / (now[1] - then[1]), now[2])
            for then, now in zip(before, after, strict=True)
        ]

    async def switch(self, to: Path) -> Switch:
        """Move the room and return what was noticed."""
        await self.seen()
        before = await self.pictures()
        steady = await self.seen()
        await self.order("relayed" if to == "relayed" else "auto")
        await self.until_moved(to)
        await asyncio.sleep(_UNTIL_STILL_S)
        moving = await self.seen()
        await asyncio.sleep(LATER_S - _UNTIL_STILL_S)
        after = await self.pictures()
        ready = [await page.evaluate(_READY_MS) for page in self.pages]
        both = list(zip(before, after, strict=True))
        return Switch(
            to,
            max(seen.picture_gap_ms() for seen in moving),
            max(seen.sound_gap_ms() for seen in moving),
            max(seen.picture_gap_ms() for seen in steady),
            max(seen.sound_gap_ms() for seen in steady),
            min(now.bps / then.bps for then, now in both),
            min(now.width / then.width for then, now in both),
            max(ready),
        )


_READY_MS = "(({readyAt, startedAt}) => readyAt - startedAt)(__colloque.client.paths.history.at(-1))"


def _films(camera: int) -> list[str]:
    """Return what makes a browser show the lively film: of two such switches, the last counts."""
    return [f"--use-file-for-fake-video-capture={media.lively_file(camera)}"]


@asynccontextmanager
async def switched_call() -> AsyncIterator[SwitchedCall]:
    """Bring two people into a direct call whose connections to the media server stand by."""
    async with (
        live_server() as live,
        chromium(CLINICIAN, hz=CLINICIAN_HZ, arguments=_films(CLINICIAN)) as one,
        chromium(PATIENT, hz=PATIENT_HZ, arguments=_films(PATIENT)) as other,
    ):
        room = await live.room()
        clinician, patient = await one.new_page(bypass_csp=True), await other.new_page(bypass_csp=True)
        links = await live.link(room, "clinician"), await live.link(room, "patient")
        await meet(clinician, links[0], patient, links[1])
        await until_moving(clinician, REMOTE, camera=PATIENT)
        await until_moving(patient, REMOTE, camera=CLINICIAN)
        await until_heard(clinician, REMOTE, PATIENT_HZ)
        await until_heard(patient, REMOTE, CLINICIAN_HZ)
        call = SwitchedCall(live, room, (clinician, patient))
        await call.until(WARM)
        await call.watch()
        yield call
