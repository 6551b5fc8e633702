"""What we say to an offer towards the media server: parameters -> SDP. `media_negotiation.py` reads the offer.

The answer has the offer's sections in the offer's order (RFC 3264 section 6) and keeps its payload types and extension
ids. What belongs to the one transport stands at session level, our candidates in the first section that is accepted.
We are ICE-lite and the DTLS server, so that AES-GCM is negotiated, unless the offerer insists on being it.

Spec: RFC 9429 section 5.3, RFC 8839 (ICE in SDP), RFC 6544 section 4.5 (TCP candidates), RFC 8853 (simulcast).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from server.media.parameters import CodecParameters, Direction, Endpoint, LocalParameters, SendParameters
from server.signalling.media_negotiation import Offer, OfferedSection

_UDP_PREFERENCE, _TCP_PREFERENCE = 126, 90
"""Of host candidates: UDP as RFC 8445 section 5.1.2.2 recommends, TCP below it (RFC 6544 section 4.2)."""
_DIRECTIONS: dict[tuple[bool, bool], Direction] = {
    (True, True): "sendrecv", (True, False): "sendonly", (False, True): "recvonly", (False, False): "inactive",
}  # fmt: skip
"""By whether we send and whether we receive."""
_REVERSED = {"sendrecv": "", "sendonly": "/recvonly", "recvonly": "/sendonly", "inactive": "/inactive"}


@dataclass(frozen=True)
class Agreed:
    """What we say to one section."""

    section: OfferedSection
    codecs: tuple[CodecParameters, ...]
    """None: the section is refused."""
    takes: bool = False
    """We receive what the offerer sends."""
    gives: bool = False
    """We send, now or later."""
    stream: SendParameters | None = None
    """What we send, if that is known."""
    whose: str = ""
    """The stream id of `a=msid` (RFC 8830)."""
    source: str = ""

    @property
    def direction(self) -> Direction:
        """Ours."""
        return _DIRECTIONS[self.gives, self.takes]


def write_answer(
    offer: Offer, local: LocalParameters, agreed: Sequence[Agreed], session_id: int, version: int, start_bps: int
) -> str:
    """Write an answer.

    Args:
        offer: What is answered.
        local: Our end of the transport.
        agreed: One for each section of the offer, in order.
        session_id: Of `o=`.
        version: Of `o=`; it rises with each answer of one session (RFC 3264 section 8).
        start_bps: What the offerer's encoder may begin with.
    """
    role = {"client": "active", "server": "passive", "auto": "passive"}[local.dtls.role]
    accepted = [entry for entry in agreed if entry.codecs]
    lines = [
        "v=0",
        f"o=- {session_id} {version} IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        *(["a=group:BUNDLE " + " ".join(entry.section.mid for entry in accepted)] if accepted else []),
        "a=ice-lite",
        *(["a=extmap-allow-mixed"] if offer.extmap_allow_mixed else []),
        "a=msid-semantic: WMS *",
    ]
    # In every section, as RFC 9429 section 5.3.1 has it, not once for all: Pion looks for `setup` nowhere else.
    transport = [
        f"a=ice-ufrag:{local.ice.ufrag}",
        f"a=ice-pwd:{local.ice.pwd}",
        *(f"a=fingerprint:{print_.algorithm} {print_.value}" for print_ in local.dtls.fingerprints),
        f"a=setup:{role}",
    ]
    for entry in agreed:
        if entry.codecs:
            lines += _accepted(entry, local, start_bps, transport)
            if entry is accepted[0]:
                lines += candidate_lines(local.candidates)
        else:
            lines += _refused(entry.section)
    return "\r\n".join(lines) + "\r\n"


def candidate_lines(candidates: Sequence[Endpoint]) -> list[str]:
    """Return our candidates, best first, and that there are no more; component 1 alone, because of rtcp-mux."""
    lines = []
    for place, candidate in enumerate(candidates):
        udp = candidate.kind == "udp"
        priority = (_UDP_PREFERENCE if udp else _TCP_PREFERENCE) << 24 | (65_535 - place) << 8 | 255
        lines.append(
            f"a=candidate:{place + 1} 1 {candidate.kind} {priority} {candidate.ip} {candidate.port} typ host"
            + ("" if udp else " tcptype passive")
        )
    return [*lines, "a=end-of-candidates"]


def _refused(section: OfferedSection) -> list[str]:
    lines = [f"m={section.kind} 0 {section.protocol} {' '.join(section.formats)}", "c=IN IP4 0.0.0.0"]
    return [*lines, "a=inactive", *([f"a=mid:{section.mid}"] if section.mid else [])]


def _accepted(entry: Agreed, local: LocalParameters, start_bps: int, transport: Sequence[str]) -> Iterator[str]:
    section = entry.section
    default = local.candidates[0] if local.candidates else Endpoint("0.0.0.0", 9)
    formats = [
        str(number)
        for codec in entry.codecs
        for number in (codec.payload_type, codec.rtx_payload_type)
        if number is not None
    ]
    yield f"m={section.kind} {default.port} {section.protocol} {' '.join(formats)}"
    yield f"c=IN {'IP6' if ':' in default.ip else 'IP4'} {default.ip}"
    yield from transport
    yield f"a=mid:{section.mid}"
    yield f"a={entry.direction}"
    yield "a=rtcp-mux"
    if section.reduced_size:
        yield "a=rtcp-rsize"
    for codec in entry.codecs:
        yield from _codec(codec, start_bps if entry.takes and section.kind == "video" else 0)
    for extension, way in zip(section.extensions, section.ways, strict=True):
        yield f"a=extmap:{extension.id}{_REVERSED[way]} {extension.uri}"
    if entry.takes and section.rids:
        yield from (f"a=rid:{rid} recv" for rid in section.rids)
        yield "a=simulcast:recv " + ";".join("~" * (rid in section.paused) + rid for rid in section.rids)
    if entry.stream is not None:
        # A source's id has a colon, which no token has (RFC 8866 section 9).
        yield f"a=msid:{entry.whose} {entry.source.replace(':', '.')}"
        for ssrc in (entry.stream.ssrc, entry.stream.rtx_ssrc):
            if ssrc is not None:
                yield f"a=ssrc:{ssrc} cname:{entry.stream.cname}"
        if entry.stream.rtx_ssrc is not None:
            yield f"a=ssrc-group:FID {entry.stream.ssrc} {entry.stream.rtx_ssrc}"


def _codec(codec: CodecParameters, start_bps: int) -> Iterator[str]:
    number = codec.payload_type
    channels = f"/{codec.channels}" if codec.channels > 1 else ""
    yield f"a=rtpmap:{number} {codec.name}/{codec.clock_rate}{channels}"
    for feedback in codec.feedback:
        yield f"a=rtcp-fb:{number} {feedback}"
    parameters = [f"{name}={value}" if value else name for name, value in codec.parameters]
    if start_bps:
        parameters.append(f"x-google-start-bitrate={start_bps // 1000}")  # libwebrtc's; others ignore it
    if parameters:
        yield f"a=fmtp:{number} {';'.join(parameters)}"
    if codec.rtx_payload_type is not None:
        yield f"a=rtpmap:{codec.rtx_payload_type} rtx/{codec.clock_rate}"
        yield f"a=fmtp:{codec.rtx_payload_type} apt={number}"
