"""What one stranger may hold open (SECURITY row 15): slow heads, slow bodies, slow handshakes, many connections."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from server.config import Config, HttpConfig
from server.httpguard import Guard, Proxies, client_block
from server.metrics import Metrics
from tests.live import Live, live_server

TIMEOUT_S = 1.0
GRACE_S = 8.0
"""For 300 sockets on a busy machine; without the guard they stay open for an hour."""
BAD_REQUEST = (b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@pytest.fixture
async def slow_live() -> AsyncIterator[Live]:
    async with live_server(http={"header_timeout_s": TIMEOUT_S, "max_connections_per_address": 400}) as live:
        yield live


async def connect(live: Live, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", live.port, ssl=tls)


async def ends(reader: asyncio.StreamReader, within_s: float) -> bytes:
    """Read until the server closes; fail when it does not in time."""
    async with asyncio.timeout(within_s):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


def test_ten_seconds_unless_told_otherwise():
    assert Config().http.header_timeout_s == 10.0


async def test_300_slow_sockets(slow_live):
    started = time.monotonic()
    slow = await asyncio.gather(*(connect(slow_live) for _ in range(300)))
    for _, writer in slow:
        writer.write(HALF_HEAD)

    async with slow_live.api.get("/healthz") as answer:  # somebody else's request is answered all the same
        assert answer.status == 200

    answers = await asyncio.gather(*(ends(reader, TIMEOUT_S + GRACE_S) for reader, _ in slow))
    assert time.monotonic() - started > 0.9 * TIMEOUT_S, "closed before their time"
    assert set(answers) == {b""}
    for _, writer in slow:
        writer.close()


async def test_a_byte_now_and_then_buys_no_time(slow_live):
    reader, writer = await connect(slow_live)

    async def trickle() -> None:
        writer.write(HALF_HEAD)
        while not writer.is_closing():
            writer.write(b"a")
            await asyncio.sleep(TIMEOUT_S / 10)

    feeding = asyncio.create_task(trickle())
    assert await ends(reader, TIMEOUT_S + GRACE_S) == b""
    feeding.cancel()


@pytest.mark.parametrize("second", [b"", HALF_HEAD], ids=["idle", "half a second head"])
async def test_keep_alive_is_bounded_too(slow_live, second):
    reader, writer = await connect(slow_live)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in await reader.readuntil(b"alive\n")
    writer.write(second)
    started = time.monotonic()
    assert await ends(reader, TIMEOUT_S + GRACE_S) == b""
    assert time.monotonic() - started > 0.5 * TIMEOUT_S
    writer.close()


async def test_slow_body(slow_live):
    reader, writer = await connect(slow_live)
    writer.write(b"POST /api/v1/rooms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
    answer = await ends(reader, 2 * TIMEOUT_S + GRACE_S)
    assert answer.startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_body_that_is_too_large(slow_live):
    async with slow_live.api.post("/api/v1/rooms", data=b" " * 300_000) as answer:
        assert answer.status == 413


async def test_broken_chunks(slow_live):
    reader, writer = await connect(slow_live)
    writer.write(b"POST /api/v1/rooms HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnot-hex\r\n")
    answer = await ends(reader, 2 * TIMEOUT_S + GRACE_S)
    assert answer.startswith(BAD_REQUEST)
    writer.close()


async def test_malformed_request_is_refused_with_all_headers_and_no_echo(slow_live):
    reader, writer = await connect(slow_live)
    writer.write(b"CANARY\x00 / HTTP/9.9\r\n\r\n")
    answer = await ends(reader, TIMEOUT_S + GRACE_S)
    assert answer.startswith(BAD_REQUEST)
    assert b"Content-Security-Policy: default-src 'none'" in answer
    assert b"CANARY" not in answer and b"aiohttp" not in answer
    assert "CANARY" not in slow_live.log and "127.0.0.1" not in slow_live.log
    writer.close()


async def test_slow_tls_handshake(tmp_path):
    arguments = ("--host", "127.0.0.1", "--tls-self-signed")
    async with live_server(*arguments, http={"header_timeout_s": TIMEOUT_S}) as live:
        assert live.origin.startswith("https://")
        reader, writer = await connect(live)
        writer.write(b"\x16\x03\x01")  # the first bytes of a ClientHello
        await ends(reader, TIMEOUT_S + GRACE_S)
        writer.close()

        trusting = ssl.create_default_context(cafile=live.data_dir / "tls" / "self-signed.pem")
        async with aiohttp.ClientSession() as session, session.get(f"{live.origin}/healthz", ssl=trusting) as answer:
            assert answer.status == 200
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


async def test_connections_per_address():
    async with live_server(http={"max_connections_per_address": 5}) as live:
        await live.api.close()
        live.api = aiohttp.ClientSession()
        held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        while len(held) < 5:  # the harness's own connection may take a moment to be counted out
            reader, writer = await connect(live)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if b" 200 " in await reader.readline():
                held.append((reader, writer))

        for _ in range(3):
            reader, writer = await connect(live)
            assert await ends(reader, GRACE_S) == b""
            writer.close()

        held.pop()[1].close()
        async with asyncio.timeout(GRACE_S):
            while True:
                reader, writer = await connect(live)
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if b"colloque_http_connections_refused_total" in (text := await ends(reader, GRACE_S)):
                    break
        assert b"\ncolloque_http_connections_refused_total 0.0" not in text
        for _, writer in held:
            writer.close()


async def nothing(request: web.BaseRequest) -> web.StreamResponse:
    raise web.HTTPNotFound


async def test_a_place_is_given_back():
    config = HttpConfig(max_connections_per_address=2, trusted_proxies=("10.0.0.0/8",))
    guard = Guard(web.Server(nothing), config, Metrics(), {})
    first, second = guard.take("192.0.2.7"), guard.take("::ffff:192.0.2.7")
    assert first == second == "192.0.2.7", "the same subscriber, on an IPv6 socket"
    assert guard.take("192.0.2.7") is None
    assert guard.take("192.0.2.8") == "192.0.2.8"
    assert [guard.take("10.1.2.3") for _ in range(5)] == [""] * 5, "a trusted proxy speaks for everybody"
    guard.release(first)
    assert guard.take("192.0.2.7") == "192.0.2.7"
    assert guard.take("192.0.2.7") is None


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_client_block(address, block):
    assert client_block(address) == block


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("198.51.100.1", "", "198.51.100.1"),
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),  # not a proxy of ours: whatever it says is its own idea
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),  # the client wrote 1.1.1.1 itself
        ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),  # two proxies of ours
        ("10.0.0.1", "2001:db8::5", "2001:db8::5"),
        ("10.0.0.1", "<script>", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, junk", "10.0.0.1"),
        ("10.0.0.1", " , ", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_forwarded_for(peer, forwarded_for, client):
    assert Proxies(["10.0.0.0/8"]).client(peer, forwarded_for) == client
