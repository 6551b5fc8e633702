"""The REST API: what each operation does, who may do it, and how everything else is refused."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from PIL import Image

from server import api, problems
from server.checks import MAX_SLUG
from server.ids import digest
from server.records import AuditEvent, Tenant
from server.store import Store

ORIGIN = "https://video.example.org"
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@dataclass
class Rooms:
    """Stands in for the live rooms, and notes what it is told."""

    told: list[tuple[str, ...]] = field(default_factory=list)
    held: str = "held"
    """What the next order about a path comes to."""

    def end_room(self, room_id: str, by: str) -> None:
        self.told.append(("end", room_id, by))

    def drop_link(self, link_id: str, code: str) -> None:
        self.told.append(("drop", link_id, code))

    def counts(self, room_id: str) -> dict[str, int]:
        return {"joined": 2}

    def hold_relayed(self, room_id: str, wanted: bool) -> str:
        self.told.append(("path", room_id, "relayed" if wanted else "auto"))
        return self.held


class Host:
    """A clinic's own software, calling us with its key."""

    def __init__(self, client: TestClient[Any, Any], store: Store, live: Rooms, tenant: str, key: str) -> None:
        self.client, self.store, self.live, self.tenant, self.key = client, store, live, tenant, key

    async def raw(self, method: str, path: str, **options: Any) -> ClientResponse:
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        answer = await self.client.request(method, "/api/v1" + path, headers=headers, **options)
        await answer.read()
        return answer

    async def __call__(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = await self.raw(method, path, **({} if body is None else {"json": body}))
        text = await answer.text()
        assert answer.status == expect, text
        return json.loads(text) if text else None

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str, str]:
        """Return status, code and member of a refusal, after checking that it is a problem document."""
        answer = await self.raw(method, path, **({} if body is None else {"json": body}), **options)
        assert answer.content_type == "application/problem+json", await answer.text()
        problem = await answer.json()
        assert problem["status"] == answer.status
        assert problem["type"] == f"urn:colloque:problem:{problem['code']}"
        assert problem["title"]
        assert problem["detail"]
        return answer.status, problem["code"], problem.get("member", "")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite:///{tmp_path / 'test.db'}")
    for slug in ("demo", "autre"):
        await store.create_tenant(Tenant(slug, slug.title()))
    yield store
    await store.close()


@pytest.fixture
async def client(store: Store) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application(middlewares=[problems.middleware], client_max_size=256 * 1024)
    app[LIVE] = Rooms()
    app.add_routes(api.routes(store, app[LIVE], ORIGIN))
    async with TestClient(TestServer(app)) as client:
        yield client


LIVE = web.AppKey("LIVE", Rooms)


@pytest.fixture
async def host(client: TestClient[Any, Any], store: Store) -> Host:
    _, key = await store.add_api_key("demo", "agenda")
    return Host(client, store, client.app[LIVE], "demo", key)


@pytest.fixture
async def other(client: TestClient[Any, Any], store: Store) -> Host:
    _, key = await store.add_api_key("autre", "agenda")
    return Host(client, store, client.app[LIVE], "autre", key)


# -- rooms ------------------------------------------------------------------------------------------------------------


async def test_a_room_from_its_opening_to_its_end(host: Host):
    made = await host("POST", "/rooms", {"reference": "rdv-1", "topology": "relay-only"}, expect=201)
    assert made == {
        "id": made["id"], "reference": "rdv-1", "state": "open", "topology": "relay-only",
        "createdAt": made["createdAt"], "endedAt": None, "endReason": "", "participants": {"joined": 2},
    }  # fmt: skip
    assert datetime.fromisoformat(made["createdAt"]).utcoffset() == timedelta(0)
    assert await host("GET", f"/rooms/{made['id']}") == made
    ended = await host("POST", f"/rooms/{made['id']}/end")
    assert (ended["state"], ended["endReason"]) == ("ended", "host")
    assert host.live.told == [("end", made["id"], "host")]
    assert await host("POST", f"/rooms/{made['id']}/end") == ended
    assert len(host.live.told) == 2  # a host that asks again may have lost the first answer, and we the connection
    events = (await host("GET", f"/rooms/{made['id']}/events"))["items"]
    assert [(event["kind"], event["actor"]) for event in events] == [("room.created", "host"), ("room.ended", "host")]


