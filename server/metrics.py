"""Everything that is counted, in one place, for Prometheus.

Names follow the Prometheus conventions: `colloque_` first, base units (`_seconds`), `_total` for counters. No label
ever names a person, a room, a tenant, an address or a link: labels are codes from short fixed lists, so that the number
of time series does not grow with use and /metrics tells nothing about anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_JOIN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""From one turn of the event loop to what a person calls broken."""
_HTTP_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """The counters, gauges and histograms of one server.

    Args:
        registry: Where they live; its own by default, so that two servers in one process (tests) do not collide.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.sockets = Gauge("colloque_sockets", "WebSockets open now.", registry=self.registry)
        self.rooms = Gauge("colloque_rooms", "Rooms with somebody in them now.", registry=self.registry)
        self.participants = Gauge(
            "colloque_participants", "Participants now, by where they stand.", ["state"], registry=self.registry
        )
        self.hellos = Counter(
            "colloque_hellos", "First messages, by their result: welcome or a refusal code.", ["result"],
            registry=self.registry,
        )  # fmt: skip
        self.messages = Counter(
            "colloque_messages", "Signalling messages, by direction (in, out) and type.", ["direction", "type"],
            registry=self.registry,
        )  # fmt: skip
        self.problems = Counter(
            "colloque_problems", "Messages that were not carried out, by code.", ["code"], registry=self.registry
        )
        self.relayed_rooms = Gauge(
            "colloque_relayed_rooms", "Rooms whose media goes through the media server now.", registry=self.registry
        )
        self.moves = Counter(
            "colloque_path_moves", "Moves between direct and relayed, by reason and outcome.", ["reason", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.closes = Counter(
            "colloque_socket_closes", "WebSockets closed, by reason.", ["reason"], registry=self.registry
        )
        self.join_seconds = Histogram(
            "colloque_join_seconds", "From `join` received to everybody else told.", buckets=_JOIN_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self.http_requests = Counter(
            "colloque_http_requests", "HTTP requests, by route and status class (2xx, 4xx...).", ["route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.http_seconds = Histogram(
            "colloque_http_seconds", "HTTP requests, from whole request to whole answer; WebSockets left out.",
            ["route"], buckets=_HTTP_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self.connections_refused = Counter(
            "colloque_http_connections_refused", "TCP connections closed at once: too many from one address.",
            registry=self.registry,
        )  # fmt: skip
        self.coturn_restarts = Counter(
            "colloque_coturn_restarts", "Ends of our coturn that we did not ask for.", registry=self.registry
        )
        self.coturn_complaints = Counter(
            "colloque_coturn_complaints", "Error lines of our coturn, by kind.", ["kind"], registry=self.registry
        )
        self.loop_lag_seconds = Histogram(
            "colloque_loop_lag_seconds", "How late the event loop runs what is due.", buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def watch_store(self, statistics: StoreStatistics) -> None:
        """Show what becomes of the facts that the store writes behind, read at each scrape."""
        self.registry.register(_StoreCollector(statistics))

    def watch_media(self, statistics: Callable[[], MediaStatistics]) -> None:
        """Show what the media server carries and drops, read at each scrape."""
        self.registry.register(_MediaCollector(statistics))

    def exposition(self) -> bytes:
        """Return the text that Prometheus scrapes, of type `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class StoreStatistics(Protocol):
    """What `Store.statistics` counts."""

    queued: int
    written: int
    failures: int
    rejected: int
    lost: int


class MediaStatistics(Protocol):
    """What `MediaPlane.statistics` sums up."""

    workers: int
    rooms: int
    transports: int
    sources: int
    forwards: int
    tcp_connections: int
    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    lost_packets: int
    recovered_packets: int
    nacked_packets: int
    retransmitted_packets: int
    cpu_seconds: float

    @property
    def drops(self) -> Mapping[str, int]:
        """By reason."""


_MEDIA_GAUGES = {
    "workers": "Threads of the media server.",
    "rooms": "Rooms that the media server has now.",
    "transports": "Connections to the media server now: browsers, and devices over WHIP and WHEP.",
    "sources": "Streams received now.",
    "forwards": "Streams sent now.",
    "tcp_connections": "ICE-TCP connections open now.",
}
_MEDIA_COUNTERS = {
    "received_packets": "RTP packets received.",
    "received_bytes": "Bytes received as RTP.",
    "sent_packets": "RTP packets sent.",
    "sent_bytes": "Bytes sent as RTP.",
    "lost_packets": "Packets of pictures that did not come from their publisher at first.",
    "recovered_packets": "Packets of pictures that were lost on the way from their publisher, and came again.",
    "nacked_packets": "Packets of pictures that receivers asked for again.",
    "retransmitted_packets": "Packets of pictures that were sent to receivers again.",
    "cpu_seconds": "CPU time of the threads that forward.",
}


class _MediaCollector(Collector):
    def __init__(self, statistics: Callable[[], MediaStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics()
        for name, text in _MEDIA_GAUGES.items():
            yield GaugeMetricFamily(f"colloque_media_{name}", text, getattr(now, name))
        for name, text in _MEDIA_COUNTERS.items():
            yield CounterMetricFamily(f"colloque_media_{name}", text, getattr(now, name))
        drops = CounterMetricFamily(
            "colloque_media_drops", "Datagrams that went nowhere, by reason.", labels=["reason"]
        )
        for reason, number in now.drops.items():
            drops.add_metric([reason], number)
        yield drops


class _StoreCollector(Collector):
    def __init__(self, statistics: StoreStatistics) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now = self._statistics
        yield GaugeMetricFamily("colloque_store_queued", "Facts that wait for the database.", now.queued)
        fates = CounterMetricFamily("colloque_store_facts", "Facts, by what became of them.", labels=["fate"])
        for fate, count in (("written", now.written), ("rejected", now.rejected), ("lost", now.lost)):
            fates.add_metric([fate], count)
        yield fates
        yield CounterMetricFamily("colloque_store_failures", "Writes to be tried again.", now.failures)
