"""The store, every behaviour on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import create_async_engine

from server import tables, writebehind
from server.errors import ConfigError, RefusalError
from server.records import AuditEvent, Position, RoomRecord, SeatRecord, SigningKey, Tenant
from server.store import Store
from tests.postgres import Cluster, postgres

__all__ = ["postgres"]

NOON = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)
DEMO = Tenant("demo", "Clinique de démonstration", origins=("https://rdv.example.fr", "http://localhost:9000"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url)
    await store.create_tenant(DEMO)
    yield store
    await store.close()


@pytest.fixture
async def room(store: Store) -> RoomRecord:
    return await store.create_room("demo", at=NOON)


def seat_in(room: RoomRecord, number: int = 1, **changes: Any) -> SeatRecord:
    seat = SeatRecord(f"seat{number}", room.id, "link1", "patient", "Ann", f"digest{number}", False, "", NOON)
    return dataclasses.replace(seat, **changes)


def event_in(room: RoomRecord, subject: str = "", at: datetime = NOON) -> AuditEvent:
    return AuditEvent(at, room.tenant, room.id, "participant.arrived", "server", subject, "")


async def sql(url: str, statement: str) -> None:
    """Run one statement as another program would."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()


# -- opening ----------------------------------------------------------------------------------------------------------


async def test_everything_outlives_a_restart(url: str):
    first = await Store.open(url)
    await first.create_tenant(DEMO)
    room = await first.create_room("demo", "rdv-1", "relay-only", NOON)
    link, secret = await first.mint_link(room, "patient", "Ann", NOON, NOON + timedelta(hours=1), False, NOON)
    first.save_seat(seat_in(room))
    first.append(event_in(room))
    await first.close()
    second = await Store.open(url)
    try:
        assert await second.tenant("demo") == DEMO
        assert await second.room(room.id) == room
        assert await second.link_by_secret(secret) == link
        assert await second.seats(room.id) == [seat_in(room)]
        assert await second.audit(room.id) == [dataclasses.replace(event_in(room), seq=1)]
        assert await second.ready()
    finally:
        await second.close()


