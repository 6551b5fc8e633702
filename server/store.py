"""The durable tables and the few queries on them, on SQLite and PostgreSQL alike. [IO]

Two kinds of writing:

* What a host or an operator asks for (tenants, keys, rooms, links) is committed before the call returns.
* What happens in a room (`save_seat`, `append`) must not make anybody wait for a disk. It is queued and committed a
  moment later, together with everything else of that moment (`writebehind.py`). `seats()` and `audit()` see it at once.

It is one thing, though above 500 lines: every query there is, by table.

Times are aware datetimes; they come back in UTC with microseconds. Secrets are stored as digests only (see `ids.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from server import tables
from server.clock import wall_now
from server.errors import ConfigError, RefusalError
from server.ids import digest, new_api_key, new_id
from server.records import (
    ApiKeyRecord,
    AuditEvent,
    LinkRecord,
    Position,
    Role,
    RoomRecord,
    SeatRecord,
    SigningKey,
    Tenant,
    Topology,
)
from server.tables import DATABASE_ERRORS
from server.writebehind import KeyedEvent, Statistics, WriteBehind

__all__ = [
    "DATABASE_ERRORS",
    "ApiKeyRecord",
    "AuditEvent",
    "LinkRecord",
    "Position",
    "Role",
    "RoomRecord",
    "SeatRecord",
    "SigningKey",
    "Statistics",
    "Store",
    "Tenant",
    "Topology",
]

T = TypeVar("T")


class Store:
    """All that is remembered. Made by `Store.open`, ended by `close`.

    Cost: `link_by_secret`, `room` and `seats` (the three queries of a hello) are one indexed SELECT each.
    Memory: the queue of facts, bounded.

    Database errors of the methods that wait for their result come out as `DATABASE_ERRORS`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        # PostgreSQL: no BEGIN and ROLLBACK around a SELECT. SQLite sends none, and asking for none takes longer.
        self._reader = engine if self._sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite has one writer: ours queue up here instead of polling a busy file.
        self._writing: contextlib.AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if self._sqlite else contextlib.nullcontext()
        )
        insert = sqlite.insert if self._sqlite else postgresql.insert
        seat = insert(tables.seats)
        self._upsert_seat = seat.on_conflict_do_update(
            index_elements=[tables.seats.c.id],
            set_={column.name: seat.excluded[column.name] for column in tables.seats.c if column.name != "id"},
        )
        self._insert_event = insert(tables.audit).on_conflict_do_nothing(index_elements=[tables.audit.c.key])
        self._queue = WriteBehind(self._commit)

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, create the tables if there are none, and start the writer.

        Args:
            url: `sqlite+aiosqlite:///file` or `postgresql+asyncpg://user:password@host/database`.

        Raises:
            ConfigError: A URL that is neither, a database that does not answer, or one of a newer version.
        """
        try:
            store = cls(tables.open_engine(url))
            try:
                await store._prepare()
            except BaseException:
                await store._engine.dispose()
                raise
        except (*DATABASE_ERRORS, sqlite3.Error) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise ConfigError(f"`store.url`: the database cannot be opened: {reason}") from None
        store._queue.start()
        return store

    async def close(self) -> None:
        """Write what is queued and disconnect. What cannot be written within 5 s is counted as lost and logged."""
        await self._queue.close()
        await self._engine.dispose()

    @property
    def statistics(self) -> Statistics:
        """What became of the queued facts."""
        return self._queue.statistics

    async def ready(self) -> bool:
        """Return whether the database answers within 2 s and takes what is queued."""
        if self._queue.stuck:
            return False
        try:
            async with asyncio.timeout(2):
                await self._rows(sa.select(tables.schema.c.version))
        except (*DATABASE_ERRORS, TimeoutError):
            return False
        return True

    # Tenants ---------------------------------------------------------------------------------------------------------

    async def create_tenant(self, tenant: Tenant) -> Tenant:
        """Add a clinic.

        Raises:
            RefusalError: `tenant_exists`.
        """
        try:
            await self._write(sa.insert(tables.tenants).values(dataclasses.asdict(tenant)))
        except exc.IntegrityError:
            raise RefusalError("tenant_exists") from None
        return tenant

    async def tenant(self, slug: str) -> Tenant | None:
        """Return the clinic with this slug."""
        return _one(Tenant, await self._rows(_TENANT, slug=slug))

    async def tenants(self) -> list[Tenant]:
        """Return every clinic, by slug."""
        return _all(Tenant, await self._rows(sa.select(tables.tenants).order_by(tables.tenants.c.slug)))

    async def update_tenant(self, tenant: Tenant) -> Tenant | None:
        """Replace all of a clinic but its slug and logo; None if there is no such clinic."""
        values = {k: v for k, v in dataclasses.asdict(tenant).items() if k not in ("slug", "logo_digest")}
        await self._write(sa.update(tables.tenants).where(tables.tenants.c.slug == tenant.slug).values(values))
        return await self.tenant(tenant.slug)

    async def set_logo(self, slug: str, png: bytes | None) -> Tenant | None:
        """Replace or remove (None) a clinic's logo, a PNG that `logo.py` has made; None if there is no such clinic."""
        mark = hashlib.sha256(png).hexdigest()[:16] if png else ""
        async with self._transaction() as connection:
            found = await connection.execute(
                sa.update(tables.tenants).where(tables.tenants.c.slug == slug).values(logo_digest=mark)
            )
            if not found.rowcount:
                return None
            await connection.execute(sa.delete(tables.logos).where(tables.logos.c.tenant == slug))
            if png:
                await connection.execute(sa.insert(tables.logos).values(tenant=slug, png=png))
        return await self.tenant(slug)

    async def logo(self, slug: str) -> bytes | None:
        """Return a clinic's logo as PNG."""
        rows = await self._rows(sa.select(tables.logos.c.png).where(tables.logos.c.tenant == slug))
        return bytes(rows[0].png) if rows else None

    # Keys ------------------------------------------------------------------------------------------------------------

    async def add_api_key(self, slug: str, label: str, expires_at: datetime | None = None) -> tuple[str, str]:
        """Make an API key and return its id and the key, which cannot be had again.

        Raises:
            RefusalError: `tenant_unknown`.
        """
        identity, key = new_id(), new_api_key()
        values = {"id": identity, "tenant": slug, "label": label, "digest": digest(key)}
        times = {"created_at": wall_now(), "expires_at": expires_at}
        await self._insert_for_tenant(sa.insert(tables.api_keys).values(**values, **times))
        return identity, key

    async def api_keys(self, slug: str) -> list[ApiKeyRecord]:
        """Return a clinic's API keys, oldest first, without the keys themselves."""
        columns = [tables.api_keys.c[field.name] for field in dataclasses.fields(ApiKeyRecord)]
        query = (
            sa.select(*columns)
            .where(tables.api_keys.c.tenant == slug)
            .order_by(tables.api_keys.c.created_at, tables.api_keys.c.id)
        )
        return _all(ApiKeyRecord, await self._rows(query))

    async def revoke_api_key(self, slug: str, key_id: str) -> bool:
        """Delete an API key; False if there was none."""
        return bool(
            await self._write(
                sa.delete(tables.api_keys).where(tables.api_keys.c.tenant == slug, tables.api_keys.c.id == key_id)
            )
        )

    async def tenant_by_api_key(self, key: str) -> Tenant | None:
        """Return the clinic whose API key this is, unless it has expired."""
        return _one(Tenant, await self._rows(_TENANT_BY_KEY, digest=digest(key), now=wall_now()))

    async def add_signing_key(self, key: SigningKey) -> None:
        """Add a public key whose owner may sign links for the clinic.

        Raises:
            RefusalError: `kid_taken` or `tenant_unknown`.
        """
        if await self.signing_key(key.tenant, key.kid) is not None:
            raise RefusalError("kid_taken")
        await self._insert_for_tenant(sa.insert(tables.signing_keys).values(dataclasses.asdict(key)))

    async def signing_keys(self, slug: str) -> list[SigningKey]:
        """Return a clinic's signing keys, oldest first."""
        query = sa.select(tables.signing_keys).where(tables.signing_keys.c.tenant == slug)
        return _all(
            SigningKey, await self._rows(query.order_by(tables.signing_keys.c.created_at, tables.signing_keys.c.kid))
        )

    async def signing_key(self, slug: str, kid: str) -> SigningKey | None:
        """Return one signing key of a clinic."""
        return _one(SigningKey, await self._rows(_SIGNING_KEY, slug=slug, kid=kid))

    async def delete_signing_key(self, slug: str, kid: str) -> bool:
        """Delete a signing key; False if there was none."""
        mine = sa.and_(tables.signing_keys.c.tenant == slug, tables.signing_keys.c.kid == kid)
        return bool(await self._write(sa.delete(tables.signing_keys).where(mine)))

    # Rooms -----------------------------------------------------------------------------------------------------------

    async def create_room(
        self, tenant_slug: str, reference: str = "", topology: Topology | None = None, at: datetime | None = None
    ) -> RoomRecord:
        """Open a room.

        Args:
            tenant_slug: The clinic.
            reference: The host's own id; empty: none.
            topology: None for the clinic's own.
            at: When; None for now.

        Raises:
            RefusalError: `reference_taken` or `tenant_unknown`.
        """
        tenant = await self.tenant(tenant_slug)
        if tenant is None:
            raise RefusalError("tenant_unknown")
        room = RoomRecord(
            new_id(), tenant_slug, reference, topology or tenant.topology, _utc(at or wall_now()), None, ""
        )
        try:
            await self._write(sa.insert(tables.rooms).values(dataclasses.asdict(room)))
        except exc.IntegrityError:
            raise RefusalError("reference_taken") from None
        return room

    async def room(self, room_id: str) -> RoomRecord | None:
        """Return the room with this id, open or ended."""
        return _one(RoomRecord, await self._rows(_ROOM, id=room_id))

    async def room_by_reference(self, slug: str, reference: str) -> RoomRecord | None:
        """Return the clinic's room with this reference of the host's."""
        query = sa.select(tables.rooms).where(
            tables.rooms.c.tenant == slug, tables.rooms.c.reference == reference, tables.rooms.c.reference != ""
        )
        return _one(RoomRecord, await self._rows(query))

    async def rooms(
        self,
        slug: str,
        state: Literal["open", "ended"] | None = None,
        after: Position | None = None,
        limit: int = 50,
        reference: str = "",
    ) -> list[RoomRecord]:
        """Return a clinic's rooms, newest first, from behind `after`; with `reference`, the one that has it."""
        query = sa.select(tables.rooms).where(tables.rooms.c.tenant == slug)
        if reference:
            query = query.where(tables.rooms.c.reference == reference)
        if state is not None:
            query = query.where(
                tables.rooms.c.ended_at.is_(None) if state == "open" else tables.rooms.c.ended_at.is_not(None)
            )
        if after is not None:
            query = query.where(sa.tuple_(tables.rooms.c.created_at, tables.rooms.c.id) < _place(after))
        query = query.order_by(tables.rooms.c.created_at.desc(), tables.rooms.c.id.desc()).limit(limit)
        return _all(RoomRecord, await self._rows(query))

    async def end_room(self, room_id: str, reason: str, at: datetime | None = None) -> RoomRecord | None:
        """End a room, once: of an ended one nothing changes. Return it, or None if there is no such room."""
        open_one = sa.and_(tables.rooms.c.id == room_id, tables.rooms.c.ended_at.is_(None))
        await self._write(sa.update(tables.rooms).where(open_one).values(ended_at=at or wall_now(), end_reason=reason))
        return await self.room(room_id)

    # Links -----------------------------------------------------------------------------------------------------------

    async def mint_link(
        self,
        room: RoomRecord,
        role: Role,
        name: str = "",
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        single_use: bool = True,
        at: datetime | None = None,
    ) -> tuple[LinkRecord, str]:
        """Invite somebody into a room. Return the link and its secret, which cannot be had again."""
        secret = new_id()
        link = LinkRecord(
            id=new_id(),
            room=room.id,
            tenant=room.tenant,
            role=role,
            name=name,
            secret_digest=digest(secret),
            not_before=not_before and _utc(not_before),
            expires_at=expires_at and _utc(expires_at),
            single_use=single_use,
            created_at=_utc(at or wall_now()),
            revoked_at=None,
        )
        await self._write(sa.insert(tables.links).values(dataclasses.asdict(link)))
        return link, secret

    async def link_by_secret(self, secret: str) -> LinkRecord | None:
        """Return the link that this secret opens, whatever has become of it since."""
        return _one(LinkRecord, await self._rows(_LINK_BY_SECRET, digest=digest(secret)))

    async def link(self, link_id: str) -> LinkRecord | None:
        """Return the link with this id."""
        return _one(LinkRecord, await self._rows(_LINK, id=link_id))

    async def links(self, room_id: str, after: Position | None = None, limit: int | None = None) -> list[LinkRecord]:
        """Return a room's links, oldest first, from behind `after`."""
        links = tables.links
        query = sa.select(links).where(links.c.room == room_id).order_by(links.c.created_at, links.c.id)
        if after is not None:
            query = query.where(sa.tuple_(links.c.created_at, links.c.id) > _place(after))
        return _all(LinkRecord, await self._rows(query.limit(limit)))

    async def revoke_link(self, link_id: str, at: datetime | None = None) -> LinkRecord | None:
        """Revoke a link, once: of a revoked one nothing changes. Return it, or None if there is no such link."""
        live_one = sa.and_(tables.links.c.id == link_id, tables.links.c.revoked_at.is_(None))
        await self._write(sa.update(tables.links).where(live_one).values(revoked_at=at or wall_now()))
        return await self.link(link_id)

    # Seats and audit: queued -----------------------------------------------------------------------------------------

    async def seats(self, room_id: str) -> list[SeatRecord]:
        """Return a room's seats, oldest first, with what is queued."""
        seats = {seat.id: seat for seat in _all(SeatRecord, await self._rows(_SEATS, room=room_id))}
        for seat in self._queue.seats:
            if seat.room == room_id:
                seats[seat.id] = seat
        return sorted(seats.values(), key=lambda seat: (seat.created_at, seat.id))

    async def seat_by_resume(self, resume_digest: str) -> SeatRecord | None:
        """Return the seat whose current resume secret has this digest, with what is queued."""
        for seat in self._queue.seats:
            if seat.resume_digest == resume_digest != "":
                return seat
        found = _one(SeatRecord, await self._rows(_SEAT_BY_RESUME, digest=resume_digest))
        return None if found is None or self._queue.holds_seat(found.id) else found

    def save_seat(self, seat: SeatRecord) -> None:
        """Queue a seat, new or changed; the newest state of one seat replaces the queued one."""
        self._queue.save(seat)

    def append(self, event: AuditEvent) -> None:
        """Queue a line of the audit trail. The order of calls is the order of the trail."""
        self._queue.append(event)

    async def audit(self, room_id: str, after: int = 0, limit: int | None = None) -> list[AuditEvent]:
        """Return a room's trail in order, from behind the event with `seq` = `after`. Writes what is queued first."""
        await self.flush()
        query = (
            sa.select(*_EVENT)
            .where(tables.audit.c.room == room_id, tables.audit.c.seq > after)
            .order_by(tables.audit.c.seq)
        )
        return _all(AuditEvent, await self._rows(query.limit(limit)))

    async def flush(self) -> None:
        """Write what has been queued so far.

        Raises:
            DATABASE_ERRORS: What was not written stays in the queue.
        """
        await self._queue.flush()

    # Retention -------------------------------------------------------------------------------------------------------

    async def purge(self, at: datetime | None = None) -> int:
        """Delete what is older than its tenant's retention, and return how many rooms that were.

        A room is counted from its end and takes its links and seats with it; audit events follow once their room is
        gone and they are old enough themselves. Expired API keys go too. An open room stays until somebody ends it.
        """
        moment, gone = at or wall_now(), 0
        for tenant in await self.tenants():
            limit = moment - timedelta(days=tenant.retention_days)
            orphan = ~sa.exists().where(tables.rooms.c.id == tables.audit.c.room)
            old = sa.and_(tables.audit.c.tenant == tenant.slug, tables.audit.c.at < limit, orphan)
            async with self._transaction() as connection:
                ended = sa.and_(tables.rooms.c.tenant == tenant.slug, tables.rooms.c.ended_at < limit)
                gone += (await connection.execute(sa.delete(tables.rooms).where(ended))).rowcount
                await connection.execute(sa.delete(tables.audit).where(old))
        await self._write(sa.delete(tables.api_keys).where(tables.api_keys.c.expires_at < moment))
        return gone

    # Inside ----------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        async with self._engine.begin() as connection:
            if self._sqlite:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")  # one process creates, the other waits
            else:
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(0x636F6C6C)))
            await connection.run_sync(lambda sync: tables.schema.create(sync, checkfirst=True))
            version = (await connection.execute(sa.select(sa.func.max(tables.schema.c.version)))).scalar()
            if version is None:
                await connection.run_sync(tables.metadata.create_all)
                await connection.execute(sa.insert(tables.schema).values(version=tables.SCHEMA_VERSION))
            elif version > tables.SCHEMA_VERSION:
                raise ConfigError(
                    f"the database was written by a newer Colloque (tables of version {version}, this program knows "
                    f"{tables.SCHEMA_VERSION}): start the newer program, or restore a backup made before the upgrade"
                )

    async def _rows(self, query: sa.Select[Any], **parameters: object) -> Sequence[sa.Row[Any]]:
        async def once() -> Sequence[sa.Row[Any]]:
            async with self._reader.connect() as connection:
                rows: Sequence[sa.Row[Any]] = (await connection.execute(query, parameters)).all()
                return rows

        return await _again_if_cut(once)

    async def _write(self, statement: sa.Insert | sa.Update | sa.Delete) -> int:
        async with self._transaction() as connection:
            return (await connection.execute(statement)).rowcount

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self._writing, self._engine.begin() as connection:
            yield connection

    async def _insert_for_tenant(self, statement: sa.Insert) -> None:
        try:
            await self._write(statement)
        except exc.IntegrityError:
            raise RefusalError("tenant_unknown") from None

    async def _commit(self, seats: Sequence[SeatRecord], events: Sequence[KeyedEvent]) -> None:
        async with self._transaction() as connection:
            if seats:
                await connection.execute(self._upsert_seat, [dataclasses.asdict(seat) for seat in seats])
            if events:
                await connection.execute(self._insert_event, [_event_values(*event) for event in events])


