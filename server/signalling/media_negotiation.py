"""What a browser or a device offers to the media server: SDP -> parameters. `media_answer.py` writes what we say to it.

The offerer has any number of sections, in any order, all in one bundle:

    sendonly   its camera (with rids q, h, f: simulcast) or its microphone      ──> published
    recvonly   room for somebody else's                                          ──> subscribed, or inactive
    anything else, data channels too                                             ──> refused, port 0

Driven by `relaying.py`. Sans-IO; strict: every value that is taken over has matched a pattern, and what we do not know
is left out. Bytes that make no sense raise `ProtocolError("bad_sdp")` and nothing else.

Spec: RFC 9429 (JSEP), 9143 (BUNDLE), 8853 and 8851 (simulcast, rid), 8285 (extmap), 4585 (rtcp-fb), 4588 (rtx), 5576.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast

from server.errors import ProtocolError, RefusalError
from server.media.parameters import (
    CodecParameters,
    Direction,
    DtlsParameters,
    DtlsRole,
    EncodingParameters,
    Fingerprint,
    HeaderExtension,
    IceParameters,
    Kind,
    TrackParameters,
)
from server.signalling import sdp
from server.signalling.negotiation import (
    HASH_BYTES,
    check_bundle,
    check_candidate_line,
    check_fingerprint,
    check_transport,
    sends,
)

MAX_SECTIONS = 48
"""Two of one's own, two for each of eleven others, and as many again: sections that are free stay in an offer."""
MAX_MID_BYTES = 16
"""What a header extension of one byte can hold (RFC 8285 section 4.2)."""

PROTOCOLS = {"UDP/TLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF"}
"""RFC 8829 section 5.1.2: the first is written, the others are read."""

CODECS: dict[tuple[str, str], tuple[str, int, int]] = {
    ("audio", "opus"): ("opus", 48_000, 2),
    ("audio", "red"): ("red", 48_000, 2),
    ("video", "vp8"): ("VP8", 90_000, 1),
    ("video", "vp9"): ("VP9", 90_000, 1),
    ("video", "h264"): ("H264", 90_000, 1),
    ("video", "av1"): ("AV1", 90_000, 1),
}
"""What we forward: registered name, clock rate, channels."""

EXTENSIONS = {
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "urn:3gpp:video-orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
}
"""The header extensions that the relay reads or writes."""

RIDS = ("q", "h", "f")
"""The layers that we ask for by name; of a device with other names, only the first is taken."""

_ROLES: dict[str, DtlsRole] = {"actpass": "auto", "active": "client", "passive": "server"}
_FEEDBACK = {"nack", "nack pli", "ccm fir", "transport-cc", "goog-remb"}
_H264_PROFILES = {"42": "baseline", "4d": "main", "64": "high"}
_PREFERENCE = ("H264", "VP9", "AV1")
"""Of what somebody's device encodes efficiently, what everybody's decodes with the least work."""

_FMT = re.compile(r"(\d{1,3}) (.{1,512})", re.ASCII)
_RTPMAP = re.compile(r"(0|[1-9]\d?|1[01]\d|12[0-7]) ([A-Za-z0-9._-]{1,32})/(\d{1,9})(?:/(\d{1,2}))?", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z0-9./_-]{1,64}(?:=[A-Za-z0-9+/=,._-]{0,256})?")
_EXTMAP = re.compile(r"(\d{1,5})(?:/(sendrecv|sendonly|recvonly|inactive))? ([!-~]{1,256})(?: .*)?", re.ASCII)
_RID = re.compile(r"([A-Za-z0-9_-]{1,16}) send(?: .*)?")  # RFC 8852 section 3 has 16 bytes in the header extension
_SSRC = re.compile(r"(\d{1,10}) cname:([!-~]{1,255})", re.ASCII)
_FID = re.compile(r"FID (\d{1,10}) (\d{1,10})", re.ASCII)
_MID = re.compile(r"[!#-'*+\-.0-9A-Z^-~]{1,16}")  # a token (RFC 8866 section 9)


