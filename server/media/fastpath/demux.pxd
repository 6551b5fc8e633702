# The demultiplexer itself, inline so that the relay pays no call for it; demux.pyx is its Python face.
#
# One UDP port carries everything of a bundled association, told apart by the first byte (RFC 7983 section 7; RFC 9443
# gives 80-127 and 192-255 to QUIC, which nobody here negotiates):
#
#                      +----------------+
#                      |        [0..3] -+--> STUN                      RFC 8489
#                      |      [16..19] -+--> ZRTP, not spoken: dropped
#          packet -->  |      [20..63] -+--> DTLS                      RFC 6347, 9147
#                      |      [64..79] -+--> TURN channel data         RFC 8656
#                      |    [128..191] -+--> RTP or RTCP               RFC 3550, 3711
#                      +----------------+
#
# RTP and RTCP are told apart by the second byte: 192 to 223 is RTCP (RFC 5761 section 4).
#
# Checked here is what the reader of each kind relies on before it may trust anything: that the header, as far as it is in
# the clear, lies inside the datagram. Authenticity is checked later, by who holds the keys.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum Verdict:
    # Kinds. Most frequent first, as in the code.
    RTP = 0
    RTCP = 1
    STUN = 2
    DTLS = 3
    TURN_CHANNEL = 4
    # Drop reasons: the high bit is set, so that one test tells them from kinds.
    EMPTY = 0x80
    UNKNOWN_PROTOCOL = 0x81
    RTP_TRUNCATED = 0x82
    RTCP_TRUNCATED = 0x83
    STUN_TRUNCATED = 0x84
    STUN_BAD_COOKIE = 0x85
    STUN_BAD_LENGTH = 0x86
    DTLS_TRUNCATED = 0x87
    TURN_CHANNEL_TRUNCATED = 0x88


cdef inline uint16_t read_u16(const uint8_t* data) noexcept nogil:
    """Read 16 bits in network order; the caller has checked the bounds."""
    return <uint16_t>((data[0] << 8) | data[1])


cdef inline uint32_t read_u32(const uint8_t* data) noexcept nogil:
    """Read 32 bits in network order; the caller has checked the bounds."""
    return (<uint32_t>data[0] << 24) | (<uint32_t>data[1] << 16) | (<uint32_t>data[2] << 8) | data[3]


cdef inline uint8_t demux(const uint8_t* data, size_t size) noexcept nogil:
    """Say what a datagram is, or why it is dropped. Reads at most 16 bytes, writes nothing, never fails."""
    cdef uint8_t first
    if size == 0:
        return EMPTY
    first = data[0]
    if first >= 128:
        if first >= 192:
            return UNKNOWN_PROTOCOL
        if size >= 2 and 192 <= data[1] <= 223:
            return demux_rtcp(data, size)
        return demux_rtp(data, size)
    if first <= 3:
        return demux_stun(data, size)
    if 20 <= first <= 63:
        # 13 bytes: the header of a plain record (RFC 6347 section 4.1). From 32 on it is the unified header of DTLS 1.3,
        # whose smallest record is longer: flags, sequence number and 16 bytes of ciphertext (RFC 9147 section 4.2.3).
        return DTLS if size >= 13 else DTLS_TRUNCATED
    if 64 <= first <= 79:
        return demux_turn_channel(data, size)
    return UNKNOWN_PROTOCOL


cdef inline uint8_t demux_rtp(const uint8_t* data, size_t size) noexcept nogil:
    """RTP: the whole header is there. Version 2 needs no check, it is what 128 to 191 means.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |                             SSRC                              |
    |                  CC times: contributing source                |
    |  if X: defined by profile     |  length, in 32-bit words      |

    Spec: RFC 3550 sections 5.1 and 5.3.1. SRTP encrypts none of it (RFC 3711 section 3.1), except the elements inside
    the extension with RFC 6904.
    """
    cdef size_t header = 12 + 4 * <size_t>(data[0] & 0x0F)
    if size < header:
        return RTP_TRUNCATED
    if data[0] & 0x10:
        if size < header + 4:
            return RTP_TRUNCATED
        if size < header + 4 + 4 * <size_t>read_u16(data + header + 2):
            return RTP_TRUNCATED
    return RTP


cdef inline uint8_t demux_rtcp(const uint8_t* data, size_t size) noexcept nogil:
    """RTCP: the eight bytes that SRTCP leaves in the clear are there, and the first packet of the compound fits.

    |V=2|P|   RC    |   PT=192..223 |  length, in 32-bit words - 1  |
    |                         SSRC of sender                        |

    Spec: RFC 3550 section 6.4.1, RFC 3711 section 3.4.
    """
    if size < 8 or size < 4 * (<size_t>read_u16(data + 2) + 1):
        return RTCP_TRUNCATED
    return RTCP


cdef inline uint8_t demux_stun(const uint8_t* data, size_t size) noexcept nogil:
    """STUN: the header is there, the magic cookie is right, and the length is that of the datagram.

    |0 0|  message type             |  length, without these 20     |
    |                  magic cookie 0x2112A442                      |
    |                  transaction id, 96 bits                      |

    Spec: RFC 8489 sections 5 and 6.3. Without the cookie it is the STUN of RFC 3489, which ICE does not use.
    """
    cdef size_t length
    if size < 20:
        return STUN_TRUNCATED
    if read_u32(data + 4) != <uint32_t>0x2112A442:
        return STUN_BAD_COOKIE
    length = read_u16(data + 2)
    if length & 3 or length + 20 != size:
        return STUN_BAD_LENGTH
    return STUN


cdef inline uint8_t demux_turn_channel(const uint8_t* data, size_t size) noexcept nogil:
    """TURN channel data: the header is there and what it announces fits; over UDP, padding may follow.

    |    channel number             |  length                       |

    Spec: RFC 8656 section 12.4 and 12.5.
    """
    if size < 4 or size < 4 + <size_t>read_u16(data + 2):
        return TURN_CHANNEL_TRUNCATED
    return TURN_CHANNEL
