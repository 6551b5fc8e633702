"""Who may come in: links, resume secrets and the host's tokens, on the real store."""

import base64
import json
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.clock import wall_now
from server.errors import RefusalError
from server.ids import digest, new_id
from server.records import RoomRecord, SeatRecord, SigningKey, Tenant
from server.signalling.auth import Claims, Door
from server.signalling.messages import Hello
from server.store import Store

KEYS = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
}
STRANGER = ed25519.Ed25519PrivateKey.generate()
NOW = wall_now().replace(microsecond=0)


def public_pem(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@dataclass
class World:
    """Two clinics, a room each, a signing key of each algorithm at the first."""

    store: Store
    door: Door
    room: RoomRecord
    other: RoomRecord

    async def enter(self, secret: str | None = None, *, tenant: str = "clinique", wall=NOW, **hello: Any) -> Claims:
        message = Hello(version=1, tenant=tenant, instance="page", secret=secret, **hello)
        return await self.door.resolve(message, wall)

    async def refusal(self, secret: str | None = None, **hello: Any) -> str:
        with pytest.raises(RefusalError) as refusal:
            await self.enter(secret, **hello)
        return refusal.value.code

    async def seat(self, origin: str, resume: str, **fields: Any) -> SeatRecord:
        values = {"role": "patient", "name": "Ada", "admitted": True, "closed": "", "created_at": NOW, **fields}
        seat = SeatRecord(id=new_id(), room=self.room.id, origin=origin, resume_digest=digest(resume), **values)
        self.store.save_seat(seat)
        return seat


@pytest.fixture
async def world(tmp_path) -> AsyncIterator[World]:
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}")
    try:
        for slug in ("clinique", "autre"):
            await store.create_tenant(Tenant(slug, slug))
        for algorithm, key in KEYS.items():
            await store.add_signing_key(SigningKey("clinique", algorithm, algorithm, public_pem(key), NOW))
        await store.add_signing_key(SigningKey("autre", "theirs", "EdDSA", public_pem(STRANGER), NOW))
        room = await store.create_room("clinique", "rdv-1")
        yield World(store, Door(store), room, await store.create_room("autre"))
    finally:
        await store.close()


def claims(**changes: Any) -> dict[str, Any]:
    base = {
        "iss": "clinique",
        "aud": "colloque",
        "nbf": NOW.timestamp(),
        "exp": NOW.timestamp() + 3600,
        "jti": "invitation-1",
        "role": "patient",
        "room": "rdv-1",
        "name": "Ada",
    }
    return {name: value for name, value in (base | changes).items() if value is not ...}


def token(key: Any = None, algorithm: str = "EdDSA", kid: str | None = None, **changes: Any) -> str:
    headers = {"kid": kid or algorithm}
    return jwt.encode(claims(**changes), key or KEYS[algorithm], algorithm=algorithm, headers=headers)


# -- links ------------------------------------------------------------------------------------------------------------


async def test_a_link(world):
    link, secret = await world.store.mint_link(world.room, "guest", "Interprète")
    entry = await world.enter(secret)
    assert (entry.origin, entry.role, entry.name, entry.single_use) == (link.id, "guest", "Interprète", True)
    assert (entry.room.id, entry.tenant.slug, entry.seat) == (world.room.id, "clinique", None)
    assert "Interprète" not in repr(entry)


@pytest.mark.parametrize(
    ("offset", "code"), [(-31, "link_not_yet"), (-29, None), (0, None), (60 + 29, None), (60 + 31, "link_expired")]
)
async def test_the_time_of_a_link_with_its_leeway(world, offset, code):
    _, secret = await world.store.mint_link(world.room, "patient", "", NOW, NOW + timedelta(seconds=60))
    at = NOW + timedelta(seconds=offset)
    if code is None:
        await world.enter(secret, wall=at)
    else:
        assert await world.refusal(secret, wall=at) == code


async def test_links_that_are_none(world):
    _, secret = await world.store.mint_link(world.room, "patient")
    for wrong in (new_id(), secret[:-1], secret + "A", secret.swapcase(), "", "\0", "a" * 4096, "é" * 22):
        assert await world.refusal(wrong) == "link_unknown"
    for tenant in ("autre", "nowhere", "Clinique", "clinique ", "\0", "a" * 63, "%"):
        assert await world.refusal(secret, tenant=tenant) == "link_unknown"
    assert await world.refusal(resume=secret) == "link_unknown"