@dataclass(frozen=True)
class OfferedSection:
    """One media section as offered; `direction` is the offerer's."""

    mid: str
    kind: str
    protocol: str
    formats: tuple[str, ...]
    usable: bool
    """Ours to answer; the others are refused."""
    direction: Direction = "inactive"
    codecs: tuple[CodecParameters, ...] = ()
    """Those that we forward, in the offerer's order."""
    extensions: tuple[HeaderExtension, ...] = ()
    ways: tuple[Direction, ...] = ()
    """Of the extensions: Firefox has some that it sends and does not read (RFC 8285 section 5)."""
    rids: tuple[str, ...] = ()
    """What it sends by simulcast, as far as we take it."""
    paused: frozenset[str] = frozenset()
    """Those that are not sent at present. The answer leaves them so: Chromium starts what the answer does not pause."""
    encodings: tuple[EncodingParameters, ...] = ()
    cname: str = ""
    reduced_size: bool = False

    @property
    def sends(self) -> bool:
        """Whether the offerer may send here."""
        return self.usable and self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Whether the offerer may receive here."""
        return self.usable and self.direction in ("sendrecv", "recvonly")

    @property
    def flavours(self) -> frozenset[str]:
        """The flavours of its codecs."""
        return frozenset(map(flavour, self.codecs))

    def track(self, codecs: tuple[CodecParameters, ...], direction: Literal["sendonly", "recvonly"]) -> TrackParameters:
        """Return what is agreed about it, one way, seen from us."""
        encodings = self.encodings if direction == "recvonly" else ()
        unread = "recvonly" if direction == "recvonly" else "sendonly"
        extensions = (found for found, way in zip(self.extensions, self.ways, strict=True) if way != unread)
        return TrackParameters(
            self.mid, cast("Kind", self.kind), direction, codecs, tuple(extensions), encodings, self.cname
        )


@dataclass(frozen=True)
class Offer:
    """A whole offer."""

    ice: IceParameters
    dtls: DtlsParameters
    sections: tuple[OfferedSection, ...]
    extmap_allow_mixed: bool = False

    @property
    def extensions(self) -> tuple[HeaderExtension, ...]:
        """Every header extension of the bundle, once."""
        return tuple(dict.fromkeys(extension for section in self.sections for extension in section.extensions))

    @property
    def video_flavours(self) -> frozenset[str] | None:
        """What all of its video sections can carry; None: it has no video."""
        found = [s.flavours for s in self.sections if s.kind == "video" and (s.sends or s.receives)]
        return frozenset.intersection(*found) if found else None


def read_offer(text: str) -> Offer:
    """Read an offer.

    Raises:
        ProtocolError: `bad_sdp`; quotes nothing of the content.
    """
    parsed = sdp.parse(text, MAX_SECTIONS)
    live = [section for section in parsed.media if section.port or section.has("bundle-only")]  # RFC 9143 section 6
    media = [section for section in live if section.kind in ("audio", "video")]
    if not media:
        raise ProtocolError("bad_sdp", "no media section")
    if len(media) > 1 or parsed.session.has("group"):
        check_bundle(parsed.session, media)
    check_transport(parsed.session, live, "offer")
    for section in live:
        for value in section.values("candidate"):
            check_candidate_line("candidate:" + value)
        if section.has("crypto"):
            raise ProtocolError("bad_sdp", "SDES keys (a=crypto) are not accepted")
    if re.search(r"\r\na=ice-lite\r\n", parsed.text):
        raise ProtocolError("bad_sdp", "two ICE-lite agents cannot connect")
    sections = tuple(
        _read_section(parsed.session, section, attributes, section in media)
        for section, attributes in zip(parsed.media, sdp.all_attributes(parsed), strict=True)
    )
    _check_agreement(sections)
    return Offer(
        IceParameters(_first("ice-ufrag", parsed.session, live[0]), _first("ice-pwd", parsed.session, live[0])),
        DtlsParameters(_read_fingerprints(parsed.session, *live), _ROLES[_first("setup", parsed.session, live[0])]),
        sections,
        "\r\na=extmap-allow-mixed\r\n" in parsed.text,
    )


def one_way(offer: Offer, direction: Literal["sendonly", "recvonly"]) -> Offer:
    """Return an offer as if it went one way only: what it also offers the other way is answered `inactive`.

    Raises:
        RefusalError: `wrong_way`, nothing goes that way.
    """
    way: dict[tuple[bool, bool], Direction] = {(True, False): "sendonly", (False, True): "recvonly"}
    sections = tuple(
        replace(
            section,
            direction=way.get(
                (section.sends and direction == "sendonly", section.receives and direction == "recvonly"), "inactive"
            ),
        )
        for section in offer.sections
    )
    if not any(section.sends or section.receives for section in sections):
        raise RefusalError("wrong_way")
    return replace(offer, sections=sections)


def flavour(codec: CodecParameters) -> str:
    """Return what must be the same at both ends for a decoder to understand: the name, and a profile where it has some.

    Levels are left out: they say how much, which browsers adapt (RFC 6184 section 8.2.2, level-asymmetry-allowed).
    """
    given = dict(codec.parameters)
    match codec.name:
        case "H264":
            profile = _H264_PROFILES.get(given.get("profile-level-id", "42")[:2].lower(), "other")
            return f"H264/{profile}/{given.get('packetization-mode', '0')}"
        case "VP9":
            return f"VP9/{given.get('profile-id', '0')}"
        case "AV1":
            return f"AV1/{given.get('profile', '0')}"
        case name:
            return name


def _is_constrained(codec: CodecParameters) -> bool:
    """Whether H.264 is the Constrained Baseline that every decoder knows (RFC 6184 section 8.1, constraint_set1)."""
    return dict(codec.parameters).get("profile-level-id", "")[2:3].lower() in tuple("4567cdef")


def choose_flavour(
    current: str, everybody: Iterable[Collection[str]], efficient: Collection[str], may_improve: bool
) -> str | None:
    """Choose the video codec of a room: the best that all present can decode, and send.

    Args:
        current: The flavour in use.
        everybody: The flavours of each one present.
        efficient: Names of codecs that somebody's device encodes in hardware.
        may_improve: Nobody would notice a change: nothing is sent yet. Otherwise what works stays.

    Returns:
        A flavour; None when there is none in common.
    """
    sets = list(everybody)
    common = frozenset.intersection(*map(frozenset, sets)) if sets else frozenset({"VP8"})
    if current in common and not may_improve:
        return current
    wanted = [*(name for name in _PREFERENCE if name in efficient), "VP8", *_PREFERENCE]
    best = ("H264/baseline/1", "H264/main/1", "H264/high/1")  # before packetization mode 0: slices of a packet's size
    ordered = sorted(common, key=lambda name: (best.index(name) if name in best else len(best), name))
    return next((one for name in wanted for one in ordered if one.partition("/")[0] == name), None)


def pick_video(section: OfferedSection, chosen: str | None) -> tuple[CodecParameters, ...]:
    """Return the section's payload type for a flavour, alone; nothing when it has none."""
    codecs = [codec for codec in section.codecs if flavour(codec) == chosen]
    return tuple(sorted(codecs, key=lambda codec: not _is_constrained(codec))[:1])


