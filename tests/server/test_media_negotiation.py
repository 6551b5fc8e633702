"""What is read out of an offer towards the media server, and what the answer says."""

import json
import re

import pytest

from server.errors import ProtocolError, RefusalError
from server.media.parameters import (
    CodecParameters,
    DtlsParameters,
    Endpoint,
    Fingerprint,
    IceParameters,
    LocalParameters,
    SendParameters,
)
from server.signalling import sdp
from server.signalling.media_answer import Agreed, write_answer
from server.signalling.media_negotiation import (
    choose_flavour,
    flavour,
    one_way,
    pick_audio,
    pick_video,
    read_offer,
)
from server.signalling.messages import RelayOffer, decode
from tests import offers
from tests.cost import assert_costs_less
from tests.offers import SIMULCAST, offer, section

CANDIDATES = (Endpoint("192.0.2.1", 10_000), Endpoint("2001:db8::1", 10_000), Endpoint("192.0.2.1", 10_000, "tcp"))
LOCAL = LocalParameters(
    IceParameters("ourufrag", "ourpasswordof22characters"),
    DtlsParameters((Fingerprint("sha-256", offers.FINGERPRINT),), "server"),
    CANDIDATES,
)
STREAM = SendParameters("1", 1111, 2222, (), "colloque", "")


def answer(text, *agreed, local=LOCAL):
    return write_answer(read_offer(text), local, agreed, 7, 1, 300_000)


def agree(text, chosen="VP8", **more):
    """Everything that can be is agreed: what is sent is taken, and something is sent wherever there is room."""
    agreed = []
    for part in read_offer(text).sections:
        codecs = (pick_audio(part) if part.kind == "audio" else pick_video(part, chosen)) if part.usable else ()
        agreed.append(
            Agreed(
                part, codecs, takes=part.sends, gives=part.receives, stream=STREAM if part.receives else None,
                whose="ada", source="room.1:0", **more,
            )
        )  # fmt: skip
    return answer(text, *agreed)


def parts(text):
    head, *rest = text.split("\r\nm=")
    return head, rest


class TestBrowsers:
    def test_chromium(self):
        audio, video, hear, see = read_offer(offers.browser("chromium")).sections
        assert [s.direction for s in (audio, video, hear, see)] == ["sendonly", "sendonly", "recvonly", "recvonly"]
        assert [(c.name, c.payload_type) for c in audio.codecs] == [("opus", 111), ("red", 63)]
        assert video.rids == ("q", "h", "f")
        assert [e.rid for e in video.encodings] == ["q", "h", "f"]
        vp8 = pick_video(video, "VP8")[0]
        assert (vp8.payload_type, vp8.rtx_payload_type) == (96, 97)
        assert set(vp8.feedback) == {"nack", "nack pli", "ccm fir", "transport-cc"}
        assert pick_video(video, "H264/baseline/1")[0].payload_type == 108  # Constrained Baseline before Baseline
        assert {"VP8", "H264/baseline/1", "VP9/0", "AV1/0"} <= see.flavours
        assert audio.encodings[0].ssrc and audio.cname
        assert len(video.extensions) == 7

    def test_firefox(self):
        offer_ = read_offer(offers.browser("firefox"))
        audio, video, _, see = offer_.sections
        assert video.rids == ("q", "h", "f")
        assert (audio.codecs[0].payload_type, pick_video(video, "VP8")[0].payload_type) == (109, 120)
        assert offer_.video_flavours == {"VP8", "VP9/0", "AV1/0"}
        dependency = next(extension for extension in see.extensions if "dependency" in extension.uri)
        assert dependency in video.track((), "recvonly").extensions
        assert dependency not in see.track((), "sendonly").extensions, "Firefox sends it and does not read it"
        assert f"a=extmap:{dependency.id}/recvonly" in agree(offers.browser("firefox"))

    def test_twelve_people_fit_into_a_message(self):
        text = offers.browser("chromium-twelve").replace("\n", "\r\n")
        message = {
            "type": "relayOffer",
            "connection": "0123456789abcdef0123456789abcdef0123",
            "description": {"type": "offer", "sdp": text},
            "efficient": ["H264"],
        }
        decoded = decode(json.dumps(message))  # ProtocolError above the limit
        assert isinstance(decoded, RelayOffer)
        audio, video, *receiving = read_offer(decoded.description.sdp).sections
        assert len(receiving) == 22 and video.rids == ("q", "h", "f") and audio.sends
        for see in receiving[1::2]:
            assert see.flavours == {"VP8", "H264/baseline/1", "H264/main/1", "VP9/0", "AV1/0"}
            assert all(codec.rtx_payload_type for codec in see.codecs)

    @pytest.mark.parametrize("name", ["chromium", "firefox"])
    def test_the_answer_is_one(self, name):
        text = agree(offers.browser(name))
        parsed = sdp.parse(text)
        assert [s.values("mid") for s in parsed.media] == [["0"], ["1"], ["2"], ["3"]]
        assert [s.port for s in parsed.media] == [10_000] * 4
        head, (audio, video, hear, see) = parts(text)
        assert "a=ice-lite" in head and "a=group:BUNDLE 0 1 2 3" in head
        for part, direction in ((audio, "recvonly"), (video, "recvonly"), (hear, "sendonly"), (see, "sendonly")):
            assert f"a={direction}\r\n" in part and "a=rtcp-mux" in part
            for name in ("setup:passive\r\n", "ice-ufrag:", "ice-pwd:", "fingerprint:sha-256 "):
                assert part.count(f"a={name}") == 1 and name not in head, "Pion reads it in sections only"
        assert "a=simulcast:recv q;h;f" in video and "a=rid:h recv" in video
        assert "x-google-start-bitrate=300" in video and "x-google" not in see
        assert video.count("a=rtpmap") == 2, "the room's codec and its rtx, nothing else"
        assert "a=msid:ada room.1.0" in see and "a=ssrc-group:FID 1111 2222" in see
        assert "a=candidate:1 1 udp" in audio and "tcptype passive" in audio and "a=candidate" not in video
        assert re.search(r"c=IN IP4 192\.0\.2\.1", audio)

    @pytest.mark.parametrize("name", ["chromium", "firefox"])
    async def test_another_stack_accepts_offer_and_answer(self, name):
        from aiortc.sdp import SessionDescription

        assert len(SessionDescription.parse(offers.browser(name)).media) == 4
        assert len(SessionDescription.parse(agree(offers.browser(name))).media) == 4


