"""A whole deployment in the lab: one address, port 443, our server with its coturn, and nginx in front. [IO]

Everything as an operator has it: one TOML file, `colloque serve`, and nginx with what `colloque turn nginx` prints.
Browsers run inside the sites, find the names in their /etc/hosts, and trust the lab's authority and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import playwright.async_api as playwright

from server.records import Role, Tenant, Topology
from server.store import Store
from tests import connections, media
from tests.browsers import chromium, open_page, press, until_state
from tests.interop.authority import Authority
from tests.interop.natlab import PUBLIC_ADDRESS, Lab, Site, wait_until

PAGES, TURN = "video.colloque.test", "turn.colloque.test"
SLUG = "clinique"

_ROOT = Path(__file__).resolve().parents[2]
_COLLOQUE = (sys.executable, "-m", "server")


class Person(NamedTuple):
    """Somebody at a browser."""

    page: playwright.Page
    camera: int
    """Number of their film."""


class Deployment:
    """The running server, coturn and nginx in the public namespace of a lab.

    Args:
        lab: Where; its sites come and go.
        folder: For everything that is written.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        authority = Authority(folder)
        self._home = authority.install(folder / "home")
        self._database = f"sqlite+aiosqlite:///{folder / 'data' / 'colloque.db'}"
        self._start(authority)

    def _start(self, authority: Authority) -> None:
        pages, turn = authority.issue(PAGES), authority.issue(TURN)
        environment = self._serve(f"""
            [http]
            public_url = "https://{PAGES}"
            trusted_proxies = ["127.0.0.1"]
            [turn]
            host = "{TURN}"
            managed = true
            listen_addresses = ["{PUBLIC_ADDRESS}"]
            tls_cert = "{turn.chain}"
            tls_key = "{turn.key}"
            [media]
            bind = ["{PUBLIC_ADDRESS}"]  # one of several addresses: what it sends is to leave from it
            [splitter]
            addresses = ["{PUBLIC_ADDRESS}"]
            tls_cert = "{pages.chain}"
            tls_key = "{pages.key}"
        """)
        nginx = self.folder / "nginx.conf"
        nginx.write_text(subprocess.check_output([*_COLLOQUE, "turn", "nginx"], env=environment, text=True, cwd=_ROOT))
        self.lab.public.spawn("nginx", "-c", str(nginx), "-g", f"daemon off; pid {self.folder}/nginx.pid;")
        for port in (8080, 443, 3478, 5349):
            self._wait_for(port)

    def _serve(self, settings: str) -> dict[str, str]:
        """Start the server with these settings; return the environment that has them."""
        self._newest = ""
        configuration = self._configuration = self.folder / "colloque.toml"
        log = '[log]\nlevel = "debug"\nformat = "json"\n'
        configuration.write_text(f'data_dir = "{self.folder / "data"}"\n{settings}\n{log}')
        environment = {**os.environ, "COLLOQUE_CONFIG": str(configuration), "PYTHONPATH": str(_ROOT)}
        with self.log_path.open("wb") as output:
            self.lab.public.spawn(*_COLLOQUE, "serve", output=output, env=environment)
        return environment

    def _wait_for(self, port: int) -> None:
        wait_until(lambda: self._accepts(port), f"port {port}")

    @property
    def log_path(self) -> Path:
        """What the server wrote to standard error."""
        return self.folder / "server.log"

    def _accepts(self, port: int) -> bool:
        address = "127.0.0.1" if port == 8080 else PUBLIC_ADDRESS
        with self.lab.public.entered(), contextlib.suppress(OSError):
            socket.create_connection((address, port), 1.0).close()
            return True
        return False

    async def room(self, *roles: Role, topology: Topology | None = None) -> list[str]:
        """Open a room; return a link for each role, with the page's window for tests open."""
        store = await Store.open(self._database)
        try:
            if await store.tenant(SLUG) is None:
                await store.create_tenant(Tenant(slug=SLUG, name="Clinique du Parc"))
            room = await store.create_room(SLUG, "", topology)
            self._newest = room.id
            secrets = [(await store.mint_link(room, role, name=f"canary-{role}"))[1] for role in roles]
        finally:
            await store.close()
        return [f"https://{PAGES}/t/{SLUG}/r?debug=1#{secret}" for secret in secrets]

    def order(self, path: str) -> None:
        """Say which way the newest room's media is to go, on the command line."""
        command = (sys.executable, "-m", "server", "room", "path", self._newest, path, "--tenant", SLUG)
        environment = {"COLLOQUE_CONFIG": str(self._configuration), "PYTHONPATH": str(_ROOT)}
        self.lab.public.run("env", *(f"{name}={value}" for name, value in environment.items()), *command)

    @contextlib.asynccontextmanager
    async def browser(
        self, site: Site, camera: int, size: tuple[int, int] = (media.WIDTH, media.HEIGHT)
    ) -> AsyncIterator[playwright.Browser]:
        """Run Chromium at a site, with pictures of this size."""
        site.computer.hosts({PAGES: PUBLIC_ADDRESS, TURN: PUBLIC_ADDRESS})
        command = ("ip", "netns", "exec", site.computer.name, "env", f"HOME={self._home}")
        async with chromium(camera, hz=440 + 220 * camera, command=command, size=size) as browser:
            yield browser

    @contextlib.asynccontextmanager
    async def consultation(
        self,
        clinic: Site,
        home: Site,
        topology: Topology | None = None,
        size: tuple[int, int] = (media.WIDTH, media.HEIGHT),
        *,
        presented: bool = False,
    ) -> AsyncIterator[tuple[Person, Person]]:
        """Bring two people to the moment before the last click: the patient waits, the clinician is in the room.

        With `presented`, the pages let the recorder of `tests/presented.py` in.
        """
        links = await self.room("clinician", "patient", topology=topology)
        async with self.browser(clinic, 1, size) as one, self.browser(home, 2, size) as two:
            clinician = Person(await one.new_page(bypass_csp=presented), 1)
            patient = Person(await two.new_page(bypass_csp=presented), 2)
            for person in (clinician, patient):
                await person.page.add_init_script(_WATCH_FRAMES)
                await person.page.add_init_script(connections.WATCH)
            for person, link, enter in ((clinician, links[0], "join"), (patient, links[1], "enter-waiting")):
                await open_page(person.page, link)
                if await until_state(person.page, "welcome", "devices") == "welcome":
                    await press(person.page, "allow-devices")
                await press(person.page, enter)
            await until_state(clinician.page, "call")
            await until_state(patient.page, "waiting")
            yield clinician, patient


