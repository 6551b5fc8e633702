"""The body of a PATCH to a WHIP or WHEP resource: candidates, or the credentials of an ICE restart.

    a=ice-ufrag:Yu2x          ── session level, or below the m= line
    a=ice-pwd:...
    m=audio 9 RTP/AVP 0       ── which section the candidates are for: one transport, so it does not matter
    a=mid:0
    a=candidate:...
    a=end-of-candidates

Spec: RFC 8840 section 9 (application/trickle-ice-sdpfrag), RFC 9725 section 4.3.
"""

from __future__ import annotations

import re

from server.errors import ProtocolError
from server.media.parameters import IceParameters, LocalParameters
from server.signalling.media_answer import candidate_lines
from server.signalling.negotiation import check_candidate_line
from server.signalling.sdp import MAX_CANDIDATES

MAX_BYTES = 16_384
_LINE = re.compile(r"[a-z]=[^\x00-\x1f\x7f]*")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839 section 5.4
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")


def read_fragment(text: str) -> IceParameters | None:
    """Check a fragment, and return the credentials in it; None: candidates alone.

    The candidates themselves are not needed: an ICE-lite agent sends no checks.

    Raises:
        ProtocolError: `bad_sdp`.
    """
    if len(text) > MAX_BYTES:
        raise ProtocolError("bad_sdp", f"more than {MAX_BYTES} bytes")
    found: dict[str, set[str]] = {"ice-ufrag": set(), "ice-pwd": set()}
    candidates = 0
    for line in text.replace("\r\n", "\n").rstrip("\n").split("\n"):
        if not _LINE.fullmatch(line):
            raise ProtocolError("bad_sdp", "a line not of the form x=value")
        name, _, value = line.removeprefix("a=").partition(":")
        if line.startswith("a=") and name == "candidate":
            candidates += 1
            check_candidate_line(f"candidate:{value}")
        elif line.startswith("a=") and name in found:
            found[name].add(value)
    if candidates > MAX_CANDIDATES:
        raise ProtocolError("bad_sdp", f"more than {MAX_CANDIDATES} candidates")
    if not any(found.values()):
        return None
    if any(len(values) != 1 for values in found.values()):
        raise ProtocolError("bad_sdp", "ufrag and password go together, once each")
    ufrag, pwd = found["ice-ufrag"].pop(), found["ice-pwd"].pop()
    if not _UFRAG.fullmatch(ufrag) or not _PWD.fullmatch(pwd):
        raise ProtocolError("bad_sdp", "ICE credentials that are none")
    return IceParameters(ufrag, pwd)


def write_fragment(local: LocalParameters, kind: str, mid: str) -> str:
    """Answer an ICE restart: our new credentials, and our candidates, which stay.

    Args:
        local: Both.
        kind: Of the section that had our candidates in the answer.
        mid: Of the same.
    """
    lines = [
        "a=ice-lite",
        f"a=ice-ufrag:{local.ice.ufrag}",
        f"a=ice-pwd:{local.ice.pwd}",
        f"m={kind} 9 UDP/TLS/RTP/SAVPF 0",
        f"a=mid:{mid}",
        *candidate_lines(local.candidates),
    ]
    return "\r\n".join(lines) + "\r\n"
