from collections.abc import Sequence
from typing import TypedDict, final

import numpy as np
from numpy.typing import NDArray

class Counts(TypedDict):
    """Since the window was opened. All but the last are numbers of packets or bytes."""

    sent: int
    """RTP."""
    sent_bytes: int
    received: int
    """RTP, each sequence number once."""
    received_bytes: int
    repeated: int
    sampled: int
    """Decrypted, and their delay taken."""
    undecipherable: int
    rtcp: int
    keyframes_asked: int
    nacks: int
    feedback_received: int
    feedback_sent: int
    reports_sent: int
    checks_sent: int
    checks_answered: int
    stray: int
    """For no leg, or of more streams than a leg has room for."""
    refused: int
    """By SRTP or the kernel."""
    skipped: int
    """Pictures and packets of sound left out because the generator was more than 200 ms behind."""
    behind_ns: int
    """The furthest behind schedule."""

BUCKET_S: float
"""Width of a bucket of `delay_counts`."""

@final
class Engine:
    """All packets of all participants, through one socket, on one thread without the GIL. [IO]

    Costs about 2 us for each packet sent or received. Memory: 9 KiB for each leg, 3 MiB besides.

    Args:
        fd: A bound IPv4 UDP socket with IP_PKTINFO and SO_TIMESTAMPNS on, which stays the caller's; -1: in memory.
        first_ip: The first leg's address; those of the others follow it.
        legs: Most of them.
        feedback_every: Seconds between two transport-wide feedbacks of a leg.
        seed: Of picture sizes, sequence numbers and of who is in step with whom.

    Raises (every method): `InvalidStateError` for what does not exist, for full tables and for keys refused.
    """

    def __init__(
        self, fd: int, first_ip: str, legs: int = 1024, feedback_every: float = 0.1, seed: int = 1
    ) -> None: ...
    def add_leg(self) -> int:
        """Make one end of a transport."""
    def set_remote(self, index: int, ip: str, port: int) -> None:
        """Say where it sends."""
    def local_ip(self, index: int) -> str: ...
    def set_keys(self, index: int, profile: int, receive_key: bytes, send_key: bytes) -> None:
        """Start SRTP, and reports each second. Profiles as `Relay.set_keys` has them."""
    def set_checks(self, index: int, checks: Sequence[bytes]) -> None:
        """Send these connectivity checks in turn, one each 2.5 s."""
    def set_feedback(self, index: int, wide_id: int) -> None:
        """Send transport-wide feedback on what arrives with a number in this header extension."""
    def add_sender(
        self,
        index: int,
        ssrc: int,
        payload_type: int,
        video: bool,
        bps: int = 1_200_000,
        mid: bytes = b"",
        mid_id: int = 0,
        wide_id: int = 0,
        sent_id: int = 0,
        level_id: int = 0,
    ) -> int:
        """Make a stream: VP8 in 30 pictures a second, or 50 packets of sound a second.

        Args:
            index: The leg.
            ssrc, payload_type: Its own.
            video: Which of the two.
            bps: Of the pictures.
            mid: Value of the header extension.
            mid_id, wide_id, sent_id, level_id: Header extensions mid, transport-wide number, abs-send-time, audio
                level; 0: not negotiated.
        """
    def send(self, index: int, data: bytes) -> None:
        """Send a datagram as it is: STUN, DTLS."""
    def take(self) -> list[tuple[int, bytes]]:
        """Take what arrived and is neither RTP nor RTCP (nor STUN, once there are keys): leg and datagram."""
    media_on: bool
    """Whether media is sent."""
    def set_active(self, senders: int) -> None:
        """Let only so many senders send, those made first; all, at the beginning."""
    def open_window(self) -> None:
        """Count anew from here: `counts`, `streams` and `delay_counts`."""
    def streams(self) -> list[tuple[int, int, int, int]]:
        """Leg, SSRC, packets received and packets that should have been, of each stream received."""
    def counts(self) -> Counts: ...
    def delay_counts(self) -> NDArray[np.uint32]:
        """How many samples took how long, in buckets of `BUCKET_S`; the last is all that took longer."""
    def start(self) -> None: ...
    def stop(self) -> None: ...
    @property
    def running(self) -> bool: ...
    @property
    def cpu_seconds(self) -> float:
        """CPU time of the thread so far."""
    def receive_datagram(self, index: int, data: bytes, wall: int) -> None:
        """Take a datagram in memory, at this time of the wall clock in nanoseconds."""
    def datagrams_to_send(self, wall: int) -> list[tuple[int, bytes]]:
        """In memory: do what is due, return it with its leg; at most 255 datagrams. Time begins at 0."""
