"""How much processor time something takes, held to a bound on a machine that does other things too."""

from __future__ import annotations

import time
from collections.abc import Callable

TRIES = 5


def assert_costs_less(seconds: float, action: Callable[[], object]) -> None:
    """Fail if it takes this thread as much each time: what a collection of garbage, a cold cache or a neighbour on the
    same core adds once is not its own.

    Args:
        seconds: Of this thread's processor time.
        action: What is done, once if that is quick enough, and at most `TRIES` times.
    """
    least = float("inf")
    for _ in range(TRIES):
        started = time.thread_time()
        action()
        least = min(least, time.thread_time() - started)
        if least < seconds:
            return
    raise AssertionError(f"{least:.3f} s of processor time at best, not below {seconds}")
