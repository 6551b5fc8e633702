"""What a PATCH to a WHIP or WHEP resource may hold."""

import pytest

from server.errors import ProtocolError
from server.media.parameters import IceParameters
from server.signalling.sdpfrag import read_fragment, write_fragment
from tests.server.test_media_negotiation import LOCAL

CANDIDATES = "m=audio 9 RTP/AVP 0\na=mid:0\na=candidate:1 1 udp 2130706431 192.0.2.9 9 typ host\na=end-of-candidates\n"
CREDENTIALS = "a=ice-ufrag:Yu2x\na=ice-pwd:rm5ZQW1kVxGmYBHkGvz2nbnG\n"


def test_candidates_alone():
    assert read_fragment(CANDIDATES) is None
    assert read_fragment(CANDIDATES.replace("\n", "\r\n")) is None


@pytest.mark.parametrize("text", [CREDENTIALS + CANDIDATES, CANDIDATES + CREDENTIALS, CREDENTIALS + CREDENTIALS])
def test_credentials(text):
    assert read_fragment(text) == IceParameters("Yu2x", "rm5ZQW1kVxGmYBHkGvz2nbnG")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "a=candidate:x\n",
        "a=ice-ufrag:Yu2x\n",
        CREDENTIALS + "a=ice-ufrag:other\n",
        CREDENTIALS.replace("Yu2x", "Y"),
        CREDENTIALS.replace("rm5Z", "r m"),
        CANDIDATES * 200,
        "a=x:\x00\n",
        "a=" + "x" * 20_000,
        "a=candidate:1 1 udp 2130706431 192.0.2.9 9 typ host\n" * 101,
    ],
)
def test_ugly_ones(text):
    with pytest.raises(ProtocolError) as caught:
        read_fragment(text)
    assert caught.value.code == "bad_sdp"


def test_ours_can_be_read():
    text = write_fragment(LOCAL, "video", "cam")
    assert read_fragment(text) == LOCAL.ice
    assert text.index("m=video 9 UDP") < text.index("a=mid:cam") < text.index("a=candidate")
