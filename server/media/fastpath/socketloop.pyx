"""The socket loop: what sockets receive, the relay, what it sends; on a thread of its own and without the GIL. [IO]

    epoll ─┬─ UDP: recvmmsg (64 datagrams) ─┬─> mutex: relay ─┬─ UDP: by receiver, runs of equal size (GSO) ─> sendmmsg
           └─ TCP: streams.pyx, frames ─────┘                 └─ TCP: streams.pyx, queues

Driven by: the media worker, which reads `events_fd` in its event loop. What the slow path sends wakes the epoll.
Above 500 lines, but one thing: one turn of the loop, in its order, and the counters of what failed in it.
Spec: udp(7), UDP_SEGMENT; recvmmsg(2), sendmmsg(2), epoll(7).
"""

import os
import socket
import threading
import time
from enum import IntEnum

import numpy as np
from libc.errno cimport EAGAIN, EINTR, EIO, ENOBUFS, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from server.media.fastpath cimport streams as reasons
from server.media.fastpath.relay cimport DROP_SEND_FAILED, STRIDE, Batch, Outgoing, Relay, batch_close, batch_open
from server.media.fastpath.replay cimport Replay
from server.media.fastpath.slots cimport TCP, UDP, Endpoint
from server.media.fastpath.sockets cimport (
    CLOCK_MONOTONIC,
    CMSG_DATA,
    CMSG_LEN,
    CMSG_SPACE,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    POLLOUT,
    SOL_UDP,
    UDP_SEGMENT,
    SocketAddress,
    close,
    cmsghdr,
    epoll_create1,
    epoll_event,
    epoll_wait,
    iovec,
    mmsghdr,
    monotonic,
    msghdr,
    poll,
    pollfd,
    read,
    read_address,
    recvmmsg,
    sendmmsg,
    sleep_until,
    watch,
    write,
    write_address,
)
from server.media.fastpath.streams cimport (
    CONNECTION_TOKENS,
    COUNTS,
    LISTENER_TOKEN,
    NO_SOCKET,
    SOCKET_FULL,
    UNREACHABLE,
    Connection,
    Streams,
)

from server.errors import InvalidStateError

cdef enum:
    RECEIVE = 64                # datagrams at a time: 0.3 ms of work
    SEND = 1024                 # datagrams of a batch: a picture of five packets for a hundred receivers, and sound
    OUTBOX = 1024               # the relay's own batch, which is flushed here too
    SEGMENTS = 64               # of one GSO message: UDP_MAX_SEGMENTS of older kernels
    GSO_BYTES = 65000           # below what an IPv4 datagram may have with its headers
    CONTROL = 32                # of one control message, more than CMSG_SPACE(2)
    READY = 64                  # descriptors served in one round
    FULL_MS = 5                 # how long to wait for a full socket buffer before media is dropped
    FULL_WAITS = 16             # ... and how often in one batch


cdef enum:
    # What epoll names our own descriptors by; a family is added to the second, as to LISTENER_TOKEN.
    WAKE_TOKEN = 0
    UDP_TOKEN = 0


cdef double TICK_S = 0.25
cdef double IDLE_S = 1
cdef double PAUSE_S = 0.002             # at most: 11,000 packets a second cost a third less so
cdef double LEAST_PAUSE_S = 0.00002     # from which it can grow again
cdef double GATHERED = 24               # datagrams that a round should have: more of them save little more
cdef double URGENT_EVERY_S = 0.005      # a turn of the slow path costs as much as twenty packets
cdef double EVENTS_EVERY_S = 0.05       # goodbyes and the like: what RTCP nobody waits for
cdef double NEVER = float("inf")


