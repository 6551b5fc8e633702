# Datagrams on their way out, gathered until somebody sends them.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

from server.media.fastpath.slots cimport Endpoint


cdef enum:
    STRIDE = 2048           # of a datagram's buffer: 1500, larger extensions, RTX and SRTP's trailer


cdef struct Outgoing:
    Endpoint to
    int32_t transport       # -1: none
    uint16_t size
    bint video              # what a full stream drops first


cdef struct Batch

ctypedef void (*Flush)(void* context, Batch* batch) noexcept nogil

cdef struct Batch:
    uint8_t* arena          # STRIDE bytes each
    Outgoing* items
    uint32_t count
    uint32_t room
    Flush flush             # called when full: sends them and sets `count` to 0; NULL: what is too much is dropped
    void* context


cdef inline bint batch_open(Batch* batch, uint32_t room, Flush flush, void* context) noexcept nogil:
    """Make room for so many datagrams. False: no memory."""
    batch.arena = <uint8_t*>malloc(<size_t>room * STRIDE)
    batch.items = <Outgoing*>calloc(room, sizeof(Outgoing))
    batch.count = 0
    batch.room = room
    batch.flush = flush
    batch.context = context
    return batch.arena != NULL and batch.items != NULL


cdef inline void batch_close(Batch* batch) noexcept nogil:
    free(batch.arena)
    free(batch.items)
    batch.arena = NULL
    batch.items = NULL


cdef inline uint8_t* batch_next(Batch* batch) noexcept nogil:
    """Where the next datagram is to be written; NULL: the batch is full and nobody empties it."""
    if batch.count == batch.room:
        if batch.flush == NULL:
            return NULL
        batch.flush(batch.context, batch)
    return batch.arena + <size_t>batch.count * STRIDE


cdef inline void batch_add(Batch* batch, int32_t transport, const Endpoint* to, int size, bint video) noexcept nogil:
    """The datagram that was written at `batch_next` is complete."""
    cdef Outgoing* item = &batch.items[batch.count]
    item.to = to[0]
    item.transport = transport
    item.size = <uint16_t>size
    item.video = video
    batch.count += 1
