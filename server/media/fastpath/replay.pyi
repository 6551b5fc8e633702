from collections.abc import Sequence
from typing import final

from server.media.fastpath.relay import Address

@final
class Replay:
    """A captured batch that a socket loop relays again and again: a test switch, to saturate a worker's core.

    Each time round, sequence numbers and timestamps go on, and the packets are encrypted anew: replay protection would
    drop the ciphertext of the time before.

    Args:
        packets: Where from (UDP), and the RTP packet in the clear, in order; at most 4096 packets of up to 1400 bytes.
        profile: Of SRTP, as in `Relay.set_keys`.
        key: What the senders encrypt with; the same for all, so that each SSRC may have one sender.

    Raises:
        InvalidStateError: A packet is no RTP, is too long, or there are too many or none.
    """

    def __init__(self, packets: Sequence[tuple[Address, bytes]], profile: int, key: bytes) -> None: ...
    @property
    def rounds(self) -> int:
        """How often the whole batch has been relayed."""
