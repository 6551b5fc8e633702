"""Offers towards the media server, built from sections: of browsers, and of devices over WHIP and WHEP."""

from pathlib import Path

VECTORS = Path(__file__).parent / "vectors" / "sdp"
FINGERPRINT = ":".join(f"{byte:02X}" for byte in range(32))
MID = "a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\n"
SIMULCAST = "a=rid:q send\na=rid:h send\na=rid:f send\na=simulcast:send q;h;f\n"

CODECS = {
    "opus": "a=rtpmap:{n} opus/48000/2\na=rtcp-fb:{n} transport-cc\na=fmtp:{n} minptime=10;useinbandfec=1\n",
    "red": "a=rtpmap:{n} red/48000/2\na=fmtp:{n} 111/111\n",
    "VP8": (
        "a=rtpmap:{n} VP8/90000\na=rtcp-fb:{n} nack\na=rtcp-fb:{n} nack pli\n"
        "a=rtpmap:{r} rtx/90000\na=fmtp:{r} apt={n}\n"
    ),
    "VP9": "a=rtpmap:{n} VP9/90000\na=rtcp-fb:{n} nack\na=fmtp:{n} profile-id=0\n",
    "AV1": "a=rtpmap:{n} AV1/90000\na=rtcp-fb:{n} nack\n",
    "H264": (
        "a=rtpmap:{n} H264/90000\na=rtcp-fb:{n} nack\n"
        "a=fmtp:{n} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\n"
    ),
}
NUMBERS = {"opus": 111, "red": 63, "VP8": 96, "VP9": 98, "AV1": 45, "H264": 108}


def browser(name: str) -> str:
    """What a real browser offers: its microphone, its camera with three encodings, and one pair to receive in."""
    return (VECTORS / f"offer-{name}.sdp").read_text()


def section(kind: str, direction: str, *codecs: str, more: str = "", mid: str = "{mid}") -> str:
    """A media section; `{mid}` is filled in by `offer`."""
    codecs = codecs or {"audio": ("opus",), "video": ("VP8", "H264")}[kind]
    numbers = [NUMBERS[codec] for codec in codecs]
    formats = [f"{n} {n + 1}" if codec == "VP8" else str(n) for codec, n in zip(codecs, numbers, strict=True)]
    return (
        f"m={kind} 9 UDP/TLS/RTP/SAVPF {' '.join(formats)}\nc=IN IP4 0.0.0.0\n"
        f"a=mid:{mid}\na={direction}\na=rtcp-mux\n{MID}"
        + "".join(CODECS[codec].format(n=n, r=n + 1) for codec, n in zip(codecs, numbers, strict=True))
        + more
    )


def offer(*sections: str, ufrag: str = "Yu2x", fingerprint: str = FINGERPRINT, setup: str = "actpass") -> str:
    """A whole offer; mids count from 0."""
    mids = [str(place) for place in range(len(sections))]
    return (
        "v=0\no=- 4611731400430051336 2 IN IP4 127.0.0.1\ns=-\nt=0 0\n"
        f"a=group:BUNDLE {' '.join(mids)}\n"
        f"a=ice-ufrag:{ufrag}\na=ice-pwd:rm5ZQW1kVxGmYBHkGvz2nbnG\n"
        f"a=fingerprint:sha-256 {fingerprint}\na=setup:{setup}\n"
        + "".join(text.replace("{mid}", mid) for text, mid in zip(sections, mids, strict=True))
    )


def camera_and(receiving: int, *codecs: str, red: bool = False, **more: str) -> str:
    """A browser's offer: its own two, and so many pairs to receive in."""
    audio = ("opus", "red") if red else ("opus",)
    own = [section("audio", "sendonly", *audio), section("video", "sendonly", *codecs, more=SIMULCAST)]
    pairs = [section("audio", "recvonly", *audio), section("video", "recvonly", *codecs)] * receiving
    return offer(*own, *pairs, **more)
