"""Calls through NATs and firewalls, with the shipped pages, server, coturn and nginx (SECURITY.md row 12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browsers import until_moving
from tests.interop.deployment import PAGES, Deployment, admit, chosen_pair, frames_decoded, running
from tests.interop.natlab import LAB_TIMEOUT_S, PUBLIC_ADDRESS, Kind

pytestmark = pytest.mark.timeout(LAB_TIMEOUT_S)

JOIN_S = 3.0
DIRECT = {"host", "srflx", "prflx"}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("deployment")) as deployment:
        yield deployment


@pytest.mark.parametrize(
    ("clinic", "home", "way"),
    [
        pytest.param("cone", "cone", "direct", id="cone-cone: direct"),
        pytest.param("symmetric", "symmetric", "udp", id="symmetric-symmetric: through TURN over UDP"),
        pytest.param("only-443", "cone", "tls", id="a clinic with only TCP 443: through TURN over TLS"),
        pytest.param("only-443", "only-443", "tls", id="both with only TCP 443: relay to relay"),
    ],
)
async def test_a_call_finds_its_way(deployment: Deployment, clinic: Kind, home: Kind, way: str) -> None:
    deployment.lab.clear()
    sites = deployment.lab.site(clinic), deployment.lab.site(home)
    async with deployment.consultation(*sites) as (clinician, patient):
        seconds = await admit(clinician, patient)
        for person, other in ((clinician, patient), (patient, clinician)):
            await until_moving(person.page, "video[data-peer]", camera=other.camera)
            assert await frames_decoded(person) > 0
        pairs = [await chosen_pair(person) for person in (clinician, patient)]
        print(f"{clinic}/{home}: first frames after {seconds[0]:.2f} s and {seconds[1]:.2f} s; {pairs}")
        if way == "direct":
            assert {pair[side] for pair in pairs for side in ("local", "remote")} <= DIRECT
        else:
            relayed = [pair for pair in pairs if pair["local"] == "relay"]
            assert relayed
            assert {pair["protocol"] for pair in relayed} == {way}
            assert all(PUBLIC_ADDRESS in (pair["localAddress"], pair["remoteAddress"]) for pair in pairs)
        assert max(seconds) <= JOIN_S


async def test_the_server_wrote_nothing_about_anybody(deployment: Deployment) -> None:
    """Row 22, after the calls above and at level debug: no name, address, candidate or credential."""
    written = deployment.log_path.read_text()
    assert '"event": "listening"' in written
    for private in ("canary", "45.80.", "192.168.", "candidate:", "a=ice-", PAGES + "/t/"):
        assert private not in written