async def test_which_way_a_rooms_media_goes(host: Host, other: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    assert (await host("PUT", f"/rooms/{room}/path", {"path": "relayed"}))["id"] == room
    await host("PUT", f"/rooms/{room}/path", {"path": "auto"})
    assert host.live.told == [("path", room, "relayed"), ("path", room, "auto")]
    events = (await host("GET", f"/rooms/{room}/events"))["items"]
    assert [(event["kind"], event["detail"]) for event in events[1:]] == [
        ("path.ordered", "relayed"),
        ("path.ordered", "auto"),
    ]
    assert await other.refused("PUT", f"/rooms/{room}/path", {"path": "auto"}) == (404, "not_found", "")
    assert await host.refused("PUT", f"/rooms/{room}/path", {"path": "direct"}) == (400, "bad_request", "path")
    for held, code in (("not_live", "room_not_live"), ("one_path", "only_one_path")):
        host.live.held = held
        assert await host.refused("PUT", f"/rooms/{room}/path", {"path": "auto"}) == (409, code, "")
    assert len((await host("GET", f"/rooms/{room}/events"))["items"]) == 3, "a refused order leaves no trace"


async def test_what_was_made_is_where_location_says(host: Host):
    for path, body in (("/rooms", {}), ("/tenant/signing-keys", {"kid": "k.1", "publicKey": public_pem(ED)})):
        answer = await host.raw("POST", path, json=body)
        assert answer.status == 201
        location = answer.headers["Location"].removeprefix("/api/v1")
        assert await host("GET", location) == await answer.json()


async def test_a_reference_makes_opening_safe_to_repeat(host: Host, other: Host):
    made = await host("POST", "/rooms", {"reference": "rdv-1"}, expect=201)
    answer = await host("POST", "/rooms", {"reference": "rdv-1"}, expect=409)
    assert (answer["code"], answer["room"]) == ("reference_taken", made["id"])
    await other("POST", "/rooms", {"reference": "rdv-1"}, expect=201)
    assert [room["id"] for room in (await host("GET", "/rooms?reference=rdv-1"))["items"]] == [made["id"]]


async def test_rooms_come_in_pages(host: Host):
    made = [(await host("POST", "/rooms", {}, expect=201))["id"] for _ in range(5)]
    await host("POST", f"/rooms/{made[0]}/end")
    seen, cursor = [], ""
    while cursor is not None:
        page = await host("GET", f"/rooms?limit=2&after={cursor}")
        assert len(page["items"]) <= 2
        seen += [room["id"] for room in page["items"]]
        cursor = page["next"]
    assert seen == made[::-1]
    assert [room["id"] for room in (await host("GET", "/rooms?state=ended"))["items"]] == made[:1]


async def test_events_can_be_followed(host: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    first = await host("GET", f"/rooms/{room}/events")
    assert [event["kind"] for event in first["items"]] == ["room.created"]
    assert (await host("GET", f"/rooms/{room}/events?after={first['next']}"))["items"] == []
    host.store.append(AuditEvent(datetime.now(UTC), "demo", room, "participant.arrived", "server", "p", ""))
    then = await host("GET", f"/rooms/{room}/events?after={first['next']}")
    assert [event["kind"] for event in then["items"]] == ["participant.arrived"]
    assert (await host("GET", f"/rooms/{room}/events?limit=1"))["items"] == first["items"]


# -- links ------------------------------------------------------------------------------------------------------------


async def test_a_link_from_minting_to_revocation(host: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    body = {"role": "patient", "name": "Zoë Canari", "notBefore": "2026-01-05T09:00:00+01:00", "expiresAt": TOMORROW}
    made = await host("POST", f"/rooms/{room}/links", body, expect=201)
    secret = made["url"].partition("#")[2]
    assert made["url"] == f"{ORIGIN}/t/demo/r#{secret}"
    assert made["embedUrl"] == f"{ORIGIN}/t/demo/embed#{secret}"
    assert made["notBefore"] == "2026-01-05T08:00:00Z"
    assert made["singleUse"] is True
    found = await host.store.link_by_secret(secret)
    assert found is not None and found.id == made["id"]
    shown = {name: value for name, value in made.items() if name not in ("url", "embedUrl")}
    assert await host("GET", f"/rooms/{room}/links/{made['id']}") == shown
    assert (await host("GET", f"/rooms/{room}/links"))["items"] == [shown]
    revoked = await host("POST", f"/rooms/{room}/links/{made['id']}/revoke")
    assert revoked["revokedAt"]
    assert host.live.told == [("drop", made["id"], "link_revoked")]
    assert await host("POST", f"/rooms/{room}/links/{made['id']}/revoke") == revoked
    assert len(host.live.told) == 2  # a host that asks again may have lost the first answer, and we the connection
    events = await host("GET", f"/rooms/{room}/events")
    assert [event["kind"] for event in events["items"]] == ["room.created", "link.minted", "link.revoked"]
    assert "Canari" not in json.dumps(events)
    assert secret not in json.dumps(events)


async def test_a_link_fits_an_sms(client: TestClient[Any, Any], store: Store):
    slug = "a" * MAX_SLUG
    await store.create_tenant(Tenant(slug, "Long"))
    _, key = await store.add_api_key(slug, "")
    host = Host(client, store, client.app[LIVE], slug, key)
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    made = await host("POST", f"/rooms/{room}/links", {"role": "guest", "singleUse": False}, expect=201)
    for name in ("url", "embedUrl"):
        assert made[name].startswith(f"{ORIGIN}/t/{slug}/")
        assert len(made[name].removeprefix(ORIGIN)) <= 80
    assert made["singleUse"] is False


async def test_links_come_in_pages(host: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    made = [(await host("POST", f"/rooms/{room}/links", {"role": "guest"}, expect=201))["id"] for _ in range(3)]
    first = await host("GET", f"/rooms/{room}/links?limit=2")
    second = await host("GET", f"/rooms/{room}/links?limit=2&after={first['next']}")
    assert [link["id"] for link in first["items"] + second["items"]] == made
    assert second["next"] is None


async def test_nobody_is_invited_into_an_ended_room(host: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    await host("POST", f"/rooms/{room}/end")
    assert await host.refused("POST", f"/rooms/{room}/links", {"role": "guest"}) == (410, "room_ended", "")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "bad_request", "role")),
        ({"role": "doctor"}, (400, "bad_request", "role")),
        ({"role": "guest", "name": "x" * 81}, (400, "bad_request", "name")),
        ({"role": "guest", "name": "two\nlines"}, (400, "bad_request", "name")),
        ({"role": "guest", "name": "one line\n"}, (400, "bad_request", "name")),
        ({"role": "guest", "name": "\x00"}, (400, "bad_request", "name")),
        ({"role": "guest", "name": "right to left \u202e"}, (400, "bad_request", "name")),
        ({"role": "guest", "name": None}, (400, "bad_request", "name")),
        ({"role": "guest", "singleUse": "yes"}, (400, "bad_request", "singleUse")),
        ({"role": "guest", "single_use": True}, (400, "bad_request", "single_use")),
        ({"role": "guest", "expiresAt": "2099-01-01T00:00:00"}, (400, "bad_request", "expiresAt")),
        ({"role": "guest", "expiresAt": 4102444800}, (400, "bad_request", "expiresAt")),
        ({"role": "guest", "expiresAt": "2020-01-01T00:00:00Z"}, (422, "unusable_value", "expiresAt")),
        ({"role": "guest", "expiresAt": "9999-12-31T23:59:59-12:00"}, (422, "unusable_value", "expiresAt")),
        ({"role": "guest", "notBefore": "0001-01-01T00:00:00+14:00"}, (422, "unusable_value", "notBefore")),
        ({"role": "guest", "notBefore": TOMORROW, "expiresAt": TOMORROW}, (422, "unusable_value", "expiresAt")),
    ],
)
async def test_a_link_that_makes_no_sense(host: Host, body: dict[str, Any], refusal: tuple[int, str, str]):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    assert await host.refused("POST", f"/rooms/{room}/links", body) == refusal
    assert await host.store.links(room) == []


# -- the tenant -------------------------------------------------------------------------------------------------------


async def test_settings(host: Host, other: Host):
    before = await host("GET", "/tenant")
    assert before == {
        "slug": "demo", "name": "Demo", "language": "fr", "colour": "", "origins": [], "topology": "auto",
        "retentionDays": 30, "logo": None,
    }  # fmt: skip
    changes = {
        "name": "Clinique du Parc", "language": "en", "colour": "#1F6F8B", "topology": "direct-only",
        "origins": ["https://rdv.example.fr", "http://localhost:9000"], "retentionDays": 90,
    }  # fmt: skip
    after = await host("PATCH", "/tenant", changes)
    assert after == {**before, **changes, "colour": "#1f6f8b"}
    assert await host("GET", "/tenant") == after
    assert await host("PATCH", "/tenant", {"origins": []}) == {**after, "origins": []}
    assert (await other("GET", "/tenant"))["name"] == "Autre"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"slug": "x"}, (400, "bad_request", "slug")),
        ({"name": ""}, (400, "bad_request", "name")),
        ({"colour": "red"}, (400, "bad_request", "colour")),
        ({"colour": "#12345"}, (400, "bad_request", "colour")),
        ({"language": "de"}, (400, "bad_request", "language")),
        ({"retentionDays": 0}, (400, "bad_request", "retentionDays")),
        ({"retentionDays": 10**30}, (400, "bad_request", "retentionDays")),
        ({"retentionDays": "30"}, (400, "bad_request", "retentionDays")),
        ({"origins": "https://a.example"}, (400, "bad_request", "origins")),
        ({"origins": ["https://a.example"] * 21}, (400, "bad_request", "origins")),
        ({"origins": ["https://a.example", 1]}, (400, "bad_request", "origins[1]")),
        ({"origins": ["https://a.example", "*"]}, (422, "unusable_value", "origins[1]")),
        ({"name": "New", "origins": ["http://a.example"]}, (422, "unusable_value", "origins[0]")),
        ([], (400, "bad_request", "")),
    ],
)
async def test_settings_that_make_no_sense(host: Host, body: Any, refusal: tuple[int, str, str]):
    before = await host("GET", "/tenant")
    assert await host.refused("PATCH", "/tenant", body) == refusal
    assert await host("GET", "/tenant") == before