class TestTransport:
    @pytest.mark.parametrize(("setup", "ours"), [("actpass", "passive"), ("active", "passive"), ("passive", "active")])
    def test_we_are_the_dtls_server_unless_they_insist(self, setup, ours):
        text = offer(section("audio", "sendonly"), setup=setup)
        assert read_offer(text).dtls.role == {"actpass": "auto", "active": "client", "passive": "server"}[setup]
        local = LocalParameters(
            LOCAL.ice, DtlsParameters(LOCAL.dtls.fingerprints, "client" if ours == "active" else "server"), CANDIDATES
        )
        part = read_offer(text).sections[0]
        assert f"a=setup:{ours}\r\n" in answer(text, Agreed(part, part.codecs, takes=True), local=local)

    def test_candidates_are_ordered_and_tcp_is_last(self):
        text = agree(offer(section("audio", "sendonly")))
        priorities = [int(n) for n in re.findall(r"a=candidate:\d 1 \w+ (\d+)", text)]
        assert priorities == sorted(priorities, reverse=True)
        assert len(set(priorities)) == 3

    def test_fingerprint_and_credentials(self):
        read = read_offer(offer(section("audio", "sendonly"), fingerprint=offers.FINGERPRINT.lower()))
        assert read.dtls.fingerprints == (Fingerprint("sha-256", offers.FINGERPRINT),)
        assert (read.ice.ufrag, read.ice.pwd) == ("Yu2x", "rm5ZQW1kVxGmYBHkGvz2nbnG")

    def test_one_certificate_by_several_hashes(self):
        more = f"a=fingerprint:sha-512 {':'.join(['AB'] * 64)}\na=fingerprint:sha-1 {':'.join(['AB'] * 20)}\n"
        text = offer(section("audio", "sendonly", more=more))
        assert [f.algorithm for f in read_offer(text).dtls.fingerprints] == ["sha-256", "sha-512"]
        with pytest.raises(ProtocolError, match="certificate"):
            read_offer(text.replace("sha-512", "sha-256"))

    def test_a_bundled_transport_in_the_first_section_only(self):
        text = offer(section("audio", "sendonly"), section("video", "sendonly").replace("video 9", "video 0"))
        bundled = text.replace("a=mid:1\n", "a=bundle-only\na=mid:1\n")
        assert [s.usable for s in read_offer(bundled).sections] == [True, True]
        assert [s.usable for s in read_offer(text).sections] == [True, False], "port 0 without bundle-only is stopped"


