"""The load generator: many participants' transports, connected and then kept busy by the engine. [IO]

Driven by: whoever plays a scenario (benchmarks/bench_relay.py). It sees to the way to the keys; from then on packets
are the engine's alone (fastgen.pyx).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from loadtest.connection import CHECKS_AHEAD, Connection, Remote
from loadtest.fastgen import BUCKET_S, Engine
from server.media.dtls import Certificate
from server.media.parameters import DtlsParameters, IceParameters

if TYPE_CHECKING:
    from loadtest.fastgen import Counts

JOIN_TIMEOUT_S = 15.0
BUFFER_BYTES = 32 << 20
"""Of the socket, each way: what arrives while the generator sleeps or is busy must not be lost here."""

_IP_PKTINFO = 8
_SO_TIMESTAMPNS = 35
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SO_MEMINFO, _MEMINFO_DROPS = 55, 8
"""Linux, <asm-generic/socket.h> and <linux/sock_diag.h>."""


class LoadError(Exception):
    """A participant did not get in, or the generator lost what it should have counted."""


@dataclass(frozen=True)
class Local:
    """Our end of a transport, before anybody knows the other."""

    leg: int
    ip: str
    port: int
    ice: IceParameters
    dtls: DtlsParameters


@dataclass(frozen=True)
class Window:
    """What was seen between `open_window` and `window`."""

    seconds: float
    counts: Counts
    expected: int
    """Packets that the sequence numbers of the streams received say there were."""
    streams: int
    """Streams of which something arrived."""
    delays: NDArray[np.uint32]

    @property
    def loss(self) -> float:
        """Part of the packets expected that did not arrive."""
        return max(0.0, 1 - self.counts["received"] / self.expected) if self.expected else 1.0

    def delay_ms(self, part: float) -> float:
        """Return the delay below which this part of the samples lies; 100 stands for more, and for no sample at all."""
        bucket = int(np.searchsorted(np.cumsum(self.delays), part * max(1, int(self.delays.sum()))))
        return min(bucket + 1, len(self.delays) - 1) * BUCKET_S * 1e3


def bound_socket() -> socket.socket:
    """Make the generator's socket, with room and the kernel's times of arrival."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            made.setsockopt(socket.SOL_SOCKET, forced, BUFFER_BYTES)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, plain, BUFFER_BYTES)
    # Any address: each leg has its own. On loopback that would let strangers' machines in; there a leg's peer is
    # checked by ICE and SRTP as everywhere.
    made.bind(("0.0.0.0", 0))
    return made


class Generator:
    """All participants. Use as a context manager.

    Args:
        bound: Of `bound_socket`; closed in the end.
        first_ip: The first leg's address.
        legs: Most of them.
        profiles: SRTP profiles to offer, by OpenSSL's names.
        feedback_every: Seconds between transport-wide feedbacks.
    """

    def __init__(
        self,
        bound: socket.socket,
        first_ip: str,
        legs: int = 2048,
        profiles: bytes = b"SRTP_AEAD_AES_128_GCM",
        feedback_every: float = 0.1,
    ) -> None:
        self.engine = Engine(bound.fileno(), first_ip, legs, feedback_every)
        self._socket = bound
        self._certificate = Certificate.generate(datetime.now(UTC))
        self._certificate.context.set_tlsext_use_srtp(profiles)
        self._connections: dict[int, tuple[Connection, asyncio.Future[None]]] = {}
        self._pump: asyncio.Task[None] | None = None
        self._opened_at = time.monotonic()
        self._dropped = 0

    def __enter__(self) -> Self:
        self.engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pump:
            self._pump.cancel()
        self.engine.stop()
        self._socket.close()

    # Joining.

    def open_leg(self) -> Local:
        """Make our end of a transport."""
        leg = self.engine.add_leg()
        ice = IceParameters(secrets.token_hex(4), secrets.token_hex(16))
        dtls = DtlsParameters((self._certificate.fingerprint,), "client")
        return Local(leg, self.engine.local_ip(leg), self._socket.getsockname()[1], ice, dtls)

    async def connect(self, local: Local, remote: Remote) -> None:
        """Do ICE and DTLS with a server; from then on the leg has keys and keeps itself alive.

        Raises:
            LoadError: It did not come about within 15 s.
        """
        self.engine.set_remote(local.leg, *remote.endpoint[:2])
        connection = Connection(self._certificate, local.ice, remote, time.monotonic())
        done = asyncio.get_running_loop().create_future()
        self._connections[local.leg] = (connection, done)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._connect_all())
        try:
            await asyncio.wait_for(done, JOIN_TIMEOUT_S)
        except TimeoutError:
            raise LoadError(f"no keys within {JOIN_TIMEOUT_S:g} s") from None
        finally:
            del self._connections[local.leg]
        keys = connection.keys
        if keys is None:
            raise LoadError(connection.failure or "no keys")
        self.engine.set_keys(local.leg, keys.profile, keys.receive_key, keys.send_key)
        self.engine.set_checks(local.leg, [connection.check() for _ in range(CHECKS_AHEAD)])

    async def _connect_all(self) -> None:
        """Carry datagrams between the engine and the connections, as long as there are any."""
        while self._connections:
            now = time.monotonic()
            outgoing = []
            for leg, data in self.engine.take():
                if leg in self._connections:
                    outgoing.append((leg, self._connections[leg][0].receive_datagram(data, now)))
            outgoing += [(leg, connection.handle_time(now)) for leg, (connection, _) in self._connections.items()]
            for leg, datagrams in outgoing:
                for data in datagrams:
                    self.engine.send(leg, data)
            for connection, done in self._connections.values():
                if connection.done and not done.done():
                    done.set_result(None)
            await asyncio.sleep(0.001)

    # Measuring.

    def open_window(self) -> None:
        """Count anew from here."""
        self._dropped = self._drops()
        self._opened_at = time.monotonic()
        self.engine.open_window()

    def window(self) -> Window:
        """Return what was counted since.

        Raises:
            LoadError: The generator's own socket overflowed, and the server would be blamed for what it lost.
        """
        seconds = time.monotonic() - self._opened_at
        counts, streams, delays = self.engine.counts(), self.engine.streams(), self.engine.delay_counts()
        if self._drops() != self._dropped:
            raise LoadError(f"the generator's own socket dropped {self._drops() - self._dropped} packets")
        expected = sum(stream[3] for stream in streams)
        return Window(seconds, counts, expected, sum(1 for stream in streams if stream[2]), delays)

    def _drops(self) -> int:
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        return int(struct.unpack("=9I", memory)[_MEMINFO_DROPS])