async def test_a_logo(host: Host, store: Store):
    picture = io.BytesIO()
    Image.new("RGB", (80, 40), "red").save(picture, "JPEG")
    headers = {"Content-Type": "image/jpeg"}
    answer = await host.raw("PUT", "/tenant/logo", data=picture.getvalue(), headers=headers)
    assert answer.status == 200, await answer.text()
    assert (await answer.json())["logo"].startswith(f"{ORIGIN}/t/demo/logo?v=")
    kept = await store.logo("demo")
    assert kept and kept.startswith(b"\x89PNG")
    await host("DELETE", "/tenant/logo", expect=204)
    assert (await host("GET", "/tenant"))["logo"] is None


@pytest.mark.parametrize(
    ("data", "media", "refusal"),
    [
        (b"x" * 100_001, "image/png", (413, "too_large", "")),
        (b"x" * 300_000, "image/png", (413, "too_large", "")),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", (415, "unsupported_media_type", "")),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png", (422, "unusable_logo", "")),
        (b"", "image/png", (422, "unusable_logo", "")),
        (b"{}", "application/json", (415, "unsupported_media_type", "")),
    ],
)
async def test_what_is_no_logo(host: Host, data: bytes, media: str, refusal: tuple[int, str, str]):
    assert await host.refused("PUT", "/tenant/logo", data=data, headers={"Content-Type": media}) == refusal


