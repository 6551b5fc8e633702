"""The tables, on SQLite and PostgreSQL alike, and how a database is opened. Only `store.py` queries them. [IO]

The audit trail is append-only by triggers in the database itself: an UPDATE or TRUNCATE is refused, and so is a DELETE
of anything younger than its tenant's retention. `Store.purge` deletes by the same rule, so it needs no back door.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from server.errors import ConfigError

SCHEMA_VERSION = 1
"""Raised by one with every change of the tables; a database with a higher one is not touched."""
DATABASE_ERRORS = (exc.SQLAlchemyError, OSError)
"""What comes out when a database does not do what it is asked."""


class Utc(sa.types.TypeDecorator[datetime]):
    """Aware datetimes in, UTC out; TIMESTAMPTZ on PostgreSQL, sortable text on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert on the way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its offset from UTC")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Convert on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Strings(sa.types.TypeDecorator[tuple[str, ...]]):
    """A tuple of strings as a JSON array."""

    impl = sa.JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: sa.Dialect) -> list[str]:
        """Convert on the way in."""
        return list(value or ())

    def process_result_value(self, value: Iterable[str] | None, dialect: sa.Dialect) -> tuple[str, ...]:
        """Convert on the way out."""
        return tuple(value or ())


metadata = sa.MetaData()


def _text(name: str, *args: Any, **kwargs: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, *args, nullable=False, **kwargs)


def _moment(name: str, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, Utc, nullable=nullable)


def _belongs_to(table: str) -> sa.ForeignKey:
    return sa.ForeignKey(table, ondelete="CASCADE")


schema = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, primary_key=True, autoincrement=False))
tenants = sa.Table(
    "tenants",
    metadata,
    _text("slug", primary_key=True),
    _text("name"),
    _text("language"),
    _text("colour"),
    sa.Column("origins", Strings, nullable=False),
    _text("topology"),
    sa.Column("retention_days", sa.Integer, nullable=False),
    _text("logo_digest"),
)
logos = sa.Table(
    "logos",
    metadata,
    _text("tenant", _belongs_to("tenants.slug"), primary_key=True),
    sa.Column("png", sa.LargeBinary, nullable=False),
)
api_keys = sa.Table(
    "api_keys",
    metadata,
    _text("id", primary_key=True),
    _text("tenant", _belongs_to("tenants.slug"), index=True),
    _text("label"),
    _text("digest", unique=True),
    _moment("created_at"),
    _moment("expires_at", nullable=True),
)
signing_keys = sa.Table(
    "signing_keys",
    metadata,
    _text("tenant", _belongs_to("tenants.slug"), primary_key=True),
    _text("kid", primary_key=True),
    _text("algorithm"),
    _text("public_pem"),
    _moment("created_at"),
)
rooms = sa.Table(
    "rooms",
    metadata,
    _text("id", primary_key=True),
    _text("tenant", _belongs_to("tenants.slug")),
    _text("reference"),
    _text("topology"),
    _moment("created_at"),
    _moment("ended_at", nullable=True),
    _text("end_reason"),
)
sa.Index("rooms_by_age", rooms.c.tenant, rooms.c.created_at, rooms.c.id)
sa.Index("rooms_by_end", rooms.c.tenant, rooms.c.ended_at)
sa.Index(
    "rooms_by_reference",
    rooms.c.tenant,
    rooms.c.reference,
    unique=True,
    sqlite_where=rooms.c.reference != "",
    postgresql_where=rooms.c.reference != "",
)
links = sa.Table(
    "links",
    metadata,
    _text("id", primary_key=True),
    _text("room", _belongs_to("rooms.id"), index=True),
    _text("tenant"),
    _text("role"),
    _text("name"),
    _text("secret_digest", unique=True),
    _moment("not_before", nullable=True),
    _moment("expires_at", nullable=True),
    sa.Column("single_use", sa.Boolean, nullable=False),
    _moment("created_at"),
    _moment("revoked_at", nullable=True),
)
seats = sa.Table(
    "seats",
    metadata,
    _text("id", primary_key=True),
    _text("room", _belongs_to("rooms.id"), index=True),
    _text("origin"),
    _text("role"),
    _text("name"),
    _text("resume_digest"),
    sa.Column("admitted", sa.Boolean, nullable=False),
    _text("closed"),
    _moment("created_at"),
)
sa.Index(
    "seats_by_resume",
    seats.c.resume_digest,
    unique=True,
    sqlite_where=seats.c.resume_digest != "",
    postgresql_where=seats.c.resume_digest != "",
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("key", unique=True),
    _moment("at"),
    _text("tenant"),
    _text("room"),
    _text("kind"),
    _text("actor"),
    _text("subject"),
    _text("detail"),
    sqlite_autoincrement=True,
)
sa.Index("audit_by_room", audit.c.room, audit.c.seq)
sa.Index("audit_by_age", audit.c.tenant, audit.c.at)