async def test_a_revoked_link_and_an_ended_room(world):
    link, secret = await world.store.mint_link(world.room, "patient")
    await world.seat(link.id, "resume")
    await world.store.revoke_link(link.id)
    assert await world.refusal(secret) == "link_revoked"
    assert await world.refusal(secret, resume="resume") == "link_revoked"
    assert await world.refusal(resume="resume") == "link_revoked"
    _, secret = await world.store.mint_link(world.room, "patient")
    await world.store.end_room(world.room.id, "host")
    assert await world.refusal(secret) == "room_ended"


# -- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_secret", [True, False])
async def test_a_resume_secret_outlives_the_link(world, with_secret):
    link, secret = await world.store.mint_link(world.room, "patient", "Ada", None, NOW + timedelta(minutes=1))
    seat = await world.seat(link.id, "resume")
    later = NOW + timedelta(hours=5)
    assert await world.refusal(secret, wall=later) == "link_expired"
    entry = await world.enter(secret if with_secret else None, resume="resume", wall=later)
    assert entry.seat == seat
    assert await world.refusal(secret, resume="forged", wall=later) == "link_expired"


async def test_a_resume_secret_opens_only_its_own_seat(world):
    link, _ = await world.store.mint_link(world.room, "patient")
    await world.seat(link.id, "resume")
    other, secret = await world.store.mint_link(world.room, "patient", "Bob")
    entry = await world.enter(secret, resume="resume")
    assert (entry.origin, entry.seat) == (other.id, None)
    assert await world.refusal(resume="resume", tenant="autre") == "link_unknown"
    assert await world.refusal(resume="forged") == "link_unknown"
    assert await world.refusal(resume="") == "link_unknown"


@pytest.mark.parametrize("closed", ["refused", "removed", "transferred"])
async def test_a_closed_seat_is_never_resumed(world, closed):
    link, secret = await world.store.mint_link(world.room, "patient")
    await world.seat(link.id, "resume", closed=closed)
    assert await world.refusal(secret, resume="resume") == closed
    assert await world.refusal(resume="resume") == closed


async def test_the_live_room_knows_better_than_the_store(world):
    link, secret = await world.store.mint_link(world.room, "patient")
    seat = await world.seat(link.id, "resume")
    newer = replace(seat, closed="removed")
    with pytest.raises(RefusalError, match="removed"):
        await world.door.resolve(
            Hello(version=1, tenant="clinique", instance="page", secret=secret, resume="resume"), NOW, lambda _: newer
        )


# -- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_token_of_each_algorithm(world, algorithm):
    entry = await world.enter(token(algorithm=algorithm))
    assert (entry.room.id, entry.role, entry.name, entry.single_use) == (world.room.id, "patient", "Ada", True)
    again = await world.enter(token(algorithm=algorithm, role="guest"))
    assert again.origin == entry.origin  # the same jti is the same seat
    assert (await world.enter(token(jti="invitation-2"))).origin != entry.origin


async def test_a_token_by_room_id_and_for_several_audiences(world):
    assert (await world.enter(token(room=world.room.id, aud=["others", "colloque"]))).room == world.room


async def test_the_room_of_another_clinic_is_an_unknown_reference(world):
    entry = await world.enter(token(room=world.other.id))
    assert (entry.room.tenant, entry.room.reference) == ("clinique", world.other.id)
    assert entry.room.id != world.other.id


async def test_the_room_of_an_unknown_reference_is_created(world):
    entry = await world.enter(token(room="rdv-2"))
    assert entry.room.reference == "rdv-2"
    assert (await world.enter(token(room="rdv-2", jti="x"))).room.id == entry.room.id
    await world.store.end_room(entry.room.id, "host")
    assert await world.refusal(token(room="rdv-2", jti="y")) == "room_ended"


