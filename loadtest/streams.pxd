# What a load participant sends and receives: media made up packet by packet, and the accounting of what arrives.
#
# A picture is cut as libwebrtc cuts it (RtpPacketizer::SplitAboutEqually): equal parts, the last ones a byte longer.
# The last 16 bytes of every payload say when it was made, so that a receiver that decrypts it knows the delay:
#
#     0                   4                   8                                      16
#     | "clqs"            | SSRC              | nanoseconds of the wall clock          |
#
# Spec: RFC 3550 sections 5.1 and A.1, RFC 7741 (VP8), RFC 8285 (header extensions).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset


cdef enum:
    STAMP = 16                  # bytes at the end of a payload
    STAMP_MAGIC = 0x636C7173
    FRAME_NS = 33333333         # 30 pictures a second
    AUDIO_NS = 20000000         # 50 packets a second
    KEYFRAME_EVERY = 300        # pictures: at least that often, without being asked
    KEYFRAME_TIMES = 4          # the size of a keyframe, in pictures
    PART_BYTES = 1150           # of a picture in a packet at most: 1200 with all around it, about 1100 on average
    AUDIO_BYTES = 64            # with header, extensions and tag about 100
    MAX_PARTS = 64
    SAMPLED = 16                # one packet in so many is decrypted
    BUCKETS = 20000
    BUCKET_NS = 5000            # delays are counted to 5 us, up to 100 ms


cdef struct Sender:
    int leg
    uint32_t ssrc
    uint8_t payload_type
    bint video
    uint8_t mid_id, wide_id, sent_id, level_id  # header extensions; 0: not negotiated
    uint8_t mid[16]
    uint8_t mid_size
    uint32_t frame_bytes        # of an average picture
    uint16_t seq
    uint32_t timestamp
    uint16_t picture
    bint keyframe_wanted
    int keyframe_in             # pictures
    uint32_t dice
    uint64_t packets, bytes


cdef struct Receiver:
    uint32_t ssrc
    int64_t highest             # extended sequence number
    int64_t base                # of the first packet of this window
    uint64_t seen[16]           # bits of the last 1024 numbers, so that a repetition counts once
    uint64_t received           # in this window, each once


cdef inline uint32_t roll(uint32_t* dice) noexcept nogil:
    """xorshift32: sizes need no better."""
    dice[0] ^= dice[0] << 13
    dice[0] ^= dice[0] >> 17
    dice[0] ^= dice[0] << 5
    return dice[0]


