# One RTP packet taken apart: header, extensions, and what the payload's descriptor says of its frame.

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from server.media.fastpath.demux cimport RTP, demux_rtp, read_u16, read_u32
from server.media.fastpath.extensions cimport EXTENSIONS, Element, ReceiveIds, read_extensions
from server.media.fastpath.red cimport Red


cdef enum:
    CODEC_OTHER = 0
    CODEC_OPUS = 1
    CODEC_VP8 = 3
    CODEC_VP9 = 4
    CODEC_H264 = 5
    CODEC_AV1 = 6


cdef struct Frame:
    bint starts                 # first packet of a frame
    bint starts_keyframe        # first packet of one that decoding can begin with; always, for sound
    uint8_t temporal            # its layer
    uint8_t reach               # who carries the layers up to this may go up to that one here
    uint8_t reach_from
    uint8_t picture_bytes       # of the picture id: 1 (7 bits), 2 (15 bits), 0: none
    bint has_tl0
    uint16_t picture_at         # where in the payload
    uint16_t picture_id
    uint16_t tl0_at
    uint8_t tl0


cdef struct Packet:
    uint8_t* data
    uint32_t size               # without padding
    uint8_t* payload
    uint32_t payload_size
    uint32_t ssrc
    uint32_t timestamp
    uint16_t seq
    uint8_t payload_type
    bint marker
    int64_t ext_seq             # written by who knows the source
    Element elements[8]
    Frame frame
    Red* red                    # NULL: it is not wrapped


cdef inline void write_u16(uint8_t* out, uint16_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 8)
    out[1] = <uint8_t>value


cdef inline void write_u32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 24)
    out[1] = <uint8_t>(value >> 16)
    out[2] = <uint8_t>(value >> 8)
    out[3] = <uint8_t>value


cdef inline bint parse_packet(uint8_t* data, size_t size, const ReceiveIds* ids, Packet* packet) noexcept nogil:
    """Take a decrypted packet apart; its padding is left off. False: header or padding do not fit.

    Spec: RFC 3550 section 5.1.
    """
    cdef size_t header = 12 + 4 * <size_t>(data[0] & 0x0F), extension
    if demux_rtp(data, size) != RTP:
        return False
    memset(packet, 0, sizeof(Packet))
    if data[0] & 0x10:
        extension = 4 + 4 * <size_t>read_u16(data + header + 2)
        read_extensions(data + header, extension, ids, packet.elements)
        header += extension
    if data[0] & 0x20:
        if size == header or data[size - 1] == 0 or header + data[size - 1] > size:
            return False
        size -= data[size - 1]
        data[0] &= 0xDF
    packet.data = data
    packet.size = <uint32_t>size
    packet.payload = data + header
    packet.payload_size = <uint32_t>(size - header)
    packet.marker = data[1] >> 7
    packet.payload_type = data[1] & 0x7F
    packet.seq = read_u16(data + 2)
    packet.timestamp = read_u32(data + 4)
    packet.ssrc = read_u32(data + 8)
    return True


cdef inline void read_frame(uint8_t codec, const uint8_t* data, size_t size, Frame* frame) noexcept nogil:
    """Read the payload's descriptor. One that is cut short starts nothing and has no ids to rewrite."""
    memset(frame, 0, sizeof(Frame))
    if codec == CODEC_VP8:
        _read_vp8(data, size, frame)
    elif codec == CODEC_VP9:
        _read_vp9(data, size, frame)
    elif codec == CODEC_H264:
        _read_h264(data, size, frame)
    elif codec == CODEC_AV1:
        # Aggregation header Z|Y|W W|N|-: N, a coded video sequence begins (AV1 RTP specification, section 4.4).
        frame.starts = size > 0 and not data[0] & 0x80
        frame.starts_keyframe = frame.starts and data[0] & 0x08
    else:
        frame.starts = True
        frame.starts_keyframe = True


cdef inline size_t _read_picture_id(const uint8_t* data, size_t size, size_t i, Frame* frame) noexcept nogil:
    """7 bits, or 15 when the first is set; VP8 and VP9 alike. Returns what follows; past the end when cut short."""
    if i < size and not data[i] & 0x80:
        frame.picture_bytes = 1
        frame.picture_id = data[i]
        frame.picture_at = <uint16_t>i
        return i + 1
    if i + 1 < size:
        frame.picture_bytes = 2
        frame.picture_id = read_u16(data + i) & 0x7FFF
        frame.picture_at = <uint16_t>i
    return i + 2


