# The dependency descriptor, as far as its temporal layers: which layer a frame belongs to, and up to which one may go there.
#
#     |S|E| template id | frame number, 16 bits |        S: first packet of the frame, E: last
#     if longer: |structure|active targets|custom DTIs|custom fdiffs|custom chains| one bit each, then
#       structure: template id offset (6), decode targets - 1 (5), for each template what the next one is (2: 0 the same
#       layer, 1 the next temporal, 2 the next spatial, 3 none), for each template and decode target its DTI (2)
#       active targets (one bit each), custom DTIs (2 each) instead of the template's
#
# A DTI (decode target indication) of 2, "switch", says: who decodes this frame decodes all that follow of that target. The
# structure comes with keyframes only and is remembered by the source.
#
# Spec: AV1 RTP specification 1.0, appendix A.8.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset


cdef enum:
    TEMPLATES = 64
    TARGETS = 32
    DTI_NONE = 0
    DTI_SWITCH = 2


cdef struct Structure:
    uint8_t offset              # of template ids
    uint8_t templates           # 0: no structure yet
    uint8_t targets
    uint8_t temporal[TEMPLATES] # layer of each template
    uint8_t reach[TEMPLATES]    # highest layer that may be gone up to at a frame of it
    uint8_t layer_of[TARGETS]   # highest temporal layer of each decode target


cdef struct Bits:
    const uint8_t* data
    size_t size
    size_t at                   # in bits


cdef inline uint32_t take_bits(Bits* bits, int count) noexcept nogil:
    """The next bits; zeros behind the end, where `at` tells."""
    cdef uint32_t value = 0
    cdef int i
    for i in range(count):
        value <<= 1
        if bits.at < 8 * bits.size:
            value |= bits.data[bits.at >> 3] >> (7 - (bits.at & 7)) & 1
        bits.at += 1
    return value


cdef inline bint _read_structure(Bits* bits, Structure* structure) noexcept nogil:
    """Read a template dependency structure as far as its DTIs. False: it is cut short or impossible."""
    cdef uint8_t dti[TEMPLATES][TARGETS]
    cdef uint32_t temporal = 0, following = 0, i, target
    memset(structure, 0, sizeof(Structure))
    structure.offset = <uint8_t>take_bits(bits, 6)
    structure.targets = <uint8_t>take_bits(bits, 5) + 1
    while following != 3:
        if structure.templates == TEMPLATES or temporal > 7:
            return False
        structure.temporal[structure.templates] = <uint8_t>temporal
        structure.templates += 1
        following = take_bits(bits, 2)
        if following == 1:
            temporal += 1
        elif following == 2:
            temporal = 0
    for i in range(structure.templates):
        for target in range(structure.targets):
            dti[i][target] = <uint8_t>take_bits(bits, 2)
            if dti[i][target] != DTI_NONE:
                structure.layer_of[target] = max(structure.layer_of[target], structure.temporal[i])
    for i in range(structure.templates):
        for target in range(structure.targets):
            if dti[i][target] == DTI_SWITCH:
                structure.reach[i] = max(structure.reach[i], structure.layer_of[target])
    return bits.at <= 8 * bits.size


cdef inline bint read_dependency(
    const uint8_t* data, size_t size, Structure* structure, uint8_t* temporal, uint8_t* reach
) noexcept nogil:
    """Read the layers of a frame; a structure that comes with it is remembered.

    Args:
        data, size: The header extension's element, at least 3 bytes.
        structure: The source's.
        temporal, reach: Written if the frame's template is known.

    Returns:
        Whether it is.
    """
    cdef Bits bits
    cdef Structure fresh
    cdef uint32_t template, target
    cdef bint has_structure = False, has_active = False, has_indications = False
    bits.data = data
    bits.size = size
    bits.at = 24
    if size > 3:
        has_structure = take_bits(&bits, 1)
        has_active = take_bits(&bits, 1)
        has_indications = take_bits(&bits, 1)
        bits.at += 2
        if has_structure:
            if not _read_structure(&bits, &fresh):
                return False
            structure[0] = fresh
    template = ((data[0] & 0x3F) + 64 - structure.offset) & 63
    if template >= structure.templates:
        return False
    temporal[0] = structure.temporal[template]
    reach[0] = structure.reach[template]
    # Behind a structure come fields that are not read here; a keyframe allows every layer anyway.
    if has_indications and not has_structure:
        if has_active:
            bits.at += structure.targets
        reach[0] = 0
        for target in range(structure.targets):
            if take_bits(&bits, 2) == DTI_SWITCH:
                reach[0] = max(reach[0], structure.layer_of[target])
    return True
