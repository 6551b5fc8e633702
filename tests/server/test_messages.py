"""The grammar of the wire: what decodes, what is refused and how, and the browser's types."""

import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.catalogue import LANGUAGES, Catalogue
from server.errors import ProtocolError
from server.signalling import messages
from server.signalling.messages import (
    CLOSE_CODES,
    MAX_MESSAGE_BYTES,
    Candidate,
    ClientMessage,
    Hello,
    IceCandidate,
    ServerMessage,
    StateChanged,
    decode,
    encode,
    tag,
)
from server.signalling.typescript import declarations

PROBLEMS = {
    "not_permitted", "unknown_participant", "unknown_room", "bad_sdp", "bad_order", "room_full", "relay_untrusted",
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


def test_wire_names():
    wire = (
        '{"type":"candidate","to":"b","candidate":'
        '{"candidate":"c","sdpMid":"0","sdpMLineIndex":1,"usernameFragment":"EEtu"}}'
    )
    candidate = IceCandidate(candidate="c", sdp_mid="0", sdp_m_line_index=1, username_fragment="EEtu")
    assert decode(wire) == decode(wire.encode()) == Candidate(to="b", candidate=candidate)
    assert encode(StateChanged(state="waiting", place=2)) == b'{"type":"state","state":"waiting","place":2}'


def test_unknown_members_are_ignored_and_unknown_types_are_not():
    assert tag(decode('{"type":"ready","since":"tomorrow"}')) == "ready"
    with pytest.raises(ProtocolError, match="bad_message"):
        decode('{"type":"dance"}')


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b'"ready"', b"1", b'{"type":1}', b'{"type":"ready"', b'{"type":"ready"}x',
        b'{"type":"\xff"}', b"\xff\xfe", b'{"type":"hello"}',
        b'{"type":"hello","version":"1","tenant":"a","instance":"b"}',
        b'{"type":"hello","version":1,"tenant":"","instance":"b"}',
        b'{"type":"hello","version":1,"tenant":"a","instance":"' + b"b" * 65 + b'"}',
        b'{"type":"hello","version":1e999,"tenant":"a","instance":"b"}',
        b'{"type":"description","to":"a","description":{"type":"rollback","sdp":""}}',
        b'{"type":"candidate","to":"a","candidate":{"candidate":"","sdpMLineIndex":-1}}',
        b'{"type":"candidate","to":"a","candidate":{"candidate":"' + b"c" * 1025 + b'"}}',
        b'{"type":"transfer","participant":"a","room":"../../etc"}',
        b'{"type":"transfer","participant":"a","room":"a\\u0000"}',
        b'{"type":"tell","participant":"a","text":""}',
        b'{"type":"tell","participant":"a","text":"' + b"x" * 501 + b'"}',
        b'{"type":"ready","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"type":"setLanguage","language":"la"}',
        b'{"type":"welcome","id":"a"}',
    ],
)  # fmt: skip
def test_malformed(data):
    with pytest.raises(ProtocolError) as refusal:
        decode(data)
    assert refusal.value.code == "bad_message"
    assert len(refusal.value.detail) < 120


def test_an_error_quotes_nothing_that_was_received():
    with pytest.raises(ProtocolError) as refusal:
        decode('{"type":"canary-type"}')
    assert "canary" not in str(refusal.value)


def test_too_large():
    with pytest.raises(ProtocolError, match="too_large"):
        decode(b'{"type":"ready","x":"' + b"x" * MAX_MESSAGE_BYTES + b'"}')


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_decode_or_are_refused(data):
    try:
        decode(data)
    except ProtocolError as error:
        assert error.code == "bad_message"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3)
    ),
    st.sampled_from([tag(kind) for kind in get_args(ClientMessage)]),
    st.sampled_from(sorted({name for kind in get_args(ClientMessage) for name in kind.__struct_encode_fields__})),
)
def test_any_member_decodes_or_is_refused(value, kind, member):
    try:
        decode(json.dumps({"type": kind, member: value}))
    except ProtocolError as error:
        assert error.code == "bad_message"


def test_messages_do_not_print_what_they_hold():
    hello = Hello(version=1, tenant="canary", instance="canary", secret="canary")
    assert "canary" not in f"{hello} {hello!r} {[hello]}"
    for kind in (*get_args(ClientMessage), *get_args(ServerMessage)):
        assert kind.__repr__ is messages.Hidden.__repr__


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_has_a_sentence(language):
    catalogue = Catalogue.load()
    for code in set(CLOSE_CODES) | PROBLEMS:
        assert catalogue.sentence(language, "error." + code)


def test_tags_are_unique_each_way():
    for union in (ClientMessage, ServerMessage):
        tags = [tag(kind) for kind in get_args(union)]
        assert len(set(tags)) == len(tags)


def test_the_browsers_types_are_current():
    """Otherwise: `python -m server.signalling.messages > web/static/js/rtc/messages.d.ts`."""
    assert (ROOT / "web/static/js/rtc/messages.d.ts").read_text() == declarations()


def test_every_example_of_the_protocol_document_decodes():
    """And there is one of each."""
    text = (ROOT / "server/signalling/PROTOCOL.md").read_text()
    blocks = [block.splitlines() for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    for union, lines in zip((ClientMessage, ServerMessage), blocks, strict=True):
        examples = [msgspec.json.decode(line, type=union) for line in lines]
        assert {type(example) for example in examples} == set(get_args(union))


def test_the_protocol_document_names_every_message_member_and_code():
    text = (ROOT / "server/signalling/PROTOCOL.md").read_text()
    for kind in (*get_args(ClientMessage), *get_args(ServerMessage)):
        assert f"`{tag(kind)}`" in text, kind
        for field in msgspec.structs.fields(kind):
            assert f"`{field.encode_name}`" in text or f'"{field.encode_name}"' in text, (kind, field.encode_name)
    for code, number in CLOSE_CODES.items():
        assert f"| `{code}` | {number} |" in text, code
    for code in PROBLEMS:
        assert f"`{code}`" in text
