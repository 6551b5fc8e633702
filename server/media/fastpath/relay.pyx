"""The relay: datagrams in, datagrams out. All that is done to a packet is done here, without the GIL.

     datagram ─> demux ─┬─ STUN ──────────────────────────────────────────────> events
                        └─ from an allowed address? ─┬─ DTLS ─────────────────> events
                                                     ├─ RTCP ─> unprotect ────> events
                                                     └─ RTP ──> unprotect ─┬──> events, if no source has its SSRC
                                                                           └─ source: count, history
                                                                                └─ each forward that it feeds:
                                                                                   number, rewrite, protect ─> batch

One Relay per media worker, driven by its socket loop (or, in memory, by `process`). The slow path programs it through the
methods below; one mutex, held for a batch at a time, keeps both apart. What a packet is changed into depends on three tables
(relay.pxd): transports, sources (streams received) and forwards (streams sent). There is no policy here.

Longer than other modules because it is the packet's whole road; the leaves (`*.pxd`) hold what can be read alone:
slots, packet, extensions, numbering, history, arrivals, crypto.

Spec: RFC 3550, RFC 3711, RFC 4588, RFC 7983, RFC 8285; payloads as in packet.pxd.
"""

import secrets
from enum import IntEnum

import numpy as np
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from server.media.fastpath cimport demux as verdicts
from server.media.fastpath.arrivals cimport ARRIVALS, Arrivals, note_arrival
from server.media.fastpath.crypto cimport (
    SRTP_AUTH_FAIL,
    SRTP_OK,
    SRTP_REPLAY_FAIL,
    SRTP_REPLAY_OLD,
    SRTP_TRAILER,
    Transform,
    session_pointer,
    srtp_functions,
)
from server.media.fastpath.demux cimport demux, read_u16, read_u32
from server.media.fastpath.extensions cimport (
    ABS_SEND_TIME,
    AUDIO_LEVEL,
    DEPENDENCY_DESCRIPTOR,
    EXTENSIONS,
    MID,
    RID,
    RRID,
    TRANSPORT_CC,
    Element,
    write_extensions,
)
from server.media.fastpath.history cimport HISTORY_SLOTS, history_ask, history_get, history_open, history_put
from server.media.fastpath.numbering cimport Piece, begin_piece, leave_out, newest, piece_in, piece_out, unwrap
from server.media.fastpath.packet cimport (
    CODEC_AV1,
    CODEC_H264,
    CODEC_OPUS,
    CODEC_OTHER,
    CODEC_VP8,
    CODEC_VP9,
    Packet,
    parse_packet,
    read_frame,
    rewrite_frame,
    write_u16,
    write_u32,
)
from server.media.fastpath.slots cimport (
    TCP,
    UDP,
    Key,
    key_of_ssrc,
    map_close,
    map_get,
    map_open,
    map_put,
    map_remove,
)

from server.errors import InvalidStateError
from server.media.fastpath.crypto import open_session

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_destroy(pthread_mutex_t*)

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write(int, const void*, size_t)

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET
    int AF_INET6
    int inet_pton(int, const char*, void*)
    const char* inet_ntop(int, const void*, char*, uint32_t)


Address = tuple[str, int, str]
Event = tuple[int, int, Address, bytes, float]
MAX_DATAGRAM_BYTES = MAX_DATAGRAM
_ADDRESSES_OF_ONE = 16
_OUTBOX = 1024
_BATCH = 256
cdef double UNKNOWN_EVERY_S = 0.02
cdef double WANTED_EVERY_S = 0.5
cdef int64_t BUDGET_AT_FIRST = 32 * 1024
cdef int64_t BUDGET_MOST = 128 * 1024
_EXTENSION_NAMES = (
    "mid", "rid", "rrid", "abs-send-time", "transport-cc", "audio-level", "video-orientation", "dependency-descriptor",
)


class Codec(IntEnum):
    """What a payload is, as far as the relay has to know."""

    OTHER = CODEC_OTHER
    OPUS = CODEC_OPUS
    VP8 = CODEC_VP8
    VP9 = CODEC_VP9
    H264 = CODEC_H264
    AV1 = CODEC_AV1


class EventKind(IntEnum):
    """What is passed up to the slow path."""

    STUN = EVENT_STUN
    DTLS = EVENT_DTLS
    RTCP = EVENT_RTCP
    UNKNOWN_SSRC = EVENT_UNKNOWN_SSRC
    KEYFRAME_WANTED = EVENT_KEYFRAME_WANTED
    SWITCHED = EVENT_SWITCHED
    DISCONNECTED = EVENT_DISCONNECTED


