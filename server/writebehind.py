"""The queue of facts between a room, which waits for nobody, and the database. Driven by `store.py`. [IO]

    save, append ──> queue (bounded) ──> gather 20 ms ──> one transaction ──> committed
                       ^                                        │ database error: counted, logged, tried again
                       └────────────────────────────────────────┘ with growing pauses, nothing leaves the queue

* An event is written exactly once: it gets its key when it is queued, so that a commit whose answer was lost with the
  connection can be repeated.
* A row that the database refuses for good is logged, counted as rejected and dropped, so that it holds up no other.
* A full queue drops what is new, counted as lost and logged: the consultation matters more than its trace. Long before
  that, `stuck` takes the server out of service.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import structlog

from server.clock import now
from server.ids import new_id, shorten
from server.records import AuditEvent, SeatRecord
from server.redact import describe
from server.tables import DATABASE_ERRORS, is_about_the_row

GATHER_S = 0.02
"""With the commit itself, a fact is on disk within 50 ms."""
MAX_QUEUED = 100_000
"""Seats, and as many events, at about 0.5 KiB each: an hour of a busy server without a database."""
_BATCH = 1_000
_RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts, the last one repeated."""
_STUCK_S = 5.0
_CLOSE_S = 5.0
"""How long `close` tries to get rid of the queue."""

KeyedEvent = tuple[str, AuditEvent]
Commit = Callable[[Sequence[SeatRecord], Sequence[KeyedEvent]], Awaitable[None]]

_log = structlog.get_logger()


@dataclass
class Statistics:
    """What became of queued facts, for the metrics. `queued` is how many wait now; the others only grow."""

    queued: int = 0
    written: int = 0
    failures: int = 0
    """Attempts that the database answered with an error; nothing is lost by one."""
    rejected: int = 0
    """Rows that the database refuses for good."""
    lost: int = 0
    """Dropped because the queue was full, or because the database did not come back before the end."""


class WriteBehind:
    """The queue and the task that empties it.

    Args:
        commit: Writes seats and events in one transaction; events in order, ones already written left out.
    """

    def __init__(self, commit: Commit) -> None:
        self.statistics = Statistics()
        self._commit = commit
        self._seats: dict[str, SeatRecord] = {}
        self._events: deque[KeyedEvent] = deque()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failing_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that writes."""
        self._task = asyncio.create_task(self._run(), name="store-writer")

    async def close(self) -> None:
        """Write what is left. What cannot be written within 5 s is counted as lost and logged."""
        if self._task is not None:
            async with self._writing:  # not in the middle of a commit
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for pause in _RETRY_S:
                    if await self._try_to_flush():
                        break
                    await asyncio.sleep(pause)
        if left := len(self._seats) + len(self._events):
            self.statistics.lost += left
            _log.error("store.lost_at_close", facts=left)
            self._seats.clear()
            self._events.clear()

    @property
    def seats(self) -> Collection[SeatRecord]:
        """The seats that wait, in their newest state."""
        return self._seats.values()

    def holds_seat(self, seat_id: str) -> bool:
        """Say whether a newer state of this seat waits than the database has."""
        return seat_id in self._seats

    @property
    def stuck(self) -> bool:
        """Whether nothing could be written for 5 s."""
        return self._failing_since is not None and now() - self._failing_since > _STUCK_S

    def save(self, seat: SeatRecord) -> None:
        """Queue a seat; the newest state of one seat replaces the queued one."""
        if seat.id not in self._seats and len(self._seats) >= MAX_QUEUED:
            self._lose("seat", seat.id)
            return
        self._seats[seat.id] = seat
        self._changed()

    def append(self, event: AuditEvent) -> None:
        """Queue an event; the order of calls is the order of the trail."""
        if len(self._events) >= MAX_QUEUED:
            self._lose(event.kind, event.room)
            return
        self._events.append((new_id(), event))
        self._changed()

    async def flush(self) -> None:
        """Write what has been queued so far.

        Raises:
            DATABASE_ERRORS: What was not written stays in the queue.
        """
        left = len(self._seats) + len(self._events)
        while left > 0 and (self._seats or self._events):
            left -= await self._write_batch()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            if await self._try_to_flush():
                failures = 0
                continue
            await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1
            self._wake.set()

    async def _try_to_flush(self) -> bool:
        try:
            await self.flush()
        except DATABASE_ERRORS as error:
            _log.warning("store.not_written", queued=self.statistics.queued, **describe(error))
            return False
        return True

    async def _write_batch(self) -> int:
        """Commit what is queued, at most `_BATCH` seats and events, and return how many of them were written."""
        async with self._writing:
            seats = list(self._seats.values())[:_BATCH]
            events = [self._events[place] for place in range(min(_BATCH, len(self._events)))]
            if not seats and not events:
                return 0
            try:
                await self._commit_what_fits(seats, events)
            except DATABASE_ERRORS:
                self.statistics.failures += 1
                self._failing_since = self._failing_since or now()
                raise
            self._failing_since = None
            for seat in seats:
                if self._seats.get(seat.id) is seat:  # not changed again meanwhile
                    del self._seats[seat.id]
            for _ in events:
                self._events.popleft()
            self.statistics.written += len(seats) + len(events)
            self.statistics.queued = len(self._seats) + len(self._events)
            return len(seats) + len(events)

    async def _commit_what_fits(self, seats: Sequence[SeatRecord], events: Sequence[KeyedEvent]) -> None:
        """Commit together or, when a row does not fit, one by one to find which."""
        try:
            await self._commit(seats, events)
        except DATABASE_ERRORS as error:
            if not is_about_the_row(error):
                raise
            if len(seats) + len(events) == 1:
                self.statistics.rejected += 1
                self.statistics.written -= 1
                _log.error("store.rejected", what=events[0][1].kind if events else "seat", **describe(error))
                return
            for seat in seats:
                await self._commit_what_fits([seat], [])
            for event in events:
                await self._commit_what_fits([], [event])

    def _changed(self) -> None:
        self.statistics.queued = len(self._seats) + len(self._events)
        self._wake.set()

    def _lose(self, what: str, identity: str) -> None:
        self.statistics.lost += 1
        _log.error("store.queue_full", lost=what, id=shorten(identity))
