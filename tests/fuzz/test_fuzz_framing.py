"""A byte stream to the TCP framing. Allowed: frames as they were sent, and frames too long told; however it is cut."""

from hypothesis import example, given
from hypothesis import strategies as st

from server.media.fastpath.framing import Reader
from tests.fuzz import fuzz

MOST = 1500


def frames_in(stream: bytes) -> list[bytes | None]:
    """RFC 4571, as plainly as can be: the frames that are there to their end, or their header if they are too long."""
    frames: list[bytes | None] = []
    while len(stream) >= 2:
        size, rest = int.from_bytes(stream[:2]), stream[2:]
        if size <= MOST and len(rest) < size:
            break
        frames.append(rest[:size] if size <= MOST else None)
        stream = rest[size:]
    return frames


def read(stream: bytes, cuts: list[int]) -> list[bytes | None]:
    reader, frames = Reader(), []
    for cut in cuts:
        frames += reader.feed(stream[:cut])
        stream = stream[cut:]
    return frames + reader.feed(stream)


sizes = st.one_of(st.integers(0, 40), st.sampled_from([MOST - 1, MOST, MOST + 1, 0xFFFF]), st.integers(0, 0xFFFF))
pieces = st.builds(lambda size, body: size.to_bytes(2) + body, sizes, st.binary(max_size=40))
whole = st.builds(lambda size: size.to_bytes(2) + b"\x7f" * size, sizes)


@fuzz
@given(
    stream=st.lists(pieces | whole | st.binary(max_size=5), max_size=8).map(b"".join),
    cuts=st.lists(st.integers(0, 4) | st.integers(0, 3000), max_size=12),
)
@example(stream=(MOST + 1).to_bytes(2) + bytes(MOST + 1) + b"\x00\x01!", cuts=[1, 1, MOST, 1, 1])
def test_a_stream_gives_the_same_frames_however_it_is_cut(stream, cuts):
    assert read(stream, cuts) == frames_in(stream)
