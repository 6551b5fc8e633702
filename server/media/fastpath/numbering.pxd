# How a forward numbers what it sends: a short list of straight pieces.
#
# Within a piece each number of the input becomes one of the output by adding a constant. A new piece begins where the
# source changes and behind each packet that was left out on purpose, so that the output has no gap there:
#
#     in (source 7)  10 11 12 -- 14 15      in (source 9)  501 502        -- left out: a higher temporal layer, padding
#     out            40 41 42    43 44                      45  46
#     pieces         (7: 10 -> 40) (7: 14 -> 43)           (9: 501 -> 45)
#
# A late packet, or one asked for again, is rewritten by the piece that it falls into, exactly as it would have been in its
# time. A packet falls into a piece only below where the next one begins, so that no number is ever used for two.

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t


cdef enum:
    PIECES = 32             # 2 s of a stream at 30 pictures/s of which every other is left out


cdef struct Piece:
    int64_t from_in         # extended sequence numbers
    int64_t from_out
    uint32_t birth          # of the source: slots are used again
    int32_t source
    uint32_t timestamp_delta
    uint16_t picture_delta
    uint16_t frame_delta    # of the dependency descriptor's frame number
    uint8_t tl0_delta


cdef struct Numbering:
    uint32_t count          # pieces ever begun
    Piece pieces[PIECES]


cdef inline Piece* newest(Numbering* numbering) noexcept nogil:
    """The piece that the next packet in order falls into; there must be one."""
    return &numbering.pieces[(numbering.count - 1) % PIECES]


cdef inline Piece* begin_piece(Numbering* numbering) noexcept nogil:
    """A new piece, to be filled in; the oldest is forgotten."""
    numbering.count += 1
    return newest(numbering)


cdef inline void leave_out(Numbering* numbering, int64_t ext_seq) noexcept nogil:
    """Close the gap that this packet of the input, in order, would leave."""
    cdef Piece* last = newest(numbering)
    cdef Piece* piece
    if last.from_in == ext_seq:
        last.from_in += 1
        return
    piece = begin_piece(numbering)
    piece[0] = last[0]
    piece.from_in = ext_seq + 1
    piece.from_out = last.from_out + (ext_seq - last.from_in)


cdef inline Piece* piece_in(Numbering* numbering, uint32_t birth, int64_t ext_seq) noexcept nogil:
    """The piece that a packet of the input falls into; NULL: none remembered, or it was left out."""
    cdef uint32_t i, kept = min(numbering.count, <uint32_t>PIECES)
    cdef Piece* piece
    cdef Piece* after = NULL
    for i in range(kept):
        piece = &numbering.pieces[(numbering.count - 1 - i) % PIECES]
        if piece.birth != birth:
            return NULL
        if piece.from_in <= ext_seq:
            if after != NULL and piece.from_out + (ext_seq - piece.from_in) >= after.from_out:
                return NULL
            return piece
        after = piece
    return NULL


cdef inline Piece* piece_out(Numbering* numbering, int64_t ext_seq) noexcept nogil:
    """The piece that a packet of the output was numbered by; NULL: not remembered."""
    cdef uint32_t i, kept = min(numbering.count, <uint32_t>PIECES)
    cdef Piece* piece
    for i in range(kept):
        piece = &numbering.pieces[(numbering.count - 1 - i) % PIECES]
        if piece.from_out <= ext_seq:
            return piece
    return NULL


cdef inline int64_t unwrap(int64_t highest, uint16_t seq) noexcept nogil:
    """The extended number nearest to the highest so far that ends in these 16 bits (RFC 3550 appendix A.1)."""
    return highest + <int16_t>(seq - <uint16_t>highest)
