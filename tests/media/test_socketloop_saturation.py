"""A fast path that saturates its core does not starve signalling, which runs in the same process on another."""

import asyncio
import json
import signal
import statistics
import time
from contextlib import ExitStack

import pytest

from benchmarks.report import percentile
from benchmarks.wsclient import Client, connect
from server.media.fastpath.relay import DropReason
from tests.live import Live, live_server
from tests.saturated import PACKETS, PUBLISHERS, RECEIVERS, saturating

ROUNDS = 7
JOINS = 100
ROUNDS_OF_A_WORKER = 50
"""Of the replay, at least, while so many join: a tenth of what a core of its own manages."""
NO_LIMITS = {"http": {"max_connections_per_address": 1_000_000, "max_joins_per_address_per_minute": 10_000_000}}


def test_the_replay_is_relayed_again_and_again():
    with ExitStack() as stack:
        relay, loop, replay = saturating(stack)
        loop.start()
        deadline = time.monotonic() + 20
        while relay.transports_view["sent_packets"].sum() < 40_000:
            assert time.monotonic() < deadline, relay.drops
        loop.stop()
        assert not relay.drops[: DropReason.SEND_FAILED].any()
        assert replay.rounds >= 40_000 // (PUBLISHERS * PACKETS * RECEIVERS)


async def join(live: Live, secret: str) -> float:
    """Join as a clinician's page does, and leave; the seconds from connecting to being there."""
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    states = []

    def on_message(payload: bytes) -> None:
        message = json.loads(payload)
        if message["type"] in ("welcome", "state") and message["state"] not in states:
            states.append(message["state"])
            if message["state"] == "arrived":
                client.send(b'{"type":"ready"}')
            elif message["state"] == "admitted":
                client.send(b'{"type":"join"}')
            elif message["state"] == "joined":
                arrived.set_result(None)

    began = time.perf_counter()
    client: Client = await connect(live.port, "/ws", live.origin)
    client.on_message = on_message
    hello = {"type": "hello", "version": 1, "tenant": live.tenant.slug, "instance": "tests", "secret": secret}
    client.send(json.dumps(hello).encode())
    await asyncio.wait_for(arrived, 20)
    seconds = time.perf_counter() - began
    client.close()
    await client.lost
    return seconds


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_joining_takes_no_longer_beside_a_saturated_worker():
    async with live_server(program="tests.saturated", **NO_LIMITS) as live:
        p99: dict[str, list[float]] = {"idle": [], "saturated": []}
        for number in range(2 * ROUNDS + 1):
            state, wanted = ("saturated", signal.SIGUSR1) if number % 2 else ("idle", signal.SIGUSR2)
            rooms = [await live.room() for _ in range(JOINS)]
            secrets = [(await live.store.mint_link(room, "clinician", "Dr Martin"))[1] for room in rooms]
            live.process.send_signal(wanted)
            await live.printed(f"{state} {number + 1} ")
            p99[state].append(percentile([await join(live, secret) for secret in secrets], 0.99) * 1000)
        rounds = int(live.output.split("after ")[-1].split()[0])
        assert rounds > ROUNDS * ROUNDS_OF_A_WORKER, "the worker had little to do"
        idle, saturated = (statistics.median(figures) for figures in p99.values())
        assert saturated <= 2 * idle, p99
