"""RTCP: what arrives is read and answered as far as no judgement is needed, and what is due to be said is written.

    RTCP from a peer ──┬─ NACK ────────────────> repeated through RTX, from history
                       ├─ SR ──────────────────> the source's clocks; the first makes its receivers' reports due
                       ├─ RR, SR: blocks ──────> round trip
                       └─ PLI, FIR, BYE, more ─> left for the slow path
    every second, to it <── RR about its sources, SR about the forwards to it, SDES with their CNAMEs
    every 100 ms        <── transport-cc feedback

Reports are full compounds. Nothing is sent from here: packets wait in the outbox for the next batch.

Driven by: the packets' road (road.pyx, the base class) and the Python face (relay.pyx). Every method wants the mutex held.
Spec: RFC 3550 section 6, RFC 4585 section 6.2.1, RFC 4588; feedback.pxd and reports.pxd.
"""

import secrets

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint16_t, uint64_t
from libc.string cimport memcpy

from server.media.fastpath.arrivals cimport Arrivals
from server.media.fastpath.batch cimport batch_add, batch_close, batch_next, batch_open
from server.media.fastpath.crypto cimport SRTP_OK
from server.media.fastpath.demux cimport read_u16, read_u32
from server.media.fastpath.feedback cimport FEEDBACK_AT_ONCE, feedback_begin, feedback_due, feedback_end, write_feedback
from server.media.fastpath.history cimport HISTORY_SLOTS
from server.media.fastpath.packet cimport write_u32
from server.media.fastpath.reports cimport (
    BLOCKS_OF_ONE, BLOCK_BYTES, CHUNK_BYTES, REPORTS_OF_ONE, SENDER_INFO_BYTES, note_clock, round_trip, write_block,
    write_chunk, write_head, write_sender_report,
)
from server.media.fastpath.rtcp cimport (
    LEFT_NOTHING, LEFT_OTHERS, RECEIVER_REPORT, Report, SDES, SENDER_REPORT, is_nack, left_by, next_report,
)
from server.media.fastpath.slots cimport Key, key_of_ssrc, map_get
from server.media.fastpath.tables cimport DROP_NOT_NOMINATED, DROP_PROTECT_FAILED, Forward, Source, Transport

cdef extern from "<unistd.h>" nogil:
    Py_ssize_t write(int, const void*, size_t)

_OUTBOX = 1024


