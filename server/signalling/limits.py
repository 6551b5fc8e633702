"""What one address may do at once, before anything is known of who is there. Driven by `websocket.py`."""

from __future__ import annotations

from collections import Counter


class AddressLimits:
    """Open sockets and hellos per minute of each address, an IPv6 /64 counting as one.

    Memory: one entry per address with an open socket or a hello during the last minute.
    """

    def __init__(self, max_open: int, hellos_per_minute: int) -> None:
        self._max_open = max_open
        self._depth = float(hellos_per_minute)
        self._open: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}
        self._forget_at = 0.0

    def connect(self, address: str) -> bool:
        """Count a socket; False when it is one too many (it is counted all the same, until `disconnect`)."""
        self._open[address] += 1
        return self._open[address] <= self._max_open

    def disconnect(self, address: str) -> None:
        """A counted socket is closed."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def hello(self, address: str, now: float) -> bool:
        """Take a hello from the address's bucket; False when it is empty."""
        tokens, at = self._buckets.get(address, (self._depth, now))
        tokens = min(self._depth, tokens + (now - at) * self._depth / 60) - 1.0
        self._buckets[address] = (max(tokens, 0.0), now)
        return tokens >= 0.0

    def forget(self, now: float) -> None:
        """Drop the buckets that have filled up again; looks once a minute."""
        if now < self._forget_at:
            return
        self._forget_at = now + 60
        for address in [address for address, (_, at) in self._buckets.items() if now - at >= 60]:
            del self._buckets[address]
