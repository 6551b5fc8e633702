"""The media plane: media workers, each with its sockets, its socket loop's thread, its relay and its Sfu. [IO]

Started by: app.py. The threads forward packets; everything else runs here, on the event loop:

    relay's events ──> Sfu ──> events to signalling, datagrams to the relay, timer armed again
    signalling changes an Sfu ──> wake ──> the same, in the next turn of the event loop

The socket loop tells of events at once when there were none for a while, and otherwise every few milliseconds; timers
that are due soon after each other wait for each other: on a busy server one turn of the event loop serves a hundred
reports, on a quiet one a check is answered without delay.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import ifaddr
import structlog

from server import clock
from server.config import MediaConfig
from server.errors import ConfigError
from server.media.dtls import Certificate, Certificates
from server.media.events import MediaEvent
from server.media.fastpath.relay import DropReason, Relay
from server.media.fastpath.socketloop import LoopCount, SocketLoop
from server.media.parameters import Endpoint
from server.media.sfu import Sfu

TURN_EVERY_S = 0.05
"""Between turns for nothing but timers: what the Sfu does by the clock can wait until others are done with it."""
LOOK_S = 0.005
"""Of one turn of the event loop, which all workers and all signalling share; events that are left wait for the next."""
EVENTS_AT_ONCE = 64
"""Between two looks at the clock: of the dearest, checks, 5 ms."""
LOG_EVERY_S = 1.0
"""Of our own defects, which a peer may know how to meet again and again; the metric counts all of them."""
BUFFER_BYTES = 8 << 20
"""Of each UDP socket, each way, as far as the system lets us: 30 ms of 2 Gbit/s, longer than a scheduler's slice."""
_GOODBYE_S = 0.005
"""For the thread to send what closing has left."""
_FORCE_RECEIVE, _FORCE_SEND = 33, 32
"""SO_RCVBUFFORCE and SO_SNDBUFFORCE of Linux, which Python has no names for: beyond net.core.rmem_max, as root."""
_PORT_TRIES = 20
"""With port 0: until a port that the system has chosen for one socket is free for the others."""

_log = structlog.get_logger()


@dataclass
class MediaStatistics:
    """Sums over all workers. Counters never fall."""

    workers: int = 0
    rooms: int = 0
    transports: int = 0
    sources: int = 0
    forwards: int = 0
    tcp_connections: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0
    lost_packets: int = 0
    """Of pictures from publishers, those that did not come at first."""
    recovered_packets: int = 0
    """Of these, those that came through RTX."""
    nacked_packets: int = 0
    """Of pictures to receivers, how many they have asked for again."""
    retransmitted_packets: int = 0
    """How many of these were sent again."""
    cpu_seconds: float = 0.0
    """Of the threads that forward."""
    drops: Counter[str] = field(default_factory=Counter)
    """By reason: a name of `DropReason`, in small letters, or one of the Sfu's."""


