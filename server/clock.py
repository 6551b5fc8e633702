"""The only place that reads a clock. [IO]

Machines take `now` as an argument; drivers get it here.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> float:
    """Return monotonic seconds: for timers and durations, meaningless across processes."""
    return time.monotonic()


def wall_now() -> datetime:
    """Return the time of day in UTC: for audit, expiry and everything a person reads."""
    return datetime.now(UTC)