def pick_audio(section: OfferedSection, first: str = "") -> tuple[CodecParameters, ...]:
    """Return the section's Opus, and RED where it is offered (RFC 2198); `first` goes before the offerer's order."""
    codecs = [codec for codec in section.codecs if codec.name in ("opus", "red")]
    if not any(codec.name == "opus" for codec in codecs):
        return ()
    return tuple(sorted(codecs, key=lambda codec: codec.name != first))


# -- one section ------------------------------------------------------------------------------------------------------


def _read_section(
    session: sdp.Section, section: sdp.MediaSection, attributes: list[tuple[str, str]], live: bool
) -> OfferedSection:
    mid = section.values("mid")[0] if section.has("mid") else ""
    formats = tuple(section.formats)
    if not live or section.protocol not in PROTOCOLS or not section.has("rtcp-mux"):
        return OfferedSection(mid if _MID.fullmatch(mid) else "", section.kind, section.protocol, formats, usable=False)
    if not _MID.fullmatch(mid):
        raise ProtocolError("bad_sdp", f"a mid that is not a token of at most {MAX_MID_BYTES} bytes")
    sending = sends(session, section)
    found = dict(attributes)
    extensions = _read_extensions(attributes)
    rids, paused = _read_rids(attributes, found.get("simulcast", "")) if sending else ((), frozenset())
    cname, encodings = _read_streams(attributes)
    if rids:
        encodings = tuple(EncodingParameters(rid=rid) for rid in rids)
    elif not encodings and sending:
        encodings = (EncodingParameters(),)
    return OfferedSection(
        mid,
        section.kind,
        section.protocol,
        formats,
        usable=True,
        direction=_direction(session, section),
        codecs=_read_codecs(section.kind, formats, attributes),
        extensions=tuple(extensions),
        ways=tuple(extensions.values()),
        rids=rids,
        paused=paused,
        encodings=encodings if sending else (),
        cname=cname,
        reduced_size="rtcp-rsize" in found,
    )