cdef inline void put16(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = value >> 8
    at[1] = value


cdef inline void put32(uint8_t* at, uint32_t value) noexcept nogil:
    put16(at, value >> 16)
    put16(at + 2, value)


cdef inline uint32_t get16(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 8 | at[1]


cdef inline uint32_t get32(const uint8_t* at) noexcept nogil:
    return get16(at) << 16 | get16(at + 2)


cdef inline int write_head(Sender* sender, uint8_t* packet, bint marker, uint16_t wide_seq, int64_t now) noexcept nogil:
    """Write the RTP header with its extensions; the sequence number moves on. Returns the bytes written."""
    cdef int at = 16, i
    cdef uint32_t sent
    packet[0] = 0x90
    packet[1] = marker << 7 | sender.payload_type
    put16(packet + 2, sender.seq)
    put32(packet + 4, sender.timestamp)
    put32(packet + 8, sender.ssrc)
    put16(packet + 12, 0xBEDE)
    if sender.mid_id:
        packet[at] = sender.mid_id << 4 | (sender.mid_size - 1)
        memcpy(packet + at + 1, sender.mid, sender.mid_size)
        at += 1 + sender.mid_size
    if sender.wide_id:
        packet[at] = sender.wide_id << 4 | 1
        put16(packet + at + 1, wide_seq)
        at += 3
    if sender.sent_id:  # abs-send-time: seconds in 6.18 fixed point
        sent = <uint32_t>((now // 1000 * 262144) // 1000000)
        packet[at] = sender.sent_id << 4 | 2
        packet[at + 1] = sent >> 16
        put16(packet + at + 2, sent)
        at += 4
    if sender.level_id:  # RFC 6464: voice, -30 dBov
        packet[at] = sender.level_id << 4
        packet[at + 1] = 0x80 | 30
        at += 2
    while at & 3:
        packet[at] = 0
        at += 1
    put16(packet + 14, (at - 16) >> 2)
    sender.seq += 1
    return at


cdef inline int write_stamp(Sender* sender, uint8_t* at, int64_t now) noexcept nogil:
    cdef uint64_t made = now
    put32(at, STAMP_MAGIC)
    put32(at + 4, sender.ssrc)
    put32(at + 8, made >> 32)
    put32(at + 12, made)
    return STAMP


cdef inline int write_audio(Sender* sender, uint8_t* packet, uint16_t wide_seq, int64_t now) noexcept nogil:
    """Write one packet of 20 ms; returns its size."""
    cdef int at = write_head(sender, packet, False, wide_seq, now)
    memset(packet + at, 0x55, AUDIO_BYTES - STAMP)
    at += AUDIO_BYTES - STAMP
    return at + write_stamp(sender, packet + at, now)


cdef inline int begin_frame(Sender* sender, bint* keyframe) noexcept nogil:
    """Decide on the next picture: a keyframe if asked or due; returns its size in bytes."""
    cdef uint32_t size
    keyframe[0] = sender.keyframe_wanted or sender.keyframe_in <= 0
    sender.keyframe_in -= 1
    size = sender.frame_bytes * 3 // 4 + roll(&sender.dice) % (sender.frame_bytes // 2)
    if keyframe[0]:
        sender.keyframe_wanted = False
        sender.keyframe_in = KEYFRAME_EVERY - 1
        size *= KEYFRAME_TIMES
    if size > MAX_PARTS * PART_BYTES:
        size = MAX_PARTS * PART_BYTES
    return size


cdef inline int write_part(
    Sender* sender, uint8_t* packet, int part, int parts, int size, bint keyframe, uint16_t wide_seq, int64_t now
) noexcept nogil:
    """Write one packet of a picture of `size` bytes in so many parts; returns the packet's size."""
    cdef int at = write_head(sender, packet, part == parts - 1, wide_seq, now)
    cdef int body = size // parts + (part >= parts - size % parts)
    cdef int written = 0
    packet[at] = 0x90 if part == 0 else 0x80
    packet[at + 1] = 0x80
    put16(packet + at + 2, 0x8000 | sender.picture)
    at += 4
    if part == 0:  # the frame tag; in a keyframe the start code and 640 x 360
        packet[at] = 0x10 | (not keyframe)
        packet[at + 1] = packet[at + 2] = 0
        written = 3
        if keyframe:
            memcpy(packet + at + 3, b"\x9d\x01\x2a\x80\x02\x68\x01", 7)
            written = 10
    memset(packet + at + written, 0xAA, body - written - STAMP)
    at += body - STAMP
    return at + write_stamp(sender, packet + at, now)


cdef inline bint account(Receiver* receiver, uint16_t seq) noexcept nogil:
    """Note a packet by its sequence number; returns whether it is the first with this number."""
    cdef int64_t ext_seq, gap
    cdef uint64_t bit
    cdef int i
    if receiver.highest < 0:
        receiver.base = receiver.highest = ext_seq = 65536 + seq
    else:
        gap = <int64_t>((seq - <int>(receiver.highest & 0xFFFF)) & 0xFFFF)
        if gap >= 32768:
            gap -= 65536
        ext_seq = receiver.highest + gap
        if gap >= 1024:
            memset(receiver.seen, 0, sizeof(receiver.seen))
        elif gap <= -1024:
            return False
        else:
            for i in range(1, <int>gap + 1):
                receiver.seen[(receiver.highest + i) >> 6 & 15] &= ~(<uint64_t>1 << ((receiver.highest + i) & 63))
        if gap > 0:
            receiver.highest = ext_seq
    bit = <uint64_t>1 << (ext_seq & 63)
    if receiver.seen[ext_seq >> 6 & 15] & bit:
        return False
    receiver.seen[ext_seq >> 6 & 15] |= bit
    receiver.received += ext_seq >= receiver.base
    return True


cdef inline void open_window(Receiver* receiver) noexcept nogil:
    """Begin to count anew, with the packet after the highest one."""
    receiver.base = receiver.highest + 1
    receiver.received = 0
