"""SDP text <-> dataclasses (RFC 8866). No policy: what a description may say is `negotiation.py`'s business.

The parser is strict about what the grammar fixes (order of lines, shape of `m=`) and keeps everything else as text, so
that `serialise(parse(text))` gives back the same lines. Its cost is bounded before it starts: `parse` counts lines,
sections and candidates first, which takes microseconds for any 64 KiB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from server.errors import ProtocolError

MAX_BYTES = 65_536
MAX_LINES = 3_000
"""A Chromium offer has about 90 lines per video section."""
MAX_SECTIONS = 16
MAX_CANDIDATES = 100
MAX_FORMATS = 256
"""Per section. RTP has 128 payload types (RFC 3551 section 3)."""

# RFC 8866 section 5: the order of lines. `v o s t` are required, `i u c z k` at most once per level.
_SESSION_ORDER = "vosiuepcbtrzka"
_MEDIA_ORDER = "micbka"
_REQUIRED = "vost"
_ONCE = "vosiuczk"

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_MEDIA = re.compile(r"([a-z]{1,20}) (\d{1,5})(?:/\d{1,5})? ([A-Z/]{1,40}) ([!-~]+(?: [!-~]+)*)")
_ATTRIBUTE = re.compile(r"([!#-'*+\-.0-9A-Z^-~]+)(?::(.*))?")  # att-field is a token (RFC 8866 section 9)


@dataclass(frozen=True, slots=True, repr=False)
class Section:
    """The lines of one level: the session, or one `m=` section.

    `lines` keeps every (type, value) in order; `attributes` indexes the `a=` lines by name, a flag has the value "".
    """

    lines: tuple[tuple[str, str], ...]
    attributes: dict[str, list[str]]

    def first(self, name: str) -> str | None:
        """Return the first value of an attribute, None when it is absent."""
        values = self.attributes.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True, repr=False)
class MediaSection(Section):
    """One `m=` section (RFC 8866 section 5.14)."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Sdp:
    """A whole session description."""

    session: Section
    media: tuple[MediaSection, ...] = field(default=())


def parse(text: str) -> Sdp:
    """Parse a session description; lines end in CRLF or LF.

    Raises:
        ProtocolError: `bad_sdp`; the detail names the line by number, never by content.
    """
    _check_size(text)
    if _UNPRINTABLE.search(text):
        raise ProtocolError("bad_sdp", "control characters")
    levels: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(text.replace("\r\n", "\n").removesuffix("\n").split("\n"), 1):
        if line[1:2] != "=":
            raise ProtocolError("bad_sdp", f"line {number} is not of the form x=value")
        if line[0] == "m":
            levels.append([])
        levels[-1].append((line[0], line[2:]))
    session, *media = levels
    _check_order(session, _SESSION_ORDER, "session")
    missing = set(_REQUIRED) - {kind for kind, _ in session}
    if missing or session[0] != ("v", "0"):
        raise ProtocolError("bad_sdp", "v=0, o=, s= and t= are required")
    return Sdp(Section(tuple(session), _attributes(session)), tuple(_media(lines) for lines in media))


def serialise(sdp: Sdp) -> str:
    """Return the text of a description, every line ended by CRLF."""
    levels: tuple[Section, ...] = (sdp.session, *sdp.media)
    return "".join(f"{kind}={value}\r\n" for level in levels for kind, value in level.lines)


def _check_size(text: str) -> None:
    if len(text) > MAX_BYTES:
        raise ProtocolError("bad_sdp", f"more than {MAX_BYTES} bytes")
    if text.count("\n") > MAX_LINES:
        raise ProtocolError("bad_sdp", f"more than {MAX_LINES} lines")
    if text.count("\nm=") > MAX_SECTIONS:
        raise ProtocolError("bad_sdp", f"more than {MAX_SECTIONS} media sections")
    if text.count("\na=candidate:") > MAX_CANDIDATES:
        raise ProtocolError("bad_sdp", f"more than {MAX_CANDIDATES} candidates")


def _check_order(lines: list[tuple[str, str]], order: str, level: str) -> None:
    place = 0
    previous = ""
    for kind, _ in lines:
        found = order.find(kind, place)
        # `r=` may be followed by the next `t=` (several time descriptions, RFC 8866 section 5.9).
        if found < 0 and not (kind == "t" and previous == "r"):
            raise ProtocolError("bad_sdp", f"a line out of order at {level} level")
        if kind == previous and kind in _ONCE:
            raise ProtocolError("bad_sdp", f"a line twice at {level} level")
        place, previous = max(found, place), kind


def _attributes(lines: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind, value in lines:
        if kind == "a":
            match = _ATTRIBUTE.fullmatch(value)
            if match is None:
                raise ProtocolError("bad_sdp", "an attribute without a name")
            found.setdefault(match[1], []).append(match[2] or "")
    return found


def _media(lines: list[tuple[str, str]]) -> MediaSection:
    _check_order(lines, _MEDIA_ORDER, "media")
    match = _MEDIA.fullmatch(lines[0][1])
    if match is None or int(match[2]) > 65_535 or match[4].count(" ") >= MAX_FORMATS:
        raise ProtocolError("bad_sdp", "a media line that does not parse")
    return MediaSection(tuple(lines), _attributes(lines), match[1], int(match[2]), match[3], tuple(match[4].split(" ")))
