"""Private values, hidden by type; errors, told without what they quote.

A name, token, address or SDP is wrapped in `Private` where it enters, so that a log line, a traceback or an
`f"{value}"` shows `***`. Only `reveal()` gives it back, which is easy to search for. `tests/test_privacy.py` proves it
on a whole call.

The message of an exception often quotes the value that caused it (a database error its parameters, a parser the bytes
it choked on), so a log gets `describe(error)` instead: types and places, which is what finds the bug.
"""

from __future__ import annotations

import traceback
from typing import Generic, TypeVar

T = TypeVar("T")

_MAX_FRAMES = 12
"""The innermost frames tell where; the outermost are always the same event loop."""


class Private(Generic[T]):
    """Hold a value that must not be printed."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value, for sending it where it belongs."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Private) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


def describe(error: BaseException) -> dict[str, object]:
    """Return what a log may say of an exception: its type, those that caused it, and where it was raised.

    Never its message, its arguments or a local variable.
    """
    types: list[str] = []
    places: list[str] = []
    link: BaseException | None = error
    while link is not None and len(types) < _MAX_FRAMES:
        types.append(type(link).__qualname__)
        places += [
            f"{frame.f_code.co_filename.rpartition('/site-packages/')[2]}:{line} {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(link.__traceback__)
        ][-_MAX_FRAMES:]
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return {"error": " < ".join(types), "at": places}
