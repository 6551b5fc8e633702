"""Private values, hidden by type; errors, told without what they quote.

A name, token, address or SDP is wrapped in `Private` where it enters, so that a log line, a traceback or an
`f"{value}"` shows `***`. Only `reveal()` gives it back, which is easy to search for. `tests/test_privacy.py` proves it
on a whole call.

The message of an exception often quotes the value that caused it (a database error its parameters, a parser the bytes
it choked on), so a log gets `describe(error)` instead: types and places, which is what finds the bug.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_ROOT = Path(__file__).resolve().parent.parent
_MAX_CAUSES = 5
_MAX_PLACES = 8


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


def describe(error: BaseException) -> dict[str, Any]:
    """Return what a log may say of an exception: its type, those that caused it, and where it came through our code.

    Never its message, its arguments or a local variable.
    """
    types: list[str] = []
    link: BaseException | None = error
    while link is not None and len(types) < _MAX_CAUSES:
        types.append(type(link).__qualname__)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = [f"{file.relative_to(_ROOT)}:{line}" for file, line in frames if file.is_relative_to(_ROOT / "server")]
    deepest = [f"{file.parent.name}/{file.name}:{line}" for file, line in frames[-1:] if _ROOT not in file.parents]
    return {"error": " < ".join(types), "at": ours[-_MAX_PLACES:] + deepest}
