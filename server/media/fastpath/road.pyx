"""The road of a packet: datagrams in, datagrams out. All that is done to a packet is done here, without the GIL.

     datagram ─> demux ─┬─ STUN ──────────────────────────────────────────────> events
                        └─ from an allowed address? ─┬─ DTLS ─────────────────> events
                                                     ├─ RTCP ─> unprotect ─┬──> events, but for NACKs alone:
                                                     │                     └─ history ─> number, rewrite, protect ─> batch
                                                     └─ RTP ──> unprotect ─┬──> events, if no source has its SSRC
                                                                           └─ source: count, history
                                                                                └─ each forward that it feeds:
                                                                                   number, rewrite, protect ─> batch

What a packet is changed into depends on three tables (tables.pxd): transports, sources (streams received) and forwards
(streams sent). The slow path programs them through the Python face (relay.pyx). There is no policy here.

Longer than other modules because it is one thing, the packet's whole road; the leaves (`*.pxd`) hold what can be read alone: slots,
packet, extensions, dependency, red, rtcp, numbering, history, arrivals, sentlog, batch, crypto.

Driven by: the socket loop, or in memory `Relay.process`. Every method wants the mutex held.
Spec: RFC 3550, RFC 3711, RFC 4588, RFC 7983, RFC 8285; payloads as in packet.pxd.
"""

import secrets

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stddef cimport size_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

from server.media.fastpath cimport demux as verdicts
from server.media.fastpath.arrivals cimport note_arrival
from server.media.fastpath.batch cimport batch_add, batch_next
from server.media.fastpath.crypto cimport SRTP_AUTH_FAIL, SRTP_OK, SRTP_REPLAY_FAIL, SRTP_REPLAY_OLD
from server.media.fastpath.demux cimport demux, read_u16, read_u32
from server.media.fastpath.dependency cimport Structure, read_dependency
from server.media.fastpath.expected cimport find_expected
from server.media.fastpath.extensions cimport (
    ABS_SEND_TIME, AUDIO_LEVEL, DEPENDENCY_DESCRIPTOR, EXTENSIONS, MID, RID, RRID, TRANSPORT_CC, Element,
    write_extensions,
)
from server.media.fastpath.events cimport (
    EVENTS, EVENTS_OF_DATAGRAMS, EVENTS_OF_ONE, EVENTS_OF_STRANGERS, Queued, events_close, events_open, events_push, in_rate,
)
from server.media.fastpath.history cimport HISTORY_SLOTS, history_get, history_open, history_put
from server.media.fastpath.mutex cimport mutex_close, mutex_give_way, mutex_lock, mutex_lock_first, mutex_open, mutex_unlock
from server.media.fastpath.numbering cimport begin_piece, leave_out, newest, piece_in, piece_out, unwrap
from server.media.fastpath.packet cimport (
    CODEC_AV1, CODEC_H264, CODEC_VP8, CODEC_VP9, pad_to, parse_packet, read_frame, rewrite_frame, write_u16,
    write_u32,
)
from server.media.fastpath.red cimport (
    Red, RedBlock, Seen, is_lost, is_repaired, note_repaired, note_seen, read_red, rename_blocks,
)
from server.media.fastpath.rtcp cimport LEFT_NOTHING, LEFT_OTHERS, LEFT_REQUESTS
from server.media.fastpath.sentlog cimport note_sent
from server.media.fastpath.slots cimport Key, UDP, key_of_ssrc, map_close, map_get, map_open, map_put, map_remove
from server.media.fastpath.tables cimport (
    DROP_ADDRESS_NOT_ALLOWED, DROP_DUPLICATE, DROP_NO_KEYS, DROP_NOT_NOMINATED, DROP_OVER_RATE, DROP_PROTECT_FAILED,
    DROP_QUEUE_FULL, DROP_RED_BAD, DROP_RTP_BAD_PADDING, DROP_RTP_PADDING_ONLY, DROP_RTX_BAD, DROP_SRTP_AUTH_FAILED,
    DROP_SRTP_FAILED, DROP_SRTP_REPLAYED, DROP_STRANGER_QUEUE_FULL, DROP_TOO_LATE, DROP_TOO_LONG, DROP_TURN_CHANNEL,
    DROP_UNEXPECTED_PAYLOAD_TYPE, DROP_UNKNOWN_SSRC, EVENT_BOUND, EVENT_DISCONNECTED, EVENT_DTLS, EVENT_KEYFRAME_WANTED, EVENT_RTCP,
    EVENT_STUN, EVENT_SWITCHED, EVENT_UNKNOWN_SSRC, MAX_DATAGRAM, reset_row,
)

