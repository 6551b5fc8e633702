"""The end of the server: drained by one signal, at once by two, and nothing lost (SECURITY row 24 in small)."""

import asyncio
import contextlib
import signal
import sqlite3
import time

import pytest

from server.config import HttpConfig
from server.health import Health
from server.metrics import Metrics
from tests.live import Live, live_server
from tests.participant import Participant


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_one_signal_drains(number):
    async with live_server() as live:
        patient = await Participant.arrive(live, await live.link(await live.room(), "patient"))
        started = time.monotonic()
        status = await live.stop(number)
        assert status == 0
        assert time.monotonic() - started < 8
        told = await patient.next("goingAway")
        assert told["retryAfterMs"] >= 0
        assert await patient.closed() == 1012
        assert [event["event"] for event in live.events][-2:] == ["draining", "stopped"]
        await patient.close()


async def create_room(live: Live) -> int:
    async with live.api.post("/api/v1/rooms", json={}) as answer:
        return answer.status


async def test_a_request_under_way_is_finished():
    async with live_server() as live:
        with contextlib.closing(sqlite3.connect(live.data_dir / "colloque.db", isolation_level=None)) as busy:
            busy.execute("BEGIN IMMEDIATE")  # the request cannot be answered before the lock is gone
            asking = asyncio.create_task(create_room(live))
            async with live.api.get("/healthz"):
                pass  # the server has read both requests by now
            stopping = asyncio.create_task(live.stop())
            await live.event("draining")
            assert not asking.done()
            busy.execute("ROLLBACK")
        assert await asking == 201
        assert await stopping == 0


@pytest.mark.alone
async def test_two_signals_end_it_at_once():
    async with live_server(expect_status=130) as live:
        _, writer = await asyncio.open_connection("127.0.0.1", live.port)
        writer.write(b"POST /api/v1/rooms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")  # keeps it busy
        await writer.drain()
        async with live.api.get("/healthz"):
            pass  # the server has read it by now
        live.process.send_signal(signal.SIGINT)
        await live.event("draining")
        started = time.monotonic()
        assert await live.stop(signal.SIGINT) == 130
        assert time.monotonic() - started < 2, "draining would take 3 s"
        writer.close()


async def test_sigterm_twice_still_drains():
    """Some supervisors signal the group and then the process; only a person at the keyboard means "now"."""
    async with live_server() as live:
        live.process.send_signal(signal.SIGTERM)
        assert await live.stop(signal.SIGTERM) == 0
        assert live.events[-1]["event"] == "stopped"


async def test_what_was_queued_is_on_disk():
    """Facts are written behind; the last ones must not be lost by a clean end."""
    async with live_server() as live:
        room = await live.room()
        patient = await Participant.arrive(live, await live.link(room, "patient"))
        await patient.send("ready")
        await patient.next("state")
        await live.stop()
        kinds = [event.kind for event in await live.store.audit(room.id)]
        assert "participant.arrived" in kinds and "participant.waiting" in kinds
        await patient.close()


async def test_not_ready_while_draining():
    class Answers:
        async def ready(self) -> bool:
            return True

    health = Health(HttpConfig(), Answers(), Metrics())  # type: ignore[arg-type]
    assert (await health.ready(None)).status == 200  # type: ignore[arg-type]
    health.draining = True
    answer = await health.ready(None)  # type: ignore[arg-type]
    assert (answer.status, answer.text) == (503, "draining\n")