async def admit(clinician: Person, patient: Person) -> tuple[float, float]:
    """The click that begins the conversation; return the seconds until each has a decoded frame of the other."""
    button = '[data-testid="admit"]:visible'
    await clinician.page.wait_for_selector(button)
    waits = [asyncio.create_task(person.page.evaluate(_FIRST_FRAME)) for person in (clinician, patient)]
    await asyncio.sleep(0)
    clicked_ms = time.time() * 1000
    await clinician.page.click(button)
    first, second = [float(at) for at in await asyncio.gather(*waits)]
    return (first - clicked_ms) / 1000, (second - clicked_ms) / 1000


async def chosen_pair(person: Person) -> dict[str, Any]:
    """Return what `getStats` tells of the pair that carries media.

    `local` and `remote` are candidate types, `localAddress` and `remoteAddress` theirs; `protocol` is how the relay is
    reached when the local one is relayed.
    """
    return dict(await person.page.evaluate(_CHOSEN_PAIR))


async def frames_decoded(person: Person) -> int:
    """Return how many frames of the other's picture were decoded on the present connection."""
    return int(await person.page.evaluate(_FRAMES_DECODED))


async def participant(person: Person) -> str:
    """Return the participant id that the page has."""
    return str(await person.page.evaluate("__colloque.client.self.id"))


