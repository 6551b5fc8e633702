# Addresses, and the one hash map that the relay looks things up in: by address, and by transport and SSRC.
#
# Keys are 24 bytes, which is what an address with its port and transport protocol takes. Linear probing, removal by
# shifting back (no tombstones), never more than three quarters full, no allocation after `map_open`. The seed makes
# collisions unpredictable to a peer who chooses its SSRCs.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef enum:
    UDP = 0
    TCP = 1


cdef struct Endpoint:
    # 24 bytes without padding, compared as three words; what is not used is zero.
    uint8_t ip[16]          # network order; IPv4 in the first four
    uint16_t port
    uint8_t family          # 4 or 6; 0: no endpoint
    uint8_t protocol        # UDP or TCP
    uint32_t zero


cdef union Key:
    uint64_t words[3]
    Endpoint endpoint


cdef struct Entry:
    Key key
    int32_t value           # -1: free
    int32_t padding


cdef struct Map:
    Entry* entries
    uint64_t mask
    uint64_t seed
    uint64_t count


cdef inline Key key_of_ssrc(int32_t transport, uint32_t ssrc) noexcept nogil:
    cdef Key key
    key.words[0] = ssrc
    key.words[1] = <uint64_t>transport
    key.words[2] = 0
    return key


cdef inline uint64_t _home(const Map* map, const Key* key) noexcept nogil:
    """Where a key belongs: each word multiplied and folded (the finaliser of MurmurHash3)."""
    cdef uint64_t h = map.seed
    cdef int i
    for i in range(3):
        h ^= key.words[i]
        h *= <uint64_t>0xFF51AFD7ED558CCD
        h ^= h >> 33
    h *= <uint64_t>0xC4CEB9FE1A85EC53
    return (h ^ (h >> 33)) & map.mask


cdef inline bint _same(const Key* a, const Key* b) noexcept nogil:
    return a.words[0] == b.words[0] and a.words[1] == b.words[1] and a.words[2] == b.words[2]


cdef inline bint map_open(Map* map, uint64_t most, uint64_t seed) noexcept nogil:
    """Make room for this many keys. False: no memory."""
    cdef uint64_t size = 16, i
    while size * 3 < most * 4:
        size *= 2
    map.entries = <Entry*>calloc(size, sizeof(Entry))
    map.mask = size - 1
    map.seed = seed
    map.count = 0
    if map.entries == NULL:
        return False
    for i in range(size):
        map.entries[i].value = -1
    return True


cdef inline void map_close(Map* map) noexcept nogil:
    free(map.entries)
    map.entries = NULL


cdef inline int32_t map_get(const Map* map, const Key* key) noexcept nogil:
    """The value, or -1."""
    cdef uint64_t i = _home(map, key)
    while map.entries[i].value >= 0:
        if _same(&map.entries[i].key, key):
            return map.entries[i].value
        i = (i + 1) & map.mask
    return -1


cdef inline bint map_put(Map* map, const Key* key, int32_t value) noexcept nogil:
    """Set a value (not negative). False: full."""
    cdef uint64_t i = _home(map, key)
    while map.entries[i].value >= 0:
        if _same(&map.entries[i].key, key):
            map.entries[i].value = value
            return True
        i = (i + 1) & map.mask
    if map.count * 4 >= (map.mask + 1) * 3:
        return False
    map.entries[i].key = key[0]
    map.entries[i].value = value
    map.count += 1
    return True


cdef inline void map_remove(Map* map, const Key* key) noexcept nogil:
    """Remove a key, if it is there."""
    cdef uint64_t i = _home(map, key), j, home
    while not _same(&map.entries[i].key, key):
        if map.entries[i].value < 0:
            return
        i = (i + 1) & map.mask
    if map.entries[i].value < 0:
        return
    map.count -= 1
    j = i
    while True:
        # Pull back whoever probed across the hole.
        j = (j + 1) & map.mask
        if map.entries[j].value < 0:
            break
        home = _home(map, &map.entries[j].key)
        if ((j - home) & map.mask) >= ((j - i) & map.mask):
            map.entries[i] = map.entries[j]
            i = j
    map.entries[i].value = -1
