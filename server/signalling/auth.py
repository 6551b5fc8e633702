"""Who may come in: a link secret, a resume secret or a token signed by the host -> `Claims`.

Three credentials open the same door:

    secret of 22 characters  ──> link in the store ───────────┐
    token (JWT), from a host ──> key of the tenant, checked ──┼──> room ──> revoked? ended? closed? too early or late?
    resume secret            ──> seat, live or in the store ──┘

Whoever does not hold a genuine credential learns nothing: every forged, unknown or foreign one is answered
`link_unknown`, after the same queries and about the same time. Only the holder of a genuine one is told that it is
expired or revoked.

A seat taken again by its resume secret does not look at the clock (a long call outlives its link), but a revoked link
or a closed seat is refused for good. Sans-IO but for the store that is handed in; the time of day is an argument.

Spec: RFC 7519 and RFC 8725 (tokens), SECURITY.md rows 17, 18, 20.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import jwt
import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Meta

from server import checks
from server.audit import HOST
from server.errors import RefusalError
from server.ids import digest
from server.records import AuditEvent, LinkRecord, Role, RoomRecord, SeatRecord, SigningKey, Tenant
from server.signalling.messages import Hello

if TYPE_CHECKING:
    from server.store import Store

AUDIENCE = "colloque"
LEEWAY = timedelta(seconds=30)
"""Clocks of hosts differ from ours by this much, either way (SECURITY.md row 18)."""
MAX_LIFETIME = timedelta(hours=24)
"""From `nbf` (or `iat`) to `exp`: a token cannot be revoked, so it must not live long."""

_NOBODY = SigningKey(
    tenant="",
    kid="",
    algorithm="EdDSA",
    public_pem=(
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
        "-----END PUBLIC KEY-----\n"
    ),
    created_at=datetime.min,
)
"""A key that signs nothing of ours (RFC 8032 section 7.1): an unknown `kid` costs what a wrong signature does."""


class Token(msgspec.Struct, frozen=True):
    """The claims of a host's token (RFC 7519 section 4.1), all required but `iat` and `name`. Others are ignored."""

    iss: str
    """The tenant's slug."""
    aud: str | list[str]
    """`colloque`, alone or among others."""
    exp: float
    nbf: float
    jti: Annotated[str, Meta(min_length=1, max_length=256)]
    """Unique per invitation: it is to a token what the seat is to a single-use link."""
    role: Role
    room: Annotated[str, Meta(min_length=1, max_length=128, pattern=checks.TEXT_PATTERN)]
    """A room's id, or the host's own reference; the room of an unknown reference is created."""
    name: Annotated[str, Meta(max_length=checks.MAX_NAME, pattern=checks.TEXT_PATTERN)] = ""
    iat: float | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine credential gives."""

    tenant: Tenant
    room: RoomRecord
    origin: str
    """The link's id, or `jwt:<digest>`: one seat each when `single_use`."""
    role: Role
    name: str = field(repr=False)
    single_use: bool
    seat: SeatRecord | None
    """The seat that the resume secret opens; None: by the link or token itself."""


@dataclass(frozen=True, slots=True)
class _Credential:
    """A link or a token, before the questions they have in common."""

    origin: str
    role: Role
    name: str = field(repr=False)
    single_use: bool
    not_before: datetime | None
    expires_at: datetime | None
    revoked: bool


