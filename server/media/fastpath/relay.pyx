"""The relay's Python face: the methods by which the slow path programs the tables, takes what has come up, and sends.

One Relay per media worker, driven by its socket loop (or, in memory, by `process`). One mutex, held for a batch at a time, keeps
the slow path and the road of packets (road.pyx, the base class) apart: every method here takes it.

Longer than other modules because it is one thing, the table of methods on the same three tables; relay.pyi documents them.
"""

import secrets

import numpy as np
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from server.media.fastpath.arrivals cimport Arrivals
from server.media.fastpath.batch cimport STRIDE, batch_add, batch_close, batch_next, batch_open
from server.media.fastpath.control cimport Control, REPORT_EVERY_S
from server.media.fastpath.crypto cimport Session
from server.media.fastpath.extensions cimport EXTENSIONS
from server.media.fastpath.demux cimport read_u32
from server.media.fastpath.events cimport Queued, events_pop
from server.media.fastpath.history cimport HISTORY_SLOTS, History, history_ask
from server.media.fastpath.sentlog cimport SENT, Sent, SentLog
from server.media.fastpath.slots cimport TCP, UDP, Key, key_of_ssrc, map_get, map_put, map_remove
from server.media.fastpath.tables cimport (
    CNAME_BYTES, DROPS, DROP_OUTDATED, DROP_QUEUE_FULL, EVENT_BOUND, EVENT_KEYFRAME_WANTED,
    EVENT_SWITCHED, EVENT_UNKNOWN_SSRC, Forward, ForwardRow, MAX_DATAGRAM,
    Source, SourceRow, Transport, TransportRow, reset_row,
)
from server.media.fastpath.unknown cimport Unknowns, unknown_find, unknown_forget, unknown_is_full

from server.errors import InvalidStateError
from server.media.fastpath.names import (
    EXTENSION_NAMES, FORWARD_DTYPE, SENT_DTYPE, SOURCE_DTYPE, TRANSPORT_DTYPE, Codec, DropReason, EventKind,
)

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET
    int AF_INET6
    int inet_pton(int, const char*, void*)
    const char* inet_ntop(int, const void*, char*, uint32_t)


Address = tuple[str, int, str]
Event = tuple[int, int, Address, bytes, float]
MAX_DATAGRAM_BYTES = MAX_DATAGRAM
_BATCH = 256
cdef int64_t BUDGET_AT_FIRST = 32 * 1024


_VIDEO = (Codec.VP8, Codec.VP9, Codec.H264, Codec.AV1)


cdef Endpoint _endpoint(address) except *:
    """The endpoint of an `(ip, port, protocol)`."""
    cdef Endpoint endpoint
    memset(&endpoint, 0, sizeof(Endpoint))
    try:
        ip, port, protocol = address
        text = ip.encode("ascii")
        endpoint.protocol = {"udp": UDP, "tcp": TCP}[protocol]
        endpoint.port = port
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InvalidStateError("not an address: ip, port, and udp or tcp are wanted") from error
    if inet_pton(AF_INET, text, endpoint.ip) == 1:
        endpoint.family = 4
    elif inet_pton(AF_INET6, text, endpoint.ip) == 1:
        endpoint.family = 6
    else:
        raise InvalidStateError("not an IP address")
    return endpoint


cdef object _address(const Endpoint* endpoint):
    """The `(ip, port, protocol)` of an endpoint."""
    cdef char text[64]
    text[0] = 0
    if endpoint.family:
        inet_ntop(AF_INET if endpoint.family == 4 else AF_INET6, endpoint.ip, text, sizeof(text))
    return (<bytes>text).decode("ascii"), endpoint.port, "tcp" if endpoint.protocol == TCP else "udp"


cdef void _collect(void* context, Batch* batch) noexcept with gil:
    """Flush for `process`: append to the list that is the context."""
    cdef uint32_t i
    for i in range(batch.count):
        (<list>context).append((_address(&batch.items[i].to), batch.arena[i * STRIDE : i * STRIDE + batch.items[i].size]))
    batch.count = 0


