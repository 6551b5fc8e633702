"""What two browsers may say to each other through us."""

import re
from functools import partial

import pytest

from server.errors import ProtocolError, RefusalError
from server.signalling.messages import IceCandidate, SessionDescription
from server.signalling.negotiation import check_candidate, check_description
from tests.cost import assert_costs_less

_TRANSPORT = """\
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
a=ice-ufrag:Yu2x
a=ice-pwd:rm5ZQW1kVxGmYBHkGvz2nbnG
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
"""
FINGERPRINT = ":".join(f"{byte:02X}" for byte in range(32))
OFFER = """\
v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1 2
a=extmap-allow-mixed
a=msid-semantic: WMS stream
m=audio 9 UDP/TLS/RTP/SAVPF 111 63
{transport}a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=sendrecv
a=msid:stream audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=ssrc:3570614608 cname:4TOk42mSjXCkVIa6
m=video 9 UDP/TLS/RTP/SAVPF 96 97
{transport}a=mid:1
a=sendrecv
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
{transport}a=mid:2
a=sctp-port:5000
a=max-message-size:262144
""".format(transport=_TRANSPORT.format(fingerprint=FINGERPRINT)).replace("\n", "\r\n")
"""An offer as Chromium writes it: sound, picture, a data channel."""

# Firefox: fingerprint and options at session level, sendrecv stated, bundled sections without candidates.
FIREFOX_ANSWER = f"""\
v=0
o=mozilla...THIS_IS_SDPARTA-99.0 3545610190000000000 0 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:sha-256 {FINGERPRINT.lower()}
a=group:BUNDLE 0 2
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=recvonly
a=ice-pwd:9d8be4be2aab1ad60a0cbc0b9ef3ad4b
a=ice-ufrag:e3b8c1d2
a=mid:0
a=rtcp-mux
a=rtpmap:111 opus/48000/2/1
a=setup:active
m=video 0 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=inactive
a=mid:1
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=mid:2
a=sctp-port:5000
a=setup:active
""".replace("\n", "\r\n")


def check(sdp: str, kind="offer", role="patient") -> None:
    check_description(SessionDescription(type=kind, sdp=sdp), role)


def test_what_browsers_write_passes():
    check(OFFER)
    check(OFFER.replace("\r\n", "\n"))
    check(OFFER.replace("a=setup:actpass", "a=setup:passive"), "answer")
    check(FIREFOX_ANSWER, "answer")
    check(re.sub(r"(m=video) 9", r"\1 0", OFFER).replace("a=mid:1", "a=bundle-only\r\na=mid:1"))


def without(line: str) -> str:
    assert line in OFFER
    return OFFER.replace(line + "\r\n", "")


def with_(old: str, new: str) -> str:
    assert old in OFFER
    return OFFER.replace(old, new)


