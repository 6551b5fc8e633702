"""Networks that change during a call: it comes back by itself, as the same participants (no test here clicks)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from tests.browsers import until_moving
from tests.interop.deployment import Deployment, Person, admit, back_after, participant, running
from tests.interop.natlab import LAB_TIMEOUT_S, Kind, Site

pytestmark = [pytest.mark.timeout(LAB_TIMEOUT_S), pytest.mark.alone]

BACK_S = 5.0
"""From the moment that the network is there again."""
CUT_S = 10.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


class Call(NamedTuple):
    """A running conversation, and where each of the two is."""

    clinician: Person
    patient: Person
    clinic: Site
    home: Site


@asynccontextmanager
async def call(deployment: Deployment, kind: Kind = "cone") -> AsyncIterator[Call]:
    """Both are connected and see each other; at the end, they are who they were."""
    deployment.lab.clear()
    clinic, home = deployment.lab.site(kind), deployment.lab.site(kind)
    async with deployment.consultation(clinic, home) as (clinician, patient):
        await admit(clinician, patient)
        began = time.time()
        people = (clinician, patient)
        await asyncio.gather(*(back_after(person, began) for person in people))
        ids = [await participant(person) for person in people]
        yield Call(clinician, patient, clinic, home)
        assert [await participant(person) for person in people] == ids
        for person, other_id in zip(people, reversed(ids), strict=True):
            assert await person.page.evaluate("[...__colloque.client.peers.keys()]") == [other_id]
            assert await person.page.evaluate("document.querySelector('main').dataset.state") == "call"
        await until_moving(clinician.page, "video[data-peer]", camera=patient.camera)
        await until_moving(patient.page, "video[data-peer]", camera=clinician.camera)


async def both_back(what: str, running: Call, since_s: float) -> None:
    """Hold the call to its five seconds."""
    seconds = await asyncio.gather(*(back_after(person, since_s) for person in (running.clinician, running.patient)))
    print(f"{what}: the clinician's picture is back after {seconds[0]:.2f} s, the patient's after {seconds[1]:.2f} s")
    assert max(seconds) <= BACK_S


async def test_reloads(deployment: Deployment) -> None:
    async with call(deployment) as running:
        for person in (running.patient, running.clinician):
            since = time.time()
            await person.page.reload(wait_until="commit")
            await both_back(f"reload with camera {person.camera}", running, since)


async def test_ten_seconds_without_network(deployment: Deployment) -> None:
    """The browser sees it; then again, as silence behind the router."""
    async with call(deployment) as running:
        home = running.home
        for cut, mend in ((home.unplug, home.plug_in), (home.lose_uplink, home.regain_uplink)):
            cut()
            await asyncio.sleep(CUT_S)
            mend()
            await both_back(f"10 s after {cut.__name__}", running, time.time())


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        pytest.param("home", "cone", id="patient, direct"),
        pytest.param("clinic", "symmetric", id="clinician, through TURN"),
    ],
)
async def test_another_address_and_route(deployment: Deployment, who: str, kind: Kind) -> None:
    async with call(deployment, kind) as running:
        site: Site = getattr(running, who)
        address = site.move()
        since = time.time()
        addresses = site.computer.run("ip", "-4", "-brief", "address", "show", "eth0")
        assert addresses.split()[2:] == [f"{address}/24"]
        await both_back(f"new address of the {who}, {kind}", running, since)