def _direction(session: sdp.Section, section: sdp.MediaSection) -> Direction:
    names: tuple[Direction, ...] = ("sendrecv", "sendonly", "recvonly", "inactive")
    for level in (section, session):
        for name in names:
            if level.has(name):
                return name
    return "sendrecv"  # RFC 8866 section 6.7


def _read_codecs(kind: str, formats: tuple[str, ...], attributes: list[tuple[str, str]]) -> tuple[CodecParameters, ...]:
    """Return the codecs that we forward. Of several maps of one payload type, the first counts."""
    places = {number: place for place, number in enumerate(formats)}
    parameters: dict[str, tuple[tuple[str, str], ...]] = {}
    feedback: dict[str, dict[str, None]] = {}
    maps: dict[str, tuple[str, int, int]] = {}
    for name, value in attributes:
        if name == "rtpmap" and (match := _RTPMAP.fullmatch(value)) and match[1] in places:
            maps.setdefault(match[1], (match[2].lower(), int(match[3]), int(match[4] or 1)))
        elif name == "fmtp" and (match := _FMT.fullmatch(value)):
            parameters[match[1]] = _read_parameters(match[2])
        elif name == "rtcp-fb":
            which, _, what = value.partition(" ")
            if what in _FEEDBACK:
                feedback.setdefault(which, {})[what] = None
    repairs = {
        dict(parameters.get(number, ())).get("apt", ""): int(number)
        for number, (encoding, clock, _) in maps.items()
        if encoding == "rtx" and clock == 90_000
    }
    codecs: list[CodecParameters] = []
    for number in sorted(maps, key=places.__getitem__):
        encoding, clock, channels = maps[number]
        known = CODECS.get((kind, encoding))
        if known is None or known[1:] != (clock, channels):
            continue
        said = {**feedback.get("*", {}), **feedback.get(number, {})}
        if "transport-cc" in said:
            said.pop("goog-remb", None)  # one way of estimating the bandwidth at a time
        codec = CodecParameters(
            known[0], int(number), clock, channels, parameters.get(number, ()), tuple(said), repairs.get(number)
        )
        codecs.append(codec)
    return tuple(codecs)


def _read_parameters(text: str) -> tuple[tuple[str, str], ...]:
    pieces = (piece.strip() for piece in text.split(";"))
    split = (piece.partition("=") for piece in pieces if _PARAMETER.fullmatch(piece))
    return tuple((name, value) for name, _, value in split)


