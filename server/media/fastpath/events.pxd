# What waits for the slow path: a ring of events, each with bytes of its own. Strangers have a share of it, each transport
# has one, and what is told once has places that datagrams cannot take.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from server.media.fastpath.slots cimport Endpoint


cdef enum:
    EVENTS = 4096
    EVENTS_OF_DATAGRAMS = 3072  # the rest is kept for what is told once: it would be believed for ever
    EVENTS_OF_ONE = 256     # share of one transport
    EVENTS_OF_STRANGERS = 512


cdef struct Queued:
    uint8_t* data           # ours
    double at
    Endpoint origin
    int32_t index
    uint32_t birth          # of the transport, if the index is one
    uint16_t size
    uint8_t kind
    bint charged            # to its transport's share


cdef struct Events:
    Queued* items
    uint32_t begin, count, of_strangers
    # Since the socket loop has looked: one has come; one that should not wait for others.
    bint pushed
    bint urgent


cdef inline bint events_open(Events* events) noexcept nogil:
    """Return whether there was memory."""
    events.items = <Queued*>calloc(EVENTS, sizeof(Queued))
    return events.items != NULL


cdef inline void events_close(Events* events) noexcept nogil:
    while events.count:
        events_pop(events)
    free(events.items)


cdef inline Queued* events_push(Events* events, const uint8_t* data, uint16_t size) noexcept nogil:
    """Take a place, the rest of which is the caller's to fill in; NULL: no memory. The caller has seen that there is room."""
    cdef Queued* event = &events.items[(events.begin + events.count) % EVENTS]
    event.data = <uint8_t*>malloc(size)
    if event.data == NULL:
        return NULL
    memcpy(event.data, data, size)
    event.size = size
    events.count += 1
    return event


cdef inline void events_pop(Events* events) noexcept nogil:
    """Forget the oldest."""
    cdef Queued* event = &events.items[events.begin]
    free(event.data)
    event.data = NULL
    if event.charged and event.index < 0:
        events.of_strangers -= 1
    events.begin = (events.begin + 1) % EVENTS
    events.count -= 1


cdef inline bint in_rate(bint is_rtcp, double* due, double now) noexcept nogil:
    """Whether one more of a transport's is not too much, what each costs the slow path, all share: 200 reports a second
    (feedback alone is 20), 100 of another kind (browsers check every 50 ms at first), and as many at once. `due`: when the
    next would come, were they evenly spaced."""
    if due[0] > now + 1:
        return False
    due[0] = max(due[0], now) + (0.005 if is_rtcp else 0.01)
    return True