class DropReason(IntEnum):
    """Why a datagram went nowhere: an index into `Relay.drops`."""

    EMPTY = verdicts.EMPTY - 0x80
    UNKNOWN_PROTOCOL = verdicts.UNKNOWN_PROTOCOL - 0x80
    RTP_TRUNCATED = verdicts.RTP_TRUNCATED - 0x80
    RTCP_TRUNCATED = verdicts.RTCP_TRUNCATED - 0x80
    STUN_TRUNCATED = verdicts.STUN_TRUNCATED - 0x80
    STUN_BAD_COOKIE = verdicts.STUN_BAD_COOKIE - 0x80
    STUN_BAD_LENGTH = verdicts.STUN_BAD_LENGTH - 0x80
    DTLS_TRUNCATED = verdicts.DTLS_TRUNCATED - 0x80
    TURN_CHANNEL_TRUNCATED = verdicts.TURN_CHANNEL_TRUNCATED - 0x80
    TURN_CHANNEL = DROP_TURN_CHANNEL
    TOO_LONG = DROP_TOO_LONG
    ADDRESS_NOT_ALLOWED = DROP_ADDRESS_NOT_ALLOWED
    NO_KEYS = DROP_NO_KEYS
    SRTP_AUTH_FAILED = DROP_SRTP_AUTH_FAILED
    SRTP_REPLAYED = DROP_SRTP_REPLAYED
    SRTP_FAILED = DROP_SRTP_FAILED
    UNKNOWN_SSRC = DROP_UNKNOWN_SSRC
    UNEXPECTED_PAYLOAD_TYPE = DROP_UNEXPECTED_PAYLOAD_TYPE
    RTP_BAD_PADDING = DROP_RTP_BAD_PADDING
    RTP_PADDING_ONLY = DROP_RTP_PADDING_ONLY
    RTX_BAD = DROP_RTX_BAD
    DUPLICATE = DROP_DUPLICATE
    QUEUE_FULL = DROP_QUEUE_FULL
    STRANGER_QUEUE_FULL = DROP_STRANGER_QUEUE_FULL
    NOT_NOMINATED = DROP_NOT_NOMINATED
    PROTECT_FAILED = DROP_PROTECT_FAILED
    TOO_LATE = DROP_TOO_LATE
    SEND_FAILED = DROP_SEND_FAILED


def _dtype(columns):
    return np.dtype([tuple(column.split()) for column in columns.split(", ")], align=True)


TRANSPORT_DTYPE = _dtype(
    "received_packets u8, received_bytes u8, sent_packets u8, sent_bytes u8, wide_seq u8, received_at f8, used u1, keyed u1"
)
SOURCE_DTYPE = _dtype(
    "base_ext_seq i8, highest_ext_seq i8, packets u8, bytes u8, lost i8, recovered u8, keyframes u8, jitter f8,"
    " received_at f8, loudness f8, transport i4, ssrc u4, clock_rate u4, timestamp u4, used u1, codec u1, audio_level u1,"
    " voice u1"
)
FORWARD_DTYPE = _dtype(
    "highest_ext_seq i8, packets u8, bytes u8, retransmitted u8, dropped_temporal u8, sent_at f8, transport i4, source i4,"
    " pending i4, ssrc u4, timestamp_offset u4, timestamp u4, used u1"
)
if (TRANSPORT_DTYPE.itemsize, SOURCE_DTYPE.itemsize, FORWARD_DTYPE.itemsize) != (
    sizeof(TransportRow), sizeof(SourceRow), sizeof(ForwardRow)
):
    raise ImportError("the views of the relay's tables do not have the layout of relay.pxd")


cdef bint batch_open(Batch* batch, uint32_t room, Flush flush, void* context) noexcept nogil:
    """Make room for so many datagrams. False: no memory."""
    batch.arena = <uint8_t*>malloc(<size_t>room * STRIDE)
    batch.items = <Outgoing*>calloc(room, sizeof(Outgoing))
    batch.count = 0
    batch.room = room
    batch.flush = flush
    batch.context = context
    return batch.arena != NULL and batch.items != NULL


cdef void batch_close(Batch* batch) noexcept nogil:
    free(batch.arena)
    free(batch.items)
    batch.arena = NULL
    batch.items = NULL


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