class TestSections:
    @pytest.mark.parametrize(
        "refused",
        [
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:1\na=sctp-port:5000\n",
            "m=text 9 RTP/AVP 98\nc=IN IP4 0.0.0.0\na=mid:1\n",
            section("video", "sendonly").replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
            section("video", "sendonly").replace("a=rtcp-mux\n", ""),
        ],
        ids=["data", "text", "plain", "without mux"],
    )
    def test_what_is_not_ours_is_refused_alone(self, refused):
        text = agree(offer(section("audio", "sendonly"), refused))
        head, (_, other) = parts(text)
        assert "a=group:BUNDLE 0\r\n" in head + "\r\n"
        assert re.match(r"\w+ 0 ", other) and "a=inactive" in other

    def test_a_data_channel_first(self):
        data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:0\na=sctp-port:5000\n"
        _, (refused, audio) = parts(agree(offer(data, section("audio", "sendonly"))))
        assert refused.startswith("application 0") and "a=candidate" in audio

    @pytest.mark.parametrize(
        ("simulcast", "taken"),
        [
            (SIMULCAST, ("q", "h", "f")),
            (SIMULCAST.replace("q;h;f", "f;h;q"), ("q", "h", "f")),
            (SIMULCAST.replace("q;h;f", "~q;h,f"), ("q", "h")),
            (SIMULCAST.replace("q;h;f", "q;x"), ("q",)),
            ("a=rid:hi send pt=96\na=rid:lo send\na=simulcast:send hi;lo\n", ("hi",)),
            ("a=rid:f send\n", ("f",)),
            ("a=rid:q recv\na=simulcast:recv q\n", ()),
            ("a=simulcast:send q;h\n", ()),
            ("", ()),
        ],
    )
    def test_simulcast(self, simulcast, taken):
        part = read_offer(offer(section("video", "sendonly", more=simulcast))).sections[0]
        assert part.rids == taken
        assert [e.rid for e in part.encodings] == list(taken or [""])

    def test_what_is_paused_stays_so(self):
        text = offer(section("video", "sendonly", more=SIMULCAST.replace("q;h;f", "~q;~h;f")))
        assert "a=simulcast:recv ~q;~h;f\r\n" in agree(text)
        assert all(encoding.active for encoding in read_offer(text).sections[0].encodings), "they may come any time"

    def test_nobody_simulcasts_where_they_receive(self):
        assert read_offer(offer(section("video", "recvonly", more=SIMULCAST))).sections[0].encodings == ()

    def test_streams_named_by_ssrc(self):
        more = "a=ssrc-group:FID 5 6\na=ssrc:5 cname:x\na=ssrc:6 cname:x\n"
        encoding = read_offer(offer(section("video", "sendonly", more=more))).sections[0].encodings[0]
        assert (encoding.ssrc, encoding.rtx_ssrc, encoding.rid) == (5, 6, "")

    def test_goog_remb_only_without_transport_cc(self):
        remb, both = "a=rtcp-fb:96 goog-remb\n", "a=rtcp-fb:* transport-cc\n"
        for more, kept in ((remb, True), (remb + both, False)):
            codec = read_offer(offer(section("video", "sendonly", more=more))).sections[0].codecs[0]
            assert ("goog-remb" in codec.feedback) is kept

    def test_red_in_the_order_of_the_offerer_and_first_where_wanted(self):
        part = read_offer(offer(section("audio", "sendonly", "red", "opus"))).sections[0]
        assert [c.name for c in pick_audio(part)] == ["red", "opus"]
        assert [c.name for c in pick_audio(part, "opus")] == ["opus", "red"]
        alone = read_offer(offer(section("audio", "sendonly", "red"))).sections[0]
        assert pick_audio(alone) == (), "RED carries Opus: without it there is nothing"

    def test_one_way(self):
        both = read_offer(offer(section("audio", "sendrecv"), section("video", "recvonly")))
        assert [s.direction for s in one_way(both, "sendonly").sections] == ["sendonly", "inactive"]
        assert [s.direction for s in one_way(both, "recvonly").sections] == ["recvonly", "recvonly"]
        with pytest.raises(RefusalError, match="wrong_way"):
            one_way(read_offer(offer(section("audio", "recvonly"))), "sendonly")


def h264(**parameters):
    names = {name.replace("_", "-"): value for name, value in parameters.items()}
    return flavour(CodecParameters("H264", 100, 90_000, parameters=tuple(names.items())))