def _read_extensions(attributes: list[tuple[str, str]]) -> dict[HeaderExtension, Direction]:
    found: dict[HeaderExtension, Direction] = {}
    for name, value in attributes:
        if name == "extmap" and (match := _EXTMAP.fullmatch(value)) and match[3] in EXTENSIONS:
            id = int(match[1])
            if not 1 <= id <= 255 or id == 15:
                raise ProtocolError("bad_sdp", "a header extension id that is not one (RFC 8285 section 5)")
            found[HeaderExtension(id, match[3])] = cast("Direction", match[2] or "sendrecv")
    return found


def _read_rids(attributes: list[tuple[str, str]], simulcast: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the rids to take, and which of them are paused.

    RFC 8853 section 5.1: `send q;h;f`, alternatives behind commas, `~` in front of a paused one.
    """
    declared = {match[1] for name, value in attributes if name == "rid" and (match := _RID.fullmatch(value))}
    words = simulcast.split(" ")
    streams = dict(zip(words[::2], words[1::2], strict=False)).get("send", "")
    first = [stream.partition(",")[0] for stream in streams.split(";")]
    offered = [rid.removeprefix("~") for rid in first]
    if not streams:
        offered = sorted(declared) if len(declared) == 1 else []  # one rid needs no a=simulcast (RFC 8851)
    taken = [rid for rid in RIDS if rid in offered and rid in declared] or [r for r in offered if r in declared][:1]
    return tuple(taken), frozenset(rid for rid in taken if f"~{rid}" in first)


def _read_streams(attributes: list[tuple[str, str]]) -> tuple[str, tuple[EncodingParameters, ...]]:
    """Return CNAME and the stream that the SSRC attributes name (RFC 5576), with its RTX stream."""
    cname, numbers, repairs = "", [], {}
    for name, value in attributes:
        if name == "ssrc" and (match := _SSRC.fullmatch(value)):
            numbers.append(int(match[1]))
            cname = cname or match[2]
        elif name == "ssrc-group" and (match := _FID.fullmatch(value)):
            repairs[int(match[1])] = int(match[2])
    repairing = set(repairs.values())
    first = next((number for number in numbers if number not in repairing), None)
    if first is None or not 0 < first < 2**32:
        return cname, ()
    repair = repairs.get(first)
    return cname, (EncodingParameters(ssrc=first, rtx_ssrc=repair if repair and repair < 2**32 else None),)


# -- the transport ----------------------------------------------------------------------------------------------------


def _check_agreement(sections: tuple[OfferedSection, ...]) -> None:
    """Check what a bundle has in common: an extension id means one extension, an SSRC is one stream (RFC 9143)."""
    uris: dict[int, str] = {}
    seen: set[int] = set()
    for section in sections:
        for extension in section.extensions:
            if uris.setdefault(extension.id, extension.uri) != extension.uri:
                raise ProtocolError("bad_sdp", "a header extension id with two meanings in one bundle")
        for encoding in section.encodings:
            for ssrc in (encoding.ssrc, encoding.rtx_ssrc):
                if ssrc in seen:
                    raise ProtocolError("bad_sdp", "an SSRC in two places")
                if ssrc is not None:
                    seen.add(ssrc)


def _first(name: str, session: sdp.Section, section: sdp.Section) -> str:
    return (section.values(name) or session.values(name))[0]


def _read_fingerprints(*levels: sdp.Section) -> tuple[Fingerprint, ...]:
    """Return the fingerprints of one certificate, by as many hashes as it likes (RFC 8122 section 5)."""
    found: dict[str, str] = {}
    for value in dict.fromkeys(value for level in levels for value in level.values("fingerprint")):
        algorithm, _, digest = value.partition(" ")
        if found.setdefault(algorithm.lower(), digest.upper()) != digest.upper():
            raise ProtocolError("bad_sdp", "more than one certificate")
    strong = [name for name in found if name in HASH_BYTES]
    if not strong:
        raise ProtocolError("bad_sdp", "no fingerprint by SHA-256 or stronger")
    for name in strong:
        check_fingerprint(name, found[name])
    return tuple(Fingerprint(name, found[name]) for name in strong)
