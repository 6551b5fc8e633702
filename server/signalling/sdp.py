"""SDP text <-> dataclasses (RFC 8866). No policy: what a description may say is `negotiation.py`'s business.

The parser is strict about what the grammar fixes (order of lines, shape of `m=`) and keeps everything else as text, so
that `serialise(parse(text))` gives back the same lines. Its cost is bounded before it starts (`_check_size`), and no
line is taken apart before somebody asks for it: a browser's offer takes about 0.02 ms, the ugliest 64 KiB 1 ms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from server.errors import ProtocolError

MAX_BYTES = 65_536
MAX_LINES = 3_000
"""A Chromium offer has about 90 lines per video section."""
MAX_SECTIONS = 16
MAX_CANDIDATES = 100
MAX_FORMATS = 256
"""Per section. RTP has 128 payload types (RFC 3551 section 3)."""

_EOL = "\r\n"
_REST = r"[^\x00-\x08\x0a-\x1f\x7f]*+\r\n"  # of a line: anything but controls, tab allowed
_MEDIA = "m=X(?:i=X)?(?:c=X)*+(?:b=X)*+(?:k=X)?(?:a=X)*+"
_GRAMMAR = re.compile(
    # RFC 8866 section 5, grammar in section 9. Nothing in it is ever tried twice: the time it takes is linear.
    "v=0\r\no=Xs=X(?:i=X)?(?:u=X)?(?:e=X)*+(?:p=X)*+(?:c=X)?(?:b=X)*+(?:t=X(?:r=X)*+)++(?:z=X)?(?:k=X)?(?:a=X)*+"
    f"(?:{_MEDIA})*+".replace("X", _REST)
)
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(slots=True, repr=False, eq=False)
class Section:
    """The lines of one level, the session or one `m=` section, or of all.

    `text` has CRLF before and after each line, so that whole lines can be found in it.
    """

    text: str

    def has(self, flag: str) -> bool:
        """Return whether there is a line `a=<flag>`."""
        return f"\r\na={flag}\r\n" in self.text

    def values(self, name: str) -> list[str]:
        """Return the values of all lines `a=<name>:<value>`."""
        return [part.partition(_EOL)[0] for part in self.text.split(f"\r\na={name}:")[1:]]

    def value(self, name: str) -> str | None:
        """Return the value of the first such line, None without one."""
        start = f"\r\na={name}:"
        at = self.text.find(start)
        return None if at < 0 else self.text[at + len(start) : self.text.index(_EOL, at + len(start))]


@dataclass(slots=True, repr=False, eq=False)
class MediaSection(Section):
    """One `m=` section (RFC 8866 section 5.14)."""

    kind: str
    port: int
    protocol: str
    formats: list[str]


@dataclass(slots=True, repr=False, eq=False)
class Sdp:
    """A session description: all of it, its session level, its media sections."""

    whole: Section
    session: Section
    media: list[MediaSection]


def parse(text: str) -> Sdp:
    """Parse a session description; its lines end in CRLF, or all in LF.

    Raises:
        ProtocolError: `bad_sdp`; the detail quotes nothing of the content.
    """
    _check_size(text)
    if _EOL not in text:
        text = text.replace("\n", _EOL)
    if not text.endswith(_EOL):
        text += _EOL
    if _GRAMMAR.fullmatch(text) is None:
        raise ProtocolError("bad_sdp", "a line missing, twice, out of order or not of the form x=value")
    session, *media = text.split("\r\nm=")
    return Sdp(Section(_EOL + text), Section(f"\r\n{session}\r\n"), [_media(section) for section in media])


def serialise(sdp: Sdp) -> str:
    """Return the text of a description, every line ended by CRLF."""
    return sdp.whole.text.removeprefix(_EOL)


def _check_size(text: str) -> None:
    if len(text) > MAX_BYTES:
        raise ProtocolError("bad_sdp", f"more than {MAX_BYTES} bytes")
    if text.count("\n") > MAX_LINES:
        raise ProtocolError("bad_sdp", f"more than {MAX_LINES} lines")
    if text.count("\nm=") > MAX_SECTIONS:
        raise ProtocolError("bad_sdp", f"more than {MAX_SECTIONS} media sections")
    if text.count("\na=candidate:") > MAX_CANDIDATES:
        raise ProtocolError("bad_sdp", f"more than {MAX_CANDIDATES} candidates")


def _media(section: str) -> MediaSection:
    """Parse one section, its text without the `m=` at the start."""
    kind, port, protocol, *formats = (*section.partition(_EOL)[0].split(" ", 3 + MAX_FORMATS), "", "", "")
    del formats[-3:]
    if not _PORT.fullmatch(port) or int(port) > 65_535 or not 0 < len(formats) <= MAX_FORMATS or "" in formats:
        raise ProtocolError("bad_sdp", "a media line that does not parse")
    return MediaSection(f"\r\nm={section}\r\n", kind, int(port), protocol, formats)