cdef class Relay(Control):
    """See relay.pyi, which documents every method for whoever calls it."""

    def __cinit__(self, transports=2048, sources=16384, forwards=65536):
        self._tables = [
            np.zeros(transports, TRANSPORT_DTYPE),
            np.zeros(sources, SOURCE_DTYPE),
            np.zeros(forwards, FORWARD_DTYPE),
            np.zeros(DROPS, np.uint64),
        ]
        addresses = [table.__array_interface__["data"][0] for table in self._tables]
        self.transport_rows = <TransportRow*><uintptr_t>addresses[0]
        self.source_rows = <SourceRow*><uintptr_t>addresses[1]
        self.forward_rows = <ForwardRow*><uintptr_t>addresses[2]
        self.drop_counts = <uint64_t*><uintptr_t>addresses[3]
        views = [table.view() for table in self._tables]
        for view in views:
            view.flags.writeable = False
        self.transports_view, self.sources_view, self.forwards_view, self.drops = views
        self._free_transports = list(range(transports))[::-1]
        self._free_sources = list(range(sources))[::-1]
        self._free_forwards = list(range(forwards))[::-1]
        self._sessions = {}
        # By transport: its sources, its forwards, and the keys of its addresses.
        self._owned = [(set(), set(), set()) for _ in range(transports)]

    # --- Batches ------------------------------------------------------------------------------------------------------

    cdef void begin_batch(self, double now, Batch* out) noexcept nogil:
        """Set the time, and let the slow path's traffic go first."""
        self.now = now
        if self.outbox.count:
            out.flush(out.context, &self.outbox)

    def process(self, datagrams, now):
        cdef list sent = []
        cdef Batch out
        cdef Endpoint origin
        cdef uint8_t scratch[65536]
        cdef const uint8_t[::1] view
        cdef uint32_t size
        if not batch_open(&out, _BATCH, _collect, <void*>sent):
            batch_close(&out)
            raise MemoryError
        with nogil:
            self.lock()
        try:
            self.begin_batch(now, &out)
            for address, datagram in datagrams:
                origin = _endpoint(address)
                view = datagram
                size = min(<uint32_t>len(datagram), <uint32_t>sizeof(scratch))
                if size:
                    memcpy(scratch, &view[0], size)
                self.receive(scratch, size, &origin, &out)
            _collect(<void*>sent, &out)
        finally:
            self.unlock()
            batch_close(&out)
        return sent

    # --- Up to the slow path ------------------------------------------------------------------------------------------

    def take_events(self, limit=4096):
        cdef Queued* event
        cdef list taken = []
        with nogil:
            self.lock()
        try:
            while self.events.count and len(taken) < limit:
                event = &self.events.items[self.events.begin]
                if event.charged and event.index >= 0 and self.transports[event.index].birth == event.birth:
                    self.transports[event.index].events -= 1
                if self._is_current(event):
                    taken.append((event.kind, event.index, _address(&event.origin), event.data[: event.size], event.at))
                elif event.charged:
                    self._drop(DROP_OUTDATED)
                events_pop(&self.events)
        finally:
            self.unlock()
        return taken

    cdef bint _is_current(self, const Queued* event) noexcept nogil:
        """Whether an event is true still: a slot may have another owner since, and a forward another source."""
        cdef uint32_t what = read_u32(event.data) if event.size == 4 else 0
        cdef Key key
        if event.kind == EVENT_BOUND:
            return self.source_rows[event.index].used and self.source_rows[event.index].ssrc == what
        if event.kind == EVENT_SWITCHED:
            return self.forward_rows[event.index].used and self.forward_rows[event.index].source == <int32_t>what
        if event.kind == EVENT_KEYFRAME_WANTED:
            return self.forward_rows[event.index].used and self.forward_rows[event.index].pending == <int32_t>what
        if event.index >= 0 and self.transports[event.index].birth != event.birth:
            return False
        if event.kind == EVENT_UNKNOWN_SSRC:
            key = key_of_ssrc(event.index, read_u32(event.data + 8))
            return map_get(&self.by_ssrc, &key) < 0
        return True

    # --- Transports ---------------------------------------------------------------------------------------------------

    cdef int32_t _slot(self, index, str table) except -1:
        """Check an index; the mutex is held."""
        cdef dict tables = {"transport": 0, "source": 1, "forward": 2}
        rows = self._tables[tables[table]]
        if not isinstance(index, int) or not 0 <= index < len(rows) or not rows["used"][index]:
            raise InvalidStateError(f"no {table} {index}")
        return index

    cdef int32_t _take_slot(self, list free_slots, str table) except -1:
        if not free_slots:
            raise InvalidStateError(f"no {table} is free")
        return free_slots.pop()

    def add_transport(self):
        cdef int32_t index
        with nogil:
            self.lock()
        try:
            index = self._take_slot(self._free_transports, "transport")
            memset(&self.transports[index], 0, sizeof(Transport))
            memset(&self.transport_rows[index], 0, sizeof(TransportRow))
            memset(self.transports[index].receive_ids.name, EXTENSIONS, 256)
            self.births += 1
            self.transports[index].birth = self.births
            self.transport_rows[index].used = 1
            return index
        finally:
            self.unlock()

    def remove_transport(self, transport):
        cdef int32_t index
        cdef Key key
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            sources, forwards, addresses = self._owned[index]
            for source in tuple(sources):
                self._remove_source(source)
            for forward in tuple(forwards):
                self._remove_forward(forward)
            for address in tuple(addresses):
                memcpy(&key, <const uint8_t*><bytes>address, sizeof(Key))
                self._release(&key)
            free(self.transports[index].arrivals)
            free(self.transports[index].sent)
            memset(&self.transports[index], 0, sizeof(Transport))
            memset(&self.transport_rows[index], 0, sizeof(TransportRow))
            self._sessions.pop(index, None)
            self._free_transports.append(index)
        finally:
            self.unlock()

    def set_keys(self, transport, profile, receive_key, send_key):
        cdef int32_t index
        cdef Session receive = Session(profile, receive_key, True), send = Session(profile, send_key, False)
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            self.transports[index].receive = receive.srtp
            self.transports[index].send = send.srtp
            self.transport_rows[index].keyed = 1
            # What was there is freed here, under the mutex: the loop does not use it any more.
            self._sessions[index] = receive, send
        finally:
            self.unlock()

    def allow(self, transport, address):
        cdef Key key
        cdef int32_t index
        key.endpoint = _endpoint(address)
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            if map_get(&self.by_address, &key) == index:
                return
            self._release(&key)
            if not map_put(&self.by_address, &key, index):
                raise InvalidStateError("too many addresses are allowed")
            self._owned[index][2].add((<uint8_t*>&key)[: sizeof(Key)])
        finally:
            self.unlock()

    def introduce(self, transport, ssrc, cname, now):
        cdef int32_t index
        cdef Transport* association
        cdef const uint8_t* name = cname
        if not 1 <= len(cname) <= CNAME_BYTES:
            raise InvalidStateError(f"a CNAME has 1 to {CNAME_BYTES} bytes here")
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            association = &self.transports[index]
            association.ssrc = ssrc
            association.cname_size = len(cname)
            memcpy(association.cname, name, association.cname_size)
            association.report_at = now + REPORT_EVERY_S
        finally:
            self.unlock()

    def forbid(self, transport, address):
        cdef Key key
        key.endpoint = _endpoint(address)
        with nogil:
            self.lock()
        try:
            if map_get(&self.by_address, &key) == self._slot(transport, "transport"):
                self._release(&key)
        finally:
            self.unlock()

    cdef _release(self, const Key* key):
        """Take an address from the transport it belongs to, which no longer sends there."""
        cdef int32_t owner = map_get(&self.by_address, key)
        cdef Key nominated
        if owner >= 0:
            nominated.endpoint = self.transports[owner].nominated
            if nominated.words[0] == key.words[0] and nominated.words[1] == key.words[1] and nominated.words[2] == key.words[2]:
                self.transports[owner].nominated.family = 0
            self._owned[owner][2].discard((<const uint8_t*>key)[: sizeof(Key)])
            map_remove(&self.by_address, key)

    def nominate(self, transport, address):
        cdef Key key
        cdef int32_t index
        memset(&key, 0, sizeof(Key))
        if address is not None:
            key.endpoint = _endpoint(address)
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            if address is not None and map_get(&self.by_address, &key) != index:
                raise InvalidStateError("the address is not allowed")
            self.transports[index].nominated = key.endpoint
        finally:
            self.unlock()

    def set_extension_ids(self, transport, receive, send):
        cdef int32_t index
        cdef Transport* association
        for name, identifier in (*receive.items(), *send.items()):
            if name not in EXTENSION_NAMES or not 1 <= identifier <= 255 or identifier == 15:
                raise InvalidStateError(f"header extension {name} cannot have id {identifier}")
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            association = &self.transports[index]
            memset(association.receive_ids.name, EXTENSIONS, 256)
            memset(association.send_ids.id, 0, EXTENSIONS)
            for name, identifier in receive.items():
                association.receive_ids.name[<uint8_t>identifier] = EXTENSION_NAMES.index(name)
            for name, identifier in send.items():
                association.send_ids.id[<uint8_t>EXTENSION_NAMES.index(name)] = identifier
            if "transport-cc" in receive and association.arrivals == NULL:
                association.arrivals = <Arrivals*>calloc(1, sizeof(Arrivals))
                if association.arrivals == NULL:
                    raise MemoryError
            if "transport-cc" in send and association.sent == NULL:
                association.sent = <SentLog*>calloc(1, sizeof(SentLog))
                if association.sent == NULL:
                    raise MemoryError
        finally:
            self.unlock()

    def sent(self, transport):
        cdef SentLog* log
        cdef Sent[::1] rows
        cdef uint32_t i
        taken = np.empty(SENT, SENT_DTYPE)
        cdef uint32_t count = 0
        rows = taken
        with nogil:
            self.lock()
        try:
            log = self.transports[self._slot(transport, "transport")].sent
            if log != NULL:
                count = log.count
                for i in range(count):
                    rows[i] = log.ring[(log.begin + i) % SENT]
                log.count = 0
        finally:
            self.unlock()
        return taken[:count]

    # --- Sources ------------------------------------------------------------------------------------------------------

    def add_source(
        self, transport, ssrc, codec, payload_type, clock_rate, rtx_ssrc=0, rtx_payload_type=0, red_payload_type=0
    ):
        cdef int32_t index, owner
        cdef Key key
        cdef Source* source
        with nogil:
            self.lock()
        try:
            owner = self._slot(transport, "transport")
            self._check_ssrcs(owner, ssrc, rtx_ssrc)
            index = self._take_source(owner, codec, payload_type, clock_rate, rtx_payload_type, red_payload_type)
            self._name(index, ssrc)
            if rtx_ssrc:
                source = &self.sources[index]
                source.rtx_ssrc = rtx_ssrc
                source.rtx_bound = True
                key = key_of_ssrc(owner, rtx_ssrc)
                map_put(&self.by_ssrc, &key, 2 * index + 1)
                unknown_forget(&self.transports[owner].unknowns, rtx_ssrc)
            return index
        finally:
            self.unlock()

    def _check_ssrcs(self, int32_t owner, uint32_t ssrc, uint32_t rtx_ssrc):
        """Refuse SSRCs that a source has, and new ones once the transport has had too many; the mutex is held."""
        cdef Unknowns* unknowns = &self.transports[owner].unknowns
        cdef Key key = key_of_ssrc(owner, ssrc), rtx_key = key_of_ssrc(owner, rtx_ssrc)
        if map_get(&self.by_ssrc, &key) >= 0 or (rtx_ssrc and map_get(&self.by_ssrc, &rtx_key) >= 0) or ssrc == rtx_ssrc:
            raise InvalidStateError("the SSRC belongs to a source already")
        if unknown_is_full(unknowns) and (
            unknown_find(unknowns, ssrc) == NULL or (rtx_ssrc and unknown_find(unknowns, rtx_ssrc) == NULL)
        ):
            raise InvalidStateError("the transport has had too many SSRCs")

    def _name(self, int32_t index, uint32_t ssrc):
        """Let a source have an SSRC, which has been checked; the mutex is held."""
        cdef int32_t owner = self.source_rows[index].transport
        cdef Key key = key_of_ssrc(owner, ssrc)
        self.source_rows[index].ssrc = ssrc
        self.sources[index].bound = True
        map_put(&self.by_ssrc, &key, 2 * index)
        unknown_forget(&self.transports[owner].unknowns, ssrc)

    def expect_source(
        self, transport, mid, rid, codec, payload_type, clock_rate, rtx_payload_type=0, red_payload_type=0, ssrc=0
    ):
        cdef int32_t index, owner
        cdef Source* source
        cdef const uint8_t* mid_name = mid
        cdef const uint8_t* rid_name = rid
        if not 1 <= len(mid) <= 16 or len(rid) > 16:
            raise InvalidStateError("a mid has 1 to 16 bytes, a rid at most 16")
        with nogil:
            self.lock()
        try:
            owner = self._slot(transport, "transport")
            if ssrc:
                self._check_ssrcs(owner, ssrc, 0)
            index = self._take_source(owner, codec, payload_type, clock_rate, rtx_payload_type, red_payload_type)
            if ssrc:
                self._name(index, ssrc)
            source = &self.sources[index]
            source.mid_size = len(mid)
            source.rid_size = len(rid)
            memcpy(source.mid, mid_name, source.mid_size)
            memcpy(source.rid, rid_name, source.rid_size)
            source.expected = True
            source.next_expected = self.transports[owner].expected
            self.transports[owner].expected = index + 1
            return index
        finally:
            self.unlock()

    def _take_source(self, owner, codec, payload_type, clock_rate, rtx_payload_type, red_payload_type):
        """A slot for a source that no SSRC belongs to yet; the mutex is held."""
        cdef int32_t index
        cdef Source* source
        codec = Codec(codec)
        if red_payload_type and codec in _VIDEO:
            raise InvalidStateError("RED is for sound")
        index = self._take_slot(self._free_sources, "source")
        source = &self.sources[index]
        memset(source, 0, sizeof(Source))
        self.births += 1
        source.birth = self.births
        source.payload_type = payload_type
        source.rtx_payload_type = rtx_payload_type
        source.red_payload_type = red_payload_type
        reset_row(&self.source_rows[index], owner, codec, clock_rate)
        source.next = self.transports[<int32_t>owner].sources
        self.transports[<int32_t>owner].sources = index + 1
        self._owned[owner][0].add(index)
        return index

    def remove_source(self, source):
        with nogil:
            self.lock()
        try:
            self._remove_source(source)
        finally:
            self.unlock()

    def _remove_source(self, slot):
        cdef int32_t index = self._slot(int(slot), "source")
        cdef Source* source = &self.sources[index]
        cdef int32_t transport = self.source_rows[index].transport, forward
        cdef int32_t* link = &self.transports[transport].sources
        while link[0] != index + 1:
            link = &self.sources[link[0] - 1].next
        link[0] = source.next
        if source.bound:
            self.leave_behind(transport, self.source_rows[index].ssrc, False)
        if source.rtx_bound:
            self.leave_behind(transport, source.rtx_ssrc, False)
        if source.expected:
            link = &self.transports[transport].expected
            while link[0] != index + 1:
                link = &self.sources[link[0] - 1].next_expected
            link[0] = source.next_expected
        while source.feeds_count:
            forward = source.feeds[source.feeds_count - 1]
            if self.forward_rows[forward].source == index:
                self.forward_rows[forward].source = -1
            else:
                self.forward_rows[forward].pending = -1
            source.feeds_count -= 1
        free(source.feeds)
        free(source.history)
        memset(source, 0, sizeof(Source))
        memset(&self.source_rows[index], 0, sizeof(SourceRow))
        self._owned[transport][0].discard(index)
        self._free_sources.append(index)

    def missing(self, source, now, every=0.05, tries=10):
        cdef int32_t index
        cdef History* history
        cdef int64_t ext_seq
        cdef list wanted = []
        with nogil:
            self.lock()
        try:
            index = self._slot(source, "source")
            history = self.sources[index].history
            if history != NULL:
                for ext_seq in range(max(history.floor, history.highest - HISTORY_SLOTS + 1), history.highest):
                    if history_ask(history, ext_seq, now, every, tries):
                        wanted.append(ext_seq)
        finally:
            self.unlock()
        return wanted

    # --- Forwards -----------------------------------------------------------------------------------------------------

    def add_forward(
        self, transport, ssrc, payload_type, codec, rtx_ssrc=0, rtx_payload_type=0, mid=b"", red_payload_type=0, cname=b""
    ):
        cdef int32_t index, owner
        cdef Key key
        cdef Forward* forward
        cdef ForwardRow* row
        cdef const uint8_t* name = mid
        cdef const uint8_t* canonical = cname
        Codec(codec)
        if len(mid) > 16 or len(cname) > CNAME_BYTES:
            raise InvalidStateError(f"a mid has at most 16 bytes, a CNAME {CNAME_BYTES} here")
        with nogil:
            self.lock()
        try:
            owner = self._slot(transport, "transport")
            key = key_of_ssrc(owner, ssrc)
            if map_get(&self.by_sent_ssrc, &key) >= 0:
                raise InvalidStateError("the SSRC belongs to a forward already")
            index = self._take_slot(self._free_forwards, "forward")
            map_put(&self.by_sent_ssrc, &key, index)
            forward = &self.forwards[index]
            row = &self.forward_rows[index]
            memset(forward, 0, sizeof(Forward))
            memset(row, 0, sizeof(ForwardRow))
            forward.payload_type = payload_type
            forward.rtx_ssrc = rtx_ssrc
            forward.rtx_payload_type = rtx_payload_type
            forward.red_payload_type = red_payload_type
            forward.video = codec in _VIDEO
            forward.mid_size = len(mid)
            memcpy(forward.mid, name, forward.mid_size)
            forward.cname_size = len(cname)
            memcpy(forward.cname, canonical, forward.cname_size)
            forward.budget = BUDGET_AT_FIRST
            # Below 2^15, so that the receiver cannot take the first wrap for a loss (RFC 3711 section 3.3.1).
            forward.rtx_seq = secrets.randbits(15)
            row.highest_ext_seq = 0x10000 + secrets.randbits(15)
            row.transport = owner
            row.ssrc = ssrc
            row.source = -1
            row.pending = -1
            row.used = 1
            forward.next = self.transports[owner].forwards
            self.transports[owner].forwards = index + 1
            self._owned[owner][1].add(index)
            return index
        finally:
            self.unlock()

    def remove_forward(self, forward):
        with nogil:
            self.lock()
        try:
            self._remove_forward(forward)
        finally:
            self.unlock()

    def _remove_forward(self, slot):
        cdef int32_t index = self._slot(int(slot), "forward")
        cdef Key key = key_of_ssrc(self.forward_rows[index].transport, self.forward_rows[index].ssrc)
        cdef int32_t* link = &self.transports[self.forward_rows[index].transport].forwards
        while link[0] != index + 1:
            link = &self.forwards[link[0] - 1].next
        link[0] = self.forwards[index].next
        map_remove(&self.by_sent_ssrc, &key)
        self._pause(index)
        self._owned[self.forward_rows[index].transport][1].discard(index)
        memset(&self.forward_rows[index], 0, sizeof(ForwardRow))
        self._free_forwards.append(index)

    def feed(self, forward, source, max_temporal=7, at_keyframe=True, timestamp_offset=None):
        cdef int32_t index, wanted
        cdef Forward* fed
        cdef ForwardRow* row
        with nogil:
            self.lock()
        try:
            index = self._slot(forward, "forward")
            fed = &self.forwards[index]
            row = &self.forward_rows[index]
            if source is None:
                self._pause(index)
                return
            wanted = self._slot(source, "source")
            fed.max_temporal = max_temporal
            if row.source == wanted or row.pending != wanted:
                if row.pending >= 0:
                    self.detach(index, row.pending)
                    row.pending = -1
                if row.source == wanted:
                    return
                self._attach(index, wanted)
                row.pending = wanted
                fed.wanted_at = 0
            fed.at_keyframe = at_keyframe
            fed.has_timestamp_offset = timestamp_offset is not None
            fed.timestamp_offset = 0 if timestamp_offset is None else timestamp_offset & 0xFFFFFFFF
        finally:
            self.unlock()

    cdef int _attach(self, int32_t forward, int32_t source) except -1:
        """Let a source feed a forward."""
        cdef Source* feeding = &self.sources[source]
        cdef int32_t* feeds
        cdef uint32_t room
        if feeding.feeds_count == feeding.feeds_room:
            room = max(4, 2 * feeding.feeds_room)
            feeds = <int32_t*>realloc(feeding.feeds, room * sizeof(int32_t))
            if feeds == NULL:
                raise MemoryError
            feeding.feeds = feeds
            feeding.feeds_room = room
        feeding.feeds[feeding.feeds_count] = forward
        feeding.feeds_count += 1
        return 0

    cdef void _pause(self, int32_t forward) noexcept nogil:
        """Let nothing feed a forward."""
        cdef ForwardRow* row = &self.forward_rows[forward]
        if row.source >= 0:
            self.detach(forward, row.source)
            row.source = -1
        if row.pending >= 0:
            self.detach(forward, row.pending)
            row.pending = -1

    # --- Out from the slow path ---------------------------------------------------------------------------------------

    def retransmit(self, forward, seqs):
        cdef int32_t index
        cdef uint32_t sent = 0
        with nogil:
            self.lock()
        try:
            index = self._slot(forward, "forward")
            for seq in seqs:
                sent += self.retransmit_one(index, seq, &self.outbox) > 0
            if sent:
                self.wake()
        finally:
            self.unlock()
        return sent

    def feedback(self, now, every=0.1, sender_ssrc=1):
        cdef double at = now, pause = every
        cdef uint32_t sender = sender_ssrc, queued
        with nogil:
            self.lock()
            queued = self.feed_back(at, pause, sender)
            self.unlock()
        return queued

    def reports(self, now):
        cdef double at = now
        cdef uint32_t queued
        with nogil:
            self.lock()
            queued = self.report(at)
            self.unlock()
        return queued

    def send(self, address, data):
        cdef Endpoint to = _endpoint(address)
        cdef const uint8_t[::1] view = data
        if len(data) > MAX_DATAGRAM:
            raise InvalidStateError("a datagram has at most 1500 bytes")
        with nogil:
            self.lock()
            if self.outbox.count == self.outbox.room:
                self._drop(DROP_QUEUE_FULL)
            elif view.shape[0]:
                memcpy(self.outbox.arena + <size_t>self.outbox.count * STRIDE, &view[0], view.shape[0])
                batch_add(&self.outbox, -1, &to, <int>view.shape[0], False)
            self.wake()
            self.unlock()

    def send_rtcp(self, transport, data):
        cdef const uint8_t[::1] view = data
        cdef uint8_t* out
        cdef int32_t index
        if not 8 <= len(data) <= MAX_DATAGRAM:
            raise InvalidStateError("an RTCP packet has 8 to 1500 bytes")
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            out = batch_next(&self.outbox)
            if out == NULL:
                self._drop(DROP_QUEUE_FULL)
                return
            memcpy(out, &view[0], view.shape[0])
            if self.queue_rtcp(index, out, <int>view.shape[0]):
                self.wake()
        finally:
            self.unlock()