ED = ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


async def test_signing_keys(host: Host, other: Host):
    made = await host("POST", "/tenant/signing-keys", {"kid": "2026", "publicKey": public_pem(ED)}, expect=201)
    assert (made["kid"], made["algorithm"], made["publicKey"]) == ("2026", "EdDSA", public_pem(ED))
    assert (await host("GET", "/tenant/signing-keys"))["items"] == [made]
    again = {"kid": "2026", "publicKey": public_pem(ED)}
    assert await host.refused("POST", "/tenant/signing-keys", again) == (409, "kid_taken", "")
    await other("POST", "/tenant/signing-keys", again, expect=201)
    await host("DELETE", "/tenant/signing-keys/2026", expect=204)
    assert await host.refused("DELETE", "/tenant/signing-keys/2026") == (404, "not_found", "")
    assert len((await other("GET", "/tenant/signing-keys"))["items"]) == 1


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ED, "EdDSA"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
)
async def test_the_algorithm_follows_from_the_key(host: Host, key: Any, algorithm: str):
    body = {"kid": "k", "publicKey": public_pem(key)}
    assert (await host("POST", "/tenant/signing-keys", body, expect=201))["algorithm"] == algorithm


async def test_keys_that_sign_nothing(host: Host):
    private = ED.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    weak = rsa.generate_private_key(65537, 1024)
    for pem in (private, public_pem(weak), public_pem(ec.generate_private_key(ec.SECP384R1())), "", "secret"):
        refusal = await host.refused("POST", "/tenant/signing-keys", {"kid": "k", "publicKey": pem})
        assert refusal == (422, "unusable_value", "publicKey")
    assert await host.store.signing_keys("demo") == []


