"""The TCP connections of a socket loop: ICE-TCP, the passive side, without the GIL. [IO]

     accept ─> limits ─> read ─> frames ─> relay          datagram ─> queue ─┬─ urgent: audio, RTCP, STUN, DTLS ─┬─> write
                                                                             └─ video, frame by frame ──────────┘

Driven by: the socket loop, on its thread. What is marked "locked" wants the relay's mutex held.

A connection whose address no transport is allowed to have is a stranger's, and is worth little: it says STUN first, sends
16 KiB at most, gives way when the table is full, and goes after ten seconds. Nothing is closed while a batch is under
way: `_end` marks, and `sweep` closes and tells.
Spec: RFC 6544 (ICE-TCP), RFC 4571 (framing).
"""

import secrets

from libc.errno cimport EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from server.media.fastpath cimport demux as verdicts
from server.media.fastpath.demux cimport demux, read_u32
from server.media.fastpath.framing cimport FRAME_HEADER, FRAME_NONE, FRAME_TOO_LONG, next_frame
from server.media.fastpath.events cimport EVENTS
from server.media.fastpath.relay cimport DROP_TOO_LONG, EVENT_DISCONNECTED, Batch, Outgoing, Relay
from server.media.fastpath.slots cimport TCP, Endpoint, Key, map_close, map_get, map_open, map_put, map_remove
from server.media.fastpath.sockets cimport (
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    TCP_NOTSENT_LOWAT,
    SocketAddress,
    accept4,
    close,
    iovec,
    msghdr,
    read_address,
    recv,
    sendmsg,
    setsockopt,
    watch,
)

cdef enum:
    STRANGER_BYTES = 16384
    UNSENT_BYTES = 16384        # in the kernel, besides what is on its way: what it holds back cannot be dropped any more
    AT_ONCE = 16                # connections accepted before others have their turn


cdef bint _ring_put(Ring* ring, const uint8_t* data, uint32_t size) noexcept nogil:
    """Append a frame. False: there is no room."""
    cdef uint32_t at, straight, end = ring.begin + ring.used
    if ring.used + FRAME_HEADER + size > ring.room:
        return False
    ring.data[end % ring.room] = <uint8_t>(size >> 8)
    ring.data[(end + 1) % ring.room] = <uint8_t>size
    at = (end + FRAME_HEADER) % ring.room
    straight = min(size, ring.room - at)
    memcpy(ring.data + at, data, straight)
    memcpy(ring.data, data + straight, size - straight)
    ring.used += FRAME_HEADER + size
    return True


cdef uint32_t _ring_frame(const Ring* ring) noexcept nogil:
    """The bytes of the first frame, its header included."""
    return FRAME_HEADER + (<uint32_t>ring.data[ring.begin] << 8 | ring.data[(ring.begin + 1) % ring.room])


cdef uint32_t _ring_pieces(const Ring* ring, uint32_t most, iovec* pieces) noexcept nogil:
    """Where its first bytes lie; how many pieces, one or two."""
    cdef uint32_t size = min(ring.used, most), straight = min(size, ring.room - ring.begin)
    pieces[0].iov_base = ring.data + ring.begin
    pieces[0].iov_len = straight
    pieces[1].iov_base = ring.data
    pieces[1].iov_len = size - straight
    return 1 if straight == size else 2


cdef bint _same_network(const Endpoint* one, const Endpoint* other) noexcept nogil:
    """Whether two addresses may be one machine's: equal in IPv4, of one /64 in IPv6."""
    return one.family == other.family and memcmp(one.ip, other.ip, 4 if one.family == 4 else 8) == 0


