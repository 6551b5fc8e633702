"""The server, which says on demand what it holds.

    python -m tests.accounted serve ...     SIGUSR1: a line `account N {...}` on standard output, N counting the signals

Everything that a participant takes and must give back, as JSON: see `account`.
"""

import asyncio
import gc
import itertools
import json
import os
import signal
import sys
import threading
from types import FrameType

import psutil

from server.__main__ import main
from server.media.worker import MediaWorker

_numbers = itertools.count(1)


def account() -> dict[str, int]:
    """Count descriptors, threads, tasks, slots of the relay, objects, and KiB of memory."""
    gc.collect()
    objects = gc.get_objects()
    workers = [each for each in objects if isinstance(each, MediaWorker)]
    relays = [worker.relay for worker in workers]
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "system_threads": len(os.listdir("/proc/self/task")),
        "tasks": sum(len(asyncio.all_tasks(worker._asyncio)) for worker in workers),
        "transports": sum(int(relay.transports_view["used"].sum()) for relay in relays),
        "sources": sum(int(relay.sources_view["used"].sum()) for relay in relays),
        "forwards": sum(int(relay.forwards_view["used"].sum()) for relay in relays),
        "objects": len(objects),
        "memory_kib": psutil.Process().memory_info().rss // 1024,
    }


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    print(f"account {next(_numbers)} {json.dumps(account())}", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _on_signal)
    sys.exit(main(sys.argv[1:]))