from server.media.fastpath.unknown cimport (
    REPORTERS, Unknown, Unknowns, reporter_add, reporter_is_known, unknown_add, unknown_find, unknown_forget,
    unknown_is_flood,
)

_ADDRESSES_OF_ONE = 16
cdef double UNKNOWN_EVERY_S = 0.02
cdef double WANTED_EVERY_S = 0.5
# A picture's packets differ by a byte or two, and the kernel cuts a message into equal datagrams: padded, they are one message.
cdef int ALIGNMENT = 16
cdef int ALIGNED_FROM = 600
cdef int ALIGNED_TO = 1216          # with a tag of 16 bytes 1232: what IPv6's least MTU leaves
cdef int64_t BUDGET_MOST = 128 * 1024


cdef class Road:
    """The tables, and what is done by them. The rows are NumPy's, and set by the face."""

    def __cinit__(self, transports=2048, sources=16384, forwards=65536):
        cdef uint64_t seed = secrets.randbits(64)
        mutex_open(&self.mutex)
        self.transports_room = transports
        self.sources_room = sources
        self.transports = <Transport*>PyMem_RawCalloc(transports, sizeof(Transport))
        self.sources = <Source*>PyMem_RawCalloc(sources, sizeof(Source))
        self.forwards = <Forward*>PyMem_RawCalloc(forwards, sizeof(Forward))
        if (
            self.transports == NULL
            or self.sources == NULL
            or self.forwards == NULL
            or not events_open(&self.events)
            or not map_open(&self.by_address, transports * _ADDRESSES_OF_ONE, seed)
            or not map_open(&self.by_ssrc, 2 * sources, seed)
            or not map_open(&self.by_sent_ssrc, forwards, seed)
        ):
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.transports != NULL:
            for i in range(self.transports_room):
                free(self.transports[i].arrivals)
                free(self.transports[i].sent)
        if self.sources != NULL:
            for i in range(self.sources_room):
                free(self.sources[i].feeds)
                free(self.sources[i].history)
        PyMem_RawFree(self.transports)
        PyMem_RawFree(self.sources)
        PyMem_RawFree(self.forwards)
        events_close(&self.events)
        map_close(&self.by_address)
        map_close(&self.by_ssrc)
        map_close(&self.by_sent_ssrc)
        mutex_close(&self.mutex)

    cdef void lock(self) noexcept nogil:
        """The slow path's, which goes first."""
        mutex_lock_first(&self.mutex)

    cdef void lock_for_media(self) noexcept nogil:
        mutex_lock(&self.mutex)

    cdef void give_way(self) noexcept nogil:
        """Between two packets."""
        mutex_give_way(&self.mutex)

    cdef void unlock(self) noexcept nogil:
        mutex_unlock(&self.mutex)

    # --- In -----------------------------------------------------------------------------------------------------------

    cdef void receive(self, uint8_t* data, uint32_t size, const Endpoint* origin, Batch* out) noexcept nogil:
        """Do with a datagram what is to be done; it is overwritten. The mutex is held."""
        cdef uint8_t kind = demux(data, size)
        cdef int32_t transport, found = -1
        cdef int length = <int>size
        cdef uint32_t ssrc
        cdef uint8_t left
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
        if association.receive.media == NULL:
            self._drop(DROP_NO_KEYS)
            return
        if kind == verdicts.RTCP:
            if not self._decrypt_rtcp(transport, data, &length):
                return
            left = self.read_rtcp(transport, data, <uint32_t>length, out)
            if left != LEFT_NOTHING:
                self._pass_up(EVENT_RTCP, transport, True, origin, data, <uint32_t>length)
                self.events.urgent = self.events.urgent or left == LEFT_REQUESTS
        else:
            ssrc = read_u32(data + 8)
            key = key_of_ssrc(transport, ssrc)
            found = map_get(&self.by_ssrc, &key)
            if found < 0 and unknown_is_flood(&association.unknowns, ssrc):
                self._drop(DROP_UNKNOWN_SSRC)
                return
            if not self._decrypt(association.receive.media, association.receive.media_session, data, &length):
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

    cdef bint _decrypt_rtcp(self, int32_t transport, uint8_t* data, int* size) noexcept nogil:
        """The same of RTCP, of who sends or has sent media, or is one of a few who only report."""
        cdef Transport* association = &self.transports[transport]
        cdef uint32_t ssrc = read_u32(data + 4)
        cdef Key key = key_of_ssrc(transport, ssrc)
        cdef bint known = (
            map_get(&self.by_ssrc, &key) >= 0
            or reporter_is_known(&association.reporters, ssrc)
            or unknown_find(&association.unknowns, ssrc) != NULL
        )
        if not known and association.reporters.count == REPORTERS:
            self._drop(DROP_UNKNOWN_SSRC)
            return False
        if not self._decrypt(association.receive.control, association.receive.control_session, data, size):
            return False
        if not known:
            reporter_add(&association.reporters, ssrc)
        return True

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
        cdef Red red
        cdef uint32_t i
        cdef bint repaired = False
        if not parse_packet(data, size, &association.receive_ids, &packet):
            self._drop(DROP_RTP_BAD_PADDING)
            if found < 0 and unknown_find(&association.unknowns, read_u32(data + 8)) == NULL:
                unknown_add(&association.unknowns, read_u32(data + 8), False)
            return
        if association.arrivals != NULL and packet.elements[TRANSPORT_CC].size >= 2:
            note_arrival(association.arrivals, read_u16(packet.elements[TRANSPORT_CC].data), packet.ssrc, self.now)
        if found < 0:
            found = self._bind(transport, &packet)
            index = found >> 1
            recovered = found & 1
        if found < 0:
            self._receive_unknown(transport, origin, data, packet.size, packet.ssrc)
            return
        source = &self.sources[index]
        row = &self.source_rows[index]
        if recovered and not self._unwrap_rtx(source, row, &packet):
            return
        if packet.payload_type != source.payload_type:
            if source.red_payload_type == 0 or packet.payload_type != source.red_payload_type:
                self._drop(DROP_UNEXPECTED_PAYLOAD_TYPE)
                return
            if packet.payload_size:
                if not read_red(packet.payload, packet.payload_size, source.payload_type, &red):
                    self._drop(DROP_RED_BAD)
                    return
                packet.red = &red
        if not self._count_packet(source, row, &packet, recovered):
            self._drop(DROP_DUPLICATE)
            return
        read_frame(row.codec, packet.payload, packet.payload_size, &packet.frame)
        if packet.elements[DEPENDENCY_DESCRIPTOR].size >= 3 and row.codec in (CODEC_AV1, CODEC_H264):
            self._read_layers(source, &packet)
        row.keyframes += packet.frame.starts_keyframe
        if source.red_payload_type:
            note_seen(&source.seen, packet.ext_seq)
            repaired = is_repaired(&source.seen, packet.ext_seq)
            if packet.red != NULL:
                self._repair(index, &packet, out)
        i = source.feeds_count
        while i:
            # Backwards: nobody but the one served may leave the list.
            i -= 1
            # Whose stream is unwrapped has what came late from the redundancy of its successor.
            if not repaired or self.forwards[source.feeds[i]].red_payload_type:
                self._forward(source.feeds[i], index, &packet, out)
        if packet.payload_size == 0:
            self._drop(DROP_RTP_PADDING_ONLY)

    cdef void _read_layers(self, Source* source, Packet* packet) noexcept nogil:
        """Take the temporal layer from the dependency descriptor, for codecs whose payload does not tell it."""
        cdef const uint8_t* data = packet.elements[DEPENDENCY_DESCRIPTOR].data
        packet.frame.starts = data[0] >> 7
        if read_dependency(
            data,
            packet.elements[DEPENDENCY_DESCRIPTOR].size,
            &source.structure,
            &packet.frame.temporal,
            &packet.frame.reach,
        ):
            packet.frame.reach_from = packet.frame.temporal

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

    cdef void _repair(self, int32_t index, const Packet* packet, Batch* out) noexcept nogil:
        """Carry what was lost before this packet, from its redundancy, to whoever does not take RED themselves.

        A block belongs to the packet as many numbers before as it stands before the primary one: encoders that wrap send
        every frame in a packet of its own.
        """
        cdef Source* source = &self.sources[index]
        cdef Packet lost = packet[0]
        cdef RedBlock* block
        cdef uint32_t i, feed
        lost.red = NULL
        lost.marker = False
        for i in range(packet.red.count):
            block = &packet.red.blocks[i]
            lost.ext_seq = packet.ext_seq - (packet.red.count - i)
            if (
                block.size == 0
                or lost.ext_seq < self.source_rows[index].base_ext_seq
                or not is_lost(&source.seen, lost.ext_seq)
            ):
                continue
            note_repaired(&source.seen, lost.ext_seq)
            self.source_rows[index].recovered += 1
            lost.seq = <uint16_t>lost.ext_seq
            lost.timestamp = packet.timestamp - block.timestamp_offset
            lost.payload = block.data
            lost.payload_size = block.size
            feed = source.feeds_count
            while feed:
                feed -= 1
                if self.forwards[source.feeds[feed]].red_payload_type == 0:
                    self._forward(source.feeds[feed], index, &lost, out)

    # --- Whose packet it is -------------------------------------------------------------------------------------------

    cdef void _receive_unknown(
        self, int32_t transport, const Endpoint* origin, uint8_t* data, uint32_t size, uint32_t ssrc
    ) noexcept nogil:
        """Let the slow path find out what it is, now and then. It is no flood: there is room."""
        cdef Unknowns* unknowns = &self.transports[transport].unknowns
        cdef Unknown* unknown = unknown_find(unknowns, ssrc)
        if unknown == NULL:
            unknown = unknown_add(unknowns, ssrc, False)
        elif unknown.left_behind or self.now - unknown.reported_at < UNKNOWN_EVERY_S:
            self._drop(DROP_UNKNOWN_SSRC)
            return
        unknown.reported_at = self.now
        self._pass_up(EVENT_UNKNOWN_SSRC, transport, True, origin, data, size)

    cdef int32_t _bind(self, int32_t transport, const Packet* packet) noexcept nogil:
        """Let a packet's SSRC be that of the source that expects it, from now on; the one before is left behind.

        Returns:
            Twice the source, and one if it is its RTX; -1: none expects it.
        """
        cdef Transport* association = &self.transports[transport]
        cdef Unknown* unknown = unknown_find(&association.unknowns, packet.ssrc)
        cdef Key key = key_of_ssrc(transport, packet.ssrc)
        cdef Source* source
        cdef int32_t found, index
        if association.expected == 0 or (unknown != NULL and unknown.left_behind):
            return -1
        found = find_expected(association, self.sources, packet)
        if found < 0:
            return -1
        index = found >> 1
        source = &self.sources[index]
        if found & 1:
            if source.rtx_bound:
                self.leave_behind(transport, source.rtx_ssrc, True)
                source.rtx_ahead = True
            source.rtx_ssrc = packet.ssrc
            source.rtx_bound = True
        else:
            if source.bound:
                self._begin_anew(transport, index)
            self.source_rows[index].ssrc = packet.ssrc
            source.bound = True
            self._tell(EVENT_BOUND, index, packet.ssrc)
        unknown_forget(&association.unknowns, packet.ssrc)
        map_put(&self.by_ssrc, &key, found)
        return found

    cdef void _begin_anew(self, int32_t transport, int32_t index) noexcept nogil:
        """The publisher's encoder has begun again: forget its stream; those who carry it wait for the new keyframe."""
        cdef Source* source = &self.sources[index]
        cdef SourceRow* row = &self.source_rows[index]
        cdef Forward* forward
        cdef ForwardRow* fed
        cdef uint32_t i = source.feeds_count
        self.leave_behind(transport, row.ssrc, True)
        if source.rtx_bound and not source.rtx_ahead:
            self.leave_behind(transport, source.rtx_ssrc, True)
            source.rtx_bound = False
        source.rtx_ahead = False
        free(source.history)
        source.history = NULL
        self.births += 1
        source.birth = self.births
        memset(&source.seen, 0, sizeof(Seen))
        memset(&source.structure, 0, sizeof(Structure))
        source.reported_expected = source.reported_packets = 0
        reset_row(row, transport, row.codec, row.clock_rate)
        while i:
            i -= 1
            forward = &self.forwards[source.feeds[i]]
            fed = &self.forward_rows[source.feeds[i]]
            # The offset was that of the old timestamps.
            forward.has_timestamp_offset = forward.has_timestamp_offset and fed.pending != index
            if fed.source != index:
                continue
            fed.source = -1
            if fed.pending >= 0:
                self.detach(source.feeds[i], index)
            else:
                fed.pending = index
                forward.has_timestamp_offset = False
                forward.wanted_at = 0

    cdef void leave_behind(self, int32_t transport, uint32_t ssrc, bint for_good) noexcept nogil:
        """An SSRC is nobody's any more; for good, or until it is seen under another name."""
        cdef Key key = key_of_ssrc(transport, ssrc)
        map_remove(&self.by_ssrc, &key)
        unknown_add(&self.transports[transport].unknowns, ssrc, for_good)

    # --- Out ----------------------------------------------------------------------------------------------------------

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
                    self._tell(EVENT_KEYFRAME_WANTED, index, <uint32_t>source)
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
                elif packet.frame.reach > forward.temporal >= packet.frame.reach_from:
                    forward.temporal = min(packet.frame.reach, forward.max_temporal)
            if packet.frame.temporal > forward.temporal:
                row.dropped_temporal += 1
                leave_out(&forward.numbering, packet.ext_seq)
                # VP8 alone counts pictures for their own sake; VP9 and the dependency descriptor refer to each other by
                # the distance of their numbers, which therefore keep their gaps.
                if (
                    packet.frame.picture_bytes
                    and self.source_rows[source].codec == CODEC_VP8
                    and forward.left_out_picture != packet.frame.picture_id
                ):
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
        if packet.red != NULL and forward.red_payload_type == 0:
            row.bytes += packet.red.blocks[packet.red.count].size
        else:
            row.bytes += packet.payload_size
        if ext_seq > row.highest_ext_seq:
            row.sent_at = self.now
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
            self.detach(index, row.source)
        row.source = source
        row.pending = -1
        row.timestamp_offset = piece.timestamp_delta
        self._tell(EVENT_SWITCHED, index, <uint32_t>source)

    cdef void detach(self, int32_t forward, int32_t source) noexcept nogil:
        """Let a source feed a forward no longer."""
        cdef Source* feeding = &self.sources[source]
        cdef uint32_t i
        for i in range(feeding.feeds_count):
            if feeding.feeds[i] == forward:
                feeding.feeds_count -= 1
                feeding.feeds[i] = feeding.feeds[feeding.feeds_count]
                return

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
        cdef const uint8_t* payload = packet.payload
        cdef uint32_t payload_size = packet.payload_size
        cdef uint8_t payload_type = forward.rtx_payload_type if rtx else forward.payload_type
        cdef uint32_t fixed
        cdef size_t extension
        cdef int size = 12
        if association.send.media == NULL or association.nominated.family == 0:
            self._drop(DROP_NOT_NOMINATED)
            return False
        data = batch_next(out)
        if data == NULL:
            self._drop(DROP_QUEUE_FULL)
            return False

        if packet.red != NULL:
            if forward.red_payload_type:
                payload_type = forward.red_payload_type
            else:
                payload = packet.red.blocks[packet.red.count].data
                payload_size = packet.red.blocks[packet.red.count].size
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
        data[1] = packet.marker << 7 | payload_type
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
        memcpy(data + size, payload, payload_size)
        rewrite_frame(data + size, &packet.frame, piece.picture_delta, piece.tl0_delta)
        if packet.red != NULL and forward.red_payload_type:
            rename_blocks(data + size, packet.red, forward.payload_type)
        size += <int>payload_size
        if forward.video and not rtx and ALIGNED_FROM <= size <= ALIGNED_TO and association.nominated.protocol == UDP:
            size += pad_to(ALIGNMENT, data, size)

        if association.send.media(association.send.media_session, data, &size) != SRTP_OK:
            self._drop(DROP_PROTECT_FAILED)
            return False
        if association.send_ids.id[TRANSPORT_CC] and association.sent != NULL:
            note_sent(association.sent, <uint32_t>transport_row.wide_seq, <uint32_t>size, self.now)
        batch_add(out, row.transport, &association.nominated, size, forward.video)
        transport_row.sent_packets += 1
        transport_row.sent_bytes += <uint64_t>size
        return True

    # --- RTCP ---------------------------------------------------------------------------------------------------------

    cdef uint8_t read_rtcp(self, int32_t transport, const uint8_t* data, uint32_t size, Batch* out) noexcept nogil:
        """Deal with an authentic compound as far as the slow path is not needed (control.pyx). Returns what is left."""
        return LEFT_OTHERS

    cdef int retransmit_one(self, int32_t index, uint16_t seq, Batch* out) noexcept nogil:
        """Repeat a packet of a forward through RTX. 1: done; 0: it is not there; -1: there is no budget or room.

        Spec: RFC 4588 section 4.
        """
        cdef Forward* forward = &self.forwards[index]
        cdef ForwardRow* row = &self.forward_rows[index]
        cdef int64_t ext_seq = unwrap(row.highest_ext_seq, seq)
        cdef Piece* piece = piece_out(&forward.numbering, ext_seq)
        cdef Source* source
        cdef Packet packet
        cdef uint8_t* data
        cdef uint32_t size = 0
        if forward.rtx_ssrc == 0 or piece == NULL or ext_seq > row.highest_ext_seq:
            return 0
        source = &self.sources[piece.source]
        if source.birth != piece.birth or source.history == NULL:
            return 0
        data = history_get(source.history, piece.from_in + (ext_seq - piece.from_out), &size)
        if data == NULL:
            return 0
        if forward.budget < size:
            return -1
        if not parse_packet(data, size, &self.transports[self.source_rows[piece.source].transport].receive_ids, &packet):
            return 0
        read_frame(self.source_rows[piece.source].codec, packet.payload, packet.payload_size, &packet.frame)
        if not self._emit(index, &packet, piece, ext_seq, True, out):
            return -1
        forward.budget -= size
        row.retransmitted += 1
        return 1

    # --- Up to the slow path ------------------------------------------------------------------------------------------

    cdef void _pass_up(
        self, uint8_t kind, int32_t index, bint charged, const Endpoint* origin, const uint8_t* data, uint32_t size
    ) noexcept nogil:
        """Queue an event: a datagram, within the share and rate of its transport, or the share of all strangers together;
        or what the relay has to tell, for which there is room that datagrams cannot take.
        """
        cdef Queued* event
        if charged and index < 0 and self.events.of_strangers >= EVENTS_OF_STRANGERS:
            self._drop(DROP_STRANGER_QUEUE_FULL)
            return
        if self.events.count >= <uint32_t>(EVENTS_OF_DATAGRAMS if charged else EVENTS) or (
            charged and index >= 0 and self.transports[index].events >= EVENTS_OF_ONE
        ):
            self._drop(DROP_QUEUE_FULL)
            return
        if charged and index >= 0 and not in_rate(kind == EVENT_RTCP, &self.transports[index].due[kind], self.now):
            self._drop(DROP_OVER_RATE)
            return
        event = events_push(&self.events, data, <uint16_t>size)
        if event == NULL:
            self._drop(DROP_QUEUE_FULL)
            return
        self.events.pushed = True
        self.events.urgent = self.events.urgent or kind != EVENT_RTCP
        event.kind = kind
        event.index = index
        event.birth = self.transports[index].birth if index >= 0 and (charged or kind == EVENT_DISCONNECTED) else 0
        event.charged = charged
        event.origin = origin[0]
        event.at = self.now
        if charged and index < 0:
            self.events.of_strangers += 1
        elif charged:
            self.transports[index].events += 1

    cdef void _tell(self, uint8_t kind, int32_t index, uint32_t what) noexcept nogil:
        """Queue an event of a forward and its source, or of a source and its SSRC."""
        cdef uint8_t data[4]
        cdef Endpoint nowhere
        memset(&nowhere, 0, sizeof(Endpoint))
        write_u32(data, what)
        self._pass_up(kind, index, False, &nowhere, data, 4)
