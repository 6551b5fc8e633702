"""Numbers that wrap on the wire, and the integers that they stand for.

`seq` is 16 bits, as on the wire; `ext_seq` is unwrapped and only grows (RFC 3550 appendix A.1). The same arithmetic
serves 32-bit timestamps.
"""

from __future__ import annotations


def difference(a: int, b: int, bits: int = 16) -> int:
    """Return how far `a` lies after `b` around the circle: negative if it lies before, within half a turn.

    Exactly half a turn away counts as before, both ways round.
    """
    half = 1 << (bits - 1)
    return ((a - b + half) & ((1 << bits) - 1)) - half


class Unwrapper:
    """Turns wire numbers into integers, always to the nearest one to the last. Costs one subtraction, keeps one number.

    The first number is itself, one turn up, so that what was sent before it and arrives after it stays positive.

    Args:
        bits: Of the wire number.
    """

    def __init__(self, bits: int = 16) -> None:
        self._bits = bits
        self._last: int | None = None

    def unwrap(self, number: int) -> int:
        """Return the integer that this wire number stands for."""
        if self._last is None:
            self._last = number + (1 << self._bits)
        else:
            self._last += difference(number, self._last & ((1 << self._bits) - 1), self._bits)
        return self._last