async def test_a_newer_database_is_left_alone(url: str, store: Store):
    await sql(url, f"UPDATE schema_version SET version = {tables.SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigError, match="newer Colloque"):
        await Store.open(url)


async def test_two_programs_may_create_the_database_at_once(url: str):
    stores = await asyncio.gather(*[Store.open(url) for _ in range(4)])
    await stores[0].create_tenant(DEMO)
    assert [await store.tenants() for store in stores] == [[DEMO]] * 4
    for store in stores:
        await store.close()


@pytest.mark.parametrize("bad", ["", "mysql://x/y", "not a url", "sqlite+aiosqlite://", "sqlite:///:memory:"])
async def test_an_unusable_url_is_refused(bad: str):
    with pytest.raises(ConfigError, match=r"store\.url"):
        await Store.open(bad)


async def test_a_database_that_cannot_be_opened_is_a_setting_to_correct(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be opened"):
        await Store.open(f"sqlite:///{tmp_path / 'missing' / 'file.db'}")
    (tmp_path / "poem.txt").write_text("Il pleure dans mon coeur comme il pleut sur la ville. " * 100)
    with pytest.raises(ConfigError, match="not a database"):
        await Store.open(f"sqlite:///{tmp_path / 'poem.txt'}")
    with pytest.raises(ConfigError, match="cannot be opened") as caught:
        await Store.open(f"postgresql://somebody:canary-password@/nothing?host={tmp_path}")
    assert "canary-password" not in str(caught.value)


async def test_sqlite_lets_others_read_while_it_writes(tmp_path: Path):
    store = await Store.open(f"sqlite:///{tmp_path / 'test.db'}")
    await store.close()
    with sqlite3.connect(tmp_path / "test.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# -- tenants and keys -------------------------------------------------------------------------------------------------


async def test_tenants(store: Store):
    with pytest.raises(RefusalError, match="tenant_exists"):
        await store.create_tenant(DEMO)
    other = await store.create_tenant(Tenant("autre", "Autre", "en", "#102030", (), "direct-only", 7))
    assert await store.tenants() == [other, DEMO]
    changed = dataclasses.replace(DEMO, name="Nouveau nom", origins=(), language="en", logo_digest="ignored")
    assert await store.update_tenant(changed) == dataclasses.replace(changed, logo_digest="")
    assert await store.tenant("autre") == other
    assert await store.tenant("absent") is None
    assert await store.update_tenant(Tenant("absent", "Absent")) is None


async def test_a_logo_is_kept_under_the_mark_of_its_content(store: Store):
    one = await store.set_logo("demo", b"png one")
    two = await store.set_logo("demo", b"png two")
    assert one and two and one.logo_digest and two.logo_digest and one.logo_digest != two.logo_digest
    assert await store.logo("demo") == b"png two"
    updated = await store.update_tenant(DEMO)
    assert updated and updated.logo_digest == two.logo_digest
    assert await store.set_logo("demo", None) == DEMO
    assert await store.logo("demo") is None
    assert await store.set_logo("absent", b"png") is None


async def test_an_api_key_opens_its_own_tenant_until_revoked_or_expired(store: Store, url: str):
    await store.create_tenant(Tenant("autre", "Autre"))
    identity, key = await store.add_api_key("demo", "agenda")
    _, other_key = await store.add_api_key("autre", "agenda")
    _, old_key = await store.add_api_key("demo", "ancienne", expires_at=NOON - timedelta(days=400))
    assert await store.tenant_by_api_key(key) == DEMO
    assert await store.tenant_by_api_key(old_key) is None
    assert await store.tenant_by_api_key(key[:-1]) is None
    assert [record.label for record in await store.api_keys("demo")] == ["agenda", "ancienne"]
    assert not await store.revoke_api_key("autre", identity)
    assert await store.revoke_api_key("demo", identity)
    assert await store.tenant_by_api_key(key) is None
    assert await store.tenant_by_api_key(other_key) is not None
    with pytest.raises(RefusalError, match="tenant_unknown"):
        await store.add_api_key("absent", "")


async def test_signing_keys(store: Store):
    key = SigningKey("demo", "2026", "EdDSA", "-----BEGIN PUBLIC KEY-----", NOON)
    await store.add_signing_key(key)
    with pytest.raises(RefusalError, match="kid_taken"):
        await store.add_signing_key(key)
    with pytest.raises(RefusalError, match="tenant_unknown"):
        await store.add_signing_key(dataclasses.replace(key, tenant="absent"))
    assert await store.signing_key("demo", "2026") == key
    assert await store.signing_key("autre", "2026") is None
    assert await store.signing_keys("demo") == [key]
    assert not await store.delete_signing_key("autre", "2026")
    assert await store.delete_signing_key("demo", "2026")
    assert await store.signing_keys("demo") == []


# -- rooms and links --------------------------------------------------------------------------------------------------


async def test_a_reference_is_unique_within_its_tenant(store: Store):
    await store.create_tenant(Tenant("autre", "Autre"))
    room = await store.create_room("demo", "rdv-1")
    with pytest.raises(RefusalError, match="reference_taken"):
        await store.create_room("demo", "rdv-1")
    assert (await store.create_room("autre", "rdv-1")).id != room.id
    assert {(await store.create_room("demo")).reference for _ in range(2)} == {""}
    assert await store.room_by_reference("demo", "rdv-1") == room
    assert await store.room_by_reference("demo", "") is None
    with pytest.raises(RefusalError, match="tenant_unknown"):
        await store.create_room("absent")


async def test_a_room_takes_the_topology_of_its_tenant(store: Store):
    await store.create_tenant(Tenant("relais", "Relais", topology="relay-only"))
    assert (await store.create_room("relais")).topology == "relay-only"
    assert (await store.create_room("relais", topology="auto")).topology == "auto"


async def test_rooms_come_in_pages_newest_first(store: Store):
    # Two share a time, so that the id has to decide.
    times = [NOON + timedelta(minutes=minute) for minute in (0, 1, 1, 2, 3)]
    made = [await store.create_room("demo", at=at) for at in times]
    await store.end_room(made[0].id, "host", NOON)
    seen: list[RoomRecord] = []
    after = None
    while page := await store.rooms("demo", after=after, limit=2):
        seen += page
        after = Position(page[-1].created_at, page[-1].id)
    assert [room.created_at for room in seen] == sorted(times, reverse=True)
    assert {room.id for room in seen} == {room.id for room in made}
    assert {room.id for room in await store.rooms("demo", "open")} == {room.id for room in made[1:]}
    assert [room.id for room in await store.rooms("demo", "ended")] == [made[0].id]
    assert await store.rooms("autre") == []
    referred = await store.create_room("demo", "rdv")
    assert await store.rooms("demo", reference="rdv") == [referred]


async def test_a_room_ends_once(store: Store, room: RoomRecord):
    ended = await store.end_room(room.id, "clinician", NOON)
    assert ended == dataclasses.replace(room, ended_at=NOON, end_reason="clinician")
    assert await store.end_room(room.id, "host", NOON + timedelta(hours=1)) == ended
    assert await store.end_room("absent", "host") is None


async def test_links(store: Store, room: RoomRecord):
    link, secret = await store.mint_link(room, "clinician", "Dr Martin")
    other, other_secret = await store.mint_link(room, "guest", single_use=False)
    assert len(secret) == 22
    assert secret not in repr(link)
    assert await store.link_by_secret(secret) == link
    assert await store.link_by_secret(other_secret) == other
    assert await store.link_by_secret(link.secret_digest) is None
    assert await store.links(room.id) == [link, other]
    assert await store.links(room.id, limit=1) == [link]
    assert await store.links(room.id, Position(link.created_at, link.id), 5) == [other]
    revoked = await store.revoke_link(link.id, NOON)
    assert revoked == dataclasses.replace(link, revoked_at=NOON)
    assert await store.revoke_link(link.id, NOON + timedelta(hours=1)) == revoked
    assert await store.link(link.id) == revoked
    assert await store.revoke_link("absent") is None


async def test_times_come_back_in_utc_whatever_the_offset(store: Store, room: RoomRecord):
    local = datetime(2026, 7, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    link, secret = await store.mint_link(room, "patient", expires_at=local)
    found = await store.link_by_secret(secret)
    assert found == link
    assert found.expires_at == local
    assert found.expires_at is not None and found.expires_at.utcoffset() == timedelta(0)


# -- the queue --------------------------------------------------------------------------------------------------------


async def test_what_is_queued_is_seen_at_once_and_written_once(store: Store, url: str, room: RoomRecord):
    for state in (False, True):
        store.save_seat(seat_in(room, 1, admitted=state))
    store.save_seat(seat_in(room, 2))
    assert await store.seats(room.id) == [seat_in(room, 1, admitted=True), seat_in(room, 2)]
    await store.flush()
    assert (store.statistics.queued, store.statistics.written) == (0, 2)
    store.save_seat(seat_in(room, 1, closed="removed", resume_digest=""))
    await store.flush()
    second = await Store.open(url)
    assert await second.seats(room.id) == [seat_in(room, 1, closed="removed", resume_digest=""), seat_in(room, 2)]
    await second.close()


async def test_a_seat_is_found_by_its_current_resume_secret_only(store: Store, room: RoomRecord):
    store.save_seat(seat_in(room, resume_digest="first"))
    assert await store.seat_by_resume("first") == seat_in(room, resume_digest="first")
    await store.flush()
    assert await store.seat_by_resume("first") == seat_in(room, resume_digest="first")
    store.save_seat(seat_in(room, resume_digest="second"))
    assert await store.seat_by_resume("first") is None
    assert await store.seat_by_resume("second") is not None
    store.save_seat(seat_in(room, resume_digest="", closed="removed"))
    for _ in range(2):
        assert await store.seat_by_resume("second") is None
        assert await store.seat_by_resume("") is None
        await store.flush()


async def test_the_trail_keeps_its_order_across_batches(
    store: Store, room: RoomRecord, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writebehind, "_BATCH", 7)
    for number in range(50):
        store.append(event_in(room, str(number)))
    trail = await store.audit(room.id)
    assert [event.subject for event in trail] == [str(number) for number in range(50)]
    assert [event.seq for event in trail] == sorted(event.seq for event in trail)
    assert await store.audit(room.id, after=trail[9].seq, limit=2) == trail[10:12]


@pytest.fixture
def committed(store: Store, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set at every commit of the queue."""
    commit, event = store._queue._commit, asyncio.Event()

    async def observed(*batch: Any) -> None:
        await commit(*batch)
        event.set()

    monkeypatch.setattr(store._queue, "_commit", observed)
    return event


async def test_the_queue_is_written_within_50_ms_without_anybody_asking(
    store: Store, room: RoomRecord, committed: asyncio.Event
):
    loop = asyncio.get_running_loop()
    taken = []
    for number in range(5):
        committed.clear()
        started = loop.time()
        store.append(event_in(room, str(number)))
        await asyncio.wait_for(committed.wait(), 10)
        taken.append(loop.time() - started)
    assert sorted(taken)[2] < 0.05  # the median: another program may hold the processor once


async def test_a_database_in_trouble_delays_and_loses_nothing(
    store: Store, url: str, room: RoomRecord, committed: asyncio.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writebehind, "_STUCK_S", 0.0)
    await sql(url, "ALTER TABLE audit RENAME TO elsewhere")
    store.append(event_in(room))
    store.save_seat(seat_in(room))
    with pytest.raises(exc.DBAPIError):
        await store.flush()
    assert store.statistics.failures >= 1
    assert store.statistics.queued == 2
    assert not await store.ready()
    await sql(url, "ALTER TABLE elsewhere RENAME TO audit")
    await asyncio.wait_for(committed.wait(), 10)  # the writer tries again by itself
    await store.flush()
    assert store.statistics.written == 2
    assert await store.ready()
    assert [event.kind for event in await store.audit(room.id)] == ["participant.arrived"]
    assert store.statistics.lost == store.statistics.rejected == 0


async def test_a_commit_whose_answer_was_lost_writes_nothing_twice(
    store: Store, room: RoomRecord, monkeypatch: pytest.MonkeyPatch
):
    commit = store._queue._commit

    async def cut(*batch: Any) -> None:
        await commit(*batch)
        monkeypatch.undo()
        raise ConnectionResetError

    monkeypatch.setattr(store._queue, "_commit", cut)
    store.append(event_in(room, "one"))
    with pytest.raises(ConnectionResetError):
        await store.flush()
    store.append(event_in(room, "two"))
    assert [event.subject for event in await store.audit(room.id)] == ["one", "two"]
    assert store.statistics.rejected == 0


async def test_a_restart_of_postgresql_is_survived(postgres: Cluster):
    store = await Store.open(postgres.database())
    await store.create_tenant(DEMO)
    room = await store.create_room("demo")
    postgres.stop()
    store.save_seat(seat_in(room))
    with pytest.raises((exc.SQLAlchemyError, OSError)):
        await store.flush()
    assert not await store.ready()
    postgres.start()
    await store.flush()
    assert await store.seats(room.id) == [seat_in(room)]
    await store.close()


async def test_a_connection_that_died_in_the_pool_is_not_noticed(postgres: Cluster):
    store = await Store.open(postgres.database())
    await store.create_tenant(DEMO)
    postgres.stop()
    postgres.start()
    assert await store.tenant("demo") == DEMO
    await store.close()


async def test_a_row_that_never_fits_holds_up_no_other(store: Store, room: RoomRecord):
    store.append(event_in(room, "before"))
    store.append(event_in(room, "without an offset", NOON.replace(tzinfo=None)))
    store.append(event_in(room, "after"))
    store.save_seat(dataclasses.replace(seat_in(room, 1), room="absent"))
    store.save_seat(seat_in(room, 2))
    await store.flush()
    assert [event.subject for event in await store.audit(room.id)] == ["before", "after"]
    assert await store.seats(room.id) == [seat_in(room, 2)]
    assert (store.statistics.rejected, store.statistics.queued) == (2, 0)


async def test_the_queue_is_bounded(store: Store, room: RoomRecord, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writebehind, "MAX_QUEUED", 3)
    for number in range(5):
        store.append(event_in(room, str(number)))
        store.save_seat(seat_in(room, number))
        store.save_seat(seat_in(room, 0, admitted=True))  # a seat that is queued may always change
    assert store.statistics.lost == 4
    assert [event.subject for event in await store.audit(room.id)] == ["0", "1", "2"]
    assert [seat.id for seat in await store.seats(room.id)] == ["seat0", "seat1", "seat2"]


async def test_closing_without_a_database_counts_what_is_lost(
    store: Store, url: str, room: RoomRecord, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writebehind, "_CLOSE_S", 0.1)
    await sql(url, "ALTER TABLE audit RENAME TO elsewhere")
    store.append(event_in(room))
    await store.close()
    assert store.statistics.lost == 1


# -- the trail and its end --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["UPDATE audit SET detail = 'x'", "DELETE FROM audit"])
async def test_the_trail_cannot_be_changed(store: Store, url: str, room: RoomRecord, statement: str):
    store.append(event_in(room, at=datetime.now(UTC)))
    before = await store.audit(room.id)
    with pytest.raises(exc.DBAPIError, match="append-only"):
        await sql(url, statement)
    assert await store.audit(room.id) == before


async def test_postgresql_cannot_truncate_the_trail(postgres: Cluster):
    url = postgres.database()
    await (await Store.open(url)).close()
    with pytest.raises(exc.DBAPIError, match="append-only"):
        await sql(url, "TRUNCATE audit")


async def test_old_lines_cannot_be_changed_either(store: Store, url: str, room: RoomRecord):
    store.append(event_in(room, at=datetime.now(UTC) - timedelta(days=400)))
    await store.flush()
    with pytest.raises(exc.DBAPIError, match="append-only"):
        await sql(url, "UPDATE audit SET detail = 'x'")


async def test_purge_goes_by_each_tenants_retention(store: Store, url: str):
    today = datetime.now(UTC)
    await store.create_tenant(Tenant("long", "Long", retention_days=365))

    async def past(slug: str, days: int, end: bool = True) -> RoomRecord:
        at = today - timedelta(days=days)
        room = await store.create_room(slug, at=at)
        await store.mint_link(room, "patient", "Ann", at=at)
        store.save_seat(seat_in(room, id=f"{slug}{days}", resume_digest=""))
        store.append(event_in(room, at=at))
        if end:
            await store.end_room(room.id, "host", at)
        return room

    old, recent, open_one, kept = (
        await past("demo", 31),
        await past("demo", 29),
        await past("demo", 300, end=False),
        await past("long", 300),
    )
    store.append(event_in(old, "late", at=today))  # revoked after the end, say: not old enough to go
    await store.add_api_key("demo", "expired", expires_at=today - timedelta(seconds=1))
    await store.flush()
    assert await store.purge(today) == 1
    assert await store.room(old.id) is None
    assert await store.links(old.id) == []
    assert await store.seats(old.id) == []
    assert [event.subject for event in await store.audit(old.id)] == ["late"]
    for room in (recent, open_one, kept):
        assert await store.room(room.id) is not None
        assert (
            len(await store.links(room.id)) == len(await store.seats(room.id)) == len(await store.audit(room.id)) == 1
        )
    assert await store.api_keys("demo") == []
    assert await store.purge(today) == 0


async def test_a_clock_in_the_future_cannot_purge_the_trail(store: Store, room: RoomRecord):
    store.append(event_in(room, at=datetime.now(UTC)))
    await store.flush()
    await store.end_room(room.id, "host", NOON)
    with pytest.raises(exc.DBAPIError, match="append-only"):
        await store.purge(datetime.now(UTC) + timedelta(days=4000))
    assert await store.room(room.id) is not None


async def test_no_secret_is_in_the_database(tmp_path: Path):
    path = tmp_path / "test.db"
    store = await Store.open(f"sqlite:///{path}")
    await store.create_tenant(DEMO)
    _, key = await store.add_api_key("demo", "agenda")
    _, secret = await store.mint_link(await store.create_room("demo"), "patient")
    await store.close()
    content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"Clinique" in content
    assert key.encode() not in content
    assert secret.encode() not in content
