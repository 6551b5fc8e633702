"""A relayed call over a network that loses packets at random: what is lost on either leg is sent again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop import alone
from tests.interop.loss import lossy_call
from tests.interop.natlab import LAB_TIMEOUT_S

pytestmark = pytest.mark.timeout(LAB_TIMEOUT_S)

REPAIRED = 0.7
"""Least part of some dozen; over minutes it is above 0.95. What is lost twice needs a second round."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[alone.Alone]:
    with alone.running(tmp_path_factory.mktemp("alone")) as running:
        yield running


async def test_two_percent_each_way(server: alone.Alone) -> None:
    seen = await lossy_call(server, "relay-only", 0.02, seconds=15)
    print(seen)
    assert seen.up.lost_by_network > 0 and seen.down.lost_by_network > 0
    lost, recovered = seen.up.lost + seen.down.lost, seen.up.recovered + seen.down.recovered
    assert lost >= 5, "too little was lost to judge"
    assert recovered / lost >= REPAIRED
    for way in (seen.up, seen.down):
        assert way.frames_per_second >= 10
        assert way.frozen_part <= 0.2