cdef class Streams:
    """Opened by the socket loop, which documents the arguments."""

    def __cinit__(self, Relay relay not None, uint64_t counts, connections, connections_of_one, stranger_s, stalled_s):
        cdef uint32_t i
        self.relay = relay
        self.counts = <uint64_t*><size_t>counts
        self.epoll = -1
        self.listeners[4] = self.listeners[6] = -1
        self.room = connections
        self.room_of_one = connections_of_one
        self.stranger_s = stranger_s
        self.stalled_s = stalled_s
        self.connections = <Connection*>calloc(self.room, sizeof(Connection))
        self.touched = <int32_t*>calloc(self.room, sizeof(int32_t))
        if (
            self.connections == NULL
            or self.touched == NULL
            or not map_open(&self.by_peer, self.room, secrets.randbits(64))
        ):
            raise MemoryError
        for i in range(self.room):
            self.connections[i].descriptor = -1

    def __dealloc__(self):
        free(self.connections)
        free(self.touched)
        map_close(&self.by_peer)

    cdef bint begin(self, int epoll) noexcept nogil:
        """Listen. False: errno says why not."""
        cdef uint8_t family
        self.epoll = epoll
        self.paused = False
        for family in range(4, 7, 2):
            if self.listeners[family] >= 0 and not watch(
                epoll, EPOLL_CTL_ADD, self.listeners[family], EPOLLIN, LISTENER_TOKEN + family
            ):
                return False
        return True

    cdef void end(self) noexcept nogil:
        """Close all connections. Locked."""
        cdef uint32_t i
        for i in range(self.room):
            if self.connections[i].descriptor >= 0:
                self._close(&self.connections[i], CLOSED_AT_STOP)
        self.touched_count = self.ending_count = 0

    # --- Coming and going ---------------------------------------------------------------------------------------------

    cdef void accept_from(self, uint8_t family, double now) noexcept nogil:
        """Accept what waits, some of it."""
        cdef SocketAddress address
        cdef uint32_t size
        cdef int descriptor, i
        for i in range(AT_ONCE):
            size = sizeof(address)
            descriptor = accept4(self.listeners[family], &address.plain, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if descriptor >= 0:
                self._open(descriptor, &address, now)
            elif errno == EAGAIN:
                return
            elif errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                # It stays readable: without a pause the loop would do nothing else.
                self.counts[ACCEPT_FAILED] += 1
                self.paused = True
                watch(self.epoll, EPOLL_CTL_MOD, self.listeners[family], 0, LISTENER_TOKEN + family)
                return

    cdef void _open(self, int descriptor, const SocketAddress* address, double now) noexcept nogil:
        """Take a connection in, or close it."""
        cdef Connection* connection = NULL
        cdef uint32_t i, of_one = 0, generation
        cdef int on = 1, unsent = UNSENT_BYTES
        cdef Endpoint peer
        cdef Key key
        read_address(address, TCP, &peer)
        key.endpoint = peer
        self.counts[ACCEPTED] += 1
        for i in range(self.room):
            if self.connections[i].descriptor >= 0 and _same_network(&self.connections[i].peer, &peer):
                of_one += 1
        # The same peer may reach a listener under two of our addresses: the relay knows a peer by its own.
        if map_get(&self.by_peer, &key) >= 0 or (of_one >= self.room_of_one and not self._make_room(&peer, True)):
            self.counts[REFUSED_ADDRESS] += 1
            close(descriptor)
            return
        if self.open_count == self.room and not self._make_room(&peer, False):
            self.counts[REFUSED_FULL] += 1
            close(descriptor)
            return
        i = 0
        while self.connections[i].descriptor >= 0:
            i += 1
        connection = &self.connections[i]
        generation = connection.generation + 1
        memset(connection, 0, sizeof(Connection))
        connection.descriptor = descriptor
        connection.generation = generation
        connection.peer = peer
        connection.opened_at = connection.allowed_at = now
        self.open_count += 1
        map_put(&self.by_peer, &key, <int32_t>i)
        # Where the kernel refuses, a datagram leaves a little later: no reason to refuse the peer.
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
        setsockopt(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent))
        if not watch(self.epoll, EPOLL_CTL_ADD, descriptor, EPOLLIN, self._token(connection)):
            self._end(connection, CLOSED_BROKEN)

    cdef bint _make_room(self, const Endpoint* peer, bint of_one) noexcept nogil:
        """Close the oldest stranger, of the same address if it is there that there are too many. False: there is none."""
        cdef Connection* oldest = NULL
        cdef Connection* connection
        cdef uint32_t i
        self.relay.lock_for_media()
        for i in range(self.room):
            connection = &self.connections[i]
            if connection.descriptor < 0 or (of_one and not _same_network(&connection.peer, peer)):
                continue
            if (oldest == NULL or connection.opened_at < oldest.opened_at) and self._transport(connection) < 0:
                oldest = connection
        if oldest != NULL:
            self._close(oldest, CLOSED_EVICTED)
        self.relay.unlock()
        return oldest != NULL

    cdef uint64_t _token(self, const Connection* connection) noexcept nogil:
        """What epoll names it by."""
        return <uint64_t>connection.generation << 32 | <uint64_t>(connection - self.connections + CONNECTION_TOKENS)

    cdef Connection* find(self, uint64_t token) noexcept nogil:
        """Return the connection of a token; NULL: it has ended."""
        cdef Connection* connection = &self.connections[<uint32_t>token - <uint32_t>CONNECTION_TOKENS]
        if connection.descriptor < 0 or connection.generation != token >> 32 or connection.ending:
            return NULL
        return connection

    cdef void _end(self, Connection* connection, int reason) noexcept nogil:
        """Let it be closed by the next sweep."""
        if connection.ending == 0:
            connection.ending = <uint8_t>reason
            self.ending_count += 1
            # The sweep may have to wait; what is readable meanwhile shall not keep the loop busy.
            watch(self.epoll, EPOLL_CTL_DEL, connection.descriptor, 0, 0)

    cdef void sweep(self) noexcept nogil:
        """Close what has ended, as long as the slow path can be told. Locked."""
        cdef uint32_t i
        if self.ending_count == 0:
            return
        for i in range(self.room):
            if self.connections[i].descriptor >= 0 and self.connections[i].ending and self.relay.events.count < EVENTS:
                self._close(&self.connections[i], self.connections[i].ending)

    cdef void _close(self, Connection* connection, int reason) noexcept nogil:
        """Close, count, and tell whose it was. Locked."""
        cdef int32_t transport = self._transport(connection)
        cdef uint8_t nothing = 0
        cdef Key key
        key.endpoint = connection.peer
        if transport >= 0:
            self.relay._pass_up(EVENT_DISCONNECTED, transport, False, &connection.peer, &nothing, 0)
        if connection.ending:
            self.ending_count -= 1
        connection.touched = False
        map_remove(&self.by_peer, &key)
        self.counts[reason] += 1
        self.open_count -= 1
        free(connection.memory)
        connection.memory = NULL
        close(connection.descriptor)
        connection.descriptor = -1

    cdef int32_t _transport(self, Connection* connection) noexcept nogil:
        """Whose address it is, now; -1: nobody's. Locked."""
        cdef Key key
        key.endpoint = connection.peer
        return map_get(&self.relay.by_address, &key)

    cdef void tick(self, double now) noexcept nogil:
        """See who is still allowed, and who has stalled; call it a few times a second. Locked."""
        cdef Connection* connection
        cdef uint32_t i
        cdef uint8_t family
        if self.paused:
            self.paused = False
            for family in range(4, 7, 2):
                if self.listeners[family] >= 0:
                    watch(self.epoll, EPOLL_CTL_MOD, self.listeners[family], EPOLLIN, LISTENER_TOKEN + family)
        if self.open_count == 0:
            return
        for i in range(self.room):
            connection = &self.connections[i]
            if connection.descriptor < 0 or connection.ending:
                continue
            connection.allowed = self._transport(connection) >= 0
            if connection.allowed:
                connection.allowed_at = now
            elif now - connection.allowed_at >= self.stranger_s:
                self._end(connection, CLOSED_NO_ADDRESS)
            if connection.full_since and now - connection.full_since >= self.stalled_s:
                self._end(connection, CLOSED_STALLED)

    # --- In -----------------------------------------------------------------------------------------------------------

    cdef Py_ssize_t receive(self, Connection* connection) noexcept nogil:
        """Read what has come, into `input`; 0 or less: nothing."""
        cdef Py_ssize_t size = recv(connection.descriptor, self.input, READ, MSG_DONTWAIT)
        if size == 0:
            self._end(connection, CLOSED_BY_PEER)
        elif size < 0 and errno != EAGAIN and errno != EINTR:
            self._end(connection, CLOSED_BROKEN)
        return size

    cdef void relay_input(self, Connection* connection, Py_ssize_t size, Batch* out) noexcept nogil:
        """Let the relay have what was received. Locked."""
        cdef const uint8_t* at = self.input
        cdef const uint8_t* frame = NULL
        cdef size_t rest = <size_t>size
        cdef uint32_t length = 0
        cdef int progress
        connection.allowed = self._transport(connection) >= 0
        if not connection.allowed:
            connection.taken += <uint32_t>size
            if connection.taken > STRANGER_BYTES:
                self._end(connection, CLOSED_TOO_MUCH)
                return
        while rest:
            progress = next_frame(&connection.reader, &at, &rest, &frame, &length)
            if progress == FRAME_NONE:
                return
            if not connection.spoken and (progress == FRAME_TOO_LONG or demux(frame, length) != verdicts.STUN):
                self._end(connection, CLOSED_NOT_STUN)
                return
            connection.spoken = True
            if progress == FRAME_TOO_LONG:
                self.relay._drop(DROP_TOO_LONG)
                continue
            memcpy(self.datagram, frame, length)
            self.relay.receive(self.datagram, length, &connection.peer, out)

    # --- Out ----------------------------------------------------------------------------------------------------------

    cdef bint send(self, const Outgoing* item, const uint8_t* data) noexcept nogil:
        """Queue a datagram for a peer, to leave with the next `flush`. False: dropped, counted."""
        cdef Connection* connection
        cdef Key key
        cdef int32_t index
        key.endpoint = item.to
        index = map_get(&self.by_peer, &key)
        connection = &self.connections[index]
        if index < 0 or connection.ending:
            self.counts[NOT_CONNECTED] += 1
            return False
        if not self._admit(connection, item, data):
            self.counts[VIDEO_DROPPED if item.video else STREAM_FULL] += 1
            return False
        if not connection.touched:
            connection.touched = True
            self.touched[self.touched_count] = index
            self.touched_count += 1
        return True

    cdef bint _admit(self, Connection* connection, const Outgoing* item, const uint8_t* data) noexcept nogil:
        """Put a datagram into its ring, unless it is full; of video, all that follows in the frame stays away too."""
        cdef Ring* ring = &connection.video if item.video else &connection.urgent
        cdef uint32_t ssrc = 0, timestamp = 0, i
        cdef CutStream* cut = NULL
        if connection.memory == NULL:
            connection.memory = <uint8_t*>malloc(URGENT_BYTES + VIDEO_BYTES)
            if connection.memory == NULL:
                return False
            connection.urgent.data = connection.memory
            connection.urgent.room = URGENT_BYTES
            connection.video.data = connection.memory + URGENT_BYTES
            connection.video.room = VIDEO_BYTES
        if ring.used + FRAME_HEADER + item.size > ring.room and not connection.blocked:
            self._write(connection)
        if item.video:
            timestamp = read_u32(data + 4)
            ssrc = read_u32(data + 8)
            for i in range(<uint32_t>CUT_STREAMS):
                if connection.cuts[i].ssrc == ssrc:
                    cut = &connection.cuts[i]
            if cut != NULL and (cut.timestamp == timestamp or ring.used > VIDEO_BYTES // 2):
                cut.timestamp = timestamp
                return False
        if _ring_put(ring, data, item.size):
            if cut != NULL:
                cut.ssrc = 0
            return True
        if connection.full_since == 0:
            connection.full_since = self.relay.now
        if item.video:
            if cut == NULL:
                cut = &connection.cuts[connection.next_cut]
                connection.next_cut = (connection.next_cut + 1) % CUT_STREAMS
            cut.ssrc = ssrc
            cut.timestamp = timestamp
        return False

    cdef void flush(self) noexcept nogil:
        """Write what was queued since the last time."""
        cdef Connection* connection
        cdef uint32_t i
        for i in range(self.touched_count):
            connection = &self.connections[self.touched[i]]
            if connection.touched:
                connection.touched = False
                self._write(connection)
        self.touched_count = 0

    cdef void writable(self, Connection* connection) noexcept nogil:
        """Go on: the kernel takes more."""
        connection.blocked = False
        self._write(connection)
        if not connection.blocked:
            watch(self.epoll, EPOLL_CTL_MOD, connection.descriptor, EPOLLIN, self._token(connection))

    cdef void _write(self, Connection* connection) noexcept nogil:
        """Write as much as the kernel takes: the rest of a frame begun, then what is urgent, then video."""
        cdef Ring* ring
        cdef iovec pieces[2]
        cdef msghdr message
        cdef Py_ssize_t sent
        cdef uint32_t part, most
        memset(&message, 0, sizeof(message))
        while not connection.blocked and not connection.ending:
            most = URGENT_BYTES + VIDEO_BYTES
            if connection.left:
                ring = &connection.video if connection.leaving_video else &connection.urgent
                if connection.leaving_video and connection.urgent.used:
                    most = connection.left
            else:
                ring = &connection.urgent if connection.urgent.used else &connection.video
            if ring.used == 0:
                break
            message.msg_iov = pieces
            message.msg_iovlen = _ring_pieces(ring, most, pieces)
            sent = sendmsg(connection.descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    connection.blocked = True
                    watch(self.epoll, EPOLL_CTL_MOD, connection.descriptor, EPOLLIN | EPOLLOUT, self._token(connection))
                else:
                    self._end(connection, CLOSED_BROKEN)
                break
            while sent > 0:
                if connection.left == 0:
                    connection.left = _ring_frame(ring)
                    connection.leaving_video = ring == &connection.video
                part = min(connection.left, <uint32_t>sent)
                connection.left -= part
                sent -= part
                ring.begin = (ring.begin + part) % ring.room
                ring.used -= part
            if ring.used == 0:
                ring.begin = 0  # so that little memory is touched as long as little waits
        if connection.video.used <= VIDEO_BYTES // 2 and connection.urgent.used <= URGENT_BYTES // 2:
            connection.full_since = 0
