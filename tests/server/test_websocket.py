"""The endpoint `/ws` with real sockets: what the machines cannot show."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from structlog.testing import capture_logs

from server.app import ENDPOINT, METRICS, STORE, build
from server.config import Config, from_tree
from server.media.events import TransportConnected
from server.records import RoomRecord, Tenant
from server.signalling.limits import AddressLimits
from server.signalling.websocket import SignallingEndpoint, _frame
from server.store import Store
from tests.offers import camera_and
from tests.server.test_relaying import FakeSfu


class Person:
    """A browser's WebSocket, as far as its messages go. Pings are answered and not shown."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, **members: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **members}))

    async def next(self) -> dict[str, Any]:
        """Return the next message that is no ping; {"closed": code, "reason": ...} at the end."""
        while True:
            async with asyncio.timeout(10):
                message = await self.socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                reason = message.extra if message.type is aiohttp.WSMsgType.CLOSE else ""
                return {"closed": self.socket.close_code, "reason": reason}
            parsed: dict[str, Any] = json.loads(message.data)
            if parsed["type"] != "ping":
                return parsed
            await self.send("pong")

    async def until(self, kind: str, **members: Any) -> dict[str, Any]:
        """Return the next message of this type with these members; what comes before is skipped."""
        while True:
            message = await self.next()
            assert "closed" not in message or kind == "closed", message
            if (message.get("type") == kind or kind in message) and members.items() <= message.items():
                return message

    async def hello(self, secret: str | None = None, **members: Any) -> dict[str, Any]:
        base = {"version": 1, "tenant": "clinique", "instance": "page", **({"secret": secret} if secret else {})}
        await self.send("hello", **(base | members))
        return await self.next()


class Clinic:
    """A server in this process, with one tenant and one room."""

    def __init__(self, app: web.Application, server: TestServer, client: aiohttp.ClientSession) -> None:
        self.app = app
        self.client = client
        self.origin = str(server.make_url("")).rstrip("/")
        self.store: Store = app[STORE]
        self.endpoint: SignallingEndpoint = app[ENDPOINT]
        self.room: RoomRecord

    async def dial(self, *lines: tuple[str, str], **headers: str) -> Person:
        sent = CIMultiDict([*({"Origin": self.origin} | headers).items(), *lines])
        return Person(await self.client.ws_connect(self.origin + "/ws", headers=sent))

    async def link(self, role: str = "patient", name: str = "Ada", room: RoomRecord | None = None) -> str:
        return (await self.store.mint_link(room or self.room, role, name))[1]

    async def enter(self, role: str = "patient", **link: Any) -> tuple[Person, dict[str, Any]]:
        person = await self.dial()
        return person, await person.hello(await self.link(role, **link))

    async def call(self) -> tuple[Person, Person, str]:
        """Return a clinician and a patient in the conversation, and the patient's id."""
        clinician, _ = await self.enter("clinician", name="Dr Martin")
        await clinician.send("join")
        patient, welcome = await self.enter()
        await patient.send("ready")
        await clinician.send("admit", participant=welcome["id"])
        await patient.until("state", state="admitted")
        await patient.send("join")
        await patient.until("state", state="joined")
        await clinician.until("peerJoined")
        return clinician, patient, welcome["id"]

    def sample(self, name: str, **labels: str) -> float:
        return self.app[METRICS].registry.get_sample_value(name, labels or None) or 0.0


@contextlib.asynccontextmanager
async def clinic(config: Config) -> AsyncIterator[Clinic]:
    app = await build(config)
    server = TestServer(app)
    await server.start_server()
    try:
        async with aiohttp.ClientSession() as client:
            yield Clinic(app, server, client)
    finally:
        await server.close()


@pytest.fixture
def tree() -> dict[str, Any]:
    """Settings other than the defaults; see `with_settings`."""
    return {}


@pytest.fixture
def settings(tmp_path, tree) -> Config:
    return from_tree({"data_dir": str(tmp_path), "media": {"port": 0, "workers": 1}, **tree})