cdef inline void _read_vp8(const uint8_t* data, size_t size, Frame* frame) noexcept nogil:
    """The VP8 payload descriptor, and the first bit of the VP8 payload header (0: keyframe).

         0 1 2 3 4 5 6 7
        |X|R|N|S|R| PID | required
     X: |I|L|T|K| RSV   |
     I: |M| PictureID   | M: 16 bits
     L: |   TL0PICIDX   |
    TK: |TID|Y| KEYIDX  |

    Spec: RFC 7741 sections 4.2 and 4.3.
    """
    cdef size_t i = 1
    cdef uint8_t flags
    cdef bint starts
    if size < 2:
        return
    starts = (data[0] & 0x17) == 0x10
    if data[0] & 0x80:
        flags = data[1]
        i = 2
        if flags & 0x80:
            i = _read_picture_id(data, size, i, frame)
        if flags & 0x40:
            if i < size:
                frame.has_tl0 = True
                frame.tl0 = data[i]
                frame.tl0_at = <uint16_t>i
            i += 1
        if flags & 0x30:
            if flags & 0x20 and i < size:
                frame.temporal = data[i] >> 6
                # Y: it depends on nothing but the base layer.
                frame.reach = frame.temporal if data[i] & 0x20 else 0
            i += 1
    if i >= size:
        memset(frame, 0, sizeof(Frame))
        return
    frame.starts = starts
    frame.starts_keyframe = starts and not data[i] & 1


cdef inline void _read_vp9(const uint8_t* data, size_t size, Frame* frame) noexcept nogil:
    """The VP9 payload descriptor, as far as its layer indices.

         0 1 2 3 4 5 6 7
        |I|P|L|F|B|E|V|Z| required
     I: |M| PICTURE ID  | M: 16 bits
     L: | TID |U| SID |D|
        |   TL0PICIDX   | if not F

    Spec: RFC 9628 section 4.2.
    """
    cdef size_t i = 1
    cdef uint8_t spatial = 0
    if size < 2:
        return
    if data[0] & 0x80:
        i = _read_picture_id(data, size, i, frame)
    if data[0] & 0x20:
        if i < size:
            frame.temporal = data[i] >> 5
            # U: what follows in higher layers depends on nothing of them before.
            frame.reach = 7 if data[i] & 0x10 else 0
            frame.reach_from = frame.temporal
            spatial = (data[i] >> 1) & 7
        i += 1
        if not data[0] & 0x10:
            if i < size:
                frame.has_tl0 = True
                frame.tl0 = data[i]
                frame.tl0_at = <uint16_t>i
            i += 1
    if i >= size:
        memset(frame, 0, sizeof(Frame))
        return
    frame.starts = spatial == 0 and (data[0] & 0x08) != 0
    frame.starts_keyframe = frame.starts and not data[0] & 0x40


cdef inline void _read_h264(const uint8_t* data, size_t size, Frame* frame) noexcept nogil:
    """Whether an SPS or an IDR slice begins here: alone, in STAP-A (24) or in FU-A (28). Spec: RFC 6184 section 5."""
    cdef size_t i
    cdef uint8_t kind
    if size < 2:
        return
    kind = data[0] & 0x1F
    frame.starts = True
    if kind == 24:
        i = 1
        while i + 2 < size:
            if data[i + 2] & 0x1F in (5, 7):
                frame.starts_keyframe = True
                return
            i += 2 + read_u16(data + i)
    elif kind == 28:
        frame.starts = (data[1] & 0x80) != 0
        frame.starts_keyframe = frame.starts and data[1] & 0x1F in (5, 7)
    else:
        frame.starts_keyframe = kind in (5, 7)


cdef inline void rewrite_frame(
    uint8_t* payload, const Frame* frame, uint16_t picture_delta, uint8_t tl0_delta
) noexcept nogil:
    """Shift the picture ids of a payload, in the width that they have."""
    cdef uint16_t picture_id = frame.picture_id + picture_delta
    if frame.picture_bytes == 1:
        payload[frame.picture_at] = picture_id & 0x7F
    elif frame.picture_bytes == 2:
        write_u16(payload + frame.picture_at, picture_id | 0x8000)
    if frame.has_tl0:
        payload[frame.tl0_at] = <uint8_t>(frame.tl0 + tl0_delta)


cdef inline int pad_to(int multiple, uint8_t* data, int size) noexcept nogil:
    """Pad a packet without padding so that its size is a multiple of this, 256 at most. Returns the bytes added.

    Spec: RFC 3550 section 5.1.
    """
    cdef int padding = -size & (multiple - 1)
    if padding:
        memset(data + size, 0, padding)
        data[size + padding - 1] = <uint8_t>padding
        data[0] |= 0x20
    return padding
