"""Datagrams to the demultiplexer. Allowed: a verdict, without a byte read past the end."""

import ctypes
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.media.fastpath.demux import DropReason, Kind, classify
from tests.fuzz import fuzz

PROT_NONE = 0


@pytest.fixture(scope="module")
def brink():
    """A page of memory after which the next byte, if read, ends the process."""
    pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + mmap.PAGESIZE), mmap.PAGESIZE, PROT_NONE) == 0
    return memoryview(pages)[: mmap.PAGESIZE]


heads = st.builds(
    lambda first, second, rest: bytes([first, second]) + rest,
    st.sampled_from([0, 1, 3, 16, 20, 22, 63, 64, 79, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0]),
    st.sampled_from([0, 1, 96, 111, 191, 192, 200, 223, 224, 255]),
    st.binary(max_size=120),
)


@fuzz
@given(datagram=heads | st.binary(max_size=1500))
def test_any_datagram_gets_a_verdict(brink, datagram):
    at_the_end = brink[len(brink) - len(datagram) :]
    at_the_end[:] = datagram
    assert isinstance(classify(at_the_end), Kind | DropReason)
