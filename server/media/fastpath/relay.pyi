from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

Address: TypeAlias = tuple[str, int, str]
"""IP address in its canonical text, port, and "udp" or "tcp"."""

Event: TypeAlias = tuple[int, int, Address, bytes, float]
"""Kind, transport (what else it is, each kind says; -1: none), address, data, and when it happened."""

class Codec(IntEnum):
    """What a payload is, as far as the relay has to know."""

    OTHER = 0
    OPUS = 1
    VP8 = 3
    VP9 = 4
    H264 = 5
    AV1 = 6

class EventKind(IntEnum):
    """What is passed up to the slow path."""

    STUN = 0
    """A STUN message, from anybody; the transport is -1 when the address is not allowed."""
    DTLS = 1
    """A DTLS record from an allowed address."""
    RTCP = 2
    """A compound RTCP packet, decrypted and authentic. The generic NACKs in it (RFC 4585 section 6.2.1) that name a
    forward with RTX have been answered already: they must not be answered again. A well-formed compound that holds
    nothing but these, reports, SDES, XR, REMB and transport feedback does not come up at all."""
    UNKNOWN_SSRC = 3
    """An RTP packet, decrypted and authentic, that belongs to no source: at most one each 20 ms and SSRC."""
    KEYFRAME_WANTED = 4
    """A forward is fed pictures that it cannot begin with; the second field is the forward, the data its source
    (4 bytes, network order). At most one each 500 ms."""
    SWITCHED = 5
    """A forward has begun with another source; fields as above."""
    BOUND = 6
    """An expected source has found its SSRC, or a new one; the second field is the source, the data its SSRC (4 bytes,
    network order)."""
    DISCONNECTED = 7
    """A TCP connection of a peer has ended: address, and transport or -1. The address is to be forbidden."""

class DropReason(IntEnum):
    """Why a datagram went nowhere: an index into `Relay.drops`. The first nine are the demultiplexer's, less 0x80."""

    EMPTY = 0
    UNKNOWN_PROTOCOL = 1
    RTP_TRUNCATED = 2
    RTCP_TRUNCATED = 3
    STUN_TRUNCATED = 4
    STUN_BAD_COOKIE = 5
    STUN_BAD_LENGTH = 6
    DTLS_TRUNCATED = 7
    TURN_CHANNEL_TRUNCATED = 8
    TURN_CHANNEL = 9
    """Channel data: nobody uses the relay as a TURN client."""
    TOO_LONG = 10
    """More bytes than a datagram of ours may have."""
    ADDRESS_NOT_ALLOWED = 11
    """Not STUN, and no transport has a successful check from there."""
    NO_KEYS = 12
    """RTP or RTCP before the handshake has given keys."""
    SRTP_AUTH_FAILED = 13
    SRTP_REPLAYED = 14
    SRTP_FAILED = 15
    """Any other verdict: no room for a tag, no memory."""
    UNKNOWN_SSRC = 16
    """Beyond what is passed up; or an SSRC too many of its transport, also of RTCP: those are not even decrypted."""
    UNEXPECTED_PAYLOAD_TYPE = 17
    RTP_BAD_PADDING = 18
    RTP_PADDING_ONLY = 19
    """Probes: they did their work by arriving."""
    RTX_BAD = 20
    DUPLICATE = 21
    """Received before, on its own or through RTX."""
    QUEUE_FULL = 22
    """The slow path does not keep up."""
    STRANGER_QUEUE_FULL = 23
    """More STUN from addresses not allowed than their share of the queue."""
    NOT_NOMINATED = 24
    """Outgoing: there is no address to send to yet, or no keys."""
    PROTECT_FAILED = 25
    """Outgoing: encryption refused; each sequence number is sent once only."""
    TOO_LATE = 26
    """Outgoing: older than what the forward remembers how to number."""
    SEND_FAILED = 27
    """Outgoing: the socket refused."""
    RED_BAD = 28
    """RED whose blocks do not fit (RFC 2198)."""
    OVER_RATE = 29
    """More than one transport has passed up in a second: 200 RTCP, 100 each of STUN, DTLS and of unknown SSRCs."""
    OUTDATED = 30
    """Before the slow path took it, its transport was removed, or its SSRC found a source."""

