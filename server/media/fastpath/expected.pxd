# Sources that are bound in-band: which of them a packet belongs to, by the names in its header extensions.
#
# Spec: RFC 8843 section 9.2 (mid), RFC 8852 section 3 (rid, and rrid on RTX).

from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcmp

from server.media.fastpath.extensions cimport MID, RID, RRID, Element
from server.media.fastpath.packet cimport Packet
from server.media.fastpath.tables cimport Source, Transport


cdef inline bint _says(const Element* element, const uint8_t* name, uint8_t size) noexcept nogil:
    """Whether a header extension is this name; an absent one is the empty name."""
    return element.size == size and (size == 0 or memcmp(element.data, name, size) == 0)


cdef inline int32_t find_expected(const Transport* association, const Source* sources, const Packet* packet) noexcept nogil:
    """Twice the source, and one if the packet is its RTX; -1: none of them."""
    cdef const Source* source
    cdef int32_t index = association.expected - 1
    while index >= 0:
        source = &sources[index]
        if _says(&packet.elements[MID], source.mid, source.mid_size):
            if (
                packet.payload_type == source.payload_type
                or (source.red_payload_type and packet.payload_type == source.red_payload_type)
            ) and _says(&packet.elements[RID], source.rid, source.rid_size):
                return 2 * index
            if (
                source.rtx_payload_type
                and packet.payload_type == source.rtx_payload_type
                and _says(&packet.elements[RRID], source.rid, source.rid_size)
            ):
                return 2 * index + 1
        index = source.next_expected - 1
    return -1
