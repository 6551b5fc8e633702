"""Joins and leaves with real ICE, DTLS and media: what they took is given back. COLLOQUE_JOINS=500 for more of them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal

import aiohttp
import pytest

from loadtest.generator import Generator, bound_socket
from tests.devices import LOOPBACK, MANY, Devices
from tests.live import Live, live_server

JOINS = int(os.environ.get("COLLOQUE_JOINS", "100"))
"""Each of a camera and of a viewer, who sees it before both leave."""
WARM_UP = 30
OF_ONE_ROOM = 10
KIB, KIB_PER_JOIN = 2048, 5
"""The allocator's unrest: 1.4 MiB after 100, 4.1 after 500, 6.6 after 1500. A transport that stayed would be 100 KiB a
join, its source's history 280."""
OBJECTS, OBJECTS_PER_JOIN = 500, 1
"""110 after 100, 610 after 500, 470 after 1500."""

pytestmark = [pytest.mark.timeout(60 + 3 * JOINS), pytest.mark.alone]


async def come_and_go(live: Live, http: aiohttp.ClientSession, times: int) -> None:
    """A new room now and then, a new load generator with it, because its legs stay."""
    for _ in range(0, times, OF_ONE_ROOM):
        room = await live.room()
        with Generator(bound_socket(), "127.78.0.1", legs=2 * OF_ONE_ROOM) as generator:
            devices = Devices(live, http, generator)
            here, there = await devices.token(room), await devices.token(room)
            generator.engine.media_on = True
            for _ in range(OF_ONE_ROOM):
                camera, viewer = await devices.publish(room, here), await devices.watch(room, there)
                await devices.until_received(viewer)
                await devices.end(camera)
                await devices.end(viewer)
        async with live.api.post(f"/api/v1/rooms/{room.id}/end") as answer:
            assert answer.status < 300


async def account(live: Live, number: int) -> dict[str, int]:
    """Ask for the account of this number, once the last room is gone."""
    live.process.send_signal(signal.SIGUSR1)
    text = await live.printed(f"account {number} ")
    while (found := re.search(rf"^account {number} (.*)\n", text, re.MULTILINE)) is None:
        await asyncio.sleep(0.01)
        text = live.output
    return dict(json.loads(found[1]))


async def test_joins_and_leaves_leave_nothing_behind() -> None:
    async with (
        live_server(program="tests.accounted", http=MANY, media=LOOPBACK) as live,
        aiohttp.ClientSession(live.origin) as http,
    ):
        await come_and_go(live, http, WARM_UP)
        before = await account(live, 1)
        await come_and_go(live, http, JOINS)
        after = await account(live, 2)
    print(f"{JOINS} joins and leaves: {before} -> {after}")
    for name in ("transports", "sources", "forwards"):
        assert after[name] == 0, name
    for name in ("descriptors", "threads", "system_threads", "tasks"):
        assert after[name] <= before[name], name
    assert after["objects"] - before["objects"] <= OBJECTS + OBJECTS_PER_JOIN * JOINS
    assert after["memory_kib"] - before["memory_kib"] <= KIB + KIB_PER_JOIN * JOINS
