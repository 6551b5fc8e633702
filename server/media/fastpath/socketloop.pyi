from typing import final

from server.media.fastpath.relay import Relay

@final
class SocketLoop:
    """Carries datagrams between UDP sockets and a `Relay` on a thread of its own, without the GIL. [IO]

    Args:
        relay: Whose datagrams. One loop per relay.
        sockets: File descriptors of bound UDP sockets, at most one IPv4 and one IPv6 (IPV6_V6ONLY); they stay
            the caller's, and open until `stop` has returned.
        gso: Hand the kernel several packets for one receiver at once, where it can (UDP_SEGMENT).

    Raises:
        OSError: The kernel refused a descriptor.
    """

    events_fd: int
    """Readable when the relay has events for the slow path: read it, then `Relay.take_events`."""
    def __init__(self, relay: Relay, sockets: list[int], gso: bool = True) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None:
        """Stop, and wait for the thread. What the relay still has to send is not sent."""
    @property
    def running(self) -> bool: ...
    @property
    def cpu_seconds(self) -> float:
        """CPU time of the thread so far."""
    @property
    def batches(self) -> int:
        """System calls that received something."""
    @property
    def messages(self) -> int:
        """Messages handed to the kernel; fewer than the packets sent where GSO gathered some."""