UGLY = {
    "empty": "",
    "not SDP": "hello",
    "no media": OFFER[: OFFER.index("m=")],
    "NUL": with_("opus", "op\0us"),
    "bare CR": with_("opus", "op\rus"),
    "escape": with_("opus", "op\x1bus"),
    "version": with_("v=0", "v=1"),
    "no origin": without("o=- 4611731400430051336 2 IN IP4 127.0.0.1"),
    "no time": without("t=0 0"),
    "order": with_("s=-\r\nt=0 0", "t=0 0\r\ns=-"),
    "two versions": with_("v=0\r\n", "v=0\r\nv=0\r\n"),
    "blank line": with_("t=0 0", "t=0 0\r\n"),
    "unknown line": with_("t=0 0", "t=0 0\r\nx=1"),
    "media line": with_("m=audio 9 UDP", "m=audio UDP"),
    "port": with_("m=audio 9", "m=audio 65536"),
    "half a line": with_("a=sendrecv", "a"),
    "plain RTP": with_("UDP/TLS/RTP/SAVPF 111", "RTP/AVP 111"),
    "SDES profile": with_("UDP/TLS/RTP/SAVPF 111", "RTP/SAVPF 111"),
    "TCP": with_("UDP/TLS/RTP/SAVPF 111", "TCP/TLS/RTP/SAVPF 111"),
    "SCTP over TCP": with_("UDP/DTLS/SCTP", "TCP/DTLS/SCTP"),
    "SCTP of old": with_("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000"),
    "other application": with_("webrtc-datachannel", "wb"),
    "text": with_("m=audio", "m=text"),
    "message": with_("m=application", "m=message"),
    "SDES": with_(
        "a=mid:0", "a=mid:0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
    ),
    "SDES at session level": with_("t=0 0", "t=0 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x"),
    "no rtcp-mux": OFFER.replace("a=rtcp-mux\r\n", "", 1),
    "no fingerprint": without(f"a=fingerprint:sha-256 {FINGERPRINT}"),
    "two certificates": with_("a=sctp-port:5000", "a=sctp-port:5000\r\na=fingerprint:sha-256 " + ":".join(["AB"] * 32)),
    "SHA-1": OFFER.replace(f"sha-256 {FINGERPRINT}", "sha-1 " + ":".join(["AB"] * 20)),
    "MD5": OFFER.replace(f"sha-256 {FINGERPRINT}", "md5 " + ":".join(["AB"] * 16)),
    "short fingerprint": OFFER.replace(FINGERPRINT, FINGERPRINT[:-3]),
    "not hexadecimal": OFFER.replace(FINGERPRINT, FINGERPRINT.replace("1F", "1G")),
    "no bundle": without("a=group:BUNDLE 0 1 2"),
    "outside the bundle": with_("BUNDLE 0 1 2", "BUNDLE 0 1"),
    "lip sync is no bundle": with_("group:BUNDLE", "group:LS"),
    "no mid": without("a=mid:1"),
    "mid twice": with_("a=mid:1", "a=mid:0"),
    "no ufrag": without("a=ice-ufrag:Yu2x"),
    "no password": without("a=ice-pwd:rm5ZQW1kVxGmYBHkGvz2nbnG"),
    "short ufrag": OFFER.replace("Yu2x", "Yu2"),
    "short password": OFFER.replace("rm5ZQW1kVxGmYBHkGvz2nbnG", "rm5ZQW1kVxGmYBHkGvz2n"),
    "long password": OFFER.replace("rm5ZQW1kVxGmYBHkGvz2nbnG", "x" * 257),
    "password with a blank": OFFER.replace("rm5ZQW1kVxGmYBHkGvz2nbnG", "rm5ZQW1kVxGmYBHkGvz2 bnG"),
    "no setup": without("a=setup:actpass"),
    "holdconn": OFFER.replace("actpass", "holdconn"),
    "no sctp-port": without("a=sctp-port:5000"),
    "bad candidate": with_("a=mid:0", "a=mid:0\r\na=candidate:1 1 udp 1 1.2.3.4 99999 typ host"),
    "17 sections": OFFER + "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n" * 14,
    "101 candidates": with_("a=mid:0", "a=mid:0" + "\r\na=candidate:1 1 udp 1 1.2.3.4 9 typ host" * 101),
    "10,000 sections": "v=0\r\n" + "m=a\r\n" * 10_000,
    "3,001 lines": OFFER + "a=x\r\n" * 3001,
    "1 MB": OFFER + "a=x:" + "y" * 1_000_000,
    "almost 64 KiB of one line": OFFER + "m=" + "%" * (65_000 - len(OFFER)),
    "almost 64 KiB of formats": with_("SAVPF 111", "SAVPF" + " 1" * 31_000),
    "almost 64 KiB of spaces": with_("SAVPF 111", "SAVPF" + " " * 60_000),
    "almost 64 KiB of bundle": with_("BUNDLE 0", "BUNDLE" + " 0" * 31_000 + " \x7f"),
    "almost 64 KiB of fingerprint": OFFER.replace(FINGERPRINT, "AB:" * 7000, 1),
    "almost 64 KiB of candidate": with_(
        "a=mid:0", "a=mid:0\r\na=candidate:1 1 udp 1 1.2.3.4 9 typ host" + " a b" * 15_000
    ),
    "2,000 attributes": OFFER + "a=fingerprint:sha-256\r\n" * 2_000,
}


