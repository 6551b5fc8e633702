"""SDP text <-> dataclasses (RFC 8866). No policy: what a description may say is `negotiation.py`'s business.

The parser is strict about what the grammar fixes (order of lines, shape of `m=`) and keeps everything else as text, so
that `serialise(parse(text))` gives back the same lines. Its cost is bounded before it starts, by the number of bytes
and lines; what it does with them is linear, and most lines are never taken apart: a browser's offer takes about
0.03 ms, the ugliest 64 KiB 1 ms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.errors import ProtocolError

MAX_BYTES = 65_536
MAX_LINES = 3_000
"""A Chromium offer has about 90 lines per video section."""
MAX_SECTIONS = 16
"""Between two browsers. Towards the media server, see `media_negotiation.py`."""
MAX_CANDIDATES = 100
MAX_FORMATS = 256
"""Per section. RTP has 128 payload types (RFC 3551 section 3)."""

_REST = r"[^\x00-\x08\x0a-\x1f\x7f]*+\r\n"  # of a line: anything but controls, tab allowed
_MEDIA = "m=X(?:i=X)?(?:c=X)*+(?:b=X)*+(?:k=X)?(?:a=X)*+"
_GRAMMAR = re.compile(
    # RFC 8866 section 5, grammar in section 9. Nothing in it is ever tried twice: the time it takes is linear.
    "v=0\r\no=Xs=X(?:i=X)?(?:u=X)?(?:e=X)*+(?:p=X)*+(?:c=X)?(?:b=X)*+(?:t=X(?:r=X)*+)++(?:z=X)?(?:k=X)?(?:a=X)*+"
    f"(?:{_MEDIA})*+".replace("X", _REST)
)
_PORT = re.compile(r"[0-9]{1,5}")

INDEXED = (
    "bundle-only", "candidate", "crypto", "fingerprint", "group", "ice-pwd", "ice-ufrag", "inactive", "mid", "recvonly",
    "rtcp-mux", "sctp-port", "sendonly", "sendrecv", "setup",
)  # fmt: skip
"""The attributes that are looked up: transport, bundle and direction. The others (codecs, extensions) are only kept."""
_LINES_OF_INTEREST = re.compile(rf"\n(?:a=({'|'.join(INDEXED)})(?::([^\r]*))?(?=\r)|m=([^\r]*))")


@dataclass(slots=True, repr=False, eq=False)
class Section:
    """One level: the session, or one `m=` section.

    `attributes` has the values of the `INDEXED` attributes, in order; a flag has the value "".
    """

    attributes: dict[str, list[str]]

    def has(self, name: str) -> bool:
        """Return whether there is such an attribute."""
        return name in self.attributes

    def values(self, name: str) -> list[str]:
        """Return the values of all attributes of this name."""
        return self.attributes.get(name, [])


@dataclass(slots=True, repr=False, eq=False)
class MediaSection(Section):
    """One `m=` section (RFC 8866 section 5.14)."""

    kind: str
    port: int
    protocol: str
    formats: list[str]


@dataclass(slots=True, repr=False, eq=False)
class Sdp:
    """A session description."""

    text: str
    """All its lines, each ended by CRLF."""
    session: Section
    media: list[MediaSection]


def parse(text: str, max_sections: int = MAX_SECTIONS) -> Sdp:
    """Parse a session description; its lines end in CRLF, or all in LF.

    Args:
        text: The description.
        max_sections: How many media sections it may have.

    Raises:
        ProtocolError: `bad_sdp`; the detail quotes nothing of the content.
    """
    if len(text) > MAX_BYTES:
        raise ProtocolError("bad_sdp", f"more than {MAX_BYTES} bytes")
    if text.count("\n") > MAX_LINES:
        raise ProtocolError("bad_sdp", f"more than {MAX_LINES} lines")
    if "\r\n" not in text:
        text = text.replace("\n", "\r\n")
    if not text.endswith("\r\n"):
        text += "\r\n"
    if _GRAMMAR.fullmatch(text) is None:
        raise ProtocolError("bad_sdp", "a line missing, twice, out of order or not of the form x=value")
    lines = _LINES_OF_INTEREST.findall(text)
    if len(lines) > MAX_CANDIDATES and text.count("\na=candidate:") > MAX_CANDIDATES:
        raise ProtocolError("bad_sdp", f"more than {MAX_CANDIDATES} candidates")
    attributes: dict[str, list[str]] = {}
    session = Section(attributes)
    media: list[MediaSection] = []
    for name, value, line in lines:
        if line:
            if len(media) == max_sections:
                raise ProtocolError("bad_sdp", f"more than {max_sections} media sections")
            attributes = {}
            media.append(_media(line, attributes))
        elif name in attributes:
            attributes[name].append(value)
        else:
            attributes[name] = [value]
    return Sdp(text, session, media)


def all_attributes(sdp: Sdp) -> list[list[tuple[str, str]]]:
    """Return name and value of every attribute of each media section, in order: codecs and extensions among them."""
    sections = sdp.text.split("\r\nm=")[1:]
    return [
        [
            (name, value)
            for line in section.split("\r\na=")[1:]
            for name, _, value in [line.split("\r\n", 1)[0].partition(":")]
        ]
        for section in sections
    ]


def serialise(sdp: Sdp) -> str:
    """Return the text of a description, every line ended by CRLF."""
    return sdp.text


def _media(line: str, attributes: dict[str, list[str]]) -> MediaSection:
    kind, port, protocol, *formats = (*line.split(" ", 3 + MAX_FORMATS), "", "", "")
    del formats[-3:]
    if not _PORT.fullmatch(port) or int(port) > 65_535 or not 0 < len(formats) <= MAX_FORMATS or "" in formats:
        raise ProtocolError("bad_sdp", "a media line that does not parse")
    return MediaSection(attributes, kind, int(port), protocol, formats)
