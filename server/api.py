"""The host's REST API: rooms, links, and the clinic's own settings, under `/api/v1`. [IO]

    request -> `problems.middleware` -> endpoint: API key -> tenant; query, body -> structs -> one method of HostApi
                                    <- struct -> JSON, or ApiError -> problem document (RFC 9457)

`HostApi.operations` is the only table: routes, checks and the OpenAPI document come from it.

A host sees its own tenant's things only; what belongs to another answers exactly as what does not exist (SECURITY row
20). Access is by bearer key alone: no cookie, and no CORS header on any answer, so that no foreign page can read one
(row 16).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NoReturn, Protocol, TypeVar

import msgspec
from aiohttp import hdrs, web

from server import checks, logo, openapi, resources
from server.audit import HOST, AuditKind
from server.clock import wall_now
from server.errors import ApiError, RefusalError
from server.openapi import Operation
from server.problems import Refusal
from server.records import AuditEvent, LinkRecord, Position, RoomRecord, SigningKey, Tenant
from server.resources import (
    Events,
    Link,
    Links,
    MintedLink,
    NewLink,
    NewRoom,
    NewSigningKey,
    PageQuery,
    PublicKey,
    PublicKeys,
    Room,
    RoomPath,
    Rooms,
    RoomsQuery,
    TenantChanges,
    TenantSettings,
)
from server.store import Store

ROOT = "/api/v1"
_AHEAD = timedelta(days=3653)
"""How far an invitation may lie in the future."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_DESCRIPTION = """\
Open rooms, invite people into them, and follow what happens there.

Every request carries `Authorization: Bearer <API key>`; a key belongs to one tenant and sees nothing of another. Every
refusal is a problem document (RFC 9457) whose `code` never changes. Times are RFC 3339 with an offset from UTC."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_S = TypeVar("_S", bound=msgspec.Struct)


class LiveRooms(Protocol):
    """What the API needs of the rooms that people are in: `server.signalling.websocket.SignallingEndpoint`."""

    def end_room(self, room_id: str, by: Literal["host"]) -> None:
        """Send everybody out; the store knows already."""

    def drop_link(self, link_id: str, code: str) -> None:
        """Send out whoever came through a link; the store knows already."""

    def counts(self, room_id: str) -> dict[str, int]:
        """Return how many participants of a room are in each state."""

    def hold_relayed(self, room_id: str, wanted: bool) -> Literal["held", "not_live", "one_path"]:
        """Have a live room carried by the media server until told otherwise, or as the server sees fit."""


def routes(store: Store, live: LiveRooms, public_origin: str) -> list[web.RouteDef]:
    """Return the routes of the API, for `Application.add_routes`; `problems.middleware` belongs around them."""
    return HostApi(store, live, public_origin).routes()


