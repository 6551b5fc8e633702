# What is due when: a binary heap, the earliest first.

from libc.stdint cimport int64_t


cdef struct Due:
    int64_t at
    int kind
    int index


cdef struct Schedule:
    Due* items
    int count, room


cdef inline void add(Schedule* schedule, int64_t at, int kind, int index) noexcept nogil:
    """Put something in; nothing happens where there is no room, which is made for all there can be."""
    cdef int i = schedule.count
    if schedule.count == schedule.room:
        return
    schedule.count += 1
    while i and schedule.items[(i - 1) // 2].at > at:
        schedule.items[i] = schedule.items[(i - 1) // 2]
        i = (i - 1) // 2
    schedule.items[i].at = at
    schedule.items[i].kind = kind
    schedule.items[i].index = index


cdef inline void postpone(Schedule* schedule, int64_t at) noexcept nogil:
    """Give the first another, later time."""
    cdef Due moved = schedule.items[0]
    cdef int i = 0, child
    moved.at = at
    while True:
        child = 2 * i + 1
        if child >= schedule.count:
            break
        if child + 1 < schedule.count and schedule.items[child + 1].at < schedule.items[child].at:
            child += 1
        if schedule.items[child].at >= at:
            break
        schedule.items[i] = schedule.items[child]
        i = child
    schedule.items[i] = moved
