"""The load generator's packets: all participants through one socket, on one thread without the GIL. [IO]

    every 250 us:  recvmmsg ─> leg (by its own address) ─> accounting, delay of a sample
                   heap of what is due: pictures, sound, reports, feedback, checks ─> protect ─> sendmmsg (UDP GSO)

A leg is one end of one transport, with an IPv4 address of its own out of a block that is routed to this machine: the
addresses need not be assigned (a local route, or 127.0.0.0/8, is enough), and one socket serves them all. What arrives
is timed by the kernel, so that this thread's own pace is in no delay. Nothing is repaired: a lost packet stays lost.

One thing, because all of it shares the legs' table and runs under one mutex; its leaves are the .pxd files beside it.

Driven by: generator.py. STUN and DTLS go up to Python. Spec: udp(7), ip(7) (IP_PKTINFO), RFC 5761.
"""

import ipaddress
import threading
import time

from libc.errno cimport EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from loadtest.heard cimport Heard, read_rtcp
from loadtest.kernel cimport (
    CLOCK_REALTIME, CMSG_FIRSTHDR, CMSG_NXTHDR, IP_PKTINFO, IPPROTO_IP, SO_TIMESTAMPNS, SOL_SOCKET,
    htonl, in_pktinfo, ntohl,
)
from loadtest.reports cimport Arrivals, note_arrival, write_feedback, write_report
from loadtest.schedule cimport Due, Schedule, add, postpone
from loadtest.streams cimport (
    AUDIO_NS, BUCKET_NS, BUCKETS, FRAME_NS, KEYFRAME_EVERY, KEYFRAME_TIMES, PART_BYTES, SAMPLED, STAMP, STAMP_MAGIC,
    Receiver, Sender, account, begin_frame, get16, get32, open_window, roll, write_audio, write_part,
)

from server.media.fastpath.mutex cimport Mutex, mutex_lock, mutex_open, mutex_unlock
from server.media.fastpath.sockets cimport (
    AF_INET, CLOCK_MONOTONIC, CMSG_DATA, CMSG_LEN, CMSG_SPACE, MSG_DONTWAIT, SOL_UDP, TIMER_ABSTIME, UDP_SEGMENT, clock_gettime,
    clock_nanosleep, cmsghdr,
    htons, iovec, mmsghdr, msghdr, recvmmsg, sendmmsg, sockaddr_in, timespec,
)
from server.media.fastpath.crypto cimport SRTP_TRAILER, Session, Srtp

import numpy as np

from server.errors import InvalidStateError

cdef enum:
    RECEIVE = 64                # datagrams at a time
    ROUNDS = 16                 # of receiving, before sending has its turn again
    OUTBOX = 256                # datagrams made before they are sent
    BURST = 32                  # sent at once at most: what is stamped leaves within 0.1 ms
    STRIDE = 2048
    CONTROL = 128
    STREAMS = 160               # received by a leg: everyone's sound and picture in a full room, and more
    OWN = 4                     # sent by a leg
    CHECKS = 16
    QUEUE = 4096                # datagrams for Python
    TICK_NS = 250000
    REPORT_NS = 1000000000
    CHECK_MS = 2500             # as often as Chromium checks a pair that works
    BEHIND_NS = 200000000       # further behind, what is due is left out

cdef enum Task:
    MEDIA, REPORT, FEEDBACK, CHECK


cdef struct Leg:
    sockaddr_in remote
    uint32_t ip                 # ours, host order
    Srtp outbound
    Srtp inbound
    uint8_t wide_id             # of the transport-wide number in what arrives; 0: no feedback
    uint16_t wide_seq           # of what we send
    uint32_t ssrc               # of our reports
    uint32_t peer_ssrc          # a stream received, which feedback names
    int own[OWN]
    int sending
    Receiver* receivers         # made as they arrive
    int receiving, room
    Arrivals arrivals
    uint8_t* checks[CHECKS]
    int check_bytes[CHECKS]
    int check_count, check_next