class HostApi:
    """The operations, each a method that takes structs and returns one.

    Args:
        public_origin: Of the links, without a slash at the end.
    """

    def __init__(self, store: Store, live: LiveRooms, public_origin: str) -> None:
        self._store = store
        self._live = live
        self._origin = public_origin
        self.operations = self._table()
        self._document = msgspec.json.encode(openapi.document(self.operations, ROOT, _DESCRIPTION))

    def _table(self) -> list[Operation]:
        gone = (410, "room_ended")
        unusable = (422, "unusable_value")
        return [
            Operation(
                "GET", "/rooms", self.list_rooms, "List rooms, newest first", Rooms,
                query=RoomsQuery, refusals=(unusable,),
            ),
            Operation(
                "POST", "/rooms", self.create_room, "Open a room", Room,
                status=201, body=NewRoom, location="/rooms/{id}", refusals=((409, "reference_taken"),),
                description="With a `reference` it is safe to repeat: the second time answers 409 and names the room.",
            ),
            Operation("GET", "/rooms/{room}", self.read_room, "Read a room", Room),
            Operation(
                "POST", "/rooms/{room}/end", self.end_room, "End a room for everybody", Room,
                description="Whoever is in it is told and leaves. An ended room stays as it is.",
            ),
            Operation(
                "PUT", "/rooms/{room}/path", self.put_path, "Say which way a live room's media goes", Room,
                body=RoomPath, refusals=((409, "room_not_live"), (409, "only_one_path")),
                description="Nobody in the room notices. It counts until it is said otherwise, or until the room has "
                "been empty for a minute. `direct-only` and `relay-only` rooms have one path only, and so has every "
                "room where there is no media server.",
            ),
            Operation(
                "GET", "/rooms/{room}/events", self.list_events, "Read a room's audit trail", Events,
                query=PageQuery, refusals=(unusable,),
            ),
            Operation(
                "GET", "/rooms/{room}/links", self.list_links, "List a room's links, oldest first", Links,
                query=PageQuery, refusals=(unusable,),
            ),
            Operation(
                "POST", "/rooms/{room}/links", self.mint_link, "Invite somebody", MintedLink,
                status=201, body=NewLink, location="/rooms/{room}/links/{id}", refusals=(gone, unusable),
                description="The addresses in the answer hold a secret that is shown this once.",
            ),
            Operation("GET", "/rooms/{room}/links/{link}", self.read_link, "Read a link", Link),
            Operation(
                "POST", "/rooms/{room}/links/{link}/revoke", self.revoke_link, "Revoke a link", Link,
                description="Whoever came through it leaves. It stays in the list, with `revokedAt`.",
            ),
            Operation("GET", "/tenant", self.read_tenant, "Read your settings", TenantSettings),
            Operation(
                "PATCH", "/tenant", self.change_tenant, "Change your settings", TenantSettings,
                body=TenantChanges, refusals=(unusable,),
            ),
            Operation(
                "PUT", "/tenant/logo", self.put_logo, "Upload your logo", TenantSettings,
                media=("image/png", "image/jpeg", "image/webp"), refusals=((422, "unusable_logo"),),
                description=f"At most {logo.MAX_BYTES // 1000} kB and {logo.MAX_SIDE} x {logo.MAX_SIDE} pixels. "
                "Kept as a PNG of our own, without what else was in the file.",
            ),
            Operation("DELETE", "/tenant/logo", self.delete_logo, "Remove your logo", None, status=204),
            Operation("GET", "/tenant/signing-keys", self.list_signing_keys, "List your signing keys", PublicKeys),
            Operation(
                "POST", "/tenant/signing-keys", self.add_signing_key, "Register a signing key", PublicKey,
                status=201, body=NewSigningKey, location="/tenant/signing-keys/{kid}",
                refusals=((409, "kid_taken"), unusable),
            ),
            Operation("GET", "/tenant/signing-keys/{kid}", self.read_signing_key, "Read a signing key", PublicKey),
            Operation(
                "DELETE", "/tenant/signing-keys/{kid}", self.delete_signing_key, "Remove a signing key", None,
                status=204, description="What it signed opens nothing from now on. Who is in a room already stays.",
            ),
        ]  # fmt: skip

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the table, and of the document itself, which needs no key."""
        made = [
            web.route(operation.method, ROOT + operation.path, self._endpoint(operation))
            for operation in self.operations
        ]
        return [*made, web.get(ROOT + "/openapi.json", self._openapi, allow_head=False)]

    # Rooms -----------------------------------------------------------------------------------------------------------

    async def list_rooms(self, tenant: Tenant, query: RoomsQuery) -> Rooms:
        """GET /rooms."""
        after = _position(query.after)
        found = await self._store.rooms(tenant.slug, query.state, after, query.limit + 1, query.reference)
        page, following = found[: query.limit], _next(found, query.limit)
        return Rooms(items=[self._room(record) for record in page], next=following)

    async def create_room(self, tenant: Tenant, body: NewRoom) -> Room:
        """POST /rooms."""
        try:
            record = await self._store.create_room(tenant.slug, body.reference, body.topology, wall_now())
        except RefusalError as refusal:
            if refusal.code != "reference_taken":
                raise
            taken = await self._store.room_by_reference(tenant.slug, body.reference)
            raise Refusal(
                409, "reference_taken", "a room of yours has this reference already", room=taken.id if taken else ""
            ) from None
        self._note(tenant, "room.created", record.id)
        return self._room(record)

    async def read_room(self, tenant: Tenant, room: str) -> Room:
        """GET /rooms/{room}."""
        return self._room(await self._own_room(tenant, room))

    async def end_room(self, tenant: Tenant, room: str) -> Room:
        """POST /rooms/{room}/end."""
        before, at = await self._own_room(tenant, room), wall_now()
        record = await self._store.end_room(room, "host", at) or before
        if record.ended_at == at:
            self._note(tenant, "room.ended", room, detail="host")
        if record.ended_at is not None:  # asked again too: the first answer may have been lost before people were told
            self._live.end_room(room, by="host")
        return self._room(record)

    async def put_path(self, tenant: Tenant, room: str, body: RoomPath) -> Room:
        """PUT /rooms/{room}/path."""
        record = await self._own_room(tenant, room)
        held = self._live.hold_relayed(room, body.path == "relayed")
        if held == "not_live":
            raise ApiError(409, "room_not_live", "nobody is in this room, or was during the last minute")
        if held == "one_path":
            raise ApiError(
                409, "only_one_path", "this room has no other path: by its topology, or without media server"
            )
        self._note(tenant, "path.ordered", room, detail=body.path)
        return self._room(record)

    async def list_events(self, tenant: Tenant, room: str, query: PageQuery) -> Events:
        """GET /rooms/{room}/events."""
        await self._own_room(tenant, room)
        after = _sequence(query.after)
        found = await self._store.audit(room, after, query.limit)
        last = found[-1].seq if found else after
        return Events(items=[resources.event(record) for record in found], next=str(last))

    # Links -----------------------------------------------------------------------------------------------------------

    async def list_links(self, tenant: Tenant, room: str, query: PageQuery) -> Links:
        """GET /rooms/{room}/links."""
        await self._own_room(tenant, room)
        found = await self._store.links(room, _position(query.after), query.limit + 1)
        page, following = found[: query.limit], _next(found, query.limit)
        return Links(items=[resources.link(record) for record in page], next=following)

    async def mint_link(self, tenant: Tenant, room: str, body: NewLink) -> MintedLink:
        """POST /rooms/{room}/links."""
        record, at = await self._own_room(tenant, room), wall_now()
        _check_times(body, at)
        if record.ended_at is not None:
            raise ApiError(410, "room_ended", "this room has ended: open another")
        link, secret = await self._store.mint_link(
            record, body.role, body.name, body.not_before, body.expires_at, body.single_use, at
        )
        self._note(tenant, "link.minted", room, link.id, body.role)
        return resources.minted_link(link, self._origin, secret)

    async def read_link(self, tenant: Tenant, room: str, link: str) -> Link:
        """GET /rooms/{room}/links/{link}."""
        return resources.link(await self._own_link(tenant, room, link))

    async def revoke_link(self, tenant: Tenant, room: str, link: str) -> Link:
        """POST /rooms/{room}/links/{link}/revoke."""
        before, at = await self._own_link(tenant, room, link), wall_now()
        record = await self._store.revoke_link(link, at) or before
        if record.revoked_at == at:
            self._note(tenant, "link.revoked", room, link)
        if record.revoked_at is not None:  # as above
            self._live.drop_link(link, "link_revoked")
        return resources.link(record)

    # The tenant ------------------------------------------------------------------------------------------------------

    async def read_tenant(self, tenant: Tenant) -> TenantSettings:
        """GET /tenant."""
        return resources.settings(tenant, self._origin)

    async def change_tenant(self, tenant: Tenant, body: TenantChanges) -> TenantSettings:
        """PATCH /tenant."""
        changes = {
            name: value
            for name in body.__struct_fields__
            if (value := getattr(body, name)) is not msgspec.UNSET and value != getattr(tenant, name)
        }
        for index, text in enumerate(changes.get("origins", ())):
            try:
                checks.origin(text)
            except ValueError as error:
                raise Refusal(422, "unusable_value", str(error), member=f"origins[{index}]") from None
        if "origins" in changes:
            changes["origins"] = checks.origins(changes["origins"])
        if "colour" in changes:
            changes["colour"] = checks.colour(changes["colour"])
        changed = await self._store.update_tenant(dataclasses.replace(tenant, **changes)) or tenant
        if changes:
            self._note(tenant, "tenant.changed", detail=",".join(changes))
        return resources.settings(changed, self._origin)

    async def put_logo(self, tenant: Tenant, body: bytes) -> TenantSettings:
        """PUT /tenant/logo."""
        if len(body) > logo.MAX_BYTES:
            raise ApiError(413, "too_large", f"a logo has at most {logo.MAX_BYTES // 1000} kB")
        try:
            png = await asyncio.to_thread(logo.normalise, body)
        except logo.LogoError as error:
            raise ApiError(422, "unusable_logo", str(error)) from None
        changed = await self._store.set_logo(tenant.slug, png) or tenant
        self._note(tenant, "tenant.changed", detail="logo")
        return resources.settings(changed, self._origin)

    async def delete_logo(self, tenant: Tenant) -> None:
        """DELETE /tenant/logo."""
        await self._store.set_logo(tenant.slug, None)
        self._note(tenant, "tenant.changed", detail="logo")

    async def list_signing_keys(self, tenant: Tenant) -> PublicKeys:
        """GET /tenant/signing-keys."""
        keys = await self._store.signing_keys(tenant.slug)
        return PublicKeys(items=[resources.public_key(key) for key in keys], next=None)

    async def add_signing_key(self, tenant: Tenant, body: NewSigningKey) -> PublicKey:
        """POST /tenant/signing-keys."""
        try:
            algorithm, pem = checks.public_key(body.public_key)
        except ValueError as error:
            raise Refusal(422, "unusable_value", str(error), member="publicKey") from None
        key = SigningKey(tenant.slug, body.kid, algorithm, pem, wall_now())
        try:
            await self._store.add_signing_key(key)
        except RefusalError as refusal:
            raise ApiError(409, refusal.code, "a key of yours has this kid already: delete it first") from None
        self._note(tenant, "signing_key.added", subject=key.kid)
        return resources.public_key(key)

    async def read_signing_key(self, tenant: Tenant, kid: str) -> PublicKey:
        """GET /tenant/signing-keys/{kid}."""
        key = await self._store.signing_key(tenant.slug, kid)
        return resources.public_key(key) if key is not None else _not_found()

    async def delete_signing_key(self, tenant: Tenant, kid: str) -> None:
        """DELETE /tenant/signing-keys/{kid}."""
        if not await self._store.delete_signing_key(tenant.slug, kid):
            _not_found()
        self._note(tenant, "signing_key.deleted", subject=kid)

    # Inside ----------------------------------------------------------------------------------------------------------

    def _room(self, record: RoomRecord) -> Room:
        return resources.room(record, self._live.counts(record.id))

    async def _own_room(self, tenant: Tenant, room: str) -> RoomRecord:
        record = await self._store.room(room)
        return record if record is not None and record.tenant == tenant.slug else _not_found()

    async def _own_link(self, tenant: Tenant, room: str, link: str) -> LinkRecord:
        record = await self._store.link(link)
        mine = record is not None and (record.tenant, record.room) == (tenant.slug, room)
        return record if mine and record is not None else _not_found()

    def _note(self, tenant: Tenant, kind: AuditKind, room: str = "", subject: str = "", detail: str = "") -> None:
        self._store.append(AuditEvent(wall_now(), tenant.slug, room, kind, HOST, subject, detail))

    def _endpoint(self, operation: Operation) -> _Handler:
        async def endpoint(request: web.Request) -> web.StreamResponse:
            arguments: dict[str, Any] = {"tenant": await self._authenticate(request), **_parameters(request)}
            if operation.query:
                arguments["query"] = _query(operation.query, request)
            if operation.body:
                _check_media(request, ("application/json",))
                arguments["body"] = _body(operation.body, await request.read())
            elif operation.media:
                _check_media(request, operation.media)
                arguments["body"] = await request.read()
            answer = await operation.handler(**arguments)
            return _answer(operation, answer)

        return endpoint

    async def _authenticate(self, request: web.Request) -> Tenant:
        scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        well_formed = scheme.lower() == "bearer" and key.isascii()
        tenant = await self._store.tenant_by_api_key(key.strip()) if well_formed else None
        if tenant is None:
            raise ApiError(401, "unauthorized", "send Authorization: Bearer and an API key that has not been revoked")
        return tenant

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type="application/json")


# -- in ---------------------------------------------------------------------------------------------------------------


def _parameters(request: web.Request) -> Mapping[str, str]:
    """Return what stands in the path, where an id that cannot exist is not looked up."""
    for value in request.match_info.values():
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
            _not_found()
    return dict(request.match_info)


def _query(kind: type[_S], request: web.Request) -> _S:
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise Refusal(400, "bad_request", "the query gives this parameter twice", member=name)
        values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(error, "query") from None


def _body(kind: type[_S], data: bytes) -> _S:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _misfit(error, "body") from None


def _misfit(error: Exception, where: str) -> ApiError:
    """Say what does not fit and where, without quoting a value: names and keys get into wrong places by mistake."""
    if not isinstance(error, msgspec.ValidationError):
        return Refusal(400, "bad_request", f"the {where} is not JSON in UTF-8")
    reason, _, place = str(error).partition(" - at `")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", reason, re.DOTALL)
    missing = re.fullmatch(r"Object missing required field `(\w+)`", reason)
    member = place.rstrip("`").removeprefix("$").removeprefix(".")
    if unknown:
        member, reason = ".".join(filter(None, (member, unknown[1][:64]))), "there is no such member"
    elif missing:
        member, reason = ".".join(filter(None, (member, missing[1]))), "this member is required"
    if reason.startswith("Invalid enum value"):
        reason = "it is none of the values there are"
    reason = re.sub(r"matching regex .*", "of the documented form", reason, flags=re.DOTALL)
    return Refusal(400, "bad_request", f"the {where} does not fit: {reason}", member=member)


def _check_media(request: web.Request, allowed: tuple[str, ...]) -> None:
    if request.content_type not in allowed:
        raise ApiError(415, "unsupported_media_type", f"send Content-Type: {' or '.join(allowed)}")


def _check_times(body: NewLink, at: datetime) -> None:
    for member, moment in (("notBefore", body.not_before), ("expiresAt", body.expires_at)):
        if moment is not None and not _EARLIEST < moment < at + _AHEAD:
            raise Refusal(422, "unusable_value", "a time from 2000 to ten years from now", member=member)
    if body.expires_at is not None and body.expires_at <= max(at, body.not_before or at):
        raise Refusal(422, "unusable_value", "it has to be in the future, and after notBefore", member="expiresAt")


def _position(cursor: str) -> Position | None:
    """Read the cursor of a list that is ordered by time and id."""
    if not cursor:
        return None
    try:
        moment, _, identity = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        return Position(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(moment)), identity)
    except (ValueError, OverflowError, binascii.Error):
        raise Refusal(422, "unusable_value", "this cursor is none of ours", member="after") from None


def _sequence(cursor: str) -> int:
    """Read the cursor of a list that is numbered."""
    if not re.fullmatch(r"[0-9]{0,18}", cursor):
        raise Refusal(422, "unusable_value", "this cursor is none of ours", member="after")
    return int(cursor or 0)


# -- out --------------------------------------------------------------------------------------------------------------


def _next(found: list[RoomRecord] | list[LinkRecord], limit: int) -> str | None:
    """Return the cursor behind the last of a page, if one more was found."""
    if len(found) <= limit:
        return None
    last = found[limit - 1]
    microseconds = (last.created_at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return base64.urlsafe_b64encode(f"{microseconds} {last.id}".encode()).decode().rstrip("=")


def _answer(operation: Operation, answer: msgspec.Struct | None) -> web.Response:
    if answer is None:
        return web.Response(status=operation.status)
    response = web.Response(body=msgspec.json.encode(answer), status=operation.status, content_type="application/json")
    if operation.location:
        response.headers[hdrs.LOCATION] = ROOT + operation.location.format_map(msgspec.structs.asdict(answer))
    return response


def _not_found() -> NoReturn:
    raise ApiError(404, "not_found", "there is no such thing here, or it is not yours")
