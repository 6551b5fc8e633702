"""Datagrams in a byte stream, each with its length before it: the Python face of framing.pxd, for tests.

Driven by: the streams of the socket loop, which cimport `next_frame()`; anybody else, through `Reader`.
Spec: RFC 4571 section 2.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from server.media.fastpath cimport framing as core


cdef class Reader:
    """See framing.pyi."""

    cdef core.Deframer state

    def feed(self, const uint8_t[::1] data not None):
        cdef size_t size = data.shape[0]
        cdef const uint8_t* at = &data[0] if size else NULL
        cdef const uint8_t* frame = NULL
        cdef uint32_t length = 0
        cdef core.Progress progress
        cdef list frames = []
        while size:
            progress = core.next_frame(&self.state, &at, &size, &frame, &length)
            if progress == core.FRAME_WHOLE:
                frames.append(frame[:length])
            elif progress == core.FRAME_TOO_LONG:
                frames.append(None)
        return frames
