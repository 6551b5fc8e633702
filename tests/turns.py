"""Who runs when several workers run tests: a test marked `alone` has the machine to itself, the others share it.

Two files are locked. Everybody passes the gate; one that wants to be alone holds it until the others are done, so that
nobody new gets in before.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn(place: Path, *, alone: bool) -> Iterator[None]:
    """Wait for this test's turn, and hold it.

    Args:
        place: A directory for the locks, the same for all workers.
        alone: Whether nothing else may run meanwhile.
    """
    with open(place / "gate", "w") as gate, open(place / "floor", "w") as floor:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(floor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