async def back_after(person: Person, since_s: float, *, within_s: float = 20.0) -> float:
    """Wait until the other's picture moves again for good, and return how many seconds after `since_s` that began.

    For good: new decoded frames for a second, with no pause above one. What was still in the jitter buffer when the
    network went does not count, because the pause comes after it.

    Args:
        person: Who looks.
        since_s: Unix time of the event.
        within_s: How long to wait, from now.

    Raises:
        AssertionError: It does not; says when frames were seen, and what the connection has received.
    """
    try:
        found = await person.page.wait_for_function(_STEADY_SINCE, arg=since_s * 1000, timeout=within_s * 1000)
    except playwright.TimeoutError:
        told = await person.page.evaluate(_WHAT_IS_WRONG, since_s * 1000)
        raise AssertionError(f"the picture does not move again: {told}") from None
    return (float(await found.json_value()) - since_s * 1000) / 1000


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Deployment]:
    """Build a lab and a deployment in it, and take both down."""
    with Lab() as lab:
        yield Deployment(lab, folder)


# `totalVideoFrames` counts what the element was given after decoding; `requestVideoFrameCallback` waits for a
# compositor, which a headless browser on a busy machine runs when it likes.
_FIRST_FRAME = """() => new Promise((resolve, reject) => {
  const timer = setInterval(() => {
    const video = document.querySelector('video[data-peer]');
    if (video?.getVideoPlaybackQuality().totalVideoFrames > 0) { clearInterval(timer); resolve(Date.now()); }
  }, 10);
  setTimeout(() => { clearInterval(timer); reject(new Error('no decoded frame within 20 s')); }, 20_000);
})"""

# Every time a new decoded frame was seen, in this page load.
_WATCH_FRAMES = """globalThis.__seen = []; let before = 0;
setInterval(() => {
  const frames = document.querySelector('video[data-peer]')?.getVideoPlaybackQuality().totalVideoFrames ?? 0;
  if (frames > 0 && frames !== before) __seen.push(Date.now());
  before = frames;
}, 20);"""

_STEADY_SINCE = """since => {
  let start = null, last = null;
  for (const at of __seen) {
    if (at < since) continue;
    if (last === null || at - last > 1000) start = at;
    last = at;
  }
  return start !== null && last - start >= 1000 && Date.now() - last < 1000 ? start : false;
}"""

_REPORT = """
  const [peer] = __colloque.client.peers.values();
  const report = await peer.connections[0].getStats();
  const all = [...report.values()];
"""

_WHAT_IS_WRONG = f"""async since => {{
  const seen = __seen.filter(at => at >= since).map(at => at - since);
  const client = __colloque.client;
  const {{ state, signalling, peers: {{ size }} }} = client;
  const told = {{ seenMs: seen.slice(-40), state, signalling, peers: size }};
  if (size === 0) return JSON.stringify(told); {_REPORT}
  const inbound = all.find(entry => entry.type === 'inbound-rtp' && entry.kind === 'video');
  const {{ packetsReceived, framesReceived, framesDecoded }} = inbound ?? {{}};
  return JSON.stringify({{ ...told, media: peer.media, packetsReceived, framesReceived, framesDecoded }});
}}"""

_CHOSEN_PAIR = f"""async () => {{ {_REPORT}
  const transport = all.find(entry => entry.type === 'transport');
  const pair = report.get(transport.selectedCandidatePairId);
  const local = report.get(pair.localCandidateId), remote = report.get(pair.remoteCandidateId);
  return {{
    local: local.candidateType, remote: remote.candidateType, protocol: local.relayProtocol ?? local.protocol,
    localAddress: local.address, remoteAddress: remote.address,
  }};
}}"""

_FRAMES_DECODED = f"""async () => {{ {_REPORT}
  return all.find(entry => entry.type === 'inbound-rtp' && entry.kind === 'video')?.framesDecoded ?? 0;
}}"""