def with_settings(**tree: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tree", [tree], ids=["settings"])


@pytest.fixture
async def open_clinic(settings) -> AsyncIterator[Clinic]:
    async with clinic(settings) as opened:
        await opened.store.create_tenant(Tenant("clinique", "Clinique du Parc"))
        opened.room = await opened.store.create_room("clinique")
        yield opened


# -- coming in --------------------------------------------------------------------------------------------------------


async def test_hello_and_the_way_in(open_clinic):
    person, welcome = await open_clinic.enter(name="Zoé")
    assert (welcome["state"], welcome["name"], welcome["pingIntervalMs"]) == ("arrived", "Zoé", 1500)
    assert len(welcome["resume"]) == 22
    await person.send("ready")
    assert (await person.next())["state"] == "waiting"
    assert open_clinic.endpoint.counts(open_clinic.room.id) == {"waiting": 1}
    assert open_clinic.sample("colloque_hellos_total", result="welcome") == 1
    assert open_clinic.sample("colloque_sockets") == 1
    assert open_clinic.sample("colloque_participants", state="waiting") == 1


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "null", "", "{origin}/", "{origin}.evil.test", "{origin}0", None]
)
async def test_only_our_own_pages_may_open_a_socket(open_clinic, origin):
    headers = {} if origin is None else {"Origin": origin.format(origin=open_clinic.origin)}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await open_clinic.client.ws_connect(open_clinic.origin + "/ws", headers=headers)
    assert refusal.value.status == 403


@with_settings(http={"public_url": "https://video.example.org"})
async def test_behind_a_proxy_our_origin_is_the_public_one(open_clinic):
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await open_clinic.dial()
    assert (await (await open_clinic.dial(Origin="https://video.example.org")).hello(await open_clinic.link()))["id"]


async def test_compression_is_off(open_clinic):
    socket = await open_clinic.client.ws_connect(
        open_clinic.origin + "/ws", headers={"Origin": open_clinic.origin}, compress=15
    )
    assert not socket.compress