# -- who may ----------------------------------------------------------------------------------------------------------


async def every_operation(host: Host) -> list[tuple[str, str, Any]]:
    room = await host.store.create_room("demo")
    link, _ = await host.store.mint_link(room, "guest")
    found = []
    for operation in api.HostApi(host.store, host.live, ORIGIN).operations:
        path = operation.path.format(room=room.id, link=link.id, kid="k")
        found.append((operation.method, path, {"role": "guest"} if operation.body else None))
    assert len(found) >= 17
    return found


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer clq_wrong", "Basic {key}", "{key}", "Bearer {key}x", "Bearer {digest}"],
)
async def test_nothing_without_a_key(host: Host, authorization: str | None):
    for method, path, body in await every_operation(host):
        headers = {}
        if authorization is not None:
            headers["Authorization"] = authorization.format(key=host.key, digest=digest(host.key))
        answer = await host.client.request(method, "/api/v1" + path, headers=headers, json=body)
        assert answer.status == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="colloque"'
        assert (await answer.json())["code"] == "unauthorized"
    assert host.live.told == []


async def test_a_revoked_key_opens_nothing(host: Host, store: Store):
    [record] = await store.api_keys("demo")
    await store.revoke_api_key("demo", record.id)
    assert (await host.refused("GET", "/rooms"))[0] == 401


async def test_another_tenants_things_are_as_missing_ones(host: Host, other: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    theirs = (await other("POST", "/rooms", {}, expect=201))["id"]
    link = (await host("POST", f"/rooms/{room}/links", {"role": "guest"}, expect=201))["id"]
    missing = "A" * 22
    answers = []
    for a_room, a_link in ((room, link), (missing, missing), (theirs, link), ("x", "y"), ("%00", "%2F")):
        for method, path in (
            ("GET", "/rooms/{0}"), ("POST", "/rooms/{0}/end"), ("GET", "/rooms/{0}/events"),
            ("GET", "/rooms/{0}/links/{1}"), ("POST", "/rooms/{0}/links/{1}/revoke"),
        ):  # fmt: skip
            if (a_room, path.count("{")) == (theirs, 1):
                continue
            answer = await other.raw(method, path.format(a_room, a_link))
            headers = {name: value for name, value in answer.headers.items() if name != "Date"}
            answers.append((answer.status, headers, await answer.text()))
    assert answers[0][0] == 404
    assert all(answer == answers[0] for answer in answers)
    assert host.live.told == []
    assert (await other("GET", "/rooms"))["items"][0]["id"] == theirs


async def test_a_link_is_found_in_its_own_room_only(host: Host):
    room, elsewhere = [(await host("POST", "/rooms", {}, expect=201))["id"] for _ in range(2)]
    link = (await host("POST", f"/rooms/{room}/links", {"role": "guest"}, expect=201))["id"]
    for method, path in (("GET", ""), ("POST", "/revoke")):
        refusal = await host.refused(method, f"/rooms/{elsewhere}/links/{link}{path}")
        assert refusal == (404, "not_found", "")
    assert host.live.told == []


async def test_a_foreign_page_reads_nothing(host: Host):
    origin = {"Origin": "https://evil.example"}
    preflight = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answers = [
        await host.raw("OPTIONS", "/rooms", headers=preflight),
        await host.raw("GET", "/rooms", headers=origin),
        await host.client.get("/api/v1/openapi.json", headers=origin),
        await host.client.get("/api/v1/rooms", headers={**origin, "Cookie": f"key={host.key}"}),
    ]
    assert [answer.status for answer in answers] == [405, 200, 200, 401]
    for answer in answers:
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


# -- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "media", "refusal"),
    [
        (b"{", "application/json", (400, "bad_request", "")),
        (b"", "application/json", (400, "bad_request", "")),
        (b"\xff", "application/json", (400, "bad_request", "")),
        (b'{"reference": "\\ud800"}', "application/json", (400, "bad_request", "")),
        (b"[" * 100_000, "application/json", (400, "bad_request", "")),
        (b'{"reference": "a\\u0000"}', "application/json", (400, "bad_request", "reference")),
        (b'{"reference": "x", "patient": 1}', "application/json", (400, "bad_request", "patient")),
        (b"{}", "text/plain", (415, "unsupported_media_type", "")),
        (b"reference=x", "application/x-www-form-urlencoded", (415, "unsupported_media_type", "")),
        (b'{"reference": "' + b"x" * 300_000 + b'"}', "application/json", (413, "too_large", "")),
    ],
)
async def test_bodies_that_do_not_fit(host: Host, data: bytes, media: str, refusal: tuple[int, str, str]):
    assert await host.refused("POST", "/rooms", data=data, headers={"Content-Type": media}) == refusal
    assert await host.store.rooms("demo") == []


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("limit=0", (400, "bad_request", "limit")),
        ("limit=101", (400, "bad_request", "limit")),
        ("limit=many", (400, "bad_request", "limit")),
        ("limit=1&limit=2", (400, "bad_request", "limit")),
        ("state=lost", (400, "bad_request", "state")),
        ("page=2", (400, "bad_request", "page")),
        ("after=%00", (400, "bad_request", "after")),
        ("after=abcd", (422, "unusable_value", "after")),
        ("after=" + "OTk5" * 15, (422, "unusable_value", "after")),
    ],
)
async def test_queries_that_do_not_fit(host: Host, query: str, refusal: tuple[int, str, str]):
    assert await host.refused("GET", f"/rooms?{query}") == refusal