cdef class Relay:
    """See relay.pyi, which documents every method for whoever calls it."""

    def __cinit__(self, transports=2048, sources=16384, forwards=65536):
        cdef uint64_t seed = secrets.randbits(64)
        pthread_mutex_init(&self.mutex, NULL)
        self.srtp = srtp_functions()
        self.transports_room = transports
        self.sources_room = sources
        self.wake_fd = -1
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
        self.transports = <Transport*>PyMem_RawCalloc(transports, sizeof(Transport))
        self.sources = <Source*>PyMem_RawCalloc(sources, sizeof(Source))
        self.forwards = <Forward*>PyMem_RawCalloc(forwards, sizeof(Forward))
        self.events = <Queued*>PyMem_RawCalloc(EVENTS, sizeof(Queued))
        if (
            self.transports == NULL
            or self.sources == NULL
            or self.forwards == NULL
            or self.events == NULL
            or not map_open(&self.by_address, transports * _ADDRESSES_OF_ONE, seed)
            or not map_open(&self.by_ssrc, 2 * sources, seed)
            or not batch_open(&self.outbox, _OUTBOX, NULL, NULL)
        ):
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.transports != NULL:
            for i in range(self.transports_room):
                free(self.transports[i].arrivals)
        if self.sources != NULL:
            for i in range(self.sources_room):
                free(self.sources[i].feeds)
                free(self.sources[i].history)
        if self.events != NULL:
            for i in range(<Py_ssize_t>self.events_count):
                free(self.events[(self.events_begin + i) % EVENTS].data)
        PyMem_RawFree(self.transports)
        PyMem_RawFree(self.sources)
        PyMem_RawFree(self.forwards)
        PyMem_RawFree(self.events)
        map_close(&self.by_address)
        map_close(&self.by_ssrc)
        batch_close(&self.outbox)
        pthread_mutex_destroy(&self.mutex)

    # --- Per packet ---------------------------------------------------------------------------------------------------

    cdef void lock(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)

    cdef void unlock(self) noexcept nogil:
        pthread_mutex_unlock(&self.mutex)

    cdef void begin_batch(self, double now, Batch* out) noexcept nogil:
        """Set the time, and let the slow path's traffic go first."""
        self.now = now
        if self.outbox.count:
            out.flush(out.context, &self.outbox)

    cdef void receive(self, uint8_t* data, uint32_t size, const Endpoint* origin, Batch* out) noexcept nogil:
        """Do with a datagram what is to be done; it is overwritten. The mutex is held."""
        cdef uint8_t kind = demux(data, size)
        cdef int32_t transport, found = -1
        cdef int length = <int>size
        cdef uint32_t ssrc
        cdef Transport* association
        cdef Key key
        if size > MAX_DATAGRAM:
            self._drop(DROP_TOO_LONG)
            return
        if kind & 0x80:
            self._drop(kind & 0x7F)
            return
        key.endpoint = origin[0]
        transport = map_get(&self.by_address, &key)
        if kind == verdicts.STUN:
            self._pass_up(EVENT_STUN, transport, True, origin, data, size)
            return
        if transport < 0:
            self._drop(DROP_ADDRESS_NOT_ALLOWED)
            return
        if kind == verdicts.DTLS:
            self._pass_up(EVENT_DTLS, transport, True, origin, data, size)
            return
        if kind == verdicts.TURN_CHANNEL:
            self._drop(DROP_TURN_CHANNEL)
            return
        association = &self.transports[transport]
        if association.receive == NULL:
            self._drop(DROP_NO_KEYS)
            return
        if kind == verdicts.RTCP:
            if self._decrypt(self.srtp.unprotect_rtcp, association.receive, data, &length):
                self._pass_up(EVENT_RTCP, transport, True, origin, data, <uint32_t>length)
        else:
            ssrc = read_u32(data + 8)
            key = key_of_ssrc(transport, ssrc)
            found = map_get(&self.by_ssrc, &key)
            if found < 0 and self._is_flood(transport, ssrc):
                self._drop(DROP_UNKNOWN_SSRC)
                return
            if not self._decrypt(self.srtp.unprotect, association.receive, data, &length):
                return
            self._receive_rtp(transport, found, origin, data, <uint32_t>length, out)
        self.transport_rows[transport].received_packets += 1
        self.transport_rows[transport].received_bytes += size
        self.transport_rows[transport].received_at = self.now

    cdef void _drop(self, int reason) noexcept nogil:
        self.drop_counts[reason] += 1

    cdef bint _decrypt(self, Transform function, void* session, uint8_t* data, int* size) noexcept nogil:
        """Check and decrypt in place; a refusal is counted."""
        cdef int status = function(session, data, size)
        if status == SRTP_OK:
            return True
        if status == SRTP_AUTH_FAIL:
            self._drop(DROP_SRTP_AUTH_FAILED)
        elif status == SRTP_REPLAY_FAIL or status == SRTP_REPLAY_OLD:
            self._drop(DROP_SRTP_REPLAYED)
        else:
            self._drop(DROP_SRTP_FAILED)
        return False

    cdef void _receive_rtp(
        self, int32_t transport, int32_t found, const Endpoint* origin, uint8_t* data, uint32_t size, Batch* out
    ) noexcept nogil:
        """An authentic RTP packet. `found`: twice its source, and one if it is the source's RTX; or -1."""
        cdef Transport* association = &self.transports[transport]
        cdef int32_t index = found >> 1
        cdef bint recovered = found & 1
        cdef Source* source
        cdef SourceRow* row
        cdef Packet packet
        cdef uint32_t i
        if not parse_packet(data, size, &association.receive_ids, &packet):
            self._drop(DROP_RTP_BAD_PADDING)
            return
        if association.arrivals != NULL and packet.elements[TRANSPORT_CC].size >= 2:
            note_arrival(association.arrivals, read_u16(packet.elements[TRANSPORT_CC].data), self.now)
        if found < 0:
            self._receive_unknown(transport, origin, data, packet.size, packet.ssrc)
            return
        source = &self.sources[index]
        row = &self.source_rows[index]
        if recovered and not self._unwrap_rtx(source, row, &packet):
            return
        if packet.payload_type != source.payload_type:
            self._drop(DROP_UNEXPECTED_PAYLOAD_TYPE)
            return
        if not self._count_packet(source, row, &packet, recovered):
            self._drop(DROP_DUPLICATE)
            return
        read_frame(row.codec, packet.payload, packet.payload_size, &packet.frame)
        row.keyframes += packet.frame.starts_keyframe
        i = source.feeds_count
        while i:
            # Backwards: nobody but the one served may leave the list.
            i -= 1
            self._forward(source.feeds[i], index, &packet, out)
        if packet.payload_size == 0:
            self._drop(DROP_RTP_PADDING_ONLY)

    cdef bint _is_flood(self, int32_t transport, uint32_t ssrc) noexcept nogil:
        """Whether an SSRC is new and one too many: libsrtp keeps a context for each that it has decrypted."""
        cdef Transport* association = &self.transports[transport]
        cdef uint32_t i
        if association.unknown_count < UNKNOWN_SSRCS:
            return False
        for i in range(association.unknown_count):
            if association.unknown[i].ssrc == ssrc:
                return False
        return True

    cdef void _receive_unknown(
        self, int32_t transport, const Endpoint* origin, uint8_t* data, uint32_t size, uint32_t ssrc
    ) noexcept nogil:
        """Let the slow path find out what it is, now and then. `_is_flood` has said that there is room."""
        cdef Transport* association = &self.transports[transport]
        cdef UnknownSsrc* unknown
        cdef uint32_t i = 0
        while i < association.unknown_count and association.unknown[i].ssrc != ssrc:
            i += 1
        unknown = &association.unknown[i]
        if i == association.unknown_count:
            association.unknown_count += 1
            unknown.ssrc = ssrc
        elif self.now - unknown.reported_at < UNKNOWN_EVERY_S:
            self._drop(DROP_UNKNOWN_SSRC)
            return
        unknown.reported_at = self.now
        self._pass_up(EVENT_UNKNOWN_SSRC, transport, True, origin, data, size)

    cdef bint _unwrap_rtx(self, Source* source, SourceRow* row, Packet* packet) noexcept nogil:
        """Make the original packet of an RTX packet, in place: |header|OSN|payload| -> |header|payload|.

        Spec: RFC 4588 section 4.
        """
        cdef uint16_t original
        cdef size_t header = packet.payload - packet.data
        cdef int i
        if packet.payload_size == 0:
            self._drop(DROP_RTP_PADDING_ONLY)
            return False
        if packet.payload_size < 2 or packet.payload_type != source.rtx_payload_type or row.base_ext_seq == 0:
            self._drop(DROP_RTX_BAD)
            return False
        original = read_u16(packet.payload)
        memmove(packet.data + 2, packet.data, header)
        for i in range(EXTENSIONS):
            packet.elements[i].data += 2
        packet.data += 2
        packet.payload += 2
        packet.payload_size -= 2
        packet.size -= 2
        packet.seq = original
        packet.ssrc = row.ssrc
        packet.payload_type = source.payload_type
        packet.data[1] = packet.marker << 7 | packet.payload_type
        write_u16(packet.data + 2, packet.seq)
        write_u32(packet.data + 8, packet.ssrc)
        return True

    cdef bint _count_packet(self, Source* source, SourceRow* row, Packet* packet, bint recovered) noexcept nogil:
        """Extend its sequence number, keep it, count it. False: it was received before, or is too old to know.

        Spec: RFC 3550 appendix A.1, A.3, A.8.
        """
        cdef double transit, change
        if row.base_ext_seq == 0:
            row.base_ext_seq = 0x10000 + packet.seq
            row.highest_ext_seq = row.base_ext_seq
        packet.ext_seq = unwrap(row.highest_ext_seq, packet.seq)
        if row.codec in (CODEC_VP8, CODEC_VP9, CODEC_H264, CODEC_AV1):
            if source.history == NULL:
                source.history = history_open()
            # A packet of padding is noted as received, and not kept.
            if source.history != NULL and not history_put(
                source.history, packet.ext_seq, packet.data, packet.size if packet.payload_size else 0
            ):
                return False
        if packet.ext_seq > row.highest_ext_seq:
            row.highest_ext_seq = packet.ext_seq
        elif packet.ext_seq < row.base_ext_seq:
            row.base_ext_seq = packet.ext_seq
        if recovered:
            row.recovered += 1
        else:
            row.packets += 1
            row.bytes += packet.payload_size
            transit = self.now * row.clock_rate - packet.timestamp
            if row.packets > 1:
                change = transit - source.transit
                if -2147483648.0 < change < 2147483648.0:
                    row.jitter += ((change if change > 0 else -change) - row.jitter) / 16
            source.transit = transit
            row.received_at = self.now
            row.timestamp = packet.timestamp
        row.lost = row.highest_ext_seq - row.base_ext_seq + 1 - <int64_t>row.packets
        if packet.elements[AUDIO_LEVEL].size:
            row.voice = packet.elements[AUDIO_LEVEL].data[0] >> 7
            row.audio_level = packet.elements[AUDIO_LEVEL].data[0] & 0x7F
            row.loudness += (127 - row.audio_level - row.loudness) / 10
        return True

    cdef void _forward(self, int32_t index, int32_t source, Packet* packet, Batch* out) noexcept nogil:
        """Carry a packet of a source out on a forward that it feeds."""
        cdef Forward* forward = &self.forwards[index]
        cdef ForwardRow* row = &self.forward_rows[index]
        cdef uint32_t birth = self.sources[source].birth
        cdef Piece* piece
        cdef int64_t ext_seq
        if row.pending == source:
            if packet.payload_size == 0 or (forward.at_keyframe and not packet.frame.starts_keyframe):
                if self.now - forward.wanted_at >= WANTED_EVERY_S and packet.payload_size:
                    forward.wanted_at = self.now
                    self._tell(EVENT_KEYFRAME_WANTED, index, source)
                return
            self._switch(index, source, packet)
        if packet.ext_seq <= forward.highest_in:
            piece = piece_in(&forward.numbering, birth, packet.ext_seq)
            if piece == NULL:
                self._drop(DROP_TOO_LATE)
                return
            if packet.payload_size == 0 or packet.frame.temporal > forward.temporal:
                return
        else:
            forward.highest_in = packet.ext_seq
            if packet.payload_size == 0:
                leave_out(&forward.numbering, packet.ext_seq)
                return
            if packet.frame.starts:
                if forward.max_temporal < forward.temporal or packet.frame.starts_keyframe:
                    forward.temporal = forward.max_temporal
                elif packet.frame.sync and forward.temporal < packet.frame.temporal <= forward.max_temporal:
                    forward.temporal = packet.frame.temporal
            if packet.frame.temporal > forward.temporal:
                row.dropped_temporal += 1
                leave_out(&forward.numbering, packet.ext_seq)
                if packet.frame.picture_bytes and forward.left_out_picture != packet.frame.picture_id:
                    forward.left_out_picture = packet.frame.picture_id
                    newest(&forward.numbering).picture_delta -= 1
                return
            piece = newest(&forward.numbering)
            forward.picture_id = packet.frame.picture_id + piece.picture_delta
            forward.tl0 = packet.frame.tl0 + piece.tl0_delta
            if packet.elements[DEPENDENCY_DESCRIPTOR].size >= 3:
                forward.frame_number = read_u16(packet.elements[DEPENDENCY_DESCRIPTOR].data + 1) + piece.frame_delta
        ext_seq = piece.from_out + (packet.ext_seq - piece.from_in)
        if not self._emit(index, packet, piece, ext_seq, False, out):
            return
        row.packets += 1
        row.bytes += packet.payload_size
        row.sent_at = self.now
        if ext_seq > row.highest_ext_seq:
            row.highest_ext_seq = ext_seq
            row.timestamp = packet.timestamp + piece.timestamp_delta
        forward.budget = min(forward.budget + packet.payload_size // 4, BUDGET_MOST)

    cdef void _switch(self, int32_t index, int32_t source, Packet* packet) noexcept nogil:
        """Begin with the pending source at this packet, continuing what was sent."""
        cdef Forward* forward = &self.forwards[index]
        cdef ForwardRow* row = &self.forward_rows[index]
        cdef bint first = forward.numbering.count == 0
        cdef uint32_t elapsed
        cdef Piece* piece = begin_piece(&forward.numbering)
        memset(piece, 0, sizeof(Piece))
        piece.birth = self.sources[source].birth
        piece.source = source
        piece.from_in = packet.ext_seq
        piece.from_out = row.highest_ext_seq + 1
        if not first:
            elapsed = <uint32_t><int64_t>((self.now - row.sent_at) * self.source_rows[source].clock_rate + 0.5)
            piece.timestamp_delta = row.timestamp + max(elapsed, <uint32_t>1) - packet.timestamp
            piece.picture_delta = forward.picture_id + 1 - packet.frame.picture_id
            piece.tl0_delta = forward.tl0 + 1 - packet.frame.tl0
            if packet.elements[DEPENDENCY_DESCRIPTOR].size >= 3:
                piece.frame_delta = forward.frame_number + 1 - read_u16(packet.elements[DEPENDENCY_DESCRIPTOR].data + 1)
        if forward.has_timestamp_offset and (
            first or <int32_t>(packet.timestamp + forward.timestamp_offset - row.timestamp) > 0
        ):
            piece.timestamp_delta = forward.timestamp_offset
        forward.highest_in = packet.ext_seq - 1
        forward.temporal = forward.max_temporal
        forward.left_out_picture = -1
        if row.source >= 0:
            self._detach(index, row.source)
        row.source = source
        row.pending = -1
        row.timestamp_offset = piece.timestamp_delta
        self._tell(EVENT_SWITCHED, index, source)

    cdef bint _emit(
        self, int32_t index, Packet* packet, const Piece* piece, int64_t ext_seq, bint rtx, Batch* out
    ) noexcept nogil:
        """Write, protect and queue one packet of a forward. False: dropped, counted."""
        cdef Forward* forward = &self.forwards[index]
        cdef ForwardRow* row = &self.forward_rows[index]
        cdef Transport* association = &self.transports[row.transport]
        cdef TransportRow* transport_row = &self.transport_rows[row.transport]
        cdef Element elements[8]
        cdef uint8_t sent_at[3]
        cdef uint8_t wide_seq[2]
        cdef uint8_t* data
        cdef uint32_t fixed
        cdef size_t extension
        cdef int size = 12
        if association.send == NULL or association.nominated.family == 0:
            self._drop(DROP_NOT_NOMINATED)
            return False
        if out.count == out.room:
            out.flush(out.context, out)
        data = out.arena + <size_t>out.count * STRIDE

        memcpy(elements, packet.elements, sizeof(elements))
        elements[MID].data = forward.mid
        elements[MID].size = forward.mid_size
        elements[RID].size = 0
        elements[RRID].size = 0
        fixed = <uint32_t><uint64_t>(self.now * 262144.0)
        sent_at[0] = <uint8_t>(fixed >> 16)
        sent_at[1] = <uint8_t>(fixed >> 8)
        sent_at[2] = <uint8_t>fixed
        elements[ABS_SEND_TIME].data = sent_at
        elements[ABS_SEND_TIME].size = 3
        elements[TRANSPORT_CC].size = 0
        if association.send_ids.id[TRANSPORT_CC]:
            transport_row.wide_seq += 1
            write_u16(wide_seq, <uint16_t>transport_row.wide_seq)
            elements[TRANSPORT_CC].data = wide_seq
            elements[TRANSPORT_CC].size = 2
        extension = write_extensions(data + size, &association.send_ids, elements)
        if elements[DEPENDENCY_DESCRIPTOR].data != NULL and elements[DEPENDENCY_DESCRIPTOR].size >= 3:
            write_u16(
                <uint8_t*>elements[DEPENDENCY_DESCRIPTOR].data + 1,
                read_u16(elements[DEPENDENCY_DESCRIPTOR].data + 1) + piece.frame_delta,
            )
        size += <int>extension

        data[0] = 0x90 if extension else 0x80
        data[1] = packet.marker << 7 | (forward.rtx_payload_type if rtx else forward.payload_type)
        write_u32(data + 4, packet.timestamp + piece.timestamp_delta)
        if rtx:
            forward.rtx_seq += 1
            write_u16(data + 2, forward.rtx_seq)
            write_u32(data + 8, forward.rtx_ssrc)
            write_u16(data + size, <uint16_t>ext_seq)
            size += 2
        else:
            write_u16(data + 2, <uint16_t>ext_seq)
            write_u32(data + 8, row.ssrc)
        memcpy(data + size, packet.payload, packet.payload_size)
        rewrite_frame(data + size, &packet.frame, piece.picture_delta, piece.tl0_delta)
        size += <int>packet.payload_size

        if self.srtp.protect(association.send, data, &size) != SRTP_OK:
            self._drop(DROP_PROTECT_FAILED)
            return False
        self._queue(out, row.transport, &association.nominated, size)
        out.items[out.count - 1].video = forward.video
        transport_row.sent_packets += 1
        transport_row.sent_bytes += <uint64_t>size
        return True

    cdef void _queue(self, Batch* out, int32_t transport, const Endpoint* to, int size) noexcept nogil:
        """The datagram that was written at the batch's end is complete."""
        cdef Outgoing* item = &out.items[out.count]
        item.to = to[0]
        item.transport = transport
        item.size = <uint16_t>size
        item.video = False
        out.count += 1

    # --- Up to the slow path ------------------------------------------------------------------------------------------

    cdef void _pass_up(
        self, uint8_t kind, int32_t index, bint charged, const Endpoint* origin, const uint8_t* data, uint32_t size
    ) noexcept nogil:
        """Queue an event, within the share of its transport, or of all strangers together."""
        cdef Queued* event
        if charged and index < 0 and self.events_of_strangers >= EVENTS_OF_STRANGERS:
            self._drop(DROP_STRANGER_QUEUE_FULL)
            return
        if self.events_count == EVENTS or (charged and index >= 0 and self.transports[index].events >= EVENTS_OF_ONE):
            self._drop(DROP_QUEUE_FULL)
            return
        event = &self.events[(self.events_begin + self.events_count) % EVENTS]
        event.data = <uint8_t*>malloc(size)
        if event.data == NULL:
            self._drop(DROP_QUEUE_FULL)
            return
        memcpy(event.data, data, size)
        event.size = <uint16_t>size
        event.kind = kind
        event.index = index
        event.charged = charged
        event.origin = origin[0]
        event.at = self.now
        self.events_count += 1
        if charged and index < 0:
            self.events_of_strangers += 1
        elif charged:
            self.transports[index].events += 1

    cdef void _tell(self, uint8_t kind, int32_t forward, int32_t source) noexcept nogil:
        """Queue an event of a forward and a source."""
        cdef uint8_t data[4]
        cdef Endpoint nowhere
        memset(&nowhere, 0, sizeof(Endpoint))
        write_u32(data, <uint32_t>source)
        self._pass_up(kind, forward, False, &nowhere, data, 4)

    def take_events(self, limit=4096):
        cdef Queued* event
        cdef list taken = []
        with nogil:
            self.lock()
        try:
            while self.events_count and len(taken) < limit:
                event = &self.events[self.events_begin]
                taken.append((event.kind, event.index, _address(&event.origin), event.data[: event.size], event.at))
                free(event.data)
                event.data = NULL
                self.events_begin = (self.events_begin + 1) % EVENTS
                self.events_count -= 1
                if event.charged and event.index < 0:
                    self.events_of_strangers -= 1
                elif event.charged and self.transports[event.index].events:
                    self.transports[event.index].events -= 1
        finally:
            self.unlock()
        return taken

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
            self.transport_rows[index].used = 1
            return index
        finally:
            self.unlock()

    def remove_transport(self, transport):
        cdef int32_t index
        cdef uint64_t i = 0
        cdef Key key
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            for source in np.flatnonzero(self.sources_view["used"] & (self.sources_view["transport"] == index)):
                self._remove_source(source)
            for forward in np.flatnonzero(self.forwards_view["used"] & (self.forwards_view["transport"] == index)):
                self._remove_forward(forward)
            while i <= self.by_address.mask:
                if self.by_address.entries[i].value == index:
                    key = self.by_address.entries[i].key
                    map_remove(&self.by_address, &key)  # which may bring another here
                else:
                    i += 1
            free(self.transports[index].arrivals)
            memset(&self.transports[index], 0, sizeof(Transport))
            memset(&self.transport_rows[index], 0, sizeof(TransportRow))
            self._sessions.pop(index, None)
            self._free_transports.append(index)
        finally:
            self.unlock()

    def set_keys(self, transport, profile, receive_key, send_key):
        cdef int32_t index
        sessions = open_session(profile, receive_key, True), open_session(profile, send_key, False)
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            self.transports[index].receive = session_pointer(sessions[0])
            self.transports[index].send = session_pointer(sessions[1])
            self.transport_rows[index].keyed = 1
            # What was there is freed here, under the mutex: the loop does not use it any more.
            self._sessions[index] = sessions
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
            self._stop_sending(&key)
            if not map_put(&self.by_address, &key, index):
                raise InvalidStateError("too many addresses are allowed")
        finally:
            self.unlock()

    def forbid(self, transport, address):
        cdef Key key
        key.endpoint = _endpoint(address)
        with nogil:
            self.lock()
        try:
            if map_get(&self.by_address, &key) == self._slot(transport, "transport"):
                self._stop_sending(&key)
                map_remove(&self.by_address, &key)
        finally:
            self.unlock()

    cdef void _stop_sending(self, const Key* key) noexcept nogil:
        """The transport that an address belongs to no longer sends there."""
        cdef int32_t owner = map_get(&self.by_address, key)
        cdef Key nominated
        if owner >= 0:
            nominated.endpoint = self.transports[owner].nominated
            if nominated.words[0] == key.words[0] and nominated.words[1] == key.words[1] and nominated.words[2] == key.words[2]:
                self.transports[owner].nominated.family = 0

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
            if name not in _EXTENSION_NAMES or not 1 <= identifier <= 255 or identifier == 15:
                raise InvalidStateError(f"header extension {name} cannot have id {identifier}")
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            association = &self.transports[index]
            memset(association.receive_ids.name, EXTENSIONS, 256)
            memset(association.send_ids.id, 0, EXTENSIONS)
            for name, identifier in receive.items():
                association.receive_ids.name[<uint8_t>identifier] = _EXTENSION_NAMES.index(name)
            for name, identifier in send.items():
                association.send_ids.id[<uint8_t>_EXTENSION_NAMES.index(name)] = identifier
            if "transport-cc" in receive and association.arrivals == NULL:
                association.arrivals = <Arrivals*>calloc(1, sizeof(Arrivals))
                if association.arrivals == NULL:
                    raise MemoryError
        finally:
            self.unlock()

    def arrivals(self, transport):
        cdef Arrivals* log
        cdef uint32_t i
        cdef list taken = []
        with nogil:
            self.lock()
        try:
            log = self.transports[self._slot(transport, "transport")].arrivals
            if log != NULL:
                for i in range(log.count):
                    taken.append((log.ring[(log.begin + i) % ARRIVALS].wide_seq, log.ring[(log.begin + i) % ARRIVALS].at))
                log.count = 0
        finally:
            self.unlock()
        return taken

    # --- Sources ------------------------------------------------------------------------------------------------------

    def add_source(self, transport, ssrc, codec, payload_type, clock_rate, rtx_ssrc=0, rtx_payload_type=0):
        cdef int32_t index, owner
        cdef Key key, rtx_key
        cdef Source* source
        cdef SourceRow* row
        codec = Codec(codec)
        with nogil:
            self.lock()
        try:
            owner = self._slot(transport, "transport")
            key = key_of_ssrc(owner, ssrc)
            rtx_key = key_of_ssrc(owner, rtx_ssrc)
            if map_get(&self.by_ssrc, &key) >= 0 or (rtx_ssrc and map_get(&self.by_ssrc, &rtx_key) >= 0) or ssrc == rtx_ssrc:
                raise InvalidStateError("the SSRC belongs to a source already")
            index = self._take_slot(self._free_sources, "source")
            source = &self.sources[index]
            row = &self.source_rows[index]
            memset(source, 0, sizeof(Source))
            memset(row, 0, sizeof(SourceRow))
            self.births += 1
            source.birth = self.births
            source.payload_type = payload_type
            source.rtx_ssrc = rtx_ssrc
            source.rtx_payload_type = rtx_payload_type
            row.transport = owner
            row.ssrc = ssrc
            row.codec = codec
            row.clock_rate = clock_rate
            row.audio_level = 127
            row.used = 1
            map_put(&self.by_ssrc, &key, 2 * index)
            self._know(owner, ssrc)
            if rtx_ssrc:
                map_put(&self.by_ssrc, &rtx_key, 2 * index + 1)
                self._know(owner, rtx_ssrc)
            return index
        finally:
            self.unlock()

    cdef void _know(self, int32_t transport, uint32_t ssrc) noexcept nogil:
        """An SSRC is unknown no longer."""
        cdef Transport* association = &self.transports[transport]
        cdef uint32_t i
        for i in range(association.unknown_count):
            if association.unknown[i].ssrc == ssrc:
                association.unknown_count -= 1
                association.unknown[i] = association.unknown[association.unknown_count]
                return

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
        cdef Key key = key_of_ssrc(transport, self.source_rows[index].ssrc)
        map_remove(&self.by_ssrc, &key)
        if source.rtx_ssrc:
            key = key_of_ssrc(transport, source.rtx_ssrc)
            map_remove(&self.by_ssrc, &key)
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

    def add_forward(self, transport, ssrc, payload_type, codec, rtx_ssrc=0, rtx_payload_type=0, mid=b""):
        cdef int32_t index, owner
        cdef Forward* forward
        cdef ForwardRow* row
        cdef const uint8_t* name = mid
        Codec(codec)
        if len(mid) > 16:
            raise InvalidStateError("a mid has at most 16 bytes")
        with nogil:
            self.lock()
        try:
            owner = self._slot(transport, "transport")
            index = self._take_slot(self._free_forwards, "forward")
            forward = &self.forwards[index]
            row = &self.forward_rows[index]
            memset(forward, 0, sizeof(Forward))
            memset(row, 0, sizeof(ForwardRow))
            forward.payload_type = payload_type
            forward.rtx_ssrc = rtx_ssrc
            forward.rtx_payload_type = rtx_payload_type
            forward.video = codec in (Codec.VP8, Codec.VP9, Codec.H264, Codec.AV1)
            forward.mid_size = len(mid)
            memcpy(forward.mid, name, forward.mid_size)
            forward.budget = BUDGET_AT_FIRST
            # Below 2^15, so that the receiver cannot take the first wrap for a loss (RFC 3711 section 3.3.1).
            forward.rtx_seq = secrets.randbits(15)
            row.highest_ext_seq = 0x10000 + secrets.randbits(15)
            row.transport = owner
            row.ssrc = ssrc
            row.source = -1
            row.pending = -1
            row.used = 1
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
        self._pause(index)
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
                    self._detach(index, row.pending)
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

    cdef void _detach(self, int32_t forward, int32_t source) noexcept nogil:
        """Let a source feed a forward no longer."""
        cdef Source* feeding = &self.sources[source]
        cdef uint32_t i
        for i in range(feeding.feeds_count):
            if feeding.feeds[i] == forward:
                feeding.feeds_count -= 1
                feeding.feeds[i] = feeding.feeds[feeding.feeds_count]
                return

    cdef void _pause(self, int32_t forward) noexcept nogil:
        """Let nothing feed a forward."""
        cdef ForwardRow* row = &self.forward_rows[forward]
        if row.source >= 0:
            self._detach(forward, row.source)
            row.source = -1
        if row.pending >= 0:
            self._detach(forward, row.pending)
            row.pending = -1

    # --- Out from the slow path ---------------------------------------------------------------------------------------

    def retransmit(self, forward, seqs):
        cdef int32_t index
        cdef Forward* asked
        cdef ForwardRow* row
        cdef Source* source
        cdef Piece* piece
        cdef Packet packet
        cdef int64_t ext_seq
        cdef uint8_t* data
        cdef uint32_t size = 0, sent = 0
        with nogil:
            self.lock()
        try:
            index = self._slot(forward, "forward")
            asked = &self.forwards[index]
            row = &self.forward_rows[index]
            for seq in seqs if asked.rtx_ssrc else ():
                ext_seq = unwrap(row.highest_ext_seq, <uint16_t>seq)
                piece = piece_out(&asked.numbering, ext_seq)
                if piece == NULL or ext_seq > row.highest_ext_seq or self.sources[piece.source].birth != piece.birth:
                    continue
                source = &self.sources[piece.source]
                if source.history == NULL:
                    continue
                data = history_get(source.history, piece.from_in + (ext_seq - piece.from_out), &size)
                if data == NULL or asked.budget < size:
                    continue
                if self.outbox.count == self.outbox.room:
                    self._drop(DROP_QUEUE_FULL)
                    break
                if not parse_packet(
                    data, size, &self.transports[self.source_rows[piece.source].transport].receive_ids, &packet
                ):
                    continue
                read_frame(
                    self.source_rows[piece.source].codec, packet.payload, packet.payload_size, &packet.frame
                )
                if self._emit(index, &packet, piece, ext_seq, True, &self.outbox):
                    asked.budget -= size
                    row.retransmitted += 1
                    sent += 1
            if sent:
                self._wake()
        finally:
            self.unlock()
        return sent

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
                self._queue(&self.outbox, -1, &to, <int>view.shape[0])
            self._wake()
            self.unlock()

    def send_rtcp(self, transport, data):
        cdef const uint8_t[::1] view = data
        cdef Transport* association
        cdef uint8_t* out
        cdef int32_t index
        cdef int size = len(data)
        if not 8 <= size <= MAX_DATAGRAM:
            raise InvalidStateError("an RTCP packet has 8 to 1500 bytes")
        with nogil:
            self.lock()
        try:
            index = self._slot(transport, "transport")
            association = &self.transports[index]
            if association.send == NULL or association.nominated.family == 0:
                self._drop(DROP_NOT_NOMINATED)
            elif self.outbox.count == self.outbox.room:
                self._drop(DROP_QUEUE_FULL)
            else:
                out = self.outbox.arena + <size_t>self.outbox.count * STRIDE
                memcpy(out, &view[0], size)
                if self.srtp.protect_rtcp(association.send, out, &size) == SRTP_OK:
                    self._queue(&self.outbox, index, &association.nominated, size)
                    self._wake()
                else:
                    self._drop(DROP_PROTECT_FAILED)
        finally:
            self.unlock()

    cdef void _wake(self) noexcept nogil:
        """Let the socket loop see to the outbox; the mutex is held, so that it does not close what is written to."""
        cdef uint64_t one = 1
        if self.wake_fd >= 0:
            write(self.wake_fd, &one, sizeof(one))

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
