"""What a worker's media has come to: counters of the relay's tables, and what those counted that are gone.

Driven by: sfu.py, before it gives a slot back, and for /metrics. Sans-IO.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from server.media.fastpath.relay import Codec, Relay

_TRAFFIC = ("received_packets", "received_bytes", "sent_packets", "sent_bytes")
_REPAIRS = ("lost_packets", "recovered_packets", "nacked_packets", "retransmitted_packets")


class Tally:
    """Sums that never fall.

    Args:
        relay: Whose tables they are.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._gone: Counter[str] = Counter()

    def transport_goes(self, slot: int) -> None:
        """Keep what a transport has counted."""
        row = self._relay.transports_view[slot]
        self._gone.update({name: int(row[name]) for name in _TRAFFIC})

    def sources_go(self, slots: Collection[int]) -> None:
        """Keep what sources have counted."""
        self._count_sources(slots, self._gone)

    def forward_goes(self, slot: int) -> None:
        """Keep what a forward has counted."""
        self._count_forwards([slot], self._gone)

    def totals(self, sources: Collection[int], forwards: Collection[int]) -> dict[str, int]:
        """Return the sums of all transports, and of these slots, with what is gone."""
        repairs = Counter(self._gone)
        self._count_forwards(forwards, repairs)
        self._count_sources(sources, repairs)
        view = self._relay.transports_view
        traffic = {name: int(view[name].sum()) + self._gone[name] for name in _TRAFFIC}
        return traffic | {name: repairs[name] for name in _REPAIRS}

    def _count_forwards(self, slots: Collection[int], into: Counter[str]) -> None:
        rows = self._relay.forwards_view[list(slots)]
        into.update(nacked_packets=int(rows["nacked"].sum()), retransmitted_packets=int(rows["retransmitted"].sum()))

    def _count_sources(self, slots: Collection[int], into: Counter[str]) -> None:
        """Pictures only: nobody asks for sound again."""
        rows = self._relay.sources_view[list(slots)]
        rows = rows[(rows["used"] == 1) & (rows["codec"] != Codec.OPUS)]
        lost = int(rows["lost"].clip(min=0).sum())
        into.update(lost_packets=lost, recovered_packets=int(rows["recovered"].sum()))
