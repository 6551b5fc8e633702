"""Offers to the media server, and fragments. Allowed: one that can be answered, or ProtocolError("bad_sdp")."""

from hypothesis import example, given
from hypothesis import strategies as st

from server.errors import ProtocolError
from server.signalling import sdp
from server.signalling.media_answer import Agreed, write_answer
from server.signalling.media_negotiation import pick_audio, pick_video, read_offer
from server.signalling.sdpfrag import read_fragment
from tests import offers
from tests.fuzz import fuzz
from tests.server.test_media_negotiation import LOCAL

LINES = [
    line for name in ("chromium", "firefox") for line in offers.browser(name).splitlines() if line[:2] in ("a=", "m=")
]
"""What browsers write, to be put where it does not belong."""
pieces = st.sampled_from(
    ["/", ":", ";", " ", "-", "=", "~", ",", "0", "15", "4294967296", "99999", "é", "٣", "\x00", ""]
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    lines = offers.browser(draw(st.sampled_from(["chromium", "firefox"]))).splitlines()
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                del lines[place]
            case 1:
                lines.insert(place, draw(st.sampled_from(LINES)))
            case 2:
                lines[place] = draw(st.sampled_from(LINES))
            case 3:
                at = draw(st.integers(0, len(lines[place])))
                lines[place] = lines[place][:at] + draw(pieces) + lines[place][at + draw(st.integers(0, 3)) :]
            case _:
                lines[place] = "a=" + draw(st.text(max_size=40))
        if not lines:
            break
    return "\n".join(lines) + "\n"


@fuzz
@given(text=damaged() | st.text(max_size=300))
@example(text="\ud800")
@example(text="")
@example(text=offers.browser("chromium").replace("rtpmap:96", "rtpmap:٩٦"))
def test_any_offer_is_answered_or_refused(text):
    try:
        offer = read_offer(text)
    except ProtocolError as error:
        assert error.code == "bad_sdp"
        return
    agreed = []
    for section in offer.sections:
        codecs = (
            (pick_audio(section) if section.kind == "audio" else pick_video(section, "VP8")) if section.usable else ()
        )
        agreed.append(Agreed(section, codecs, takes=section.sends, gives=section.receives))
    answer = write_answer(offer, LOCAL, agreed, 1, 1, 300_000)
    parsed = sdp.parse(answer, len(offer.sections))
    assert len(parsed.media) == len(offer.sections)


@fuzz
@given(text=st.lists(st.sampled_from(LINES) | st.text(max_size=40), max_size=12).map("\r\n".join))
@example(text="a=ice-ufrag:\r\na=ice-pwd:")
@example(text="a=candidate:" + "1" * 2_000)
def test_any_fragment_is_read_or_refused(text):
    try:
        read_fragment(text)
    except ProtocolError as error:
        assert error.code == "bad_sdp"
