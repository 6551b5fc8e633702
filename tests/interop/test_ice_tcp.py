"""Relayed calls from networks without UDP: over ICE-TCP to the media server, or through TURN over TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import connections
from tests.browsers import until_moving
from tests.interop import alone, deployment
from tests.interop.deployment import Deployment, Person, admit
from tests.interop.natlab import LAB_TIMEOUT_S, PUBLIC_ADDRESS

pytestmark = pytest.mark.timeout(LAB_TIMEOUT_S)

MEDIA_PORT = 10000


@pytest.fixture
def without_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alone.Alone]:
    with alone.running(tmp_path_factory.mktemp("alone")) as running:
        yield running


@pytest.fixture
def with_turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment.running(tmp_path_factory.mktemp("deployment")) as running:
        yield running


async def both_move(clinician: Person, patient: Person) -> None:
    """Each sees the other's number go on, decoded."""
    for person, other in ((clinician, patient), (patient, clinician)):
        await until_moving(person.page, "video[data-peer]", camera=other.camera)
        assert (await connections.stats(person.page)).received("video")["framesDecoded"] > 0
        assert await person.page.evaluate("__colloque.client.path === 'relayed'")


async def test_udp_blocked_entirely_and_no_turn(without_turn: alone.Alone) -> None:
    sites = without_turn.lab.site("no-udp"), without_turn.lab.site("no-udp")
    async with without_turn.consultation(*sites, topology="relay-only") as people:
        seconds = await admit(*people)
        await both_move(*people)
        for person in people:
            ours, theirs = (await connections.stats(person.page)).pair()
            assert (ours["protocol"], ours["tcpType"], theirs["protocol"]) == ("tcp", "active", "tcp")
            assert (theirs["candidateType"], theirs["address"], theirs["port"]) == ("host", PUBLIC_ADDRESS, MEDIA_PORT)
        assert without_turn.metrics()["colloque_media_tcp_connections"] >= 2
        print(f"over ICE-TCP: first frames after {seconds[0]:.2f} s and {seconds[1]:.2f} s")


async def test_nothing_but_tcp_443(with_turn: Deployment) -> None:
    sites = with_turn.lab.site("only-443"), with_turn.lab.site("cone")
    async with with_turn.consultation(*sites, topology="relay-only") as people:
        seconds = await admit(*people)
        await both_move(*people)
        ours, theirs = (await connections.stats(people[0].page)).pair()
        assert (ours["candidateType"], ours["relayProtocol"]) == ("relay", "tls")
        assert (theirs["address"], theirs["port"]) == (PUBLIC_ADDRESS, MEDIA_PORT)
        there, _ = (await connections.stats(people[1].page)).pair()
        assert there["protocol"] == "udp" and there["candidateType"] != "relay"
        print(f"through TURN over TLS: first frames after {seconds[0]:.2f} s and {seconds[1]:.2f} s")
