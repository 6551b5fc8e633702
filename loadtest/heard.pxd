# RTCP that reaches a load participant, as far as a sender heeds it: requests for keyframes. The rest is counted.
#
# Spec: RFC 4585 sections 6.2.1 and 6.3.1 (NACK, PLI), RFC 5104 section 4.3.1 (FIR),
# draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.

from libc.stdint cimport uint8_t, uint32_t

from loadtest.streams cimport get16, get32


cdef enum:
    ASKED = 16                  # keyframes asked for in one compound; more are not heeded


cdef struct Heard:
    uint32_t ssrcs[ASKED]       # whose keyframe is wanted
    int asked, nacks, feedback


cdef inline void _ask(Heard* heard, uint32_t ssrc) noexcept nogil:
    if heard.asked < ASKED:
        heard.ssrcs[heard.asked] = ssrc
        heard.asked += 1


cdef inline void read_rtcp(const uint8_t* packet, int size, Heard* heard) noexcept nogil:
    """Read a compound, decrypted, up to where it contradicts itself."""
    cdef int place = 0, end, kind, form, i
    heard.asked = heard.nacks = heard.feedback = 0
    while place + 8 <= size:
        end = place + 4 + 4 * get16(packet + place + 2)
        if end > size:
            return
        form, kind = packet[place] & 31, packet[place + 1]
        if kind == 206 and form == 1 and end - place >= 12:
            _ask(heard, get32(packet + place + 8))
        elif kind == 206 and form == 4:
            for i in range(place + 12, end - 7, 8):
                _ask(heard, get32(packet + i))
        elif kind == 205 and form == 1:
            heard.nacks += 1
        elif kind == 205 and form == 15:
            heard.feedback += 1
        place = end
