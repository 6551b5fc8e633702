# RTP header extensions (RFC 8285): read under the sender's ids, written under the receiver's.
#
#  one byte:  |0xBE 0xDE|length in words|  then  |  ID   |len - 1|  data ...      ID 15: stop; 0: padding
#  two bytes: |0x10 0x0x|length in words|  then  |      ID       |     len      |  data ...

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from server.media.fastpath.demux cimport read_u16


cdef enum:
    MID = 0                     # RFC 8843
    RID = 1                     # RFC 8852
    RRID = 2
    ABS_SEND_TIME = 3           # 24 bits: seconds modulo 64 in 6.18 fixed point
    TRANSPORT_CC = 4            # draft-holmer-rmcat-transport-wide-cc-extensions-01
    AUDIO_LEVEL = 5             # RFC 6464
    VIDEO_ORIENTATION = 6       # 3GPP TS 26.114
    DEPENDENCY_DESCRIPTOR = 7   # AV1 RTP specification, appendix A
    EXTENSIONS = 8


cdef struct Element:
    const uint8_t* data
    uint8_t size                # 0: absent


cdef struct ReceiveIds:
    uint8_t name[256]           # by id; EXTENSIONS: not negotiated


cdef struct SendIds:
    uint8_t id[8]               # by name; 0: not negotiated


cdef inline void read_extensions(
    const uint8_t* data, size_t size, const ReceiveIds* ids, Element* elements
) noexcept nogil:
    """Find the elements that were negotiated.

    Args:
        data, size: The extension with its header of 4 bytes; the demultiplexer has checked its length.
        elements: EXTENSIONS of them, written. What does not fit is left out with all that follows.
    """
    cdef size_t i = 4
    cdef uint16_t profile = read_u16(data)
    cdef uint8_t identifier, length, name
    if profile == 0xBEDE:
        while i < size:
            identifier = data[i] >> 4
            if identifier == 0:
                i += 1
                continue
            length = (data[i] & 0x0F) + 1
            if identifier == 15 or i + 1 + length > size:
                return
            name = ids.name[identifier]
            if name < EXTENSIONS:
                elements[name].data = data + i + 1
                elements[name].size = length
            i += 1 + length
    elif (profile & 0xFFF0) == 0x1000:
        while i + 1 < size:
            identifier = data[i]
            if identifier == 0:
                i += 1
                continue
            length = data[i + 1]
            if i + 2 + length > size:
                return
            name = ids.name[identifier]
            if name < EXTENSIONS:
                elements[name].data = data + i + 2
                elements[name].size = length
            i += 2 + length


cdef inline size_t write_extensions(uint8_t* out, const SendIds* ids, Element* elements) noexcept nogil:
    """Write the elements that are present and negotiated, with header and padding.

    Args:
        out: Room for 4 + 8 * 257 bytes at most; in practice what the elements take, up to 4 more.
        elements: EXTENSIONS of them; `data` is changed to where each now lies, or NULL.

    Returns:
        Bytes written, a multiple of 4; 0 when there is nothing to write.
    """
    cdef size_t i = 4
    cdef int name
    cdef bint any_element = False, two_bytes = False
    for name in range(EXTENSIONS):
        if ids.id[name] == 0 or elements[name].size == 0:
            elements[name].data = NULL
            continue
        any_element = True
        two_bytes = two_bytes or ids.id[name] > 14 or elements[name].size > 16
    if not any_element:
        return 0
    for name in range(EXTENSIONS):
        if elements[name].data == NULL:
            continue
        if two_bytes:
            out[i] = ids.id[name]
            out[i + 1] = elements[name].size
            i += 2
        else:
            out[i] = <uint8_t>(ids.id[name] << 4 | (elements[name].size - 1))
            i += 1
        memcpy(out + i, elements[name].data, elements[name].size)
        elements[name].data = out + i
        i += elements[name].size
    while i & 3:
        out[i] = 0
        i += 1
    out[0] = 0x10 if two_bytes else 0xBE
    out[1] = 0x00 if two_bytes else 0xDE
    out[2] = <uint8_t>((i - 4) // 4 >> 8)
    out[3] = <uint8_t>((i - 4) // 4)
    return i