@pytest.mark.parametrize("sdp", UGLY.values(), ids=UGLY)
def test_the_ugliest_is_refused_quickly(sdp):
    def refused() -> None:
        with pytest.raises(ProtocolError):
            check(sdp)

    assert_costs_less(0.050, refused)  # SECURITY.md row 7
    with pytest.raises(ProtocolError) as refusal:
        check(sdp)
    assert refusal.value.code == "bad_sdp"
    assert "opus" not in refusal.value.detail


def test_the_largest_that_is_legal_is_checked_quickly():
    many = OFFER + "a=rtcp-fb:96 nack\r\n" * 2_900
    long = OFFER + "a=" + "%" * (65_536 - len(OFFER) - 4) + "\r\n"
    for sdp in (many, long):
        assert_costs_less(0.050, partial(check, sdp))


def test_an_answer_has_its_own_setup_roles():
    with pytest.raises(ProtocolError, match="setup"):
        check(OFFER, "answer")


@pytest.mark.parametrize(
    ("directions", "permitted"),
    [
        ("recvonly", True),
        ("inactive", True),
        ("sendrecv", False),
        ("sendonly", False),
        ("mid-x", False),  # it does not say: sendrecv (RFC 8866 section 6.7)
    ],
)
def test_what_an_observer_may_send(directions, permitted):
    sdp = OFFER.replace("a=sendrecv", f"a={directions}")
    if permitted:
        check(sdp, role="observer")
    else:
        with pytest.raises(RefusalError, match="not_permitted"):
            check(sdp, role="observer")
    check(sdp, role="guest")


@pytest.mark.parametrize(
    "candidate",
    [
        "",
        "candidate:842163049 1 udp 1677729535 198.51.100.23 46154 typ srflx raddr 10.0.0.17 rport 46154"
        " generation 0 ufrag EEtu network-id 3 network-cost 10",
        "candidate:1 1 UDP 2122252543 3b1d0a5e-6f8a-4f6e-9f61-2b6e5e0a3a9b.local 53124 typ host",
        "candidate:2 1 TCP 2105524479 2001:db8::1 9 typ host tcptype active",
        "candidate:3 2 udp 1 192.0.2.1 0 typ relay raddr 0.0.0.0 rport 0",
    ],
)
def test_candidates_of_browsers(candidate):
    check_candidate(IceCandidate(candidate=candidate, sdp_mid="0", username_fragment="EEtu"))


@pytest.mark.parametrize(
    "candidate",
    [
        "candidate:1 1 udp 1 1.2.3.4 9",
        "candidate:1 1 udp 1 1.2.3.4 65536 typ host",
        "candidate:1 1 sctp 1 1.2.3.4 9 typ host",
        "candidate:1 3 udp 1 1.2.3.4 9 typ host",
        "candidate:1 1 udp 1 1.2.3.4 9 typ magic",
        "candidate:1 1 udp 1 1.2.3.4 9 typ host\r\na=crypto:1",
        "candidate:1 1 udp 1 1.2.3.4 9 typ host\n",
        "candidate:" + "a" * 33 + " 1 udp 1 1.2.3.4 9 typ host",
        "candidate:1 1 udp 1 $(reboot) 9 typ host",
        "a=candidate:1 1 udp 1 1.2.3.4 9 typ host",
        "candidate:1 1 udp 1 1.2.3.4 9 typ host generation",
        "candidate:1 1 udp 1 1.2.3.4 9 typ host  generation 0",
        "candidate:1 1 udp 1 1.2.3.4 9 typ host" + " a b" * 260,
        "candidate:1 1 udp 1 1.2.3.4 9 typ host raddr" + " raddr" * 150,
    ],
)
def test_candidates_that_are_none(candidate):
    def refused() -> None:
        with pytest.raises(ProtocolError, match="bad_sdp"):
            check_candidate(IceCandidate(candidate=candidate))

    assert_costs_less(0.050, refused)


def test_a_username_fragment_that_is_none():
    with pytest.raises(ProtocolError, match="bad_sdp"):
        check_candidate(IceCandidate(candidate="", username_fragment="a b"))
