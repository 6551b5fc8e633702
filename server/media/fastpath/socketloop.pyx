"""The socket loop: recvmmsg, the relay, sendmmsg, on a thread of its own and without the GIL. [IO]

    poll ─> recvmmsg (64 datagrams) ─> mutex: relay ─> by receiver: runs of equal size (UDP GSO) ─> sendmmsg

Driven by: the media worker, which reads `events_fd` in its event loop. What the slow path sends wakes the poll.
Spec: udp(7), UDP_SEGMENT; recvmmsg(2), sendmmsg(2).
"""

import os
import socket
import threading
import time

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from server.media.fastpath.relay cimport DROP_SEND_FAILED, STRIDE, Batch, Outgoing, Relay, batch_close, batch_open
from server.media.fastpath.slots cimport UDP, Endpoint

from server.errors import InvalidStateError

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/udp.h>
    #include <poll.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    """
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        uint32_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    struct pollfd:
        int fd
        short events
        short revents
    struct timespec:
        long tv_sec
        long tv_nsec
    int AF_INET, AF_INET6, MSG_DONTWAIT, POLLIN, POLLOUT, CLOCK_MONOTONIC, SOL_UDP, UDP_SEGMENT
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)
    unsigned char* CMSG_DATA(cmsghdr*)
    int poll(pollfd*, unsigned long, int)
    int recvmmsg(int, mmsghdr*, unsigned int, int, timespec*)
    int sendmmsg(int, mmsghdr*, unsigned int, int)
    int clock_gettime(int, timespec*)
    Py_ssize_t read(int, void*, size_t)
    Py_ssize_t write(int, const void*, size_t)

cdef enum:
    RECEIVE = 64                # datagrams at a time: 0.3 ms of work
    SEND = 256                  # datagrams of a batch
    OUTBOX = 1024               # the relay's own batch, which is flushed here too
    SEGMENTS = 64               # of one GSO message: UDP_MAX_SEGMENTS of older kernels
    GSO_BYTES = 65000           # below what an IPv4 datagram may have with its headers
    CONTROL = 32                # of one control message, more than CMSG_SPACE(2)
    FULL_MS = 5                 # how long to wait for a full socket buffer before media is dropped


cdef union SocketAddress:
    sockaddr_in v4
    sockaddr_in6 v6
    uint16_t family


cdef double _now() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


cdef void _read_address(const SocketAddress* address, Endpoint* endpoint) noexcept nogil:
    memset(endpoint, 0, sizeof(Endpoint))
    endpoint.protocol = UDP
    if address.family == AF_INET:
        endpoint.family = 4
        memcpy(endpoint.ip, &address.v4.sin_addr, 4)
        endpoint.port = ntohs(address.v4.sin_port)
    else:
        endpoint.family = 6
        memcpy(endpoint.ip, &address.v6.sin6_addr, 16)
        endpoint.port = ntohs(address.v6.sin6_port)


cdef uint32_t _write_address(const Endpoint* endpoint, SocketAddress* address) noexcept nogil:
    memset(address, 0, sizeof(SocketAddress))
    if endpoint.family == 4:
        address.v4.sin_family = AF_INET
        address.v4.sin_port = htons(endpoint.port)
        memcpy(&address.v4.sin_addr, endpoint.ip, 4)
        return sizeof(sockaddr_in)
    address.v6.sin6_family = AF_INET6
    address.v6.sin6_port = htons(endpoint.port)
    memcpy(&address.v6.sin6_addr, endpoint.ip, 16)
    return sizeof(sockaddr_in6)