MAX_DATAGRAM_BYTES: int

@final
class Relay:
    """The fast path's heart: datagrams in, datagrams out, by its tables.

    One per media worker. Every method may be called from any thread: one mutex, which the socket loop holds per batch.
    Transports, sources and forwards are slots of fixed tables, named by their index, which is used again after removal.

    Costs per packet: one unprotect, one copy into the source's history (video), and for each forward one copy and one
    protect. Memory: the tables, 280 KiB for each source of video that has received, 16 KiB for each transport
    with transport-wide feedback, and at most 6 MiB of events.

    Args:
        transports, sources, forwards: How many slots.

    Raises (every method): `InvalidStateError` for a slot not in use, for a full table and for what is refused below.
    """

    def __init__(self, transports: int = 2048, sources: int = 16384, forwards: int = 65536) -> None: ...

    # Transports: one ICE + DTLS + SRTP association each.
    def add_transport(self) -> int: ...
    def remove_transport(self, transport: int) -> None:
        """Forget a transport with its addresses, keys, sources and forwards."""
    def set_keys(self, transport: int, profile: int, receive_key: bytes, send_key: bytes) -> None:
        """Encrypt and decrypt from now on.

        Args:
            transport: Whose.
            profile: Of RFC 5764 section 4.1.2 and RFC 7714 section 14.2: 1, 2 (AES-CM with SHA1), 7, 8 (AES-GCM).
            receive_key: The peer's master key with its salt behind it.
            send_key: Ours.
        """
    def allow(self, transport: int, address: Address) -> None:
        """Let datagrams of an address in: it has passed an ICE check. It leaves the transport it belonged to."""
    def forbid(self, transport: int, address: Address) -> None:
        """Let them in no longer; if it was nominated, sending stops."""
    def nominate(self, transport: int, address: Address | None) -> None:
        """Send there (it must be allowed); None: nowhere."""
    def set_extension_ids(self, transport: int, receive: Mapping[str, int], send: Mapping[str, int]) -> None:
        """Say which header extensions were negotiated, under which id (RFC 8285), each way.

        Names: mid, rid, rrid, abs-send-time, transport-cc, audio-level, video-orientation, dependency-descriptor.
        """

    # Sources: one per stream received.
    def add_source(
        self,
        transport: int,
        ssrc: int,
        codec: int,
        payload_type: int,
        clock_rate: int,
        rtx_ssrc: int = 0,
        rtx_payload_type: int = 0,
        red_payload_type: int = 0,
    ) -> int:
        """Take packets of this SSRC; other payload types of it are dropped.

        Refused, besides an SSRC that another source of the transport has: one that is new, from a transport that has
        left behind 64 others.

        Args:
            transport: Whose.
            ssrc: Which.
            codec: What they carry.
            payload_type: Of that codec.
            clock_rate: Of its timestamps.
            rtx_ssrc: Where its RTX comes (RFC 4588); 0: nowhere.
            rtx_payload_type: Of RTX.
            red_payload_type: It may come wrapped in RED (RFC 2198) under this payload type; 0: never. The codec is
                that of the blocks, and `payload_type` theirs.
        """
    def expect_source(
        self,
        transport: int,
        mid: bytes,
        rid: bytes,
        codec: int,
        payload_type: int,
        clock_rate: int,
        rtx_payload_type: int = 0,
        red_payload_type: int = 0,
        ssrc: int = 0,
    ) -> int:
        """Take packets of an SSRC that is not known yet.

        The first authentic packet with this mid and rid (RFC 8843, RFC 8852) and payload type binds its SSRC, and is
        carried like those after it: `EventKind.BOUND`. The RTX stream is bound by its own packets (mid and rrid). One
        with another SSRC binds anew: the publisher has begun again, counters begin at zero, forwards that it feeds wait
        for the keyframe, and the old SSRC is not taken back. Until it is bound its `ssrc` is 0.

        Args:
            transport: Whose.
            mid: 1 to 16 bytes.
            rid: At most 16 bytes; empty: packets without one.
            codec: As for `add_source`.
            payload_type: As for `add_source`.
            clock_rate: As for `add_source`.
            rtx_payload_type: Of RTX; 0: none.
            red_payload_type: As for `add_source`.
            ssrc: What it is bound to from the start, without an event, until a packet with the mid and rid says
                otherwise: for what something else than these has shown. 0: nothing. Refused as by `add_source`.
        """
    def remove_source(self, source: int) -> None:
        """Forget it; forwards that it feeds pause."""

    # Forwards: one per stream sent.
    def add_forward(
        self,
        transport: int,
        ssrc: int,
        payload_type: int,
        codec: int,
        rtx_ssrc: int = 0,
        rtx_payload_type: int = 0,
        mid: bytes = b"",
        red_payload_type: int = 0,
        cname: bytes = b"",
    ) -> int:
        """Make an outgoing stream, paused.

        Args:
            transport: To whom.
            ssrc: Of the stream; no other forward of the transport may have it, before or after.
            payload_type: Of what it carries.
            codec: What it carries.
            rtx_ssrc: 0: NACKs cannot be answered.
            rtx_payload_type: Of RTX.
            mid: At most 16 bytes.
            red_payload_type: The peer takes RED under this payload type, with blocks of `payload_type`: what comes as
                RED leaves as RED. 0: it does not; RED is unwrapped, and a lost frame taken from the next packet's
                redundancy.
            cname: At most 32 bytes, for sender reports.
        """
    def remove_forward(self, forward: int) -> None: ...
    def feed(
        self,
        forward: int,
        source: int | None,
        max_temporal: int = 7,
        at_keyframe: bool = True,
        timestamp_offset: int | None = None,
    ) -> None:
        """Choose what a forward carries.

        Sequence numbers, timestamps and picture ids continue without a gap, whatever the source.

        Args:
            forward: Which.
            source: What it is to carry; None pauses at once.
            max_temporal: The highest temporal layer; lowered at once, raised where the stream allows it.
            at_keyframe: Carry the old source until the new one's keyframe comes; audio switches at its next packet.
            timestamp_offset: Added to the new source's timestamps, when that does not step back; by default the time
                since the forward's last packet is.
        """

    # The slow path's traffic. It leaves with the next batch.
    def send(self, address: Address, data: bytes) -> None:
        """Send STUN or DTLS as it is."""
    def introduce(self, transport: int, ssrc: int, cname: bytes, now: float) -> None:
        """Say what reports to a transport are to be about and from whom; they begin a second from here.

        Args:
            transport: To whom.
            ssrc: Ours, in receiver reports.
            cname: Ours there, of 1 to 32 bytes (RFC 7022).
            now: Monotonic seconds.
        """
    def reports(self, now: float) -> int:
        """Queue the sender and receiver reports that are due, about once a second to each transport, encrypted.

        A receiver report tells how the transport's sources arrive; a sender report, what was sent of each forward to
        it, on the clocks that the publisher's own reports tell of, with the forward's CNAME. The first of those makes
        reports to all receivers due at once. What peers report of round trips is in the transports' table.

        Spec: RFC 3550 section 6.

        Args:
            now: Monotonic seconds.

        Returns:
            How many compounds were queued. Who finds no room is first in the next call.
        """
    def feedback(self, now: float, every: float = 0.1, sender_ssrc: int = 1) -> int:
        """Queue transport-cc feedback for every transport with new arrivals, encrypted. One call a tick serves all.

        Spec: draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.

        Args:
            now: Monotonic seconds.
            every: Seconds between two reports to the same transport, at least.
            sender_ssrc: Ours, of these packets; libwebrtc's is 1 too where it only receives.

        Returns:
            How many packets were queued. What finds no room is reported by the next call.
        """
    def sent(self, transport: int) -> NDArray[np.void]:
        """Take the log of what has left with a transport-wide number: rows of `SENT_DTYPE`, oldest first, the latest
        1024 at most.
        """
    def send_rtcp(self, transport: int, data: bytes) -> None:
        """Encrypt a compound RTCP packet and send it to where media goes; if nowhere, dropped and counted."""
    def retransmit(self, forward: int, seqs: Sequence[int]) -> int:
        """Repeat packets from history through RTX. The peer's own NACKs are answered without being asked.

        Args:
            forward: Whose.
            seqs: As on the wire (16 bits).

        Returns:
            How many were sent: those still in history, within a budget: a quarter of the bytes forwarded,
            32 KiB at first, 128 KiB at most.
        """
    def take_events(self, limit: int = 4096) -> list[Event]:
        """Take what the slow path has to see, oldest first.

        Only what is true still: nothing of a transport that has been removed, and no more that a forward wants or has
        begun with a source, or a source has found an SSRC, when it is another by now; nor an unknown SSRC that a source
        has found.
        """
    def missing(self, source: int, now: float, every: float = 0.05, tries: int = 10) -> list[int]:
        """List the extended sequence numbers to ask for again, and remember that they were.

        Args:
            source: Of what.
            now: Monotonic seconds.
            every: Seconds between two requests for the same packet; about a round trip.
            tries: Requests at most for each.
        """

    # Views: the tables themselves, not copies. A row is a slot.
    @property
    def transports_view(self) -> NDArray[np.void]: ...
    @property
    def sources_view(self) -> NDArray[np.void]: ...
    @property
    def forwards_view(self) -> NDArray[np.void]: ...
    @property
    def drops(self) -> NDArray[np.uint64]:
        """How many, by `DropReason`."""
    def process(self, datagrams: Sequence[tuple[Address, bytes]], now: float) -> list[tuple[Address, bytes]]:
        """Relay a batch in memory: what the socket loop does with what it has received.

        Args:
            datagrams: Where from, and the bytes. Whatever they are, nothing is raised.
            now: Monotonic seconds.

        Returns:
            What is to be sent, and where: the slow path's traffic first.
        """