# Append-only. The hour is for clocks that differ: `purge` goes by the server's, the trigger by the database's.
_GUARDS = {
    "sqlite": (
        """CREATE TRIGGER audit_update BEFORE UPDATE ON audit
           BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
        """CREATE TRIGGER audit_delete BEFORE DELETE ON audit
           WHEN OLD.at > datetime('now', '+1 hour', '-' || coalesce(
             (SELECT retention_days FROM tenants WHERE slug = OLD.tenant), 0) || ' days')
           BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END""",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION audit_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF TG_OP = 'DELETE' AND OLD.at <= now() + interval '1 hour' - make_interval(days => coalesce(
               (SELECT retention_days FROM tenants WHERE slug = OLD.tenant), 0)) THEN RETURN OLD; END IF;
             RAISE EXCEPTION 'the audit trail is append-only';
           END $$""",
        """CREATE TRIGGER audit_change BEFORE UPDATE OR DELETE ON audit
           FOR EACH ROW EXECUTE FUNCTION audit_guard()""",
        """CREATE TRIGGER audit_truncate BEFORE TRUNCATE ON audit
           FOR EACH STATEMENT EXECUTE FUNCTION audit_guard()""",
    ),
}
for _dialect, _statements in _GUARDS.items():
    for _statement in _statements:
        sa.event.listen(audit, "after_create", sa.DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]


def open_engine(url: str) -> AsyncEngine:
    """Return the engine of a database URL. PostgreSQL is not connected to yet.

    Raises:
        ConfigError: A URL of neither SQLite nor PostgreSQL.
        sqlite3.Error: A file that cannot be opened, or that is something else.
    """
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError:
        parsed = None
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    if parsed is not None:
        parsed = parsed.set(drivername=drivers.get(parsed.drivername, parsed.drivername))
    if parsed is None or parsed.drivername not in drivers.values():
        raise ConfigError(
            "`store.url` is sqlite+aiosqlite:///path/to/file or postgresql+asyncpg://user:password@host/database"
        )
    if parsed.drivername == "sqlite+aiosqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            "`store.url`: SQLite needs a file here, a database in memory cannot be read while it is written"
        )
    engine = create_async_engine(parsed, hide_parameters=True)  # an error message quotes no name and no digest
    if engine.dialect.name == "sqlite":
        # Tried here first, because aiosqlite leaves a thread behind when it cannot open a file.
        with contextlib.closing(sqlite3.connect(str(parsed.database))) as connection:
            _set_up_sqlite(connection, None)
        sa.event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    """Readers beside the writer (WAL), commits that survive a power cut, whole references, patience with the CLI."""
    cursor = connection.cursor()
    for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def is_about_the_row(error: BaseException) -> bool:
    """Tell a row that will never go in from a database that is not there."""
    if isinstance(error, exc.DBAPIError):
        return isinstance(error, exc.IntegrityError | exc.DataError)
    return isinstance(error, exc.StatementError)  # a value that could not even be converted