cdef void _flush(void* context, Batch* batch) noexcept nogil:
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
        uint64_t failed         # datagrams, not yet in the relay's count
        readonly uint64_t batches, messages
        Batch out
        uint8_t* received
        mmsghdr* incoming
        iovec* incoming_at
        SocketAddress* origins
        mmsghdr* outgoing
        iovec* outgoing_at
        SocketAddress* receivers
        uint8_t* controls
        int32_t* after          # the next datagram of a batch for the same receiver; -1: none
        int32_t* chains         # the first for each receiver
        int32_t* last           # by transport: its last in the batch; -1: none yet
        object _thread
        double _cpu_seconds

    def __cinit__(self, Relay relay not None, sockets, gso=True):
        cdef Py_ssize_t i
        self.relay = relay
        self.gso = gso
        self.wake_fd = self.events_fd = -1
        self.by_family[4] = self.by_family[6] = -1
        for descriptor in sockets:
            family = _family(descriptor)
            if self.by_family[family] >= 0:
                raise InvalidStateError(f"two sockets of IPv{family}")
            self.by_family[family] = descriptor
        self.received = <uint8_t*>malloc(RECEIVE * STRIDE)
        self.incoming = <mmsghdr*>calloc(RECEIVE, sizeof(mmsghdr))
        self.incoming_at = <iovec*>calloc(RECEIVE, sizeof(iovec))
        self.origins = <SocketAddress*>calloc(RECEIVE, sizeof(SocketAddress))
        self.outgoing = <mmsghdr*>calloc(OUTBOX, sizeof(mmsghdr))
        self.outgoing_at = <iovec*>calloc(OUTBOX, sizeof(iovec))
        self.receivers = <SocketAddress*>calloc(OUTBOX, sizeof(SocketAddress))
        self.controls = <uint8_t*>calloc(OUTBOX, CONTROL)
        self.after = <int32_t*>calloc(OUTBOX, sizeof(int32_t))
        self.chains = <int32_t*>calloc(OUTBOX, sizeof(int32_t))
        self.last = <int32_t*>malloc(relay.transports_room * sizeof(int32_t))
        if (
            self.received == NULL or self.incoming == NULL or self.incoming_at == NULL or self.origins == NULL
            or self.outgoing == NULL or self.outgoing_at == NULL or self.receivers == NULL or self.controls == NULL
            or self.after == NULL or self.chains == NULL or self.last == NULL
            or not batch_open(&self.out, SEND, _flush, <void*>self)
        ):
            raise MemoryError
        for i in range(relay.transports_room):
            self.last[i] = -1
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.events_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __dealloc__(self):
        for descriptor in (self.wake_fd, self.events_fd):
            if descriptor >= 0:
                os.close(descriptor)
        free(self.received)
        free(self.incoming)
        free(self.incoming_at)
        free(self.origins)
        free(self.outgoing)
        free(self.outgoing_at)
        free(self.receivers)
        free(self.controls)
        free(self.after)
        free(self.chains)
        free(self.last)
        batch_close(&self.out)

    def start(self):
        if self.running:
            raise InvalidStateError("the socket loop runs already")
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

    cdef void loop(self) noexcept nogil:
        """Until `stop`."""
        cdef pollfd ready[3]
        cdef uint64_t count
        cdef int i
        ready[0].fd = self.wake_fd
        ready[1].fd = self.by_family[4]  # negative: passed over
        ready[2].fd = self.by_family[6]
        for i in range(3):
            ready[i].events = POLLIN
            ready[i].revents = 0
        while not self.stopping:
            if poll(ready, 3, 1000) <= 0:
                continue
            if ready[0].revents and read(self.wake_fd, &count, sizeof(count)) > 0:
                self.relay_received(0)
            for i in range(1, 3):
                if ready[i].revents:
                    self.receive_from(ready[i].fd)

    cdef void receive_from(self, int descriptor) noexcept nogil:
        """Read one batch, relay it."""
        cdef int count, i
        for i in range(RECEIVE):
            self.incoming_at[i].iov_base = self.received + i * STRIDE
            self.incoming_at[i].iov_len = STRIDE
            self.incoming[i].msg_hdr.msg_iov = &self.incoming_at[i]
            self.incoming[i].msg_hdr.msg_iovlen = 1
            self.incoming[i].msg_hdr.msg_name = &self.origins[i]
            self.incoming[i].msg_hdr.msg_namelen = sizeof(SocketAddress)
        count = recvmmsg(descriptor, self.incoming, RECEIVE, MSG_DONTWAIT, NULL)
        if count > 0:
            self.batches += 1
            self.relay_received(count)

    cdef void relay_received(self, int count) noexcept nogil:
        """Let the relay have what was received, and send what comes of it and of the slow path."""
        cdef Endpoint origin
        cdef uint64_t one = 1
        cdef uint32_t waiting
        cdef bint more
        cdef int i
        self.relay.lock()
        while self.failed:
            self.relay._drop(DROP_SEND_FAILED)
            self.failed -= 1
        waiting = self.relay.events_count
        self.relay.begin_batch(_now(), &self.out)
        for i in range(count):
            _read_address(&self.origins[i], &origin)
            self.relay.receive(self.received + i * STRIDE, self.incoming[i].msg_len, &origin, &self.out)
        more = self.relay.events_count > waiting
        self.relay.unlock()
        self.send_batch(&self.out)
        if more:
            write(self.events_fd, &one, sizeof(one))

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
                if item.to.protocol != UDP or self.by_family[family] < 0:
                    self.failed += 1
                    i = self.after[i]
                    continue
                first = i
                message = &self.outgoing[count].msg_hdr
                message.msg_namelen = _write_address(&item.to, &self.receivers[count])
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
        """Send them all; sendmmsg stops at the first that fails: that one is passed over."""
        cdef uint32_t done = 0
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
                if poll(&writable, 1, FULL_MS) == 0:
                    while done < count:
                        self.failed += self.outgoing[done].msg_hdr.msg_iovlen
                        done += 1
            else:
                if self.outgoing[done].msg_hdr.msg_iovlen > 1:
                    # No GSO on this path (a driver without checksums, an old kernel): one by one, now and from now on.
                    self.gso = False
                    self.send_one_by_one(descriptor, &self.outgoing[done].msg_hdr)
                else:
                    self.failed += 1
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
                self.failed += 1


def _family(descriptor):
    """4 or 6: what a socket is of. OSError: it is no socket."""
    duplicate = socket.socket(fileno=os.dup(descriptor))
    try:
        if duplicate.type != socket.SOCK_DGRAM or duplicate.family not in (socket.AF_INET, socket.AF_INET6):
            raise InvalidStateError("the socket loop takes UDP sockets of IPv4 and IPv6")
        return 4 if duplicate.family == socket.AF_INET else 6
    finally:
        duplicate.close()
