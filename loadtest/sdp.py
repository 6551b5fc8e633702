"""SDP of load participants: offers and answers written, and what a server's description says about its end.

Only what servers of this kind need: one transport (BUNDLE), Opus and VP8, the header extensions that browsers use.
Spec: RFC 9429, RFC 8843, RFC 8285.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from loadtest.connection import Remote
from server.media.parameters import DtlsParameters, Endpoint, Fingerprint, IceParameters

Kind = Literal["audio", "video"]
EXTENSIONS = {
    "mid": "urn:ietf:params:rtp-hdrext:sdes:mid",
    "sent": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "wide": "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "level": "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
}
"""By the engine's names for them."""
OFFERED = {"mid": 1, "sent": 2, "wide": 3, "level": 4}
"""Under which numbers we offer them."""
PAYLOAD_TYPES = {"audio": 111, "video": 96}
_RTPMAP = {"audio": "opus/48000/2", "video": "VP8/90000"}
_FEEDBACK = {
    "audio": ("transport-cc",),
    "video": ("transport-cc", "ccm fir", "nack", "nack pli"),
}


@dataclass
class Section:
    """One `m=` section."""

    kind: Kind
    mid: str
    direction: str = "sendonly"
    ssrc: int | None = None
    """Of what we send in it."""
    payload_type: int = 0
    extensions: dict[str, int] = field(default_factory=dict)
    """Name to number, those of `EXTENSIONS` only."""


@dataclass(frozen=True)
class Description:
    """A server's description."""

    remote: Remote
    sections: tuple[Section, ...]


def write(
    ice: IceParameters, dtls: DtlsParameters, address: Endpoint, sections: Sequence[Section], extra: Sequence[str] = ()
) -> str:
    """Write an offer or an answer; both say `setup:active`, so that the server lets us be the DTLS client.

    Args:
        ice, dtls, address: Our end of the transport.
        sections: In order; of an answer, as in the offer.
        extra: Attributes of the session.
    """
    lines = [
        "v=0", f"o=- 1 1 IN IP4 {address.ip}", "s=-", "t=0 0",
        f"a=group:BUNDLE {' '.join(section.mid for section in sections)}", "a=msid-semantic: WMS *", *extra,
    ]  # fmt: skip
    for section in sections:
        payload_type = section.payload_type or PAYLOAD_TYPES[section.kind]
        lines += [
            f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {payload_type}",
            f"c=IN IP4 {address.ip}",
            "a=rtcp:9 IN IP4 0.0.0.0",
            f"a=candidate:1 1 udp 2130706431 {address.ip} {address.port} typ host",
            "a=end-of-candidates",
            f"a=ice-ufrag:{ice.ufrag}",
            f"a=ice-pwd:{ice.pwd}",
            f"a=fingerprint:{dtls.fingerprints[0].algorithm} {dtls.fingerprints[0].value}",
            "a=setup:active",
            f"a=mid:{section.mid}",
            *(f"a=extmap:{number} {EXTENSIONS[name]}" for name, number in section.extensions.items()),
            f"a={section.direction}",
            "a=rtcp-mux",
            f"a=rtpmap:{payload_type} {_RTPMAP[section.kind]}",
            *(f"a=rtcp-fb:{payload_type} {name}" for name in _FEEDBACK[section.kind]),
        ]
        if section.ssrc is not None:
            lines += [f"a=msid:load {section.kind}", f"a=ssrc:{section.ssrc} cname:load"]
    return "\r\n".join(lines) + "\r\n"


def read(text: str) -> Description:
    """Read a server's offer or answer: its transport, and what each section is.

    Raises:
        ValueError: It lacks credentials, a fingerprint or a UDP candidate.
    """
    session, *media = _parts(text)
    attributes = dict(_attributes(session))
    sections, candidates = [], []
    for part in media:
        own = list(_attributes(part))
        for name, value in own:
            attributes.setdefault(name, value)
            if name == "candidate":
                candidates.append(value.split())
        found = dict(own)
        kind, _, _, payload_type = part[0].split()[:4]
        by_uri = {uri: name for name, uri in EXTENSIONS.items()}
        extensions = {
            by_uri[uri.split()[0]]: int(number.split("/")[0])
            for name, value in own
            if name == "extmap"
            for number, _, uri in [value.partition(" ")]
            if uri.split()[0] in by_uri
        }
        direction = next(
            (name for name, _ in own if name in ("sendonly", "recvonly", "sendrecv", "inactive")), "sendrecv"
        )
        if kind == "m=audio" or kind == "m=video":
            made = Section("audio" if kind == "m=audio" else "video", found["mid"], direction)
            made.payload_type, made.extensions = int(payload_type), extensions
            sections.append(made)
    udp = [parts for parts in candidates if parts[2].lower() == "udp" and ":" not in parts[4]]
    if not udp or not {"ice-ufrag", "ice-pwd", "fingerprint"} <= attributes.keys():
        raise ValueError("no credentials, fingerprint or UDP candidate")
    algorithm, _, value = attributes["fingerprint"].partition(" ")
    remote = Remote(
        IceParameters(attributes["ice-ufrag"], attributes["ice-pwd"]),
        DtlsParameters((Fingerprint(algorithm, value),), "server"),
        Endpoint(udp[0][4], int(udp[0][5])),
    )
    return Description(remote, tuple(sections))


def _parts(text: str) -> list[list[str]]:
    """The lines of the session, then those of each section."""
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("m="):
            parts.append([])
        parts[-1].append(line)
    return parts


def _attributes(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            yield name, value