class LoopCount(IntEnum):
    """What the loop counts: an index into `SocketLoop.counts`."""

    NO_SOCKET = reasons.NO_SOCKET
    SOCKET_FULL = reasons.SOCKET_FULL
    UNREACHABLE = reasons.UNREACHABLE
    NOT_CONNECTED = reasons.NOT_CONNECTED
    VIDEO_DROPPED = reasons.VIDEO_DROPPED
    STREAM_FULL = reasons.STREAM_FULL
    ACCEPTED = reasons.ACCEPTED
    CLOSED_BY_PEER = reasons.CLOSED_BY_PEER
    CLOSED_BROKEN = reasons.CLOSED_BROKEN
    CLOSED_NOT_STUN = reasons.CLOSED_NOT_STUN
    CLOSED_NO_ADDRESS = reasons.CLOSED_NO_ADDRESS
    CLOSED_TOO_MUCH = reasons.CLOSED_TOO_MUCH
    CLOSED_STALLED = reasons.CLOSED_STALLED
    CLOSED_EVICTED = reasons.CLOSED_EVICTED
    CLOSED_AT_STOP = reasons.CLOSED_AT_STOP
    REFUSED_ADDRESS = reasons.REFUSED_ADDRESS
    REFUSED_FULL = reasons.REFUSED_FULL
    ACCEPT_FAILED = reasons.ACCEPT_FAILED


cdef void _flush(void* context, Batch* batch) noexcept nogil:
    # In the middle of a batch of much media: what the slow path has made goes first here too.
    (<SocketLoop>context).send_batch(&(<SocketLoop>context).from_slow_path)
    (<SocketLoop>context).send_batch(batch)


