"""The table of bad inputs, against a real server, beside a consultation that must not notice.

Every row is something that a stranger, a broken page or a hostile one may send, with the refusal it gets. All rows meet
the same server process; meanwhile a clinician and a patient next door exchange messages without pause. Their median is
asserted after each row and their p99 at the end, against an echo that no row touches, which shows what the machine
itself is to blame for. What needs a browser or a network of its own is tested beside it (slow HTTP heads:
`test_httpguard.py`; TURN: `tests/interop/test_coturn.py`); forged tokens and ugly descriptions also without sockets
(`test_auth.py`, `test_negotiation.py`).
"""

import asyncio
import contextlib
import json
import os
import socket
import statistics
import struct
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from server.catalogue import Catalogue
from server.clock import wall_now
from server.ids import new_id
from server.records import SigningKey, Tenant
from tests.live import Live, live_server
from tests.server.test_auth import FORGED, KEYS, STRANGER, public_pem, token
from tests.server.test_negotiation import OFFER, UGLY
from tests.server.test_websocket import Person

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_S = 0.05
"""There and back next door, through two messages of the protocol; alone it takes about 2 ms."""
BUSY = 5
"""So many times the echo's time is added: the machine may be busy with other things."""
_ECHO = """
import asyncio
async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line)
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
LIMITS = {"max_joins_per_address_per_minute": 100_000, "max_connections_per_address": 1_000}
"""All rows come from one address; what is bounded per address is in `test_websocket.py`."""
UNKNOWN = Catalogue.load().sentence("en", "error.link_unknown")


_PAUSE_S = 0.03
"""Two messages each: under the sustained rate of 50 a second."""


class NextDoor:
    """A clinician and a patient who send each other a candidate, answer it, and start again."""

    def __init__(self, clinician: Person, patient: Person, patient_id: str) -> None:
        self._clinician, self._patient, self.patient_id = clinician, patient, patient_id
        self.times: list[float] = []
        """There and back, in seconds."""
        self.echoes: list[float] = []
        """The same without our server, each measured right after."""
        self._exchanged = asyncio.Event()

    async def run(self, echo: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        candidate = {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0"}
        reader, writer = echo
        while True:
            started = time.perf_counter()
            await self._clinician.send("candidate", to=self.patient_id, candidate=candidate)
            heard = await self._patient.until("peerCandidate")
            await self._patient.send("candidate", to=heard["from"], candidate=heard["candidate"])
            await self._clinician.until("peerCandidate")
            between = time.perf_counter()
            for _ in range(2):
                writer.write(b"x\n")
                await reader.readline()
            self.times.append(between - started)
            self.echoes.append(time.perf_counter() - between)
            self._exchanged.set()
            await asyncio.sleep(_PAUSE_S)

    async def hear(self, exchanges: int) -> None:
        """Wait for so many more exchanges."""
        wanted = len(self.times) + exchanges
        async with asyncio.timeout(20):
            while len(self.times) < wanted:
                self._exchanged.clear()
                await self._exchanged.wait()


@dataclass
class World:
    live: Live
    client: aiohttp.ClientSession
    next_door: NextDoor = field(init=False)

    @property
    def port(self) -> int:
        return int(self.live.origin.rpartition(":")[2])

    async def dial(self) -> Person:
        return Person(await self.client.ws_connect(self.live.origin + "/ws", headers={"Origin": self.live.origin}))

    async def secret(self, role: str = "patient", room: Any = None, **link: Any) -> str:
        room = room or await self.live.store.create_room("clinique")
        return (await self.live.store.mint_link(room, role, "Ada", **link))[1]

    async def hello(self, secret: str | None, **members: Any) -> tuple[Person, dict[str, Any]]:
        person = await self.dial()
        return person, await person.hello(secret, **members)

    async def call(self) -> tuple[Person, Person, dict[str, Any], dict[str, Any]]:
        """Return a clinician and a patient in the conversation of a new room, and their welcomes."""
        room = await self.live.store.create_room("clinique", topology="direct-only")
        clinician, first = await self.hello(await self.secret("clinician", room))
        await clinician.send("join")
        patient, welcome = await self.hello(await self.secret("patient", room))
        await patient.send("ready")
        await clinician.send("admit", participant=welcome["id"])
        await patient.until("state", state="admitted")
        await patient.send("join")
        await clinician.until("peerJoined")
        await patient.until("state", state="joined")
        return clinician, patient, first, welcome

    async def metric(self, name: str) -> float:
        async with self.client.get(self.live.origin + "/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with live_server(http=LIMITS) as live, aiohttp.ClientSession() as client:
        await live.store.create_tenant(Tenant("autre", "Autre"))
        for algorithm, key in KEYS.items():
            await live.store.add_signing_key(SigningKey("clinique", algorithm, algorithm, public_pem(key), wall_now()))
        await live.store.add_signing_key(SigningKey("autre", "theirs", "EdDSA", public_pem(STRANGER), wall_now()))
        world = World(live, client)
        clinician, patient, _, welcome = await world.call()
        world.next_door = NextDoor(clinician, patient, welcome["id"])
        echo = await asyncio.create_subprocess_exec(sys.executable, "-c", _ECHO, stdout=asyncio.subprocess.PIPE)
        port = int(await echo.stdout.readline())
        running = asyncio.create_task(world.next_door.run(await asyncio.open_connection("127.0.0.1", port)))
        try:
            yield world
            assert not running.done()
            times, echoes = world.next_door.times, world.next_door.echoes
            assert percentile(times, 0.99) < MAX_S + BUSY * percentile(echoes, 0.99)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            echo.kill()
            await echo.wait()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nobody_next_door_notices(world) -> AsyncIterator[None]:
    first = len(world.next_door.times)
    yield
    await world.next_door.hear(3)
    times, echoes = world.next_door.times[first:], world.next_door.echoes[first:]
    assert statistics.median(times) < MAX_S + BUSY * statistics.median(echoes)
    assert await world.metric('colloque_socket_closes_total{reason="internal"}') == 0
    assert "Traceback" not in world.live.log


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


async def refusal(person: Person, answer: dict[str, Any]) -> tuple[str, int]:
    """Return the code of a refusal and of the close behind it."""
    assert answer["type"] == "refused", answer
    assert answer["message"]
    closed = await person.next()
    return answer["code"], closed["closed"]


# -- links and tokens -------------------------------------------------------------------------------------------------

NOWHERE: dict[str, tuple[Callable[[], str], str]] = {
    "unknown": (new_id, "clinique"),
    "one character": (lambda: "x", "clinique"),
    "4 kB": (lambda: "x" * 4096, "clinique"),
    "NULs": (lambda: "\0" * 22, "clinique"),
    "SQL": (lambda: "' OR '1'='1", "clinique"),
    "unknown clinic": (new_id, "nowhere"),
    "NUL for a clinic": (new_id, "\0"),
    "SQL for a clinic": (new_id, "' OR '1'='1"),
    "another clinic's token": (token, "autre"),
    "a token of an unknown clinic": (token, "nowhere"),
    **{f"token: {name}": (forge, "clinique") for name, forge in FORGED.items() if name != "another clinic's page"},
}


@pytest.mark.parametrize(("secret", "tenant"), NOWHERE.values(), ids=NOWHERE)
async def test_what_opens_nothing_is_answered_alike(world, secret, tenant):
    person = await world.dial()
    await person.send("hello", version=1, tenant=tenant, instance="page", secret=secret(), language="en")
    answer = await person.socket.receive()
    assert answer.data == f'{{"type":"refused","code":"link_unknown","message":"{UNKNOWN}"}}'
    assert await person.next() == {"closed": 4401, "reason": "link_unknown"}


async def test_a_real_link_under_another_clinic(world):
    assert await refusal(*await world.hello(await world.secret(), tenant="autre")) == ("link_unknown", 4401)


TIMES = {
    "not yet": ({"not_before": timedelta(minutes=5)}, "link_not_yet"),
    "expired": ({"expires_at": timedelta(minutes=-5)}, "link_expired"),
}


@pytest.mark.parametrize(("times", "code"), TIMES.values(), ids=TIMES)
async def test_links_out_of_time(world, times, code):
    secret = await world.secret(**{name: wall_now() + delta for name, delta in times.items()})
    assert await refusal(*await world.hello(secret)) == (code, 4401)


@pytest.mark.parametrize(("begins_s", "code"), [(-3600, "link_expired"), (600, "link_not_yet")])
async def test_tokens_out_of_time(world, begins_s, code):
    begins = wall_now().timestamp() + begins_s
    text = token(nbf=begins, exp=begins + 60)
    assert await refusal(*await world.hello(text)) == (code, 4401)


async def test_a_revoked_link(world):
    room = await world.live.store.create_room("clinique")
    link, secret = await world.live.store.mint_link(room, "patient")
    _, welcome = await world.hello(secret)
    await world.live.store.revoke_link(link.id)
    for credentials in ((secret, None), (secret, welcome["resume"]), (None, welcome["resume"])):
        answer = await world.hello(credentials[0], **({"resume": credentials[1]} if credentials[1] else {}))
        assert await refusal(*answer) == ("link_revoked", 4401)


async def test_a_resume_secret_after_removal_and_after_the_end(world):
    clinician, patient, first, welcome = await world.call()
    await clinician.send("remove", participant=welcome["id"], reason="x")
    assert (await patient.until("refused"))["code"] == "removed"
    assert await refusal(*await world.hello(None, resume=welcome["resume"])) == ("removed", 4403)
    await clinician.send("endRoom")
    await clinician.until("roomEnded")
    assert await refusal(*await world.hello(None, resume=first["resume"])) == ("room_ended", 4410)
    assert await refusal(*await world.hello(None, resume=new_id())) == ("link_unknown", 4401)


async def test_a_token_on_a_second_device(world):
    now = wall_now().timestamp()
    text = token(jti=new_id(), room=new_id(), nbf=now, exp=now + 600)
    first, welcome = await world.hello(text)
    assert welcome["type"] == "welcome"
    second, answer = await world.hello(text)
    assert answer == {"type": "occupied"}
    answer = await second.hello(text, takeOver=True)
    assert (answer["type"], answer["id"]) == ("welcome", welcome["id"])
    assert await refusal(first, await first.next()) == ("taken_over", 4409)
    _, answer = await world.hello(text, resume=welcome["resume"])
    assert answer == {"type": "occupied"}


# -- messages ---------------------------------------------------------------------------------------------------------

HELLO = '{"type":"hello","version":1,"tenant":"clinique","instance":"p","secret":"%s"}'
FIRST = {
    "not JSON": ("hello", "bad_message", 4400),
    "a list": ("[]", "bad_message", 4400),
    "no type": ("{}", "bad_message", 4400),
    "unknown type": ('{"type":"dance"}', "bad_message", 4400),
    "a server's type": ('{"type":"welcome"}', "bad_message", 4400),
    "no credentials": ('{"type":"hello","version":1,"tenant":"clinique","instance":"p"}', "bad_message", 4400),
    "numbers as text": (HELLO.replace("1,", '"1",') % "x", "bad_message", 4400),
    "deep": ('{"type":"hello","x":' + "[" * 30_000 + "]" * 30_000 + "}", "bad_message", 4400),
    "endless number": ('{"type":"hello","version":1e' + "9" * 1000 + "}", "bad_message", 4400),
    "another version": (HELLO.replace("1,", "2,") % "x", "version_unsupported", 4400),
    **{
        f"{kind} before hello": (json.dumps({"type": kind, **members}), "bad_order", 4400)
        for kind, members in {
            "ready": {}, "join": {}, "leave": {}, "pong": {}, "refreshIceServers": {},
            "admit": {"participant": "x"}, "endRoom": {}, "setLanguage": {"language": "en"},
            "candidate": {"to": "x", "candidate": {"candidate": ""}},
            "description": {"to": "x", "description": {"type": "offer", "sdp": ""}},
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "close"), FIRST.values(), ids=FIRST)
async def test_first_messages(world, text, code, close):
    person = await world.dial()
    await person.socket.send_str(text)
    assert await refusal(person, await person.next()) == (code, close)


SEATED = {
    "hello again": ({"type": "hello", "version": 1, "tenant": "clinique", "instance": "p", "secret": "s"}, "bad_order"),
    "malformed": ({"type": "setMedia", "microphone": "loud", "camera": "on"}, "bad_message"),
    "too long an id": ({"type": "candidate", "to": "x" * 65, "candidate": {"candidate": ""}}, "bad_message"),
    "too long a sentence": ({"type": "tell", "participant": "x", "text": "x" * 501}, "bad_message"),
}


@pytest.mark.parametrize(("message", "code"), SEATED.values(), ids=SEATED)
async def test_what_ends_a_seated_connection(world, message, code):
    person, _ = await world.hello(await world.secret())
    await person.socket.send_str(json.dumps(message))
    assert await refusal(person, await person.next()) == (code, 4400)


PROBLEMS = {
    "order of a clinician": ({"type": "endRoom"}, "not_permitted"),
    "admitting oneself": ({"type": "admit", "participant": "{me}"}, "not_permitted"),
    "join before admission": ({"type": "join"}, "bad_order"),
    "media before admission": ({"type": "candidate", "to": "x", "candidate": {"candidate": ""}}, "bad_order"),
    "credentials before admission": ({"type": "refreshIceServers"}, "bad_order"),
}


@pytest.mark.parametrize(("message", "code"), PROBLEMS.values(), ids=PROBLEMS)
async def test_what_is_not_carried_out_in_the_waiting_room(world, message, code):
    person, welcome = await world.hello(await world.secret())
    await person.send("ready")
    await person.until("state")
    await person.socket.send_str(json.dumps(message).replace("{me}", welcome["id"]))
    problem = await person.next()
    assert (problem["type"], problem["code"], problem["re"]) == ("problem", code, message["type"])


# -- frames -----------------------------------------------------------------------------------------------------------


def masked(payload: bytes, first: int = 0x81, length: int | None = None) -> bytes:
    """Return a client's frame; `length` lies about the payload's."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65_536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + b"\0\0\0\0" + payload