@pytest.mark.parametrize(
    ("offset", "code"), [(-31, "link_not_yet"), (-29, None), (3600 + 29, None), (3600 + 31, "link_expired")]
)
async def test_the_time_of_a_token_with_its_leeway(world, offset, code):
    at = NOW + timedelta(seconds=offset)
    if code is None:
        await world.enter(token(), wall=at)
    else:
        assert await world.refusal(token(), wall=at) == code


async def test_an_expired_token_creates_no_room(world):
    late = NOW + timedelta(hours=2)
    assert await world.refusal(token(room="rdv-9"), wall=late) == "link_expired"
    assert await world.store.room_by_reference("clinique", "rdv-9") is None


async def test_a_long_call_outlives_its_token(world):
    origin = (await world.enter(token())).origin
    seat = await world.seat(origin, "resume")
    late = NOW + timedelta(hours=5)
    assert (await world.enter(token(), resume="resume", wall=late)).seat == seat
    assert (await world.enter(resume="resume", wall=late)).seat == seat


async def test_a_key_that_is_withdrawn_ends_nobodys_call(world):
    seat = await world.seat((await world.enter(token())).origin, "resume")
    await world.store.delete_signing_key("clinique", "EdDSA")
    assert (await world.enter(token(), resume="resume")).seat == seat
    assert await world.refusal(token()) == "link_unknown"


async def test_the_room_of_a_token_is_in_the_trail(world):
    entry = await world.enter(token(room="rendez-vous 7"))
    await world.store.flush()
    assert [event.kind for event in await world.store.audit(entry.room.id)] == ["room.created"]


def unsigned(header: dict[str, Any], **changes: Any) -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims(**changes))]
    return b".".join([*parts, b""]).decode()


def hs256_with_the_public_key() -> str:
    import hashlib
    import hmac

    signed = unsigned({"alg": "HS256", "kid": "RS256"}).rstrip(".")
    tag = hmac.digest(public_pem(KEYS["RS256"]).encode(), signed.encode(), hashlib.sha256)
    return signed + "." + base64.urlsafe_b64encode(tag).rstrip(b"=").decode()