cdef class SocketLoop:
    """See socketloop.pyi."""

    cdef:
        Relay relay
        int by_family[7]        # sockets, by 4 and 6; -1: none
        int wake_fd
        readonly int events_fd
        bint gso
        bint stopping           # read by the thread each time round
        int epoll
        Streams streams
        Replay replay
        readonly object counts
        uint64_t* count_of
        uint64_t failed         # datagrams, not yet in the relay's count
        double tell_at          # when the slow path is to hear of events; NEVER: it knows of all
        double told_at
        readonly uint64_t batches, messages
        Batch out
        Batch from_slow_path    # what was the relay's outbox, to be sent without the mutex
        int gathered            # datagrams of this round
        double pause            # from the beginning of one round with datagrams to the next, in seconds
        bint holding            # the mutex, so that nothing may be waited for
        uint8_t* received
        mmsghdr* incoming
        iovec* incoming_at
        SocketAddress* senders
        Endpoint* origins
        uint32_t* sizes
        mmsghdr* outgoing
        iovec* outgoing_at
        SocketAddress* receivers
        uint8_t* controls
        int32_t* after          # the next datagram of a batch for the same receiver; -1: none
        int32_t* chains         # the first for each receiver
        int32_t* last           # by transport: its last in the batch; -1: none yet
        object _thread
        double _cpu_seconds

    def __cinit__(
        self, Relay relay not None, sockets, listeners=(), gso=True, *, connections=1024, connections_of_one=256,
        stranger_s=10.0, stalled_s=5.0, Replay replay=None,
    ):
        cdef Py_ssize_t i
        self.relay = relay
        self.gso = gso
        self.replay = replay
        self.wake_fd = self.events_fd = self.epoll = -1
        self.tell_at = NEVER
        self.pause = PAUSE_S
        self.by_family[4] = self.by_family[6] = -1
        for descriptor in sockets:
            family = _family(descriptor, socket.SOCK_DGRAM)
            if self.by_family[family] >= 0:
                raise InvalidStateError(f"two UDP sockets of IPv{family}")
            self.by_family[family] = descriptor
        table = np.zeros(COUNTS, np.uint64)
        address = table.__array_interface__["data"][0]
        self.count_of = <uint64_t*><size_t>address
        self.counts = table.view()  # which holds the table itself
        self.counts.flags.writeable = False
        self.streams = Streams(relay, address, connections, connections_of_one, stranger_s, stalled_s)
        for descriptor in listeners:
            family = _family(descriptor, socket.SOCK_STREAM)
            if self.streams.listeners[family] >= 0:
                raise InvalidStateError(f"two listeners of IPv{family}")
            os.set_blocking(descriptor, False)
            self.streams.listeners[family] = descriptor
        self.received = <uint8_t*>malloc(RECEIVE * STRIDE)
        self.incoming = <mmsghdr*>calloc(RECEIVE, sizeof(mmsghdr))
        self.incoming_at = <iovec*>calloc(RECEIVE, sizeof(iovec))
        self.senders = <SocketAddress*>calloc(RECEIVE, sizeof(SocketAddress))
        self.origins = <Endpoint*>calloc(RECEIVE, sizeof(Endpoint))
        self.sizes = <uint32_t*>calloc(RECEIVE, sizeof(uint32_t))
        self.outgoing = <mmsghdr*>calloc(OUTBOX, sizeof(mmsghdr))
        self.outgoing_at = <iovec*>calloc(OUTBOX, sizeof(iovec))
        self.receivers = <SocketAddress*>calloc(OUTBOX, sizeof(SocketAddress))
        self.controls = <uint8_t*>calloc(OUTBOX, CONTROL)
        self.after = <int32_t*>calloc(OUTBOX, sizeof(int32_t))
        self.chains = <int32_t*>calloc(OUTBOX, sizeof(int32_t))
        self.last = <int32_t*>malloc(relay.transports_room * sizeof(int32_t))
        if (
            self.received == NULL or self.incoming == NULL or self.incoming_at == NULL or self.senders == NULL
            or self.origins == NULL or self.sizes == NULL
            or self.outgoing == NULL or self.outgoing_at == NULL or self.receivers == NULL or self.controls == NULL
            or self.after == NULL or self.chains == NULL or self.last == NULL
            or not batch_open(&self.out, SEND, _flush, <void*>self)
            or not batch_open(&self.from_slow_path, OUTBOX, NULL, NULL)
        ):
            raise MemoryError
        for i in range(relay.transports_room):
            self.last[i] = -1
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __dealloc__(self):
        for descriptor in (self.wake_fd, self.events_fd, self.epoll):
            if descriptor >= 0:
                os.close(descriptor)
        free(self.received)
        free(self.incoming)
        free(self.incoming_at)
        free(self.senders)
        free(self.origins)
        free(self.sizes)
        free(self.outgoing)
        free(self.outgoing_at)
        free(self.receivers)
        free(self.controls)
        free(self.after)
        free(self.chains)
        free(self.last)
        batch_close(&self.out)
        batch_close(&self.from_slow_path)

    def start(self):
        cdef int family
        cdef bint watched
        if self.running:
            raise InvalidStateError("the socket loop runs already")
        if self.epoll >= 0:
            os.close(self.epoll)
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        watched = watch(self.epoll, EPOLL_CTL_ADD, self.wake_fd, EPOLLIN, WAKE_TOKEN) and self.streams.begin(self.epoll)
        for family in range(4, 7, 2):
            if self.by_family[family] >= 0:
                watched = watched and watch(
                    self.epoll, EPOLL_CTL_ADD, self.by_family[family], EPOLLIN, UDP_TOKEN + family
                )
        if not watched:
            raise OSError(errno, os.strerror(errno))
        self.stopping = False
        with nogil:
            self.relay.lock()
            self.relay.wake_fd = self.wake_fd
            self.relay.unlock()
        self._thread = threading.Thread(target=self._run, name="media", daemon=True)
        self._thread.start()

    def stop(self):
        cdef uint64_t one = 1
        if not self.running:
            return
        with nogil:
            self.relay.lock()
            self.relay.wake_fd = -1
            self.relay.unlock()
            self.stopping = True
            write(self.wake_fd, &one, sizeof(one))
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

    @property
    def connections(self):
        return self.streams.open_count

    cdef void loop(self) noexcept nogil:
        """Until `stop`."""
        cdef epoll_event ready[READY]
        cdef uint64_t token, wakes
        cdef double now = monotonic(), ticked = 0
        cdef int count, i
        while not self.stopping:
            count = epoll_wait(self.epoll, ready, READY, self.timeout(now))
            now = monotonic()
            self.gathered = 0
            for i in range(count):
                token = ready[i].data.u64
                if token >= CONNECTION_TOKENS:
                    self.serve(token, ready[i].events)
                elif token >= LISTENER_TOKEN + 4:
                    self.streams.accept_from(<uint8_t>(token - LISTENER_TOKEN), now)
                elif token >= UDP_TOKEN + 4:
                    self.receive_from(self.by_family[token - UDP_TOKEN])
                elif read(self.wake_fd, &wakes, sizeof(wakes)) > 0:
                    self.relay_received(0)
            if self.replay is not None:
                self.relay_received(self.replay.fill(RECEIVE, STRIDE, self.received, self.sizes, self.origins))
            if self.streams.ending_count or now - ticked >= TICK_S:
                self.begin()
                if now - ticked >= TICK_S:
                    ticked = now
                    self.streams.tick(now)
                self.streams.sweep()
                self.finish()
            if self.gathered:
                self.pause = min(max(self.pause * GATHERED / self.gathered, LEAST_PAUSE_S), PAUSE_S)
                if self.gathered < RECEIVE:
                    sleep_until(now + self.pause)
            if self.tell_at < NEVER:
                now = monotonic()  # what came in this round may have been urgent
                if now >= self.tell_at:
                    self.tell(now)
        self.begin()
        self.streams.end()
        self.finish()
        self.tell(now)

    cdef void tell(self, double now) noexcept nogil:
        """Let the slow path know that there are events."""
        cdef uint64_t one = 1
        self.tell_at = NEVER
        self.told_at = now
        write(self.events_fd, &one, sizeof(one))

    cdef int timeout(self, double now) noexcept nogil:
        """Milliseconds that may be slept."""
        cdef double seconds = TICK_S if self.streams.open_count else IDLE_S
        if self.replay is not None:
            return 0
        return <int>(max(min(seconds, self.tell_at - now), 0.0) * 1000 + 0.999)

    cdef void serve(self, uint64_t token, uint32_t events) noexcept nogil:
        """A connection can be read or written, or has failed, which reading tells."""
        cdef Connection* connection = self.streams.find(token)
        cdef Py_ssize_t size
        if connection != NULL and events & EPOLLOUT:
            self.streams.writable(connection)
        if connection == NULL or connection.ending or not events & ~<uint32_t>EPOLLOUT:
            return
        size = self.streams.receive(connection)
        if size > 0:
            self.batches += 1
            self.begin()
            self.streams.relay_input(connection, size, &self.out)
            self.finish()

    cdef void receive_from(self, int descriptor) noexcept nogil:
        """Read one batch, relay it."""
        cdef int count, i
        for i in range(RECEIVE):
            self.incoming_at[i].iov_base = self.received + i * STRIDE
            self.incoming_at[i].iov_len = STRIDE
            self.incoming[i].msg_hdr.msg_iov = &self.incoming_at[i]
            self.incoming[i].msg_hdr.msg_iovlen = 1
            self.incoming[i].msg_hdr.msg_name = &self.senders[i]
            self.incoming[i].msg_hdr.msg_namelen = sizeof(SocketAddress)
        count = recvmmsg(descriptor, self.incoming, RECEIVE, MSG_DONTWAIT, NULL)
        if count > 0:
            self.batches += 1
            self.gathered += count
            for i in range(count):
                self.sizes[i] = self.incoming[i].msg_len
                read_address(&self.senders[i], UDP, &self.origins[i])
            self.relay_received(count)

    cdef void relay_received(self, int count) noexcept nogil:
        """Let the relay have what was received, and send what comes of it and of the slow path."""
        cdef int i
        self.begin()
        for i in range(count):
            self.relay.receive(self.received + i * STRIDE, self.sizes[i], &self.origins[i], &self.out)
            if self.out.count < SEND // 2:
                self.relay.give_way()
            else:  # without the mutex, which a full batch would be sent under
                self.finish()
                self.begin()
        self.finish()

    cdef void begin(self) noexcept nogil:
        """Take the relay, and what the slow path has for us."""
        cdef Batch emptied = self.from_slow_path
        self.relay.lock_for_media()
        self.holding = True
        while self.failed:
            self.relay._drop(DROP_SEND_FAILED)
            self.failed -= 1
        self.relay.events.pushed = False
        self.relay.events.urgent = False
        self.relay.now = monotonic()
        self.from_slow_path = self.relay.outbox
        self.relay.outbox = emptied

    cdef void finish(self) noexcept nogil:
        """Let go of it, and send what the slow path and it have made."""
        cdef bint more = self.relay.events.pushed
        cdef bint urgent = self.relay.events.urgent
        self.holding = False
        self.relay.unlock()
        self.send_batch(&self.from_slow_path)
        self.send_batch(&self.out)
        if more:
            self.tell_at = min(
                self.tell_at,
                max(self.relay.now, self.told_at + URGENT_EVERY_S) if urgent else self.relay.now + EVENTS_EVERY_S,
            )

    cdef void send_batch(self, Batch* batch) noexcept nogil:
        """Send all of a batch and empty it: grouped by receiver, in order for each."""
        cdef int32_t i, transport
        cdef uint32_t chains = 0
        for i in range(<int32_t>batch.count):
            transport = batch.items[i].transport
            self.after[i] = -1
            if transport >= 0 and self.last[transport] >= 0:
                self.after[self.last[transport]] = i
            else:
                self.chains[chains] = i
                chains += 1
            if transport >= 0:
                self.last[transport] = i
        for i in range(<int32_t>batch.count):
            if batch.items[i].transport >= 0:
                self.last[batch.items[i].transport] = -1
        self.send_chains(batch, chains, 4)
        self.send_chains(batch, chains, 6)
        self.streams.flush()
        batch.count = 0

    cdef void send_chains(self, Batch* batch, uint32_t chains, uint8_t family) noexcept nogil:
        """Make messages of the datagrams of one family, runs of equal size together, and send them."""
        cdef uint32_t chain, pieces = 0, count = 0, bytes_in_run
        cdef int32_t i, first
        cdef Outgoing* item
        cdef msghdr* message
        for chain in range(chains):
            i = self.chains[chain]
            while i >= 0:
                item = &batch.items[i]
                if item.to.family != family:
                    i = self.after[i]
                    continue
                if item.to.protocol == TCP:
                    self.failed += not self.streams.send(item, batch.arena + <size_t>i * STRIDE)
                    i = self.after[i]
                    continue
                if self.by_family[family] < 0:
                    self.lose(NO_SOCKET, 1)
                    i = self.after[i]
                    continue
                first = i
                message = &self.outgoing[count].msg_hdr
                message.msg_namelen = write_address(&item.to, &self.receivers[count])
                message.msg_name = &self.receivers[count]
                message.msg_iov = &self.outgoing_at[pieces]
                message.msg_iovlen = 0
                message.msg_control = NULL
                message.msg_controllen = 0
                bytes_in_run = 0
                while True:
                    self.outgoing_at[pieces].iov_base = batch.arena + <size_t>i * STRIDE
                    self.outgoing_at[pieces].iov_len = batch.items[i].size
                    bytes_in_run += batch.items[i].size
                    pieces += 1
                    message.msg_iovlen += 1
                    # The last of a run may be shorter.
                    if batch.items[i].size < batch.items[first].size:
                        i = self.after[i]
                        break
                    i = self.after[i]
                    if (
                        i < 0
                        or not self.gso
                        or message.msg_iovlen == SEGMENTS
                        or batch.items[i].size > batch.items[first].size
                        or bytes_in_run + batch.items[i].size > GSO_BYTES
                        or memcmp(&batch.items[i].to, &batch.items[first].to, sizeof(Endpoint)) != 0
                    ):
                        break
                if message.msg_iovlen > 1:
                    self.ask_for_segments(message, &self.controls[count * CONTROL], batch.items[first].size)
                count += 1
        if count:
            self.send_messages(self.by_family[family], count)

    cdef void ask_for_segments(self, msghdr* message, uint8_t* control, uint16_t size) noexcept nogil:
        """Let the kernel cut a message into datagrams of this size."""
        cdef cmsghdr* header = <cmsghdr*>control
        message.msg_control = control
        message.msg_controllen = CMSG_SPACE(sizeof(uint16_t))
        header.cmsg_level = SOL_UDP
        header.cmsg_type = UDP_SEGMENT
        header.cmsg_len = CMSG_LEN(sizeof(uint16_t))
        memcpy(CMSG_DATA(header), &size, sizeof(uint16_t))

    cdef void send_messages(self, int descriptor, uint32_t count) noexcept nogil:
        """Send them all; sendmmsg stops at the first that fails: that one is passed over.

        A full socket is waited for, but not under the mutex: the slow path shall never wait for the network.
        """
        cdef uint32_t done = 0, waits = 0
        cdef int sent
        cdef pollfd writable
        while done < count:
            sent = sendmmsg(descriptor, &self.outgoing[done], count - done, MSG_DONTWAIT)
            if sent > 0:
                self.messages += <uint64_t>sent
                done += <uint32_t>sent
            elif errno == EINTR:
                continue
            elif errno == EAGAIN:
                writable.fd = descriptor
                writable.events = POLLOUT
                writable.revents = 0
                waits += 1
                if self.holding or waits > FULL_WAITS or poll(&writable, 1, FULL_MS) == 0:
                    while done < count:
                        self.lose(SOCKET_FULL, self.outgoing[done].msg_hdr.msg_iovlen)
                        done += 1
            else:
                if errno == ENOBUFS:
                    # An interface's queue, not ours: poll would not wait for it.
                    self.lose(SOCKET_FULL, self.outgoing[done].msg_hdr.msg_iovlen)
                elif self.outgoing[done].msg_hdr.msg_iovlen > 1:
                    # A driver without checksums (EIO) has no GSO for anybody. Whatever else it is (a path whose MTU the
                    # segments exceed, say) is this receiver's affair.
                    self.gso = self.gso and errno != EIO
                    self.send_one_by_one(descriptor, &self.outgoing[done].msg_hdr)
                else:
                    self.lose(UNREACHABLE, 1)
                done += 1

    cdef void send_one_by_one(self, int descriptor, const msghdr* run) noexcept nogil:
        """Send what was meant to be cut by the kernel."""
        cdef mmsghdr single
        cdef size_t i
        for i in range(run.msg_iovlen):
            memset(&single, 0, sizeof(single))
            single.msg_hdr.msg_name = run.msg_name
            single.msg_hdr.msg_namelen = run.msg_namelen
            single.msg_hdr.msg_iov = &run.msg_iov[i]
            single.msg_hdr.msg_iovlen = 1
            if sendmmsg(descriptor, &single, 1, MSG_DONTWAIT) == 1:
                self.messages += 1
            else:
                self.lose(SOCKET_FULL if errno == EAGAIN or errno == ENOBUFS else UNREACHABLE, 1)

    cdef void lose(self, int reason, size_t datagrams) noexcept nogil:
        """Count datagrams that did not leave; the relay learns of them with the next batch."""
        self.count_of[reason] += datagrams
        self.failed += datagrams


def _family(descriptor, kind):
    """4 or 6: what a socket is of. OSError: it is no socket."""
    duplicate = socket.socket(fileno=os.dup(descriptor))
    try:
        if duplicate.type != kind or duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            raise InvalidStateError("the socket loop takes UDP sockets and TCP listeners, of IPv4 and IPv6")
        return 4 if duplicate.family == socket.AF_INET else 6
    finally:
        duplicate.close()
