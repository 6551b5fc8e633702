"""Private values, hidden by type.

A name, token, address or SDP is wrapped in `Private` where it enters, so that a log line, a traceback or an `f"{value}"`
shows `***`. Only `reveal()` gives it back, which is easy to search for. `tests/test_privacy.py` proves it on a whole call.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


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