@pytest.mark.parametrize("after", ["x", "1x", "9" * 60])
async def test_places_in_the_trail_that_are_none(host: Host, after: str):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    assert await host.refused("GET", f"/rooms/{room}/events?after={after}") == (422, "unusable_value", "after")


async def test_addresses_and_methods_that_do_not_exist(host: Host):
    assert await host.refused("GET", "/nothing") == (404, "not_found", "")
    answer = await host.raw("DELETE", "/rooms")
    assert (answer.status, sorted(answer.headers["Allow"].split(","))) == (405, ["GET", "HEAD", "POST"])
    assert (await answer.json())["code"] == "method_not_allowed"


async def test_refusals_quote_nothing(host: Host):
    """What a host sends by mistake (a name, a key) does not come back, so that it is in no log of theirs either."""
    for body in ({"reference": ["canary"]}, {"topology": "canary"}, {"reference": "canary\n"}):
        answer = await host.raw("POST", "/rooms", json=body)
        assert answer.status == 400
        assert "canary" not in await answer.text()


# -- when we fail -----------------------------------------------------------------------------------------------------


async def test_a_database_that_is_gone_is_503(host: Host, monkeypatch: pytest.MonkeyPatch):
    async def gone(*_: Any) -> None:
        raise ConnectionRefusedError("canary")

    monkeypatch.setattr(host.store, "rooms", gone)
    answer = await host.raw("GET", "/rooms")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert (await answer.json())["code"] == "unavailable"


async def test_our_own_mistake_is_500_and_in_the_log_without_its_words(host: Host, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError("canary")

    monkeypatch.setattr(host.store, "rooms", broken)
    with structlog.testing.capture_logs() as logs:
        assert await host.refused("GET", "/rooms") == (500, "internal", "")
    assert logs[0]["error"] == "ZeroDivisionError"
    assert "canary" not in repr(logs)


async def test_several_ends_at_once_are_one_fact(host: Host):
    room = (await host("POST", "/rooms", {}, expect=201))["id"]
    await asyncio.gather(*[host("POST", f"/rooms/{room}/end") for _ in range(5)])
    assert set(host.live.told) == {("end", room, "host")}
    events = await host("GET", f"/rooms/{room}/events")
    assert [event["kind"] for event in events["items"]] == ["room.created", "room.ended"]