TRANSPORT_DTYPE: np.dtype[Any]
"""`used`, `keyed` (booleans as bytes), `received_packets`, `received_bytes`, `sent_packets`, `sent_bytes`,
`wide_seq` (transport-wide sequence number sent last), `received_at` (seconds), `round_trip` (seconds; 0: not known)."""

SOURCE_DTYPE: np.dtype[Any]
"""`used`, `codec`, `audio_level` (-dBov of the last packet, RFC 6464; 127 without), `voice` (its flag), `transport`,
`ssrc` (0: not bound yet), `clock_rate`, `base_ext_seq`, `highest_ext_seq`, `packets`, `bytes` (payloads), `lost`
(expected less received, RFC 3550), `recovered` (through RTX or RED), `keyframes`, `jitter` (timestamp units),
`timestamp` (of the packet received last), `received_at`, `loudness` (0 to 127, moving average of about 10 packets)."""

SENT_DTYPE: np.dtype[Any]
"""`sent_at` (seconds), `wide_seq` (transport-wide number, unwrapped), `size` (bytes of the datagram)."""

FORWARD_DTYPE: np.dtype[Any]
"""`used`, `transport`, `source` (-1: paused), `pending` (the source whose keyframe is awaited; -1: none), `ssrc`,
`highest_ext_seq`, `packets`, `bytes` (payloads), `timestamp_offset` (to the current source's), `timestamp` (sent last),
`sent_at` (when that was), `retransmitted`, `nacked` (numbers that the receiver asked for), `dropped_temporal`."""