class MediaPlane:
    """All media workers of one server.

    Args:
        config: The `[media]` section.
        on_event: Called with each media event.
        loopback: Announce loopback too: browsers on this machine are expected, as `http.host` says.
    """

    def __init__(
        self,
        config: MediaConfig,
        on_event: Callable[[MediaEvent], None] = lambda event: None,
        *,
        loopback: bool = False,
    ) -> None:
        self.on_event = on_event
        self._config = config
        self._loopback = loopback
        self._certificates = Certificates()
        self._workers: list[MediaWorker] = []

    async def start(self) -> None:
        """Open the sockets and start the threads.

        Raises:
            ConfigError: A port is taken, or an address is none of this machine's.
        """
        config = self._config
        certificate = self._certificates.current(clock.wall_now())
        hosts = _bound(config.bind)
        try:
            for number in range(config.workers or max((os.cpu_count() or 2) - 1, 1)):
                sockets = Sockets.open(hosts, config.port + number if config.port else 0, config.tcp, bool(config.bind))
                announced = config.addresses or _addresses(hosts, self._loopback)
                self._workers.append(MediaWorker(sockets, sockets.candidates(announced), certificate, self._tell))
            for worker in self._workers:
                worker.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Say goodbye to every peer, stop the threads, close the sockets."""
        for worker in self._workers:
            worker.say_goodbye()
        await asyncio.sleep(_GOODBYE_S)
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def sfu(self, room: str) -> Sfu:
        """Return the Sfu that has the room, or is to have it: the one with the fewest transports.

        What signalling does with it is drained by itself, in the next turn of the event loop. A room is forgotten with
        its last transport: ask once, and keep the answer as long as the room is yours.
        """
        certificate = self._certificates.current(clock.wall_now())
        for worker in self._workers:
            worker.sfu.certificate = certificate
        having = [worker for worker in self._workers if worker.sfu.has_room(room)]
        spread = hash(room)
        count = len(self._workers)
        chosen = min(
            having or self._workers,
            key=lambda worker: (worker.sfu.transports, (self._workers.index(worker) - spread) % count),
        )
        return chosen.sfu

    def statistics(self) -> MediaStatistics:
        """Return what /metrics shows."""
        statistics = MediaStatistics(workers=len(self._workers))
        for worker in self._workers:
            worker.add_to(statistics)
        return statistics

    def _tell(self, event: MediaEvent) -> None:
        self.on_event(event)


class MediaWorker:
    """One thread that forwards, and its slow path on the event loop.

    Args:
        sockets: Its own; closed by `stop`.
        candidates: What answers announce.
        certificate: Ours, to begin with.
        on_event: Told of everything that signalling is to know.
    """

    def __init__(
        self,
        sockets: Sockets,
        candidates: Sequence[Endpoint],
        certificate: Certificate,
        on_event: Callable[[MediaEvent], None],
    ) -> None:
        self.relay = Relay()
        self.sfu = Sfu(self.relay, certificate, candidates)
        self.sfu.wake = self._wake
        self.sfu.guard.tell = self._on_defect
        self._logged_at = float("-inf")
        self._sockets = sockets
        self._on_event = on_event
        self._loop = SocketLoop(self.relay, sockets.udp_fds, sockets.tcp_fds)
        self._asyncio = asyncio.get_running_loop()
        self._woken = False
        self._rest: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._turned_at = float("-inf")

    def start(self) -> None:
        """Start the thread."""
        self._loop.start()
        self._asyncio.add_reader(self._loop.events_fd, self._on_events)

    def say_goodbye(self) -> None:
        """Close every transport; the thread still has to send the goodbyes."""
        self.sfu.close(clock.now())
        self._drain()

    def stop(self) -> None:
        """Stop the thread and close the sockets."""
        self._asyncio.remove_reader(self._loop.events_fd)
        for handle in (self._rest, self._timer):
            if handle is not None:
                handle.cancel()
        self.sfu.wake = lambda: None
        if self._loop.running:
            self._loop.stop()
        self._sockets.close()

    def add_to(self, statistics: MediaStatistics) -> None:
        """Add what this worker has counted."""
        for name, value in self.sfu.statistics().items():
            setattr(statistics, name, getattr(statistics, name) + value)
        statistics.tcp_connections += self._loop.connections
        statistics.cpu_seconds += self._loop.cpu_seconds
        named = [reason for reason in DropReason if reason != DropReason.SEND_FAILED]
        statistics.drops.update({reason.name.lower(): int(self.relay.drops[reason]) for reason in named})
        # What the socket loop could not send, by its reasons, of which SEND_FAILED is the sum.
        lost = [reason for reason in LoopCount if reason <= LoopCount.STREAM_FULL]
        statistics.drops.update({reason.name.lower(): int(self._loop.counts[reason]) for reason in lost})
        statistics.drops.update(self.sfu.all_drops())

    # The slow path's driver.

    def _on_events(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._loop.events_fd, 8)
        self._turn()

    def _turn(self) -> None:
        """Deal with the relay's events for a while, and with what is due; the others have their turn before the rest.

        No event is held from one turn to the next: the relay forgets those of transports that are closed meanwhile.
        """
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self._turned_at = now = clock.now()
        while events := self.relay.take_events(EVENTS_AT_ONCE):
            self.sfu.receive_relay_events(events, clock.now())
            if clock.now() >= now + LOOK_S:
                self._rest = self._asyncio.call_soon(self._turn)
                break
        deadline = self.sfu.get_timer()
        if deadline is not None and deadline <= now:
            self.sfu.handle_timer(now)
        self._drain()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._asyncio.call_soon(self._on_woken)

    def _on_woken(self) -> None:
        self._woken = False
        self._drain()

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._turn()

    def _on_defect(self, error: Exception) -> None:
        now = clock.now()
        if now >= self._logged_at + LOG_EVERY_S:
            self._logged_at = now
            _log.error("media.failed", failures=self.sfu.guard.failures, exc_info=error)

    def _drain(self) -> None:
        """Events, datagrams, timer."""
        while (event := self.sfu.next_event()) is not None:
            try:
                self._on_event(event)
            except Exception as error:  # one room's trouble is not the others'
                _log.error("media.event_failed", kind=type(event).__name__, exc_info=error)
        now = clock.now()
        for data, endpoint in self.sfu.datagrams_to_send(now):
            self.relay.send(endpoint, data)
        deadline = self.sfu.get_timer()
        if deadline is None:
            return
        deadline = max(deadline, self._turned_at + TURN_EVERY_S)
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            self._timer = self._asyncio.call_later(max(deadline - now, 0), self._on_timer)


class Sockets:
    """One worker's sockets: UDP of each family, and TCP listeners on the same port.

    Args:
        udp: Bound.
        tcp: Listening.
    """

    def __init__(self, udp: Sequence[socket.socket], tcp: Sequence[socket.socket]) -> None:
        self._udp = tuple(udp)
        self._tcp = tuple(tcp)
        self.udp_fds = [each.fileno() for each in udp]
        self.tcp_fds = [each.fileno() for each in tcp]

    @classmethod
    def open(cls, hosts: Sequence[str], port: int, tcp: bool, required: bool) -> Sockets:
        """Bind all of them to one port.

        Args:
            hosts: At most one address of each family.
            port: 0: one that the system chooses.
            tcp: Whether to listen too.
            required: Each host has to be there; else a family that this machine does not have is left out.

        Raises:
            ConfigError: What is taken, or not there, and what to do.
        """
        for _ in range(_PORT_TRIES):
            opened: list[socket.socket] = []
            number = port
            try:
                for host in hosts:
                    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM) if tcp else (socket.SOCK_DGRAM,):
                        made = _open(host, number, kind, required)
                        if made is not None:
                            opened.append(made)
                            number = number or made.getsockname()[1]
            except OSError as error:
                for each in opened:
                    each.close()
                if error.errno == errno.EADDRINUSE and not port:
                    continue
                raise ConfigError(_complaint(error, host, port)) from error
            except BaseException:
                for each in opened:
                    each.close()
                raise
            by_kind = [
                [each for each in opened if each.type == kind] for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            ]
            return cls(by_kind[0], by_kind[1])
        raise ConfigError("media.port: the system found no port that is free for UDP and TCP")

    @property
    def port(self) -> int:
        """Of all of them."""
        port: int = self._udp[0].getsockname()[1]
        return port

    def candidates(self, addresses: Sequence[str]) -> tuple[Endpoint, ...]:
        """Return what answers announce: UDP before TCP, of families that we have."""
        families = {each.family for each in self._udp}
        usable = [ip for ip in addresses if (socket.AF_INET6 if ":" in ip else socket.AF_INET) in families]
        announced = [Endpoint(ip, self.port, "udp") for ip in usable]
        return tuple(announced + [Endpoint(ip, self.port, "tcp") for ip in usable if self._tcp])

    def close(self) -> None:
        """Close them."""
        for each in (*self._udp, *self._tcp):
            each.close()


def _open(host: str, port: int, kind: socket.SocketKind, required: bool) -> socket.socket | None:
    """Bind one socket. None: this machine does not have that family, and nobody insists."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.socket(family, kind)
    except OSError:
        if required:
            raise
        return None
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _enlarge(made)
        made.bind((host, port))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
    except OSError as error:
        made.close()
        if required or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            raise
        return None
    return made