_TENANT = sa.select(tables.tenants).where(tables.tenants.c.slug == sa.bindparam("slug"))
_TENANT_BY_KEY = (
    sa.select(tables.tenants)
    .join(tables.api_keys, tables.api_keys.c.tenant == tables.tenants.c.slug)
    .where(tables.api_keys.c.digest == sa.bindparam("digest"))
    .where(
        sa.or_(
            tables.api_keys.c.expires_at.is_(None), tables.api_keys.c.expires_at > sa.bindparam("now", type_=tables.Utc)
        )
    )
)
_SIGNING_KEY = sa.select(tables.signing_keys).where(
    tables.signing_keys.c.tenant == sa.bindparam("slug"), tables.signing_keys.c.kid == sa.bindparam("kid")
)
_ROOM = sa.select(tables.rooms).where(tables.rooms.c.id == sa.bindparam("id"))
_LINK = sa.select(tables.links).where(tables.links.c.id == sa.bindparam("id"))
_LINK_BY_SECRET = sa.select(tables.links).where(tables.links.c.secret_digest == sa.bindparam("digest"))
_SEAT_BY_RESUME = sa.select(tables.seats).where(
    tables.seats.c.resume_digest == sa.bindparam("digest"), tables.seats.c.resume_digest != ""
)
_EVENT = [column for column in tables.audit.c if column.name != "key"]
_SEATS = sa.select(tables.seats).where(tables.seats.c.room == sa.bindparam("room"))


async def _again_if_cut(query: Callable[[], Awaitable[T]]) -> T:
    """Run a query, a second time if its pooled connection had died in the meantime (a restart of the database)."""
    try:
        return await query()
    except exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
        return await query()


def _place(position: Position) -> sa.Tuple:
    return sa.tuple_(sa.literal(position.created_at, tables.Utc), sa.literal(position.id, sa.Text))


def _event_values(key: str, event: AuditEvent) -> dict[str, Any]:
    values = dataclasses.asdict(event)
    del values["seq"]
    return {"key": key, **values}


def _utc(moment: datetime) -> datetime:
    """Return the moment as it will be read back."""
    return moment.astimezone(UTC)


def _one(kind: type[T], rows: Sequence[sa.Row[Any]]) -> T | None:
    return kind(**_fields(rows[0]._mapping)) if rows else None


def _all(kind: type[T], rows: Sequence[sa.Row[Any]]) -> list[T]:
    return [kind(**_fields(row._mapping)) for row in rows]


def _fields(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in mapping.items()}
