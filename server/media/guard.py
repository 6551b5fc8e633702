"""One thing that goes wrong does not take the others with it.

Used by: sfu.py and clockwork.py, around what is done for one peer, one stream or one room of many. Sans-IO.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class Guard:
    """A context that ends an exception, counts it and tells of it. Only defects of ours come here."""

    def __init__(self) -> None:
        self.failures = 0
        self.tell: Callable[[Exception], None] = lambda error: None
        """Called with each; the driver's log."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failures += 1
        self.tell(error)
        return True
