"""The Sfu: the one media object that signalling talks to, one per media worker.

Driven by: worker.py. Sans-IO, the five verbs, and `receive_relay_events` for what the relay passes up.

    signalling ──> open, publish, subscribe, prefer ──> peer.py ─> router.py ─> uptrack.py, downtrack.py ─> relay
    relay ──┬─ STUN: by our ufrag in it; DTLS, RTCP: by the transport ──> transport.py ──> peer.py
            ├─ a keyframe is wanted, a forward has switched ────────────> router.py
            └─ an SSRC was found, or belongs to nobody ─────────────────> peer.py
    clockwork.py, each 50 ms: transport-cc feedback, NACKs, what has begun or ceased, speakers

Nothing here happens per packet. Peers wait in a heap for their timers and reports, so that quiet ones cost nothing.
The length is that of its interface: it is one thing, the registry through which every call and every event finds its
peer, and what is done there is done elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2s
from heapq import heappop, heappush

from server.errors import InvalidStateError, RefusalError
from server.media.clockwork import TICK_S, Clockwork
from server.media.dtls import Certificate
from server.media.events import MediaEvent
from server.media.fastpath.demux import Kind, classify
from server.media.fastpath.relay import Event, EventKind, Relay
from server.media.guard import Guard
from server.media.ice import local_ufrag, new_credentials
from server.media.parameters import (
    DtlsParameters,
    Endpoint,
    HeaderExtension,
    IceParameters,
    LocalParameters,
    SendParameters,
    TrackParameters,
)
from server.media.peer import Peer, require
from server.media.router import Router
from server.media.tally import Tally
from server.media.transport import RtcpReceived, Transport
from server.media.uptrack import UpTrack

MAX_TRANSPORTS_OF_ROOM = 64
"""12 people with a connection each, devices beside it, and dead ones that are not noticed yet."""
_RTCP = int(EventKind.RTCP)
_AFTER_FAILURE_S = 1.0
"""Until a peer is looked at again whose timer has failed."""


class SfuDrop(StrEnum):
    """Why something that came up from the relay came to nothing here."""

    UNKNOWN_USER = "unknown_user"
    """STUN that names none of our transports: not answered, and not looked at any closer."""
    UNKNOWN_TRANSPORT = "unknown_transport"
    """For a transport that has just been closed."""
    UNKNOWN_SSRC = "unknown_ssrc"
    """RTP that belongs to no track of its sender."""


class Sfu:
    """All rooms of one media worker.

    Before a peer is authenticated it costs its transport, made at signalling's request, and nothing else: what comes
    from strangers is looked up by its ufrag and forgotten.

    Args:
        relay: The fast path that it programs.
        certificate: Ours, for new transports; `self.certificate`, which the driver changes once a day.
        candidates: What answers announce, best first.
        random: Returns so many random bytes.
        max_transports_of_room: Where the next one is refused; in all there are as many as the relay has slots.
    """

    wake: Callable[[], None] = staticmethod(lambda: None)
    """Called after every change that signalling makes: the driver's reason to drain."""

    def __init__(
        self,
        relay: Relay,
        certificate: Certificate,
        candidates: Sequence[Endpoint],
        random: Callable[[int], bytes] = os.urandom,
        max_transports_of_room: int = MAX_TRANSPORTS_OF_ROOM,
    ) -> None:
        self.certificate = certificate
        self.drops: Counter[SfuDrop] = Counter()
        self._relay = relay
        self._candidates = tuple(candidates)
        self._random = random
        self._secret = random(16)
        self.guard = Guard()
        """Holds the defects of one peer, stream or room apart from the others."""
        self._tally = Tally(relay)
        self._closed_drops: Counter[str] = Counter()
        self._max_transports_of_room = max_transports_of_room
        self._rooms: dict[str, Router] = {}
        self._peers: dict[str, Peer] = {}
        self._by_slot: dict[int, Peer] = {}
        self._by_ufrag: dict[str, Peer] = {}
        self._clockwork = Clockwork(relay, self.guard)
        self._busy: set[Router] = set()
        self._outgoing: list[tuple[bytes, Endpoint]] = []
        self._events: deque[MediaEvent] = deque()
        self._heap: list[tuple[float, str]] = []
        """When to come to which transport; of those for one, what its peer's `due` says counts."""
        self._tick_at: float | None = None

    # For signalling: transports.

    def open_transport(
        self,
        id: str,
        room: str,
        participant: str,
        ice: IceParameters | None,
        dtls: DtlsParameters,
        extensions: Sequence[HeaderExtension],
        now: float,
    ) -> LocalParameters:
        """Make a transport. `ice` is the peer's; None as long as it is unknown.

        Raises:
            RefusalError: `room_full`, the room or the worker has as many as it may have.
            InvalidStateError: The id is taken.
        """
        if id in self._peers:
            raise InvalidStateError("there is a transport of that name")
        router = self._rooms.get(room) or Router(room)
        is_full = len(router.transports) >= self._max_transports_of_room
        if is_full or len(self._peers) >= len(self._relay.transports_view):
            raise RefusalError("room_full")
        transport = Transport(id, self._relay, self.certificate, new_credentials(self._random), ice, dtls, now)
        peer = Peer(transport, router, participant, self._relay, self._ssrc(), self._cname(id), now)
        peer.use_extensions(extensions)
        self._rooms[room] = router
        router.transports.add(id)
        self._peers[id] = self._by_slot[transport.slot] = peer
        self._name(peer)
        self._schedule(peer, now)
        self.wake()
        return transport.parameters(self._candidates)

    def restart_ice(self, id: str, ice: IceParameters | None, now: float) -> LocalParameters:
        """Take the peer's new credentials, and return ours; media goes on along the old path for the while."""
        peer = self._peer(id)
        peer.transport.restart_ice(new_credentials(self._random), ice, now)
        self._name(peer)
        self._after(peer, now)
        self.wake()
        return peer.transport.parameters(self._candidates)

    def close_transport(self, id: str, now: float) -> None:
        """Close it: from this call on nothing of it is forwarded, and nothing to it. If it is not there: nothing."""
        peer = self._peers.pop(id, None)
        if peer is None:
            return
        router = peer.router
        try:
            for up in peer.ups.values():
                self._forget(up)
            for down in peer.downs.values():
                self._tally.forward_goes(down.forward)
                del self._clockwork.forwards[down.forward]
            peer.leave(now)
            self._closed_drops += peer.transport.all_drops()
            self._tally.transport_goes(peer.transport.slot)
            self._settle(router, now)
        finally:  # whatever else is wrong: who is sent away neither sends nor receives
            peer.transport.close(now)
            self._outgoing += peer.transport.datagrams_to_send(now)
            del self._by_slot[peer.transport.slot]
            for ufrag in peer.ufrags:
                del self._by_ufrag[ufrag]
            router.transports.remove(id)
            if not router.transports:
                del self._rooms[router.room]
                self._busy.discard(router)
            self.wake()

    # For signalling: tracks.

    def publish(self, transport: str, track: TrackParameters, now: float) -> str:
        """Take a track of the peer. The same mid again replaces codec and encodings, where they differ.

        Args:
            transport: Whose.
            track: `codecs[0]` is what the peer sends, perhaps wrapped in RED, which may stand before or after it;
                encodings lowest first; none: one without rid, found by its mid.
            now: Monotonic seconds.

        Returns:
            The source's id, `<transport>:<mid>`.

        Raises:
            RefusalError: `bad_sdp`, an SSRC of it is another stream's; `room_full`, the relay has no room left. What
                the peer has sent in the section until now is taken no longer.
            InvalidStateError: The track has no codec or no usable mid.
        """
        require(track)
        peer = self._peer(transport)
        source = f"{transport}:{track.mid}"
        peer.use_extensions(track.extensions)
        if peer.has(track):
            return source
        self.unpublish(transport, track.mid, now)
        for encoding in peer.publish(source, track, now).encodings:
            self._clockwork.add(peer, encoding)
        if self._tick_at is None:
            self._tick_at = now + TICK_S
        self._settle(peer.router, now)
        self.wake()
        return source

    def unpublish(self, transport: str, mid: str, now: float) -> None:
        """Take it no longer. Nothing happens if it is not there."""
        peer = self._peer(transport)
        up = peer.ups.get(mid)
        if up is not None:
            self._forget(up)
            peer.unpublish(up, now)
            self._settle(peer.router, now)
            self.wake()

    def subscribe(self, transport: str, track: TrackParameters, source: str, now: float) -> SendParameters:
        """Forward a source of the same room to a peer, as soon and as long as it is there with the same codec.

        The same mid with the same source and codecs again changes nothing and answers the same; otherwise it is a new
        stream. Until `prefer` says something else, the highest encoding is asked for.

        Args:
            transport: Whose.
            track: The peer's section; `codecs[0]` is what is sent, under this peer's payload types; RED beside Opus
                means that the peer takes it.
            source: Its id; it need not be there yet.
            now: Monotonic seconds.

        Raises:
            RefusalError: `room_full`, the relay has no room left. The section carries nothing then.
            InvalidStateError: The track has no codec or no usable mid.
        """
        require(track)
        peer = self._peer(transport)
        down = peer.downs.get(track.mid)
        if down is not None:
            if (down.source, down.parameters.codecs) == (source, track.codecs):
                return down.parameters
            self._unsubscribe(peer, track.mid, now)
        peer.use_extensions(track.extensions)
        publisher = self._peers.get(source.rpartition(":")[0])
        rtx_ssrc = self._ssrc_for(peer) if track.codecs[0].rtx_payload_type else None
        parameters = SendParameters(
            mid=track.mid,
            ssrc=self._ssrc_for(peer),
            rtx_ssrc=rtx_ssrc,
            codecs=track.codecs,
            cname=self._cname(source.rpartition(":")[0]),
            msid=f"{publisher.participant if publisher and publisher.router is peer.router else '-'} {source}",
        )
        down = peer.subscribe(track, source, parameters, now)
        self._clockwork.forwards[down.forward] = (peer.router, down)
        self._settle(peer.router, now)
        self.wake()
        return parameters

    def unsubscribe(self, transport: str, mid: str, now: float) -> None:
        """Forward it no longer. Nothing happens if it is not there."""
        peer = self._peer(transport)
        if mid in peer.downs:
            self._unsubscribe(peer, mid, now)
            self._settle(peer.router, now)
            self.wake()

    def prefer(self, transport: str, mid: str, rid: str | None, max_temporal: int = 7, now: float = 0.0) -> None:
        """Ask for an encoding; None pauses. The best that really arrives takes the place of one that does not."""
        peer = self._peer(transport)
        down = peer.downs.get(mid)
        if down is not None:
            peer.router.prefer(down, rid, max_temporal, now)
            self._settle(peer.router, now)
            self.wake()

    def next_event(self) -> MediaEvent | None:
        """Take the oldest event for signalling."""
        return self._events.popleft() if self._events else None

    # For the driver.

    def has_room(self, room: str) -> bool:
        """Tell whether the room has a transport here."""
        return room in self._rooms

    @property
    def transports(self) -> int:
        """How many there are."""
        return len(self._peers)

    def close(self, now: float) -> None:
        """Close every transport."""
        for id in list(self._peers):
            self.close_transport(id, now)

    def statistics(self) -> Mapping[str, int]:
        """Count what there is, and what all transports, the closed ones too, have received and sent."""
        counts = {
            "rooms": len(self._rooms),
            "transports": len(self._peers),
            "sources": len(self._clockwork.encodings),
            "forwards": len(self._clockwork.forwards),
        }
        return counts | self._tally.totals(self._clockwork.encodings, self._clockwork.forwards)

    def all_drops(self) -> Counter[str]:
        """Count what came to nothing here, in transports, ICE and DTLS, by reason; closed transports included."""
        drops = self._closed_drops + Counter({str(reason): number for reason, number in self.drops.items()})
        drops["failed"] += self.guard.failures
        for peer in self._peers.values():
            drops += peer.transport.all_drops()
        return drops

    def receive_relay_events(self, events: Iterable[Event], now: float) -> None:
        """Take what `Relay.take_events` gave. Nothing is ever raised: the next event may be another room's."""
        for event in events:
            with self.guard:
                self._receive_relay_event(event, now)

    def receive_datagram(self, data: bytes, addr: Endpoint, now: float) -> None:
        """Take one STUN or DTLS datagram from anywhere, as in tests without a relay around. Nothing is ever raised."""
        if classify(data) == Kind.STUN:
            self._receive_stun(data, addr, now)
            return
        peer = next((peer for peer in self._peers.values() if peer.transport.ice.is_validated(addr)), None)
        if peer is None:
            self.drops[SfuDrop.UNKNOWN_TRANSPORT] += 1
        else:
            peer.transport.receive_datagram(data, addr, now)
            self._after(peer, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Endpoint]]:
        """Take what is to be sent as it is: STUN and DTLS. RTCP goes through the relay, which encrypts it."""
        taken, self._outgoing = self._outgoing, []
        return taken

    def get_timer(self) -> float | None:
        """Return when `handle_timer` has something to do."""
        while self._heap and self._due_peer(*self._heap[0]) is None:
            heappop(self._heap)
        timers = [self._heap[0][0]] if self._heap else []
        if self._tick_at is not None:
            timers.append(self._tick_at)
        return min(timers, default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        while self._heap and self._heap[0][0] <= now:
            peer = self._due_peer(*heappop(self._heap))
            if peer is None:
                continue
            peer.due = float("inf")
            failures = self.guard.failures
            with self.guard:
                self._on_peers_timer(peer, now)
            if self.guard.failures > failures:
                self._come_back(peer, now + _AFTER_FAILURE_S)
        if self._tick_at is not None and now >= self._tick_at:
            self._tick_at = now + TICK_S if self._clockwork.encodings else None
            busy, self._busy = self._busy, set()
            with self.guard:
                busy |= self._clockwork.tick(now)
            for router in busy:
                with self.guard:
                    router.handle_timer(now)
                    self._settle(router, now)

    def _on_peers_timer(self, peer: Peer, now: float) -> None:
        peer.transport.handle_timer(now)
        self._after(peer, now)

    # What comes up from the relay.

    def _receive_relay_event(self, event: Event, now: float) -> None:
        kind, index, address, data, at = event
        if kind == _RTCP:
            peer = self._by_slot.get(index)
            if peer is not None:
                peer.transport.receive_rtcp(data, at)
                while (told := peer.transport.next_event()) is not None:
                    self._on_event(peer, told, now)
        elif kind == EventKind.STUN:
            self._receive_stun(data, Endpoint(*address), now)  # type: ignore[arg-type]  # its kind is a str there
        elif kind == EventKind.KEYFRAME_WANTED:
            self._on_keyframe_wanted(int.from_bytes(data), now)
        elif kind == EventKind.SWITCHED:
            self._on_switched(index, int.from_bytes(data), now)
        elif kind == EventKind.BOUND:
            self._on_bound(index, int.from_bytes(data), now)
        elif kind == EventKind.UNKNOWN_SSRC:
            self._on_unknown_ssrc(index, data, now)
        elif (peer := self._by_slot.get(index)) is None:
            self.drops[SfuDrop.UNKNOWN_TRANSPORT] += 1
        else:
            endpoint = Endpoint(*address)  # type: ignore[arg-type]  # as above
            if kind == EventKind.DTLS:
                peer.transport.receive_datagram(data, endpoint, now)
            elif kind == EventKind.DISCONNECTED:
                peer.transport.disconnected(endpoint, now)
            self._after(peer, now)

    def _receive_stun(self, data: bytes, addr: Endpoint, now: float) -> None:
        peer = self._by_ufrag.get(local_ufrag(data) or "")
        if peer is None:
            self.drops[SfuDrop.UNKNOWN_USER] += 1
        else:
            peer.transport.receive_datagram(data, addr, now)
            self._after(peer, now)

    def _on_keyframe_wanted(self, slot: int, now: float) -> None:
        known = self._clockwork.encodings.get(slot)
        if known is not None:
            peer, encoding = known
            peer.router.want_keyframe(encoding, now)
            self._settle(peer.router, now)

    def _on_switched(self, forward: int, slot: int, now: float) -> None:
        known = self._clockwork.forwards.get(forward)
        if known is not None:
            router, down = known
            router.switched(down, slot, now)
            self._settle(router, now)

    def _on_bound(self, slot: int, ssrc: int, now: float) -> None:
        # The event may be of a source that had the slot before.
        if slot in self._clockwork.encodings and int(self._relay.sources_view[slot]["ssrc"]) == ssrc:
            self._clockwork.bound(slot, ssrc)

    def _on_unknown_ssrc(self, index: int, data: bytes, now: float) -> None:
        """RTP without a known SSRC."""
        peer = self._by_slot.get(index)
        claimed = peer.claim(data, now) if peer else None
        if peer is None or claimed is None:
            self.drops[SfuDrop.UNKNOWN_SSRC] += 1
            return
        encoding, slot = claimed
        self._clockwork.remove(slot, encoding)
        self._clockwork.add(peer, encoding)
        peer.router.restarted(encoding.track, now)
        self._settle(peer.router, now)

    # Bookkeeping.

    def _after(self, peer: Peer, now: float) -> None:
        """Drain a transport, and arm its timer."""
        transport = peer.transport
        while (event := transport.next_event()) is not None:
            self._on_event(peer, event, now)
        self._outgoing += transport.datagrams_to_send(now)
        self._schedule(peer, now)

    def _on_event(self, peer: Peer, event: MediaEvent, now: float) -> None:
        if not isinstance(event, RtcpReceived):
            self._events.append(event)
            return
        for encoding in peer.receive(event.packets, now):
            self._clockwork.watch.silence(encoding.slot, now)
            peer.router.live(encoding, False)
        self._settle(peer.router, now)

    def _settle(self, router: Router, now: float) -> None:
        """Drain a router after each change of it."""
        while (event := router.next_event()) is not None:
            self._events.append(event)
        if router.is_busy:
            self._busy.add(router)

    def _schedule(self, peer: Peer, now: float) -> None:
        """Come back to a peer when something is due. Only an earlier time is a new entry; a later one is found then."""
        at = peer.transport.get_timer()
        if at is not None and at < peer.due:
            self._come_back(peer, at)

    def _come_back(self, peer: Peer, at: float) -> None:
        peer.due = at
        heappush(self._heap, (at, peer.transport.id))

    def _due_peer(self, at: float, id: str) -> Peer | None:
        """Return whose entry it is; None: they have gone, or have another one."""
        peer = self._peers.get(id)
        return peer if peer is not None and peer.due == at else None

    def _unsubscribe(self, peer: Peer, mid: str, now: float) -> None:
        down = peer.downs[mid]
        self._tally.forward_goes(down.forward)
        del self._clockwork.forwards[down.forward]
        peer.unsubscribe(down, now)

    def _forget(self, up: UpTrack) -> None:
        self._tally.sources_go([encoding.slot for encoding in up.encodings])
        for encoding in up.encodings:
            self._clockwork.remove(encoding.slot, encoding)

    def _name(self, peer: Peer) -> None:
        """Find it by its ufrags: of the latest credentials and of those before."""
        for ufrag in peer.ufrags:
            del self._by_ufrag[ufrag]
        peer.ufrags = peer.transport.ice.ufrags
        for ufrag in peer.ufrags:
            self._by_ufrag[ufrag] = peer

    def _peer(self, id: str) -> Peer:
        peer = self._peers.get(id)
        if peer is None:
            raise InvalidStateError("there is no such transport")
        return peer

    def _cname(self, transport: str) -> str:
        """Of everything that a transport publishes, also before it does (RFC 7022 section 4.2: it tells nothing)."""
        return blake2s(transport.encode(), key=self._secret, digest_size=8).hexdigest()

    def _ssrc(self) -> int:
        return int.from_bytes(self._random(4)) or 1

    def _ssrc_for(self, peer: Peer) -> int:
        """An SSRC that this peer has not seen from us: one is never used again under the same keys."""
        ssrc = self._ssrc()
        while ssrc in peer.ssrcs:
            ssrc = self._ssrc()
        peer.ssrcs.add(ssrc)
        return ssrc
