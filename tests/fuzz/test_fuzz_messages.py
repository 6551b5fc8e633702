"""WebSocket messages to the decoder. Allowed: a message of the protocol, or ProtocolError with one of its codes."""

import json
import typing

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import ProtocolError
from server.signalling import messages
from tests.fuzz import fuzz

MEMBERS = {
    kind.__struct_config__.tag: kind.__struct_encode_fields__ for kind in typing.get_args(messages.ClientMessage)
}
"""The members of each type, so that examples get past the first check."""
NAMES = sorted(
    {name for names in MEMBERS.values() for name in names} | {"sdp", "candidate", "clinician", "offer", "on"}
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(NAMES)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
shaped = st.sampled_from(sorted(MEMBERS)).flatmap(
    lambda kind: st.fixed_dictionaries({"type": st.just(kind)}, optional=dict.fromkeys(MEMBERS[kind], values))
)


@fuzz
@given(data=shaped.map(json.dumps) | values.map(json.dumps) | st.text(max_size=200) | st.binary(max_size=200))
@example(data="[" * 60_000)
@example(data='{"type":' * 8_000)
@example(data='{"type":"hello","type":"hello"}')
@example(data="\ud800")
@example(data=b"\xff\xfe\x00")
@example(data=" " * 65_537)
def test_any_message_is_decoded_or_refused(data):
    try:
        message = messages.decode(data)
    except ProtocolError as error:
        assert error.code in ("bad_message", "too_large")
        assert len(error.detail) < 300
    else:
        assert isinstance(message, msgspec.Struct)