def deflated(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(b"x" * size) + compressor.flush(zlib.Z_SYNC_FLUSH)


FRAMES: dict[str, tuple[Callable[[], bytes], int]] = {
    "not UTF-8": (lambda: masked(b'{"type":"\xff"}'), 4400),
    "NULs": (lambda: masked(b"\0" * 1000), 4400),
    "empty": (lambda: masked(b""), 4400),
    "binary": (lambda: masked(b'{"type":"hello"}', 0x82), 4400),
    "unmasked": (lambda: b"\x81\x02{}", 4400),  # aiohttp takes it for a message
    "reserved bit": (lambda: masked(b"{}", 0x91), 1002),
    "unknown opcode": (lambda: masked(b"{}", 0x83), 1002),
    "continuation of nothing": (lambda: masked(b"{}", 0x80), 1002),
    "long ping": (lambda: masked(b"x" * 126, 0x89), 1002),
    "fragmented ping": (lambda: masked(b"x", 0x09), 1002),
    "deflate bomb": (lambda: masked(deflated(64 * 2**20), 0xC1), 1002),
    "70 kB": (lambda: masked(b"x" * 70_000), 1009),
    "says 2^62 bytes": (lambda: masked(b"x", length=2**62), 1009),
    "fragments without end": (lambda: masked(b"x" * 1000, 0x01) + masked(b"x" * 1000, 0x00) * 100, 1009),
}


@pytest.mark.parametrize(("frames", "code"), FRAMES.values(), ids=FRAMES)
async def test_frames_that_break_the_protocol(world, frames, code):
    reader, writer = await _upgraded(world)
    memory = await world.metric("process_resident_memory_bytes")
    writer.write(await asyncio.to_thread(frames))
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    assert await _close_code(reader) == code
    writer.close()
    assert await world.metric("process_resident_memory_bytes") - memory < 8 * 2**20


async def _upgraded(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(_request(world))
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def _request(world: World) -> bytes:
    return (
        f"GET /ws HTTP/1.1\r\nHost: {world.live.origin[7:]}\r\nOrigin: {world.live.origin}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    ).encode()


async def _close_code(reader: asyncio.StreamReader) -> int:
    """Read frames up to the close frame; return its code."""
    async with asyncio.timeout(10):
        while True:
            first, size = await reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
            payload = await reader.readexactly(size)
            if first & 0xF == 0x8:
                return int.from_bytes(payload[:2], "big")


# -- floods and silence -----------------------------------------------------------------------------------------------


def _flood(port: int, request: bytes, frames: bytes) -> None:
    """Open a socket, send everything as fast as it goes, and read until the end. Runs in a thread."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        while b"\r\n\r\n" not in connection.recv(4096):
            pass
        with contextlib.suppress(ConnectionError):
            connection.sendall(frames)
            while connection.recv(65_536):
                pass


FLOODS = {
    "pongs": masked(b'{"type":"pong"}') * 20_000,
    "nonsense on a seat": masked(b'{"type":"admit","participant":"x"}') * 20_000,
    "language": masked(b'{"type":"setLanguage","language":"fr"}') * 20_000,
    "pings of the WebSocket": masked(b"x", 0x89) * 20_000,
    "ready, leave": (masked(b'{"type":"ready"}') + masked(b'{"type":"leave"}')) * 10_000,
    "largest messages": masked(b'{"type":"ready","x":"' + b"x" * 65_000 + b'"}') * 500,
}


@pytest.mark.parametrize("frames", FLOODS.values(), ids=FLOODS)
async def test_a_flood_is_cut_off(world, frames):
    name = 'colloque_socket_closes_total{reason="rate_limited"}'
    before = await world.metric(name)
    hello = masked((HELLO % await world.secret()).encode())
    await asyncio.to_thread(_flood, world.port, _request(world), hello + frames)
    assert await world.metric(name) == before + 1


async def test_a_flood_of_hellos(world):
    """Guessing secrets on one socket ends with the first wrong one."""
    person, answer = await world.hello(new_id())
    assert await refusal(person, answer) == ("link_unknown", 4401)


async def test_a_slow_reader_is_cut_off():
    """The patient stops reading while the clinician sends: nothing piles up, and the clinician is told.

    With a budget that no clinician has, or the clinician would be cut off first.
    """
    async with live_server(signalling={"message_burst": 100_000}) as live, aiohttp.ClientSession() as client:
        world = World(live, client)
        clinician, patient, _, welcome = await world.call()
        closes = 'colloque_socket_closes_total{reason="slow_reader"}'
        before, memory = await world.metric(closes), await world.metric("process_resident_memory_bytes")
        patient.socket._response.connection.transport.pause_reading()
        description = {"type": "offer", "sdp": OFFER + "a=" + "x" * 60_000 + "\r\n"}
        for _ in range(300):
            await clinician.send("description", to=welcome["id"], description=description)
        assert (await clinician.until("peerChanged"))["peer"]["connection"] == "reconnecting"
        assert await world.metric(closes) == before + 1
        assert await world.metric("process_resident_memory_bytes") - memory < 16 * 2**20


# -- descriptions -----------------------------------------------------------------------------------------------------


async def test_ugly_descriptions(world):
    """Each is refused, none is relayed, and both stay in the conversation unless the message itself is too large."""
    clinician, patient, first, welcome = await world.call()
    for name, sdp in UGLY.items():
        if len(json.dumps(sdp)) > 65_000:
            continue
        if len(sdp) > 8_000:  # what a person may send in bytes is limited too
            clinician, patient, first, welcome = await world.call()
        await patient.send("description", to=first["id"], description={"type": "offer", "sdp": sdp})
        problem = await patient.next()
        assert (problem["type"], problem.get("code"), problem.get("re")) == ("problem", "bad_sdp", "description"), name
        await asyncio.sleep(0.02)
    await patient.send("description", to=first["id"], description={"type": "offer", "sdp": OFFER})
    assert (await clinician.until("peerDescription"))["description"]["sdp"] == OFFER
    await patient.send("description", to=first["id"], description={"type": "offer", "sdp": OFFER + "a=" + "x" * 10**6})
    assert (await patient.next())["closed"] == 1009
    assert (await clinician.until("peerChanged"))["peer"]["id"] == welcome["id"]


ROLES = {
    "observer sends": ("observer", OFFER, "not_permitted"),
    "observer does not say": ("observer", OFFER.replace("a=sendrecv\r\n", ""), "not_permitted"),
    "guest sends": ("guest", OFFER, None),
    "observer listens": ("observer", OFFER.replace("a=sendrecv", "a=recvonly"), None),
}


@pytest.mark.parametrize(("role", "sdp", "code"), ROLES.values(), ids=ROLES)
async def test_descriptions_of_each_role(world, role, sdp, code):
    room = await world.live.store.create_room("clinique")
    clinician, first = await world.hello(await world.secret("clinician", room))
    await clinician.send("join")
    person, welcome = await world.hello(await world.secret(role, room))
    await clinician.send("admit", participant=welcome["id"])
    await person.send("ready")
    await person.until("state", state="admitted")
    await person.send("join")
    await person.until("state", state="joined")
    await person.send("description", to=first["id"], description={"type": "offer", "sdp": sdp})
    if code is None:
        assert (await clinician.until("peerDescription"))["from"] == welcome["id"]
    else:
        assert (await person.next())["code"] == code


async def test_nothing_crosses_rooms(world):
    _, patient, _, _ = await world.call()
    _, _, stranger, _ = await world.call()
    for target in (stranger["id"], "nobody", world.next_door.patient_id):
        await patient.send("candidate", to=target, candidate={"candidate": ""})
        assert (await patient.until("problem"))["code"] == "unknown_participant"


# -- pages that are not ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://localhost", "http://127.0.0.1", "", None])
async def test_foreign_origins(world, origin):
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(aiohttp.WSServerHandshakeError) as answer:
        await world.client.ws_connect(world.live.origin + "/ws", headers=headers)
    assert answer.value.status == 403


async def test_random_bytes_after_the_upgrade(world):
    for _ in range(50):
        _, writer = await _upgraded(world)
        writer.write(os.urandom(2000))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()
