"""SDP text <-> dataclasses."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import ProtocolError
from server.signalling import sdp
from tests.cost import assert_costs_less
from tests.server.test_negotiation import FIREFOX_ANSWER, OFFER

# RFC 8866 section 5, the example.
EXAMPLE = """\
v=0
o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1
s=Call to John Smith
i=SDP Offer #1
u=http://www.jdoe.example.com/home.html
e=Jane Doe <jane@jdoe.example.com>
p=+1 617 555-6011
c=IN IP4 198.51.100.1
t=0 0
m=audio 49170 RTP/AVP 0
m=audio 49180 RTP/AVP 0
m=video 51372 RTP/AVP 99
c=IN IP6 2001:db8::2
a=rtpmap:99 h263-1998/90000
""".replace("\n", "\r\n")


@pytest.mark.parametrize("text", [OFFER, FIREFOX_ANSWER, EXAMPLE], ids=["chromium", "firefox", "RFC 8866"])
def test_round_trip(text):
    assert sdp.serialise(sdp.parse(text)) == text
    assert sdp.serialise(sdp.parse(text.replace("\r\n", "\n").rstrip("\n"))) == text


def test_what_is_found():
    parsed = sdp.parse(OFFER)
    audio, video, data = parsed.media
    assert (audio.kind, audio.port, audio.protocol, audio.formats) == ("audio", 9, "UDP/TLS/RTP/SAVPF", ["111", "63"])
    assert (video.values("mid"), video.has("rtcp-mux"), video.has("sctp-port")) == (["1"], True, False)
    assert audio.values("rtcp-mux") == [""]
    assert data.formats == ["webrtc-datachannel"]
    assert parsed.session.values("group") == ["BUNDLE 0 1 2"]
    assert parsed.session.values("mid") == []


def test_names_that_only_begin_alike_are_others():
    parsed = sdp.parse(EXAMPLE + "a=midi:1\r\na=rtcp-mux-only\r\na=setup\r\na=mid:2\r\na=mid:3\r\n")
    assert parsed.media[-1].attributes == {"setup": [""], "mid": ["2", "3"]}


def test_several_times_and_repeats():
    lines = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=1 2\r\nr=1 2 3\r\nt=3 4\r\nr=1 2 3\r\nz=0 0\r\na=x\r\n"
    assert sdp.serialise(sdp.parse(lines)) == lines


def test_it_does_not_print_what_it_holds():
    assert "111" not in repr(sdp.parse(OFFER))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "a line missing, twice, out of order or not of the form x=value"),
        ("v", "a line missing, twice, out of order or not of the form x=value"),
        ("v=0\r\n\r\n", "a line missing, twice, out of order or not of the form x=value"),
        ("v=0\r\n", "a line missing, twice, out of order or not of the form x=value"),
        ("o=- 1 1 IN IP4 0.0.0.0\r\nv=0", "a line missing, twice, out of order or not of the form x=value"),
        (
            EXAMPLE.replace("s=Call to John Smith", "s=a\r\ns=b"),
            "a line missing, twice, out of order or not of the form x=value",
        ),
        (EXAMPLE + "i=late\r\n", "a line missing, twice, out of order or not of the form x=value"),
        (EXAMPLE.replace("m=video 51372", "m=video"), "a media line that does not parse"),
        (EXAMPLE.replace("Jane", "Ja\0ne"), "a line missing, twice, out of order or not of the form x=value"),
        (EXAMPLE.replace("RTP/AVP 99", "RTP/AVP" + " 99" * 257), "a media line that does not parse"),
        (EXAMPLE.replace("v=0", "v=1"), "a line missing, twice, out of order or not of the form x=value"),
        (EXAMPLE + "a=x\n", "a line missing, twice, out of order or not of the form x=value"),
        (EXAMPLE.replace("\r\n", "\n") + "a=x\r", "a line missing, twice, out of order or not of the form x=value"),
        (EXAMPLE.replace("m=video 51372", "m=video 123456"), "a media line that does not parse"),
        (EXAMPLE.replace("m=video 51372", "m=video \u0663"), "a media line that does not parse"),
        (EXAMPLE + "a\r\n=\r\n", "a line missing, twice, out of order or not of the form x=value"),
        (EXAMPLE + "a=x\r\n" * 3000, "more than 3000 lines"),
        (EXAMPLE + "m=video 1 RTP/AVP 99\r\n" * 14, "more than 16 media sections"),
        (EXAMPLE + "a=candidate:\r\n" * 101, "more than 100 candidates"),
        (EXAMPLE + "a=" + "x" * 65_536, "more than 65536 bytes"),
    ],
)
def test_errors(text, error):
    with pytest.raises(ProtocolError) as refusal:
        sdp.parse(text)
    assert (refusal.value.code, refusal.value.detail) == ("bad_sdp", error)


@given(
    st.lists(st.sampled_from([*OFFER.split("\r\n"), "a=candidate:1", "m=", "", "v=0", "a=" + "x" * 300]), max_size=400)
)
def test_any_lines_parse_or_are_refused(lines):
    text = "\r\n".join(lines)

    def parses_or_is_refused() -> None:
        with suppress(ProtocolError):
            assert sdp.serialise(sdp.parse(text)).removesuffix("\r\n") == text.removesuffix("\r\n")

    assert_costs_less(0.050, parses_or_is_refused)


@given(st.text(max_size=2000))
def test_any_text_parses_or_is_refused(text):
    with pytest.raises(ProtocolError):
        sdp.parse("v=0\r\n" + text)
