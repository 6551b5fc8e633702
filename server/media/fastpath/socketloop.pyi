from collections.abc import Sequence
from enum import IntEnum
from typing import final

import numpy as np
from numpy.typing import NDArray

from server.media.fastpath.relay import Relay
from server.media.fastpath.replay import Replay

class LoopCount(IntEnum):
    """What the loop counts: an index into `SocketLoop.counts`.

    The relay's `DropReason.SEND_FAILED` is the sum of the outgoing datagrams lost below (`NO_SOCKET` to `STREAM_FULL`).
    """

    NO_SOCKET = 0
    """Outgoing: there is no UDP socket of its family."""
    SOCKET_FULL = 1
    """Outgoing: the UDP socket's buffer, or the interface's queue, stayed full (EAGAIN for 5 ms; ENOBUFS)."""
    UNREACHABLE = 2
    """Outgoing: the kernel refuses this receiver (no route, a firewall, a wrong port, too large)."""
    NOT_CONNECTED = 3
    """Outgoing, TCP: there is no connection with this address, or no longer."""
    VIDEO_DROPPED = 4
    """Outgoing, TCP: video for a peer whose queue is full, to the end of the frame."""
    STREAM_FULL = 5
    """Outgoing, TCP: anything else for a peer whose queue is full."""
    ACCEPTED = 6
    """Connections accepted; each ends in one of the reasons below."""
    CLOSED_BY_PEER = 7
    CLOSED_BROKEN = 8
    """The connection failed: reset, timed out, unreachable."""
    CLOSED_NOT_STUN = 9
    """What a stranger sent first is no STUN message in a frame."""
    CLOSED_NO_ADDRESS = 10
    """For 10 s its address has been allowed to no transport: no check succeeded, or the transport is gone."""
    CLOSED_TOO_MUCH = 11
    """A stranger sent more than 16 KiB."""
    CLOSED_STALLED = 12
    """Its queue stayed full for 5 s."""
    CLOSED_EVICTED = 13
    """The oldest stranger, or the oldest from one address, gave way to a newcomer: there were too many."""
    CLOSED_AT_STOP = 14
    """The loop stopped."""
    REFUSED_ADDRESS = 15
    """Closed at once: too many connections from one address (one /64 in IPv6), and no stranger among them."""
    REFUSED_FULL = 16
    """Closed at once: the table is full, and nobody in it is a stranger."""
    ACCEPT_FAILED = 17
    """The kernel could not give a connection (no descriptor, no memory); listening goes on within a second."""

@final
class SocketLoop:
    """Carries datagrams between sockets and a `Relay` on a thread of its own, without the GIL. [IO]

    UDP, and TCP from peers whose network blocks UDP: ICE-TCP, the passive side (RFC 6544), with the length of each
    datagram in two bytes before it (RFC 4571). To the relay a connection is an address of kind "tcp".

    A TCP peer's datagrams wait in a queue of 64 KiB: 48 KiB for video, 16 KiB for all else, which goes first. Video
    that does not fit is dropped to the end of its frame, and taken again at a frame's beginning once half is free.
    Whoever stays full for 5 s is disconnected. The relay tells the slow path of every connection that ends while its
    address is allowed: `EventKind.DISCONNECTED`.

    Memory: 5 MiB, and 64 KiB for each TCP peer, of which it takes as much as waits. A stranger, that is a connection
    whose address no transport has a successful check from, costs 2 KiB and what waits for it, and is closed after
    10 s, or after 16 KiB, or when its first frame is no STUN message.

    The caller sizes the kernel's buffers, which this does not touch: a worker's UDP socket wants SO_RCVBUF and
    SO_SNDBUF of 4 MiB or more (10 ms of 2 Gbit/s, and what arrives while the thread waits for its core).
    SO_RCVBUFFORCE and SO_SNDBUFFORCE pass the system's limit (net.core.rmem_max) where the process has CAP_NET_ADMIN.
    What overflows is lost without a count here: the kernel counts it (`RcvbufErrors` in /proc/net/snmp).

    Args:
        relay: Whose datagrams. One loop per relay.
        sockets: File descriptors of bound UDP sockets, at most one IPv4 and one IPv6 (IPV6_V6ONLY); they stay
            the caller's, and open until `stop` has returned.
        listeners: File descriptors of listening TCP sockets, likewise; made non-blocking.
        gso: Hand the kernel several packets for one receiver at once, where it can (UDP_SEGMENT).
        connections: TCP connections at most.
        connections_of_one: From one IPv4 address, or one /64 of IPv6; a clinic behind one address has many
            participants.
        stranger_s: Seconds until a connection without an allowed address is closed; looked at four times a second.
        stalled_s: Seconds until one that stays full is.
        replay: A test switch: packets that are relayed again and again as if they arrived, as fast as the core can.

    Raises:
        InvalidStateError: The descriptors are of the wrong kind, or two are of one family.
        OSError: The kernel refused a descriptor.
    """

    events_fd: int
    """Readable when the relay has events for the slow path: read it, then `Relay.take_events`."""
    def __init__(
        self,
        relay: Relay,
        sockets: Sequence[int],
        listeners: Sequence[int] = (),
        gso: bool = True,
        *,
        connections: int = 1024,
        connections_of_one: int = 256,
        stranger_s: float = 10.0,
        stalled_s: float = 5.0,
        replay: Replay | None = None,
    ) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None:
        """Stop, close the connections and wait for the thread. What the relay still has to send is not sent."""
    @property
    def running(self) -> bool: ...
    @property
    def cpu_seconds(self) -> float:
        """CPU time of the thread so far."""
    @property
    def batches(self) -> int:
        """System calls that received datagrams."""
    @property
    def messages(self) -> int:
        """Messages handed to the kernel; fewer than the packets sent where GSO gathered some."""
    @property
    def connections(self) -> int:
        """TCP connections open now."""
    @property
    def counts(self) -> NDArray[np.uint64]:
        """How many, by `LoopCount`: a view, not a copy."""