cdef class Control(Road):
    """The tables' RTCP."""

    def __cinit__(self, transports=2048, sources=16384, forwards=65536):
        self.wake_fd = -1
        self.seed = secrets.randbits(32)
        if not batch_open(&self.outbox, _OUTBOX, NULL, NULL):
            raise MemoryError

    def __dealloc__(self):
        batch_close(&self.outbox)

    # --- In -----------------------------------------------------------------------------------------------------------

    cdef uint8_t read_rtcp(self, int32_t transport, const uint8_t* data, uint32_t size, Batch* out) noexcept nogil:
        """Deal with a compound. Returns what it leaves for the slow path: a malformed one is left whole."""
        cdef Report report
        cdef Key key
        cdef size_t at = 0
        cdef int32_t index
        cdef uint32_t asked = 0
        cdef uint8_t left = LEFT_NOTHING
        while next_report(data, size, &at, &report):
            pass
        if at != size:
            return LEFT_OTHERS
        at = 0
        while next_report(data, size, &at, &report):
            if is_nack(&report):
                key = key_of_ssrc(transport, read_u32(report.body + 4))
                index = map_get(&self.by_sent_ssrc, &key)
                if index >= 0 and self.forwards[index].rtx_ssrc:
                    self._repeat(index, &report, &asked, out)
                    continue
            left = max(left, self._left_by(transport, &report))
        return left

    cdef uint8_t _left_by(self, int32_t transport, const Report* report) noexcept nogil:
        """Read one packet of a compound, if it is a report; return what it leaves."""
        cdef const uint8_t* body = report.body
        cdef Key key
        cdef Source* source
        cdef int32_t found
        cdef uint32_t i
        cdef size_t info = SENDER_INFO_BYTES if report.kind == SENDER_REPORT else 4
        if report.kind != SENDER_REPORT and report.kind != RECEIVER_REPORT:
            return left_by(report)
        if report.size < info + BLOCK_BYTES * report.count:
            return LEFT_OTHERS
        self._read_blocks(transport, body + info, report.count)
        key = key_of_ssrc(transport, read_u32(body))
        found = map_get(&self.by_ssrc, &key)
        if report.kind == SENDER_REPORT and found >= 0 and not found & 1:
            source = &self.sources[found >> 1]
            if self.source_rows[found >> 1].clock_at == 0:
                for i in range(source.feeds_count):
                    # Without theirs its receivers cannot bring sound and picture together.
                    self.transports[self.forward_rows[source.feeds[i]].transport].report_at = self.now
            note_clock(&self.source_rows[found >> 1], body, self.now)
        return LEFT_NOTHING

    cdef void _read_blocks(self, int32_t transport, const uint8_t* blocks, uint8_t count) noexcept nogil:
        """Take the round trip from what a receiver reports of our forwards to it."""
        cdef Key key
        cdef int32_t index
        cdef double seconds
        cdef uint8_t i
        for i in range(count):
            key = key_of_ssrc(transport, read_u32(blocks + BLOCK_BYTES * i))
            index = map_get(&self.by_sent_ssrc, &key)
            if index >= 0:
                seconds = round_trip(&self.forwards[index], blocks + BLOCK_BYTES * i, self.now)
                if seconds >= 0:
                    self.transport_rows[transport].round_trip = max(seconds, 1e-6)

    cdef void _repeat(self, int32_t index, const Report* nack, uint32_t* asked, Batch* out) noexcept nogil:
        """Repeat what is asked for. Nobody has lost more than history holds: the rest is not worth the time."""
        cdef size_t i
        cdef uint16_t seq
        cdef uint32_t following
        for i in range(8, nack.size, 4):
            seq = read_u16(nack.body + i)
            following = <uint32_t>read_u16(nack.body + i + 2) << 1 | 1
            while following and asked[0] < HISTORY_SLOTS:
                if following & 1:
                    asked[0] += 1
                    self.forward_rows[index].nacked += 1
                    self.retransmit_one(index, seq, out)
                seq += 1
                following >>= 1

    # --- Out ----------------------------------------------------------------------------------------------------------

    cdef uint32_t feed_back(self, double now, double every, uint32_t sender_ssrc) noexcept nogil:
        """Queue the transport-cc feedback of all transports. Who finds no room has the next turn first."""
        cdef Py_ssize_t i
        cdef uint32_t queued = 0
        cdef int32_t index
        cdef int64_t first
        cdef Arrivals* log
        cdef uint8_t* out
        cdef int packets
        for i in range(self.transports_room):
            index = <int32_t>((self.feeding_back + i) % self.transports_room)
            log = self.transports[index].arrivals
            if log == NULL or self.transports[index].nominated.family == 0 or not feedback_due(log, now, every):
                continue
            if self.outbox.count + FEEDBACK_AT_ONCE > self.outbox.room:
                self.feeding_back = index
                break
            first = feedback_begin(log)
            for packets in range(FEEDBACK_AT_ONCE):
                if first > log.fresh_to:
                    break
                out = batch_next(&self.outbox)
                queued += self.queue_rtcp(index, out, <int>write_feedback(out, log, &first, sender_ssrc))
            feedback_end(log, now)
        if queued:
            self.wake()
        return queued

    cdef uint32_t report(self, double now) noexcept nogil:
        """Queue the reports that are due. Who finds no room has the next turn first."""
        cdef Py_ssize_t i
        cdef uint32_t queued = 0
        cdef int32_t index
        cdef Transport* association
        for i in range(self.transports_room):
            index = <int32_t>((self.reporting + i) % self.transports_room)
            association = &self.transports[index]
            if association.report_at == 0 or association.report_at > now or association.nominated.family == 0:
                continue
            if self.outbox.count + COMPOUNDS > self.outbox.room:
                self.reporting = index
                break
            queued += self._report_to(index, now)
            # Spread, so that those of many peers do not fall into step (RFC 3550 section 6.3.1).
            self.seed = self.seed * 1664525 + 1013904223
            association.report_at = now + REPORT_EVERY_S * (0.5 + self.seed / 4294967296.0)
        if queued:
            self.wake()
        return queued

    cdef uint32_t _report_to(self, int32_t index, double now) noexcept nogil:
        """Queue one transport's reports: as many compounds as it takes, and COMPOUNDS at most. Returns how many."""
        cdef int32_t source = self.transports[index].sources, forward = self.transports[index].forwards
        cdef uint32_t queued = 0
        cdef uint8_t* out
        cdef int size, number
        for number in range(COMPOUNDS):
            out = batch_next(&self.outbox)
            size = self._write_report(index, &source, &forward, out, now)
            if size == 0:
                break
            queued += self.queue_rtcp(index, out, size)
        return queued

    cdef int _write_report(
        self, int32_t index, int32_t* source, int32_t* forward, uint8_t* out, double now
    ) noexcept nogil:
        """Write one compound about the sources and forwards of a transport from these on, which move to where the next one
        begins. Returns its size; 0: there is nothing to tell.
        """
        cdef Transport* association = &self.transports[index]
        cdef uint8_t chunks[4 + CHUNK_BYTES * (REPORTS_OF_ONE + 1)]
        cdef Forward* sending
        cdef int blocks = 0, reports = 0, size = 0, described = 4, at
        while source[0] and blocks < BLOCKS_OF_ONE:
            at = source[0] - 1
            source[0] = self.sources[at].next
            blocks += write_block(out + 8 + BLOCK_BYTES * blocks, &self.sources[at], &self.source_rows[at], now)
        if blocks:
            size = 8 + BLOCK_BYTES * blocks
            write_head(out, blocks, RECEIVER_REPORT, size)
            write_u32(out + 4, association.ssrc)
            described += write_chunk(chunks + described, association.ssrc, association.cname, association.cname_size)
        while forward[0] and reports < REPORTS_OF_ONE - blocks // 2:
            at = forward[0] - 1
            sending = &self.forwards[at]
            forward[0] = sending.next
            if self.forward_rows[at].source >= 0 and write_sender_report(
                out + size, sending, &self.forward_rows[at], &self.source_rows[self.forward_rows[at].source], now
            ):
                size += 4 + SENDER_INFO_BYTES
                reports += 1
                described += write_chunk(
                    chunks + described, self.forward_rows[at].ssrc, sending.cname, sending.cname_size
                )
        if size:
            write_head(chunks, (blocks > 0) + reports, SDES, described)
            memcpy(out + size, chunks, described)
            size += described
        return size

    cdef bint queue_rtcp(self, int32_t transport, uint8_t* data, int size) noexcept nogil:
        """Protect and queue the packet that has been written at the outbox's end. False: dropped, counted."""
        cdef Transport* association = &self.transports[transport]
        if association.send.control == NULL or association.nominated.family == 0:
            self._drop(DROP_NOT_NOMINATED)
            return False
        if association.send.control(association.send.control_session, data, &size) != SRTP_OK:
            self._drop(DROP_PROTECT_FAILED)
            return False
        batch_add(&self.outbox, transport, &association.nominated, size, False)
        return True

    cdef void wake(self) noexcept nogil:
        """Let the socket loop see to the outbox; the mutex is held, so that it does not close what is written to."""
        cdef uint64_t one = 1
        if self.wake_fd >= 0:
            write(self.wake_fd, &one, sizeof(one))
