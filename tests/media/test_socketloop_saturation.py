"""A media worker that saturates its core does not starve signalling, which runs in the same process on another."""

import asyncio
import json
import os
import re
import signal
import socket
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from benchmarks.report import percentile
from benchmarks.wsclient import Client, connect
from server.media.fastpath.relay import DropReason, Relay
from server.media.fastpath.socketloop import SocketLoop
from server.records import Topology
from tests.live import Live, live_server
from tests.offers import camera_and
from tests.saturated import PACKETS, PUBLISHERS, RECEIVERS, cores, occupied

ROUNDS, MOST_ROUNDS = 5, 15
"""At least, and at most: more than the least when something else on the machine has made a few of them slow."""
JOINS = 100
OF_A_CORE = 0.5
"""What the worker's thread has of the first core at least, whoever else wants it; one at rest has a thousandth."""
NO_LIMITS = {"http": {"max_connections_per_address": 1_000_000, "max_joins_per_address_per_minute": 10_000_000}}


def test_the_replay_is_relayed_again_and_again():
    with ExitStack() as stack:
        relay = Relay(transports=256, sources=256, forwards=256)
        own = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        own.bind(("127.0.0.1", 0))
        replay = occupied(relay, stack)
        loop = SocketLoop(relay, [own.fileno()], replay=replay)
        loop.start()
        deadline = time.monotonic() + 20
        while relay.transports_view["sent_packets"].sum() < 40_000:
            assert time.monotonic() < deadline, relay.drops
        loop.stop()
        assert not relay.drops[: DropReason.SEND_FAILED].any()
        assert replay.rounds >= 40_000 // (PUBLISHERS * PACKETS * RECEIVERS)


async def join(live: Live, secret: str, *, relayed: bool) -> float:
    """Join as a clinician's page does, and leave; the seconds from connecting to being there.

    With `relayed`, until the media server has answered too: it makes a transport and takes sound and picture.
    """
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    states = []

    def on_message(payload: bytes) -> None:
        message = json.loads(payload)
        if message["type"] == "relayWanted" and relayed:
            client.send(offer)
        elif message["type"] == "relayAnswer":
            arrived.set_result(None)
        elif message["type"] in ("welcome", "state") and message["state"] not in states:
            states.append(message["state"])
            if message["state"] == "arrived":
                client.send(b'{"type":"ready"}')
            elif message["state"] == "admitted":
                client.send(b'{"type":"join"}')
            elif message["state"] == "joined" and not relayed:
                arrived.set_result(None)

    description = {"type": "offer", "sdp": camera_and(1).replace("\n", "\r\n")}
    offer = json.dumps({"type": "relayOffer", "connection": "of-a-test", "description": description}).encode()
    began = time.perf_counter()
    client: Client = await connect(live.port, "/ws", live.origin)
    client.on_message = on_message
    hello = {"type": "hello", "version": 1, "tenant": live.tenant.slug, "instance": "tests", "secret": secret}
    client.send(json.dumps(hello).encode())
    await asyncio.wait_for(arrived, 20)
    seconds = time.perf_counter() - began
    client.send(b'{"type":"leave"}')
    client.close()
    await client.lost
    return seconds


async def thread_seconds(live: Live) -> float:
    """Return what the worker's thread has had of a processor."""
    async with live.api.get("/metrics") as answer:
        found = re.search(r"^colloque_media_cpu_seconds(?:_total)? (\S+)", await answer.text(), re.MULTILINE)
    assert found
    return float(found[1])


@asynccontextmanager
async def on_the_second_core(*servers: Live) -> AsyncIterator[None]:
    """Have this process and the main threads of servers there."""
    before, (_, others) = os.sched_getaffinity(0), cores()
    pids = (0, *(live.process.pid for live in servers))
    for pid in pids:
        os.sched_setaffinity(pid, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.alone
@pytest.mark.timeout(300)
@pytest.mark.parametrize("topology", ["auto", "relay-only"])
async def test_joining_takes_no_longer_beside_a_saturated_worker(topology: Topology):
    """Two servers; the one whose worker is saturated stands still while the other is timed.

    Both, and whoever joins, have the second core: else the scheduler would give the saturated worker its share of that.
    """
    async with (
        live_server(**NO_LIMITS) as idle,
        live_server(program="tests.saturated", **NO_LIMITS) as saturated,
        on_the_second_core(idle, saturated),
    ):
        p99: dict[Live, list[float]] = {idle: [], saturated: []}
        busy_s = taken_s = 0.0
        try:
            for number in range(2 * MOST_ROUNDS):
                live = saturated if number % 2 else idle
                saturated.process.send_signal(signal.SIGCONT if number % 2 else signal.SIGSTOP)
                rooms = [await live.room(topology=topology) for _ in range(JOINS)]
                secrets = [(await live.store.mint_link(room, "clinician", "Dr Martin"))[1] for room in rooms]
                before_s, began = await thread_seconds(live), time.monotonic()
                figures = [await join(live, secret, relayed=topology == "relay-only") for secret in secrets]
                p99[live].append(percentile(figures, 0.99) * 1000)
                if live is idle:
                    continue
                busy_s += await thread_seconds(live) - before_s
                taken_s += time.monotonic() - began
                before_ms, beside_ms = (statistics.median(p99[each]) for each in (idle, saturated))
                if len(p99[live]) >= ROUNDS and beside_ms <= 2 * before_ms:
                    break
        finally:
            saturated.process.send_signal(signal.SIGCONT)
        assert busy_s > OF_A_CORE * taken_s, "the worker had little to do"
        assert beside_ms <= 2 * before_ms, [*p99.values()]