class TestCodecs:
    @pytest.mark.parametrize(
        ("parameters", "expected"),
        [
            ({"profile_level_id": "42e01f", "packetization_mode": "1"}, "H264/baseline/1"),
            ({"profile_level_id": "42001F", "packetization_mode": "1"}, "H264/baseline/1"),
            ({"profile_level_id": "4D0032", "packetization_mode": "1"}, "H264/main/1"),
            ({"profile_level_id": "640c1f"}, "H264/high/0"),
            ({"profile_level_id": "f4001f"}, "H264/other/0"),
            ({}, "H264/baseline/0"),
        ],
    )
    def test_flavours(self, parameters, expected):
        assert h264(**parameters) == expected

    ALL = frozenset({"VP8", "H264/baseline/1", "H264/baseline/0", "VP9/0", "AV1/0"})
    VP8, H264 = frozenset({"VP8"}), frozenset({"H264/baseline/1"})

    @pytest.mark.parametrize(
        ("current", "everybody", "efficient", "improve", "chosen"),
        [
            ("VP8", [ALL, ALL], [], True, "VP8"),
            ("VP8", [ALL, ALL], ["H264"], True, "H264/baseline/1"),
            ("VP8", [ALL, VP8], ["H264"], True, "VP8"),
            ("VP8", [ALL, ALL], ["H264"], False, "VP8"),
            ("H264/baseline/1", [ALL, VP8], ["H264"], False, "VP8"),
            ("VP8", [ALL, H264], [], False, "H264/baseline/1"),
            ("VP8", [ALL, ALL], ["AV1"], True, "AV1/0"),
            ("VP8", [ALL, ALL], ["AV1", "VP9"], True, "VP9/0"),
            ("AV1/0", [ALL, ALL - {"AV1/0"}], ["AV1"], False, "VP8"),
            ("VP8", [VP8, H264], [], True, None),
            ("VP8", [], [], True, "VP8"),
        ],
    )
    def test_the_best_that_all_have(self, current, everybody, efficient, improve, chosen):
        assert choose_flavour(current, everybody, efficient, improve) == chosen


GOOD = offer(section("audio", "sendonly"), section("video", "sendonly", more=SIMULCAST))


@pytest.mark.parametrize(
    ("find", "put"),
    [
        ("v=0\n", ""),
        ("a=group:BUNDLE 0 1\n", "a=group:BUNDLE 0\n"),
        ("a=mid:1\n", "a=mid:0\n"),
        ("a=mid:1\n", "a=mid:a-mid-of-17-bytes\n"),
        ("a=setup:actpass", "a=setup:holdconn"),
        ("a=ice-ufrag:Yu2x\n", ""),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1"),
        ("a=fingerprint:sha-256", "a=ice-lite\na=fingerprint:sha-256"),
        ("a=extmap:3 ", "a=extmap:15 "),
        ("a=extmap:3 ", "a=extmap:70000 "),
        ("a=rid:q send\n", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\n"),
        ("a=rid:q send\n", "a=candidate:nonsense\n"),
        ("a=rid:q send\n", "a=extmap:3 urn:3gpp:video-orientation\n"),
        ("m=", "m=x 9 y z\nm="),
        ("m=audio 9", "m=audio 70000"),
    ],
)
def test_ugly_offers_are_refused(find, put):
    assert find in GOOD
    text = GOOD.replace(find, put, 1)
    if put.startswith("m=x"):
        text = GOOD + "m=x 9 y z\n" * 60
    with pytest.raises(ProtocolError) as caught:
        read_offer(text)
    assert caught.value.code == "bad_sdp"


@pytest.mark.parametrize(
    "repeated",
    [
        "a=rtcp-fb:* nack\na=rtpmap:96 VP8/90000\n",
        "a=rtcp-fb:96 nack\na=rtpmap:96 VP8/90000\n",
        "a=rtpmap:96 rtx/90000\na=fmtp:96 apt=96\n",
        "a=fmtp:96 a=b;a=b;a=b;a=b\na=rtpmap:96 VP8/90000\n",
        "a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\na=rid:q send\n",
        "a=ssrc:{n} cname:x\na=ssrc-group:FID 9{n} {n}\n",
        "a=fmtp:{n} apt=96\na=rtcp-fb:{n} nack\n",
    ],
)
def test_repetition_costs_next_to_nothing(repeated):
    """SECURITY.md row 7: 50 ms for the ugliest 64 KiB."""
    text = offer(section("video", "sendonly"))
    times = min(1450, (sdp.MAX_BYTES - 2000) // (len(repeated) + 2))
    text += "".join(repeated.replace("{n}", str(number)) for number in range(1, times))
    assert_costs_less(0.020, lambda: read_offer(text))


def test_a_payload_type_has_one_spelling():
    assert read_offer(offer(section("video", "sendonly").replace("96", "096"))).sections[0].codecs[0].name == "H264"


def test_a_full_room_fits_into_a_message():
    """Of Firefox as it is; Chromium's page names fewer codecs to receive (PROTOCOL.md)."""
    head, own, pair = offers.browser("firefox").split("m=audio")
    text = head.replace("BUNDLE 0 1 2 3", "BUNDLE " + " ".join(map(str, range(24)))) + "m=audio" + own
    for mid in range(2, 24, 2):
        text += "m=audio" + pair.replace("a=mid:2", f"a=mid:{mid}").replace("a=mid:3", f"a=mid:{mid + 1}")
    assert len(read_offer(text).sections) == 24