class Door:
    """Resolves hellos.

    Args:
        store: Where links, keys, rooms and seats are looked up.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def resolve(
        self, hello: Hello, wall: datetime, live_seat: Callable[[str], SeatRecord | None] = lambda _: None
    ) -> Claims:
        """Return what the credentials of a hello give.

        Args:
            hello: With a secret, a resume secret or both; a resume secret of another link is ignored.
            wall: The time of day, UTC.
            live_seat: Finds the seat of a resume digest among the live rooms, which are newer than the store.

        Raises:
            RefusalError: `link_unknown`, `link_not_yet`, `link_expired`, `link_revoked`, `room_ended`, or the reason
                why the seat was closed: `refused`, `removed`, `transferred`.
        """
        slug = hello.tenant if hello.tenant.isprintable() else ""
        tenant = await self._store.tenant(slug)
        seat: SeatRecord | None = None
        if hello.resume is not None:
            resume_digest = digest(hello.resume)
            seat = live_seat(resume_digest) or await self._store.seat_by_resume(resume_digest)
        if hello.secret is None:
            credential, room = await self._by_seat(seat)
        elif hello.secret.count(".") == 2:
            credential, room = await self._by_token(hello.secret, slug, tenant, wall)
            if credential is None and seat is not None and seat.origin.startswith("jwt:"):
                credential, room = await self._by_seat(seat)  # the key was withdrawn; who is in a room stays
        else:
            credential, room = await self._by_link(hello.secret)
        if credential is None or room is None or tenant is None or room.tenant != tenant.slug:
            raise RefusalError("link_unknown")
        if credential.revoked:
            raise RefusalError("link_revoked")
        if room.ended_at is not None:
            raise RefusalError("room_ended")
        if seat is not None and (seat.origin, seat.room) == (credential.origin, room.id):
            if seat.closed:
                raise RefusalError(seat.closed)
        else:
            seat = None
            if credential.not_before is not None and wall < credential.not_before - LEEWAY:
                raise RefusalError("link_not_yet", credential.not_before.isoformat())
            if credential.expires_at is not None and wall > credential.expires_at + LEEWAY:
                raise RefusalError("link_expired")
        return Claims(tenant, room, credential.origin, credential.role, credential.name, credential.single_use, seat)

    async def _by_link(self, secret: str) -> tuple[_Credential | None, RoomRecord | None]:
        link = await self._store.link_by_secret(secret)
        room = await self._store.room(link.room if link else "")
        return _of_link(link), room

    async def _by_seat(self, seat: SeatRecord | None) -> tuple[_Credential | None, RoomRecord | None]:
        link = await self._store.link(seat.origin if seat else "")
        room = await self._store.room(seat.room if seat else "")
        if seat is not None and seat.origin.startswith("jwt:"):
            return _Credential(seat.origin, seat.role, seat.name, True, None, None, False), room
        return _of_link(link), room

    async def _by_token(
        self, text: str, slug: str, tenant: Tenant | None, wall: datetime
    ) -> tuple[_Credential | None, RoomRecord | None]:
        key = await self._store.signing_key(slug, _key_id(text))
        token = verify(text, key or _NOBODY, slug)
        genuine = token is not None and key is not None and tenant is not None
        name = token.room if token is not None and genuine else ""
        room = await self._store.room(name)
        if room is None or room.tenant != slug:
            room = await self._store.room_by_reference(slug, name)
        if token is None or not genuine:
            return None, None
        if room is None:
            if wall > _moment(token.exp) + LEEWAY:
                raise RefusalError("link_expired")
            room = await self._room_for(slug, name, wall)
        origin = "jwt:" + digest(f"{token.iss}\0{token.jti}")
        return _Credential(origin, token.role, token.name, True, _moment(token.nbf), _moment(token.exp), False), room

    async def _room_for(self, slug: str, reference: str, wall: datetime) -> RoomRecord | None:
        """Create the room of a host's reference, or find the one that somebody else has just created."""
        try:
            room = await self._store.create_room(slug, reference, at=wall)
            self._store.append(AuditEvent(wall, slug, room.id, "room.created", HOST, "", "token"))
            return room
        except RefusalError:
            return await self._store.room_by_reference(slug, reference)


def verify(text: str, key: SigningKey, issuer: str) -> Token | None:
    """Return the claims of a token, or None if it is not a genuine one; its times are the caller's to judge.

    The algorithm is the registered key's: what the header asks for can only agree (RFC 8725 section 3.1).

    Args:
        text: The token in compact form.
        key: The registered key that its `kid` names.
        issuer: The slug that `iss` must be.
    """
    try:
        payload = jwt.PyJWS().decode(text, _public_key(key.public_pem), algorithms=[key.algorithm])
        token = msgspec.json.decode(payload, type=Token)
        lifetime = token.exp - (token.nbf if token.iat is None else min(token.nbf, token.iat))
        _moment(token.exp), _moment(token.nbf)
    except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, TypeError, OverflowError, OSError, RecursionError):
        return None
    audiences = [token.aud] if isinstance(token.aud, str) else token.aud
    if token.iss != issuer or AUDIENCE not in audiences or not 0 < lifetime <= MAX_LIFETIME.total_seconds():
        return None
    return token


def _key_id(text: str) -> str:
    try:
        kid = jwt.get_unverified_header(text).get("kid", "")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return ""
    return kid if isinstance(kid, str) and len(kid) <= 256 and kid.isprintable() else ""


@lru_cache(maxsize=256)
def _public_key(pem: str) -> Any:
    return load_pem_public_key(pem.encode())


def _of_link(link: LinkRecord | None) -> _Credential | None:
    if link is None:
        return None
    revoked = link.revoked_at is not None
    return _Credential(link.id, link.role, link.name, link.single_use, link.not_before, link.expires_at, revoked)


def _moment(timestamp: float) -> datetime:
    """Return a NumericDate (RFC 7519 section 2) as a time of day."""
    return datetime.fromtimestamp(timestamp, UTC)