def _enlarge(udp: socket.socket) -> None:
    """Give it the largest buffers that the system allows."""
    pairs = ((_FORCE_RECEIVE, socket.SO_RCVBUF), (_FORCE_SEND, socket.SO_SNDBUF))
    for forced, ordinary in pairs:
        try:
            udp.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except OSError:
            udp.setsockopt(socket.SOL_SOCKET, ordinary, BUFFER_BYTES)


def _complaint(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"media.port: {port} is taken, for UDP or TCP; stop what uses it, or choose another"
    if error.errno == errno.EACCES:
        return f"media.port: {port} is for root only; choose one above 1023"
    return f"media.bind: {host} cannot be listened on: {error.strerror}"


def _bound(hosts: Sequence[str]) -> Sequence[str]:
    """Return where to listen: one address a family.

    Raises:
        ConfigError: One is no address, or there are two of a family.
    """
    if not hosts:
        return "0.0.0.0", "::"
    try:
        versions = [ipaddress.ip_address(host).version for host in hosts]
    except ValueError:
        raise ConfigError("media.bind: IP addresses, please, not names") from None
    if len(set(versions)) != len(versions):
        raise ConfigError("media.bind: at most one IPv4 and one IPv6 address; leave it empty to listen on all")
    return hosts


def _addresses(hosts: Sequence[str], loopback: bool) -> Sequence[str]:
    """Return what to announce: what we listen on, and for all of the machine its interfaces' addresses.

    Without any other, loopback is all that there is.
    """
    named = [host for host in hosts if not ipaddress.ip_address(host).is_unspecified]
    if named:
        return named
    entries = [entry for adapter in ifaddr.get_adapters() for entry in adapter.ips]
    found = [ipaddress.ip_address(entry.ip if isinstance(entry.ip, str) else entry.ip[0]) for entry in entries]
    usable = sorted({ip for ip in found if not ip.is_link_local and not ip.is_multicast}, key=_rank)
    outside = [ip for ip in usable if not ip.is_loopback]
    return [str(ip) for ip in (usable if loopback or not outside else outside)]


def _rank(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[bool, int, int]:
    """IPv6 first (RFC 8421), loopback last."""
    return ip.is_loopback, -ip.version, int(ip)