async def test_the_whole_of_a_call(open_clinic):
    clinician, patient, patient_id = await open_clinic.call()
    candidate = {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMid": "0"}
    await clinician.send("candidate", to=patient_id, candidate=candidate)
    assert (await patient.until("peerCandidate"))["candidate"] == candidate
    await patient.socket.close()
    assert (await clinician.until("peerChanged"))["peer"]["connection"] == "reconnecting"
    await clinician.send("endRoom", reason="Fin")
    assert await clinician.until("roomEnded") == {"type": "roomEnded", "by": "clinician", "reason": "Fin"}
    assert await clinician.next() == {"closed": 4410, "reason": "room_ended"}
    assert (await open_clinic.store.room(open_clinic.room.id)).end_reason == "clinician"
    trail = [event.kind for event in await open_clinic.store.audit(open_clinic.room.id)]
    assert trail == [
        "participant.arrived", "participant.joined", "participant.arrived", "participant.waiting",
        "participant.admitted", "participant.joined", "participant.reconnecting",
        "participant.left", "participant.left", "room.ended",
    ]  # fmt: skip
    assert open_clinic.sample("colloque_join_seconds_count") == 2


async def test_transfer_to_another_room(open_clinic):
    clinician, patient, patient_id = await open_clinic.call()
    ended = await open_clinic.store.create_room("clinique")
    await open_clinic.store.end_room(ended.id, "host")
    await open_clinic.store.create_tenant(Tenant("autre", "Autre"))
    foreign = await open_clinic.store.create_room("autre")
    for impossible in (ended.id, foreign.id, "nowhere", open_clinic.room.id):
        await clinician.send("transfer", participant=patient_id, room=impossible)
        assert (await clinician.until("problem"))["code"] == "unknown_room"
    other = await open_clinic.store.create_room("clinique")
    await clinician.send("transfer", participant=patient_id, room=other.id)
    secret = (await patient.until("transferred"))["secret"]
    assert await patient.next() == {"closed": 4403, "reason": "transferred"}
    welcome = await (await open_clinic.dial()).hello(secret)
    assert (welcome["room"], welcome["name"], welcome["role"]) == (other.id, "Ada", "patient")
    events = await open_clinic.store.audit(other.id)
    assert next((event.kind, event.detail) for event in events) == ("link.minted", "transfer")


# -- orders from the host ---------------------------------------------------------------------------------------------


async def test_the_host_ends_a_room(open_clinic):
    clinician, patient, _ = await open_clinic.call()
    await open_clinic.store.end_room(open_clinic.room.id, "host")
    open_clinic.endpoint.end_room(open_clinic.room.id, by="host")
    for person in (clinician, patient):
        assert await person.until("roomEnded") == {"type": "roomEnded", "by": "host"}
        assert (await person.next())["closed"] == 4410
    assert open_clinic.endpoint.counts(open_clinic.room.id) == {}


async def test_the_host_revokes_a_link(open_clinic):
    link, secret = await open_clinic.store.mint_link(open_clinic.room, "patient")
    person = await open_clinic.dial()
    resume = (await person.hello(secret))["resume"]
    await open_clinic.store.revoke_link(link.id)
    open_clinic.endpoint.drop_link(link.id, "link_revoked")
    assert (await person.until("refused"))["code"] == "link_revoked"
    assert (await person.next())["closed"] == 4401
    assert (await (await open_clinic.dial()).hello(secret, resume=resume))["code"] == "link_revoked"


# -- seats ------------------------------------------------------------------------------------------------------------


async def test_a_seat_survives_the_server(settings, tmp_path):
    async with clinic(settings) as before:
        await before.store.create_tenant(Tenant("clinique", "Clinique du Parc"))
        before.room = await before.store.create_room("clinique")
        secret = await before.link()
        clinician, _ = await before.enter("clinician")
        person = await before.dial()
        welcome = await person.hello(secret)
        await clinician.send("admit", participant=welcome["id"])
        await person.send("ready")
        await person.until("state", state="admitted")
    async with clinic(settings) as after:
        other = await (await after.dial()).hello(secret, resume=welcome["resume"])
        assert (other["id"], other["state"], other["resume"]) == (welcome["id"], "admitted", welcome["resume"])
        alone = await (await after.dial()).hello(resume=welcome["resume"])
        assert alone["id"] == welcome["id"]


async def test_many_devices_at_one_link_at_once(open_clinic):
    """However their hellos interleave: one has the seat, the others are asked."""
    secret = await open_clinic.link()
    people = [await open_clinic.dial() for _ in range(10)]
    answers = await asyncio.gather(*(person.hello(secret) for person in people))
    assert sorted(answer["type"] for answer in answers) == ["occupied"] * 9 + ["welcome"]


async def test_an_end_that_overtakes_a_hello(open_clinic, monkeypatch):
    secret = await open_clinic.link()
    seats = open_clinic.store.seats

    async def slow(room_id: str) -> Any:
        await open_clinic.store.end_room(room_id, "host")
        open_clinic.endpoint.end_room(room_id, by="host")
        return await seats(room_id)

    monkeypatch.setattr(open_clinic.store, "seats", slow)
    assert (await (await open_clinic.dial()).hello(secret))["code"] == "room_ended"


# -- bounds -----------------------------------------------------------------------------------------------------------


@with_settings(signalling={"hello_timeout_s": 0.2})
async def test_silence_at_the_start(open_clinic):
    person = await open_clinic.dial()
    refused = await person.next()
    assert (refused["code"], refused["message"]) == ("hello_timeout", refused["message"])
    assert await person.next() == {"closed": 4408, "reason": "hello_timeout"}


@with_settings(signalling={"ping_interval_s": 0.1, "dead_after_s": 0.3})
async def test_silence_later(open_clinic):
    person, _ = await open_clinic.enter()
    heard = []
    while (message := await person.socket.receive()).type is aiohttp.WSMsgType.TEXT:
        heard.append(json.loads(message.data)["type"])
    assert heard == ["ping", "ping", "refused"]
    assert (person.socket.close_code, message.extra) == (4408, "dead")


@with_settings(signalling={"ping_interval_s": 0.1, "dead_after_s": 0.3})
async def test_a_stall_of_ours_is_not_their_silence(open_clinic):
    person, _ = await open_clinic.enter()
    time.sleep(1.0)  # noqa: ASYNC251  nobody in this process reads or answers meanwhile
    assert (await person.socket.receive()).data == '{"type":"ping"}'


@with_settings(signalling={"ping_interval_s": 0.1, "dead_after_s": 0.3})
async def test_pings_of_the_websocket_count_too(open_clinic):
    person, _ = await open_clinic.enter()
    for _ in range(8):
        await person.socket.ping()
        assert (await person.socket.receive()).data == '{"type":"ping"}'


async def test_too_large_is_1009(open_clinic):
    person, _ = await open_clinic.enter()
    await person.send("tell", participant="x", text="x" * 70_000)
    assert (await person.next())["closed"] == 1009
    await asyncio.wait_for(open_clinic.endpoint._idle.wait(), 5)
    assert open_clinic.sample("colloque_socket_closes_total", reason="too_large") == 1


async def test_exactly_64_kib_is_not_too_large(open_clinic):
    person, _ = await open_clinic.enter()
    text = '{"type":"setLanguage","language":"fr","x":"'
    await person.socket.send_str(text + "x" * (65_536 - len(text) - 2) + '"}')
    await person.send("admit", participant="x")
    assert (await person.next())["code"] == "not_permitted"


async def test_binary_is_not_the_protocol(open_clinic):
    person, _ = await open_clinic.enter()
    await person.socket.send_bytes(b'{"type":"ready"}')
    assert (await person.next())["code"] == "bad_message"
    assert (await person.next())["closed"] == 4400


@with_settings(http={"max_connections_per_address": 3})
async def test_sockets_per_address(open_clinic):
    people = [await open_clinic.dial() for _ in range(4)]
    assert (await people[3].next())["code"] == "too_many_connections"
    assert (await people[3].next())["closed"] == 4429
    await people[0].socket.close()
    assert (await (await open_clinic.dial()).hello(await open_clinic.link()))["type"] == "welcome"


@with_settings(http={"max_joins_per_address_per_minute": 3, "trusted_proxies": ["127.0.0.1"]})
async def test_hellos_per_address(open_clinic):
    async def code(address: str) -> str:
        answer = await (await open_clinic.dial(**{"X-Forwarded-For": address})).hello("x" * 22)
        return answer["code"]

    assert [await code("192.0.2.1") for _ in range(4)] == ["link_unknown"] * 3 + ["rate_limited"]
    assert await code("192.0.2.2") == "link_unknown"
    assert [await code(f"2001:db8::{n}") for n in range(4)] == ["link_unknown"] * 3 + ["rate_limited"]
    assert await code("192.0.2.9, 192.0.2.1") == "rate_limited"  # only the last hop is the proxy's word
    lines = ("X-Forwarded-For", "192.0.2.9"), ("X-Forwarded-For", "192.0.2.1")  # so does HAProxy write it
    assert (await (await open_clinic.dial(*lines)).hello("x" * 22))["code"] == "rate_limited"


@with_settings(http={"max_joins_per_address_per_minute": 1})
async def test_nobodys_word_is_taken_for_an_address(open_clinic):
    await (await open_clinic.dial(**{"X-Forwarded-For": "192.0.2.1"})).hello("x" * 22)
    answer = await (await open_clinic.dial(**{"X-Forwarded-For": "192.0.2.2"})).hello("x" * 22)
    assert answer["code"] == "rate_limited"


def test_the_buckets_of_addresses_refill_and_are_forgotten():
    limits = AddressLimits(2, 60)
    assert [limits.hello("a", 0.0) for _ in range(61)] == [True] * 60 + [False]
    assert limits.hello("a", 1.1)
    limits.forget(30.0)
    assert limits._buckets
    limits.forget(100.0)
    assert not limits._buckets
    assert [limits.connect("a") for _ in range(3)] == [True, True, False]
    for _ in range(3):
        limits.disconnect("a")
    assert not limits._open


async def test_a_broken_message_handler_costs_one_connection(open_clinic, monkeypatch):
    clinician, _, patient_id = await open_clinic.call()
    victim, _ = await open_clinic.enter(name="Canari")
    monkeypatch.setattr("server.signalling.rooms.Room.ready", lambda *_: 1 / 0)
    with capture_logs() as logs:
        await victim.send("ready")
        assert (await victim.next())["code"] == "internal"
        assert (await victim.next())["closed"] == 1011
    (failure,) = [entry for entry in logs if entry["event"] == "signalling.failed"]
    assert failure["error"] == "ZeroDivisionError"
    assert "Canari" not in str(logs)
    await clinician.send("tell", participant=patient_id, text="?")
    assert (await clinician.until("problem"))["code"] == "unknown_participant"


async def test_a_database_that_fails_is_our_fault_and_may_be_retried(open_clinic, monkeypatch):
    secret = await open_clinic.link()

    async def fails(*_: object) -> None:
        raise OSError("no database")

    monkeypatch.setattr(open_clinic.store, "room", fails)
    refused = await (await open_clinic.dial()).hello(secret)
    assert (refused["code"], refused["retry"]) == ("internal", True)


@with_settings(signalling={"ping_interval_s": 0.1, "dead_after_s": 10})
async def test_idle_connections_have_neither_timers_nor_tasks_of_ours(open_clinic):
    before = len(asyncio.all_tasks())
    people = [(await open_clinic.enter(name=f"P{number}"))[0] for number in range(20)]
    for _ in range(10):
        for person in people:
            await person.socket.receive()
            await person.send("pong")
    assert len(asyncio.all_tasks()) <= before + 2 * 20  # aiohttp's: the connection, the request
    assert len(open_clinic.endpoint._timers) <= 2 * 20


async def test_nothing_is_left_of_connections_that_are_gone(open_clinic):
    for _ in range(5):
        person, _ = await open_clinic.enter()
        await person.socket.close()
    abrupt, _ = await open_clinic.enter()
    abrupt.socket.get_extra_info("socket")
    abrupt.socket._response.connection.transport.abort()
    await asyncio.wait_for(open_clinic.endpoint._idle.wait(), 5)
    assert not open_clinic.endpoint._connections
    assert not open_clinic.endpoint._addresses._open
    assert open_clinic.sample("colloque_sockets") == 0


async def test_going_away(open_clinic):
    people = [(await open_clinic.enter(name=f"P{number}"))[0] for number in range(8)]
    silent = await open_clinic.dial()
    ending = asyncio.create_task(open_clinic.endpoint.shutdown())
    retries = set()
    for person in (*people, silent):
        retries.add((await person.until("goingAway"))["retryAfterMs"])
        assert await person.next() == {"closed": 1012, "reason": "going_away"}
    await asyncio.wait_for(ending, 5)
    assert len(retries) > 3  # not everybody at once
    assert all(500 <= retry <= 2000 for retry in retries)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await open_clinic.dial()
    assert refusal.value.status == 503


async def test_logs_hold_no_names_secrets_or_addresses(open_clinic):
    with capture_logs() as logs:
        secret = await open_clinic.link(name="Canari")
        person = await open_clinic.dial()
        welcome = await person.hello(secret)
        await person.socket.close()
        await (await open_clinic.dial()).hello("forged-canary")
        await asyncio.wait_for(open_clinic.endpoint._idle.wait(), 5)
    text = str(logs)
    assert "signalling.hello" in text
    for canary in ("Canari", secret, "forged-canary", welcome["resume"], welcome["id"], "127.0.0.1"):
        assert canary not in text


@pytest.mark.parametrize(
    ("length", "header"),
    [(0, "8100"), (125, "817d"), (126, "817e007e"), (65_535, "817effff"), (65_536, "817f0000000000010000")],
)
def test_frames(length, header):
    frame = _frame(0x1, b"x" * length)
    assert frame == bytes.fromhex(header) + b"x" * length


# -- direct and relayed -----------------------------------------------------------------------------------------------


class Media:
    """A media plane whose transports are there as soon as the endpoint is told so."""

    def __init__(self) -> None:
        self.fake = FakeSfu()

    def sfu(self, room: str) -> FakeSfu:
        return self.fake


async def test_a_move_between_sockets(open_clinic):
    """The events of the media plane and the timers of the paths reach people; moves are counted and written down."""
    media = open_clinic.endpoint.registry.path_settings.media = Media()
    clinician, patient, id = await open_clinic.call()
    (doctor,) = [p.id for p in open_clinic.endpoint.registry.rooms[open_clinic.room.id].joined() if p.id != id]
    for person in (clinician, patient):
        await person.until("relayWanted")  # by the clock, a second after joining
        await person.send("relayOffer", connection="c", description={"type": "offer", "sdp": camera_and(1)})
        assert (await person.until("relayAnswer"))["connection"] == "c"
        open_clinic.endpoint.receive_media_event(TransportConnected(list(media.fake.transports)[-1]))
    await clinician.send("pathReport", to=id, alive=True)
    await patient.send("pathReport", to=doctor, alive=True)
    await patient.send("pathReport", to=doctor, alive=False)
    for person in (clinician, patient):
        assert (await person.until("move"))["reason"] == "failure"
        await person.send("moveReady", move=1)
    for person in (clinician, patient):
        assert await person.until("moved") == {"type": "moved", "move": 1, "path": "relayed"}
    assert open_clinic.sample("colloque_relayed_rooms") == 1
    for _ in range(100):
        if counted := open_clinic.sample("colloque_path_moves_total", reason="failure", outcome="moved"):
            break
        await asyncio.sleep(0.02)
    assert counted == 1
    await open_clinic.store.flush()
    facts = await open_clinic.store.audit(open_clinic.room.id)
    assert [fact.detail for fact in facts if fact.kind == "path.moved"] == ["relayed:failure"]

    await clinician.send("endRoom")
    await patient.until("roomEnded")
    assert media.fake.transports == {}
    open_clinic.endpoint.receive_media_event(TransportConnected(f"{open_clinic.room.id}.1"))  # too late