FORGED = {
    "alg none": lambda: unsigned({"alg": "none", "kid": "EdDSA"}),
    "alg None": lambda: unsigned({"alg": "None", "kid": "EdDSA"}),
    "no alg": lambda: unsigned({"kid": "EdDSA"}),
    "alg is a list": lambda: unsigned({"alg": ["EdDSA"], "kid": "EdDSA"}),
    "HS256 with the public key": hs256_with_the_public_key,
    "unsigned": lambda: token().rpartition(".")[0] + ".",
    "wrong key": lambda: token(STRANGER),
    "key of another clinic": lambda: token(STRANGER, kid="theirs"),
    "algorithm of another key": lambda: token(KEYS["ES256"], "ES256", kid="EdDSA"),
    "RS256 key, PS256 header": lambda: token(KEYS["RS256"], "PS256", kid="RS256"),
    "RS256 key, RS512 header": lambda: token(KEYS["RS256"], "RS512", kid="RS256"),
    "unknown kid": lambda: token(kid="nobody"),
    "kid is a path": lambda: token(kid="../../dev/null"),
    "kid is SQL": lambda: token(kid="' OR 1=1 --"),
    "kid with NUL": lambda: token(kid="EdDSA\0"),
    "no kid": lambda: jwt.encode(claims(), KEYS["EdDSA"], algorithm="EdDSA"),
    "key in the header": lambda: jwt.encode(
        claims(),
        STRANGER,
        algorithm="EdDSA",
        headers={"kid": "EdDSA", "jwk": {"kty": "OKP"}, "jku": "https://evil.test"},
    ),
    "unknown critical header": lambda: jwt.encode(
        claims(), KEYS["EdDSA"], algorithm="EdDSA", headers={"kid": "EdDSA", "crit": ["exp"]}
    ),
    "wrong issuer": lambda: token(iss="autre"),
    "no issuer": lambda: token(iss=...),
    "wrong audience": lambda: token(aud="somebody-else"),
    "no audience": lambda: token(aud=...),
    "audience in part": lambda: token(aud="colloque.evil.test"),
    "no expiry": lambda: token(exp=...),
    "expiry as text": lambda: token(exp="3000000000"),
    "endless": lambda: token(exp=1e300),
    "more than a day": lambda: token(exp=NOW.timestamp() + 86_401),
    "more than a day since it was issued": lambda: token(iat=NOW.timestamp() - 86_400),
    "expires before it begins": lambda: token(exp=NOW.timestamp() - 1),
    "no not-before": lambda: token(nbf=...),
    "no jti": lambda: token(jti=...),
    "empty jti": lambda: token(jti=""),
    "long jti": lambda: token(jti="x" * 257),
    "no role": lambda: token(role=...),
    "invented role": lambda: token(role="admin"),
    "no room": lambda: token(room=...),
    "empty room": lambda: token(room=""),
    "room with NUL": lambda: token(room="rdv\0"),
    "name with a line break": lambda: token(name="Ada\nadmitted"),
    "claims are a list": lambda: jwt.PyJWS().encode(b"[]", KEYS["EdDSA"], algorithm="EdDSA", headers={"kid": "EdDSA"}),
    "claims are deep": lambda: jwt.PyJWS().encode(
        b'{"x":' + b"[" * 900 + b"]" * 900 + b"}", KEYS["EdDSA"], algorithm="EdDSA", headers={"kid": "EdDSA"}
    ),
    "two dots": lambda: "..",
    "not base64": lambda: "é.é.é",
    "another clinic's page": lambda: token(),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_forged_tokens_are_unknown_links(world, forge):
    tenant = "autre" if forge is FORGED["another clinic's page"] else "clinique"
    assert await world.refusal(forge(), tenant=tenant) == "link_unknown"
    assert [room.reference for room in await world.store.rooms("clinique")] == ["rdv-1"]


@pytest.mark.parametrize("algorithm", KEYS)
async def test_no_flipped_bit_goes_unnoticed(world, algorithm):
    """Bits of each kind in each part; the unused bits of a part's last character mean nothing, and are left out."""
    good = token(algorithm=algorithm)
    head, body, _ = good.split(".")
    starts = (0, len(head) + 1, len(head) + len(body) + 2)
    places = [start + offset for start in starts for offset in (0, 1, 7, 16)] + [len(head) - 2, len(good) - 3]
    places += [len(head), len(head) + 1 + len(body)]  # the dots
    for place in places:
        for bit in (1, 2, 4, 16, 32):
            flipped = good[:place] + chr(ord(good[place]) ^ bit) + good[place + 1 :]
            assert await world.refusal(flipped) == "link_unknown", (place, bit)
    for cut in range(1, 60, 7):
        assert await world.refusal(good[:-cut]) == "link_unknown"


async def test_unknown_and_foreign_take_the_same_queries_and_about_the_same_time(world, monkeypatch):
    """What somebody without a genuine credential can measure does not depend on what exists."""
    _, foreign = await world.store.mint_link(world.other, "patient")
    attempts = {
        "unknown": lambda: new_id(),
        "of another clinic": lambda: foreign,
        "forged token": lambda: token(STRANGER),
        "forged token, unknown kid": lambda: token(STRANGER, kid="nobody"),
        "forged token, unknown room": lambda: token(STRANGER, room="nowhere"),
    }
    queries: list[str] = []
    rows = world.store._rows

    async def counted(query, *arguments, **parameters):
        queries.append(str(query))
        return await rows(query, *arguments, **parameters)

    monkeypatch.setattr(world.store, "_rows", counted)
    seen, times = {}, {name: [] for name in attempts}
    for _ in range(40):
        for name, secret in attempts.items():
            text = secret()
            queries.clear()
            started = time.perf_counter()
            assert await world.refusal(text) == "link_unknown"
            times[name].append(time.perf_counter() - started)
            seen[name] = tuple(queries)
    assert seen["unknown"] == seen["of another clinic"]
    assert len({seen[name] for name in attempts if "token" in name}) == 1
    # The quickest tenth: what else runs on this machine makes some of them slower, and none quicker.
    usual = {name: statistics.quantiles(values, n=10)[0] for name, values in times.items()}
    assert usual["of another clinic"] < 1.5 * usual["unknown"] < 2.25 * usual["of another clinic"]
    forged = [usual[name] for name in attempts if "token" in name]
    assert max(forged) < 1.5 * min(forged)