cdef struct Outgoing:
    int leg
    int size


cdef struct Counters:
    uint64_t sent, sent_bytes, received, received_bytes, repeated, sampled, undecipherable, rtcp, keyframes_asked
    uint64_t nacks, feedback_received, feedback_sent, reports_sent, checks_sent, checks_answered
    uint64_t stray, refused, skipped
    uint64_t behind_ns          # the furthest behind schedule in this window


BUCKET_S = BUCKET_NS / 1e9


cdef int64_t _wall() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_REALTIME, &at)
    return at.tv_sec * 1000000000 + at.tv_nsec


cdef uint32_t _ip(str text) except? 0:
    """An IPv4 address as a number, in host order."""
    return int(ipaddress.IPv4Address(text))


cdef class Engine:
    """See fastgen.pyi."""

    cdef:
        int fd, port
        uint32_t first_ip
        Leg* legs
        int leg_count, leg_room
        Sender* senders
        int sender_count, sender_room, active
        Schedule schedule
        bint media, stopping
        int64_t feedback_ns
        int64_t now             # in memory
        Counters counters
        uint32_t* delays
        uint32_t dice
        Mutex mutex
        uint8_t* arena
        Outgoing* outbox
        int waiting
        uint8_t* received
        mmsghdr* incoming
        iovec* incoming_at
        uint8_t* incoming_control
        mmsghdr* outgoing
        iovec* outgoing_at
        uint8_t* outgoing_control
        uint8_t* clear
        uint8_t* queue_data
        int* queue_leg
        int* queue_size
        int queued
        double _cpu_seconds
        object _sessions, _thread

    def __cinit__(self, int fd, str first_ip, int legs=1024, double feedback_every=0.1, int seed=1):
        self.fd = fd
        self.first_ip = _ip(first_ip)
        self.leg_room = legs
        self.sender_room = legs * OWN
        self.schedule.room = legs * (OWN + 3)
        self.active = self.sender_room
        self.feedback_ns = <int64_t>(feedback_every * 1e9)
        self.dice = seed or 1
        self._sessions = []
        self.legs = <Leg*>calloc(self.leg_room, sizeof(Leg))
        self.senders = <Sender*>calloc(self.sender_room, sizeof(Sender))
        self.schedule.items = <Due*>calloc(self.schedule.room, sizeof(Due))
        self.delays = <uint32_t*>calloc(BUCKETS + 1, sizeof(uint32_t))
        self.arena = <uint8_t*>malloc(OUTBOX * STRIDE)
        self.outbox = <Outgoing*>calloc(OUTBOX, sizeof(Outgoing))
        self.received = <uint8_t*>malloc(RECEIVE * STRIDE)
        self.incoming = <mmsghdr*>calloc(RECEIVE, sizeof(mmsghdr))
        self.incoming_at = <iovec*>calloc(RECEIVE, sizeof(iovec))
        self.incoming_control = <uint8_t*>calloc(RECEIVE, CONTROL)
        self.outgoing = <mmsghdr*>calloc(OUTBOX, sizeof(mmsghdr))
        self.outgoing_at = <iovec*>calloc(OUTBOX, sizeof(iovec))
        self.outgoing_control = <uint8_t*>calloc(OUTBOX, CONTROL)
        self.clear = <uint8_t*>malloc(STRIDE)
        self.queue_data = <uint8_t*>malloc(QUEUE * STRIDE)
        self.queue_leg = <int*>calloc(QUEUE, sizeof(int))
        self.queue_size = <int*>calloc(QUEUE, sizeof(int))
        if (
            self.legs == NULL or self.senders == NULL or self.schedule.items == NULL or self.delays == NULL
            or self.arena == NULL or self.outbox == NULL or self.received == NULL or self.incoming == NULL
            or self.incoming_at == NULL or self.incoming_control == NULL or self.outgoing == NULL
            or self.outgoing_at == NULL or self.outgoing_control == NULL or self.clear == NULL
            or self.queue_data == NULL or self.queue_leg == NULL or self.queue_size == NULL
        ):
            raise MemoryError
        mutex_open(&self.mutex)

    def __dealloc__(self):
        cdef int i, j
        for i in range(self.leg_count):
            free(self.legs[i].receivers)
            for j in range(self.legs[i].check_count):
                free(self.legs[i].checks[j])
        for pointer in (
            <size_t>self.legs, <size_t>self.senders, <size_t>self.schedule.items, <size_t>self.delays,
            <size_t>self.arena, <size_t>self.outbox, <size_t>self.received, <size_t>self.incoming,
            <size_t>self.incoming_at, <size_t>self.incoming_control, <size_t>self.outgoing, <size_t>self.outgoing_at,
            <size_t>self.outgoing_control, <size_t>self.clear, <size_t>self.queue_data, <size_t>self.queue_leg,
            <size_t>self.queue_size,
        ):
            free(<void*><size_t>pointer)

    # Programming, from Python.

    cdef void lock(self) noexcept nogil:
        mutex_lock(&self.mutex)

    cdef void unlock(self) noexcept nogil:
        mutex_unlock(&self.mutex)

    cdef Leg* leg(self, int index) except NULL:
        if not 0 <= index < self.leg_count:
            raise InvalidStateError(f"there is no leg {index}")
        return &self.legs[index]

    def add_leg(self):
        cdef Leg* leg
        if self.leg_count == self.leg_room:
            raise InvalidStateError("no more legs")
        self.lock()
        leg = &self.legs[self.leg_count]
        leg.ip = self.first_ip + self.leg_count
        leg.ssrc = 0x10000000 + self.leg_count
        leg.arrivals.next = leg.arrivals.highest = -1
        self.leg_count += 1
        self.unlock()
        return self.leg_count - 1

    def set_remote(self, int index, str ip, int port):
        cdef Leg* leg = self.leg(index)
        cdef uint32_t address = _ip(ip)
        self.lock()
        leg.remote.sin_family = AF_INET
        leg.remote.sin_port = htons(port)
        leg.remote.sin_addr.s_addr = htonl(address)
        self.unlock()

    def local_ip(self, int index):
        cdef uint32_t ip = self.leg(index).ip
        return f"{ip >> 24}.{ip >> 16 & 255}.{ip >> 8 & 255}.{ip & 255}"

    def set_keys(self, int index, int profile, bytes receive_key, bytes send_key):
        cdef Leg* leg = self.leg(index)
        cdef Session inbound = Session(profile, receive_key, True), outbound = Session(profile, send_key, False)
        self._sessions.append((inbound, outbound))
        self.lock()
        leg.inbound = inbound.srtp
        leg.outbound = outbound.srtp
        add(&self.schedule, self._soon(REPORT_NS), REPORT, index)
        self.unlock()

    def set_checks(self, int index, checks):
        cdef Leg* leg = self.leg(index)
        if leg.check_count or not 0 < len(checks) <= CHECKS:
            raise InvalidStateError("checks are set once, at most 16")
        self.lock()
        for check in checks:
            leg.checks[leg.check_count] = <uint8_t*>malloc(len(check))
            memcpy(leg.checks[leg.check_count], <const uint8_t*>(<bytes>check), len(check))
            leg.check_bytes[leg.check_count] = len(check)
            leg.check_count += 1
        add(&self.schedule, self._soon(<int64_t>CHECK_MS * 1000000), CHECK, index)
        self.unlock()

    def set_feedback(self, int index, int wide_id):
        cdef Leg* leg = self.leg(index)
        self.lock()
        leg.wide_id = wide_id
        add(&self.schedule, self._soon(self.feedback_ns), FEEDBACK, index)
        self.unlock()

    def add_sender(
        self, int index, uint32_t ssrc, int payload_type, bint video, int bps=1_200_000, bytes mid=b"", int mid_id=0,
        int wide_id=0, int sent_id=0, int level_id=0,
    ):  # fmt: skip
        cdef Leg* leg = self.leg(index)
        cdef Sender* sender
        if leg.sending == OWN or self.sender_count == self.sender_room:
            raise InvalidStateError("no more senders")
        if len(mid) > 16 or (mid_id and not mid):
            raise InvalidStateError("a mid has 1 to 16 bytes")
        self.lock()
        sender = &self.senders[self.sender_count]
        sender.leg = index
        sender.ssrc = ssrc
        sender.payload_type = payload_type
        sender.video = video
        sender.mid_id, sender.wide_id, sender.sent_id, sender.level_id = mid_id, wide_id, sent_id, level_id
        sender.mid_size = len(mid)
        memcpy(sender.mid, <const uint8_t*>mid, len(mid))
        # Keyframes are paid for by the other pictures.
        sender.frame_bytes = bps // 240 * KEYFRAME_EVERY // (KEYFRAME_EVERY + KEYFRAME_TIMES - 1)
        sender.dice = roll(&self.dice)
        sender.seq = roll(&self.dice)
        sender.timestamp = roll(&self.dice)
        sender.picture = roll(&self.dice) & 0x7FFF
        leg.own[leg.sending] = self.sender_count
        leg.sending += 1
        add(&self.schedule, self._soon(FRAME_NS if video else AUDIO_NS), MEDIA, self.sender_count)
        self.sender_count += 1
        self.unlock()
        return self.sender_count - 1

    def send(self, int index, bytes data):
        cdef int size = len(data)
        self.leg(index)
        if size > STRIDE:
            raise InvalidStateError("too long for a datagram")
        self.lock()
        memcpy(self.arena + self.waiting * STRIDE, <const uint8_t*>data, size)
        self._queue(index, size)
        self.unlock()

    def take(self):
        """See fastgen.pyi."""
        cdef int i
        self.lock()
        taken = [
            (self.queue_leg[i], (<const uint8_t*>self.queue_data)[i * STRIDE : i * STRIDE + self.queue_size[i]])
            for i in range(self.queued)
        ]
        self.queued = 0
        self.unlock()
        return taken

    @property
    def media_on(self):
        return self.media

    @media_on.setter
    def media_on(self, bint on):
        self.media = on

    def set_active(self, int senders):
        self.active = senders

    def open_window(self):
        cdef int i, j
        self.lock()
        for i in range(self.leg_count):
            for j in range(self.legs[i].receiving):
                open_window(&self.legs[i].receivers[j])
        memset(&self.counters, 0, sizeof(Counters))
        memset(self.delays, 0, (BUCKETS + 1) * sizeof(uint32_t))
        self.unlock()

    def streams(self):
        cdef int i, j
        self.lock()
        found = [
            (
                i, self.legs[i].receivers[j].ssrc, self.legs[i].receivers[j].received,
                self.legs[i].receivers[j].highest - self.legs[i].receivers[j].base + 1,
            )
            for i in range(self.leg_count) for j in range(self.legs[i].receiving)
        ]  # fmt: skip
        self.unlock()
        return found

    def counts(self):
        self.lock()
        counters = self.counters
        self.unlock()
        return counters

    def delay_counts(self):
        self.lock()
        copied = np.asarray(<uint32_t[: BUCKETS + 1]>self.delays).copy()
        self.unlock()
        return copied

    # The thread.

    def start(self):
        if self.running:
            raise InvalidStateError("the generator runs already")
        self.stopping = False
        self._thread = threading.Thread(target=self._run, name="generator", daemon=True)
        self._thread.start()

    def stop(self):
        if self.running:
            self.stopping = True
            self._thread.join()

    @property
    def running(self):
        return self._thread is not None and self._thread.is_alive()

    @property
    def cpu_seconds(self):
        if self.running:
            return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))
        return self._cpu_seconds

    def _run(self):
        with nogil:
            self.loop()
        self._cpu_seconds = time.thread_time()

    cdef void loop(self) noexcept nogil:
        cdef timespec until
        cdef int64_t next_at
        cdef int i
        clock_gettime(CLOCK_MONOTONIC, &until)
        next_at = until.tv_sec * 1000000000 + until.tv_nsec
        while not self.stopping:
            self.lock()
            for i in range(ROUNDS):
                if self.receive() < RECEIVE:
                    break
            self.run_due(_wall())
            self.flush()
            self.unlock()
            clock_gettime(CLOCK_MONOTONIC, &until)
            next_at += TICK_NS
            if next_at < until.tv_sec * 1000000000 + until.tv_nsec:  # late: at once, without making up for it
                next_at = until.tv_sec * 1000000000 + until.tv_nsec
                continue
            until.tv_sec = next_at // 1000000000
            until.tv_nsec = next_at % 1000000000
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)

    # In memory, for tests: what the thread does, with numbers for time.

    def receive_datagram(self, int index, bytes data, int64_t wall):
        self.leg(index)
        if len(data) > STRIDE:
            raise InvalidStateError("too long for a datagram")
        self.lock()
        memcpy(self.received, <const uint8_t*>data, len(data))
        self.arrived(index, self.received, len(data), wall)
        self.unlock()

    def datagrams_to_send(self, int64_t wall):
        cdef int i
        if self.fd >= 0:
            raise InvalidStateError("this engine has a socket")
        self.lock()
        self.now = wall
        self.run_due(wall)
        sent = [
            (self.outbox[i].leg, (<const uint8_t*>self.arena)[i * STRIDE : i * STRIDE + self.outbox[i].size])
            for i in range(self.waiting)
        ]
        self.waiting = 0
        self.unlock()
        return sent

    # What is due.

    cdef int64_t clock(self) noexcept nogil:
        return self.now if self.fd < 0 else _wall()

    cdef int64_t _soon(self, int64_t period) noexcept nogil:
        """Some time within a period from now: participants are not in step."""
        return self.clock() + <int64_t>(roll(&self.dice) % 1000000) * (period // 1000000)

    cdef void run_due(self, int64_t now) noexcept nogil:
        cdef Due due
        cdef int64_t period
        while self.schedule.count and self.schedule.items[0].at <= now:
            due = self.schedule.items[0]
            if due.kind == MEDIA:
                period = FRAME_NS if self.senders[due.index].video else AUDIO_NS
                if self.media and due.index < self.active:
                    self.counters.behind_ns = max(self.counters.behind_ns, <uint64_t>(now - due.at))
                    self.make_media(due.index)
            elif due.kind == REPORT:
                period = REPORT_NS
                self.make_report(due.index)
            elif due.kind == FEEDBACK:
                period = self.feedback_ns
                self.make_feedback(due.index)
            else:
                period = <int64_t>CHECK_MS * 1000000
                self.make_check(due.index)
            if now - due.at > BEHIND_NS:
                self.counters.skipped += 1
                due.at = now
            postpone(&self.schedule, due.at + period)

    cdef void make_media(self, int index) noexcept nogil:
        """A picture, or 20 ms of sound; stamped with the time of its making, not of its being due."""
        cdef Sender* sender = &self.senders[index]
        cdef Leg* leg = &self.legs[sender.leg]
        cdef int size, parts, part
        cdef bint keyframe
        cdef int64_t now
        if leg.outbound.media == NULL:
            return
        if not sender.video:
            now = self.stamp_time()
            size = write_audio(sender, self.room(), leg.wide_seq, now)
            self.protect_media(sender, leg, size)
            sender.timestamp += 960
            return
        size = begin_frame(sender, &keyframe)
        parts = (size + PART_BYTES - 1) // PART_BYTES
        for part in range(parts):
            now = self.stamp_time()
            self.protect_media(
                sender, leg,
                write_part(sender, self.room(), part, parts, size, keyframe, leg.wide_seq, now),
            )
        sender.picture = (sender.picture + 1) & 0x7FFF
        sender.timestamp += 3000

    cdef int64_t stamp_time(self) noexcept nogil:
        """Send what waits if a burst is complete, and tell the time: a stamp is never older than its burst."""
        if self.fd < 0:
            return self.now
        if self.waiting >= BURST:
            self.flush()
        return _wall()

    cdef void protect_media(self, Sender* sender, Leg* leg, int size) noexcept nogil:
        sender.packets += 1
        sender.bytes += size
        leg.wide_seq += sender.wide_id != 0
        if leg.outbound.media(leg.outbound.media_session, self.arena + self.waiting * STRIDE, &size) == 0:
            self.counters.sent += 1
            self.counters.sent_bytes += size
            self._queue(sender.leg, size)
        else:
            self.counters.refused += 1

    cdef void make_report(self, int index) noexcept nogil:
        cdef Leg* leg = &self.legs[index]
        cdef Sender* senders[OWN]
        cdef int i, size
        if leg.outbound.media == NULL or not (leg.sending or leg.receiving):
            return
        for i in range(leg.sending):
            senders[i] = &self.senders[leg.own[i]]
        size = write_report(
            senders, leg.sending, leg.receivers, min(leg.receiving, 31), leg.ssrc, self.clock(), self.room()
        )
        self.counters.reports_sent += 1
        self.protect_rtcp(index, leg, size)

    cdef void make_feedback(self, int index) noexcept nogil:
        cdef Leg* leg = &self.legs[index]
        cdef int size
        if leg.outbound.media == NULL:
            return
        size = write_feedback(&leg.arrivals, self.rtcp_ssrc(leg), leg.peer_ssrc, self.room())
        if size:
            self.counters.feedback_sent += 1
            self.protect_rtcp(index, leg, size)

    cdef uint32_t rtcp_ssrc(self, Leg* leg) noexcept nogil:
        return self.senders[leg.own[0]].ssrc if leg.sending else leg.ssrc

    cdef void protect_rtcp(self, int index, Leg* leg, int size) noexcept nogil:
        if leg.outbound.control(leg.outbound.control_session, self.arena + self.waiting * STRIDE, &size) == 0:
            self._queue(index, size)
        else:
            self.counters.refused += 1

    cdef void make_check(self, int index) noexcept nogil:
        cdef Leg* leg = &self.legs[index]
        cdef int which = leg.check_next % leg.check_count
        memcpy(self.room(), leg.checks[which], leg.check_bytes[which])
        leg.check_next += 1
        self.counters.checks_sent += 1
        self._queue(index, leg.check_bytes[which])

    # Out.

    cdef uint8_t* room(self) noexcept nogil:
        return self.arena + self.waiting * STRIDE

    cdef void _queue(self, int leg, int size) noexcept nogil:
        self.outbox[self.waiting].leg = leg
        self.outbox[self.waiting].size = size
        self.waiting += 1
        if self.waiting == OUTBOX:
            self.flush()

    cdef void flush(self) noexcept nogil:
        """Send what waits: packets for one receiver that follow one another, of one size, as one message."""
        cdef int i = 0, count = 0, first, pieces, done, n
        cdef msghdr* message
        cdef cmsghdr* control
        cdef in_pktinfo* info
        if self.fd < 0:
            self.waiting = 0
            return
        while i < self.waiting:
            first = i
            message = &self.outgoing[count].msg_hdr
            message.msg_name = &self.legs[self.outbox[i].leg].remote
            message.msg_namelen = sizeof(sockaddr_in)
            message.msg_iov = &self.outgoing_at[i]
            pieces = 0
            while i < self.waiting and self.outbox[i].leg == self.outbox[first].leg and pieces < 40 and (
                i == first or (self.outbox[i - 1].size == self.outbox[first].size >= self.outbox[i].size)
            ):
                self.outgoing_at[i].iov_base = self.arena + i * STRIDE
                self.outgoing_at[i].iov_len = self.outbox[i].size
                pieces += 1
                i += 1
            message.msg_iovlen = pieces
            control = <cmsghdr*>(self.outgoing_control + count * CONTROL)
            message.msg_control = control
            message.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo))
            control.cmsg_level = IPPROTO_IP
            control.cmsg_type = IP_PKTINFO
            control.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
            info = <in_pktinfo*>CMSG_DATA(control)
            memset(info, 0, sizeof(in_pktinfo))
            info.ipi_spec_dst.s_addr = htonl(self.legs[self.outbox[first].leg].ip)
            if pieces > 1:
                control = <cmsghdr*>(<uint8_t*>control + CMSG_SPACE(sizeof(in_pktinfo)))
                message.msg_controllen += CMSG_SPACE(sizeof(uint16_t))
                control.cmsg_level = SOL_UDP
                control.cmsg_type = UDP_SEGMENT
                control.cmsg_len = CMSG_LEN(sizeof(uint16_t))
                (<uint16_t*>CMSG_DATA(control))[0] = self.outbox[first].size
            count += 1
        done = 0
        while done < count:
            n = sendmmsg(self.fd, self.outgoing + done, count - done, 0)
            if n < 0 and errno == EINTR:
                continue
            if n <= 0:  # the first of them failed: the others may not
                self.counters.refused += 1
                n = 1
            done += n
        self.waiting = 0

    # In.

    cdef int receive(self) noexcept nogil:
        """Read a batch; returns how many."""
        cdef int i, count
        cdef msghdr* message
        cdef cmsghdr* control
        cdef uint32_t ip
        cdef int64_t at
        cdef timespec* stamped
        for i in range(RECEIVE):
            message = &self.incoming[i].msg_hdr
            self.incoming_at[i].iov_base = self.received + i * STRIDE
            self.incoming_at[i].iov_len = STRIDE
            message.msg_iov = &self.incoming_at[i]
            message.msg_iovlen = 1
            message.msg_control = self.incoming_control + i * CONTROL
            message.msg_controllen = CONTROL
        count = recvmmsg(self.fd, self.incoming, RECEIVE, MSG_DONTWAIT, NULL)
        for i in range(count):
            ip = 0
            at = 0
            message = &self.incoming[i].msg_hdr
            control = CMSG_FIRSTHDR(message)
            while control != NULL:
                if control.cmsg_level == IPPROTO_IP and control.cmsg_type == IP_PKTINFO:
                    ip = ntohl((<in_pktinfo*>CMSG_DATA(control)).ipi_addr.s_addr)
                elif control.cmsg_level == SOL_SOCKET and control.cmsg_type == SO_TIMESTAMPNS:
                    stamped = <timespec*>CMSG_DATA(control)
                    at = stamped.tv_sec * 1000000000 + stamped.tv_nsec
                control = CMSG_NXTHDR(message, control)
            if self.first_ip <= ip < self.first_ip + <uint32_t>self.leg_count:
                self.arrived(
                    ip - self.first_ip, self.received + i * STRIDE, self.incoming[i].msg_len, at if at else _wall()
                )
            else:
                self.counters.stray += 1
        return count

    cdef void arrived(self, int index, uint8_t* data, int size, int64_t at) noexcept nogil:
        """Take one datagram apart by its first bytes (RFC 7983)."""
        cdef Leg* leg = &self.legs[index]
        if size >= 12 and data[0] >> 6 == 2:
            if 192 <= data[1] <= 223:
                self.arrived_rtcp(leg, data, size)
            else:
                self.arrived_rtp(leg, data, size, at)
        elif size >= 20 and data[0] == 1 and leg.inbound.media != NULL:
            self.counters.checks_answered += 1
        elif self.queued < QUEUE:
            memcpy(self.queue_data + self.queued * STRIDE, data, size)
            self.queue_leg[self.queued] = index
            self.queue_size[self.queued] = size
            self.queued += 1

    cdef void arrived_rtp(self, Leg* leg, uint8_t* data, int size, int64_t at) noexcept nogil:
        cdef uint32_t ssrc = get32(data + 8)
        cdef uint16_t seq = get16(data + 2)
        cdef Receiver* receiver = self.receiver(leg, ssrc)
        if receiver == NULL:
            self.counters.stray += 1
            return
        if leg.wide_id:
            self.note_wide(leg, data, size, at)
        if not account(receiver, seq):
            self.counters.repeated += 1
            return
        self.counters.received += 1
        self.counters.received_bytes += size
        # Which are decrypted must not follow from their place in a picture: bits of a multiplicative hash.
        if (<uint32_t>(seq * <uint32_t>2654435761) >> 20) % SAMPLED == 0:
            self.sample(leg, data, size, at)

    cdef Receiver* receiver(self, Leg* leg, uint32_t ssrc) noexcept nogil:
        cdef Receiver* found
        cdef int i
        for i in range(leg.receiving):
            if leg.receivers[i].ssrc == ssrc:
                return &leg.receivers[i]
        if leg.receiving == STREAMS or leg.inbound.media == NULL:
            return NULL
        if leg.receiving == leg.room:
            found = <Receiver*>realloc(leg.receivers, (leg.room + 4) * sizeof(Receiver))
            if found == NULL:
                return NULL
            leg.receivers = found
            leg.room += 4
        found = &leg.receivers[leg.receiving]
        memset(found, 0, sizeof(Receiver))
        found.ssrc = ssrc
        found.highest = -1
        leg.receiving += 1
        leg.peer_ssrc = ssrc
        return found

    cdef void note_wide(self, Leg* leg, const uint8_t* data, int size, int64_t at) noexcept nogil:
        """Find the transport-wide number among the extensions: of one byte each, or of two."""
        cdef int place = 12 + 4 * (data[0] & 15), end, key, length
        cdef bint two_bytes
        if not data[0] & 0x10 or place + 4 > size:
            return
        two_bytes = get16(data + place) != 0xBEDE
        end = place + 4 + 4 * get16(data + place + 2)
        place += 4
        if end > size:
            return
        while place + 1 < end:
            if data[place] == 0:
                place += 1
                continue
            if two_bytes:
                key, length = data[place], data[place + 1]
                place += 2
            else:
                key, length = data[place] >> 4, (data[place] & 15) + 1
                place += 1
            if key == leg.wide_id and length == 2 and place + 2 <= end:
                note_arrival(&leg.arrivals, get16(data + place), at)
                return
            place += length

    cdef void sample(self, Leg* leg, const uint8_t* data, int size, int64_t at) noexcept nogil:
        """Decrypt a packet and see how long ago it was made."""
        cdef int64_t delay
        memcpy(self.clear, data, size)
        if leg.inbound.media(leg.inbound.media_session, self.clear, &size) != 0 or size < 12 + STAMP:
            self.counters.undecipherable += 1
            return
        if get32(self.clear + size - STAMP) != STAMP_MAGIC:
            return
        delay = at - <int64_t>((<uint64_t>get32(self.clear + size - 8) << 32) | get32(self.clear + size - 4))
        self.counters.sampled += 1
        delay = max(0, delay) // BUCKET_NS
        self.delays[min(delay, <int64_t>BUCKETS)] += 1

    cdef void arrived_rtcp(self, Leg* leg, const uint8_t* data, int size) noexcept nogil:
        cdef Heard heard
        cdef int i, j
        if leg.inbound.media == NULL:
            return
        memcpy(self.clear, data, size)
        if leg.inbound.control(leg.inbound.control_session, self.clear, &size) != 0:
            self.counters.undecipherable += 1
            return
        self.counters.rtcp += 1
        read_rtcp(self.clear, size, &heard)
        self.counters.nacks += heard.nacks
        self.counters.feedback_received += heard.feedback
        self.counters.keyframes_asked += heard.asked
        for i in range(heard.asked):
            for j in range(leg.sending):
                if self.senders[leg.own[j]].ssrc == heard.ssrcs[i]:
                    self.senders[leg.own[j]].keyframe_wanted = True
