"""What two browsers may agree on through us: the policy on descriptions and candidates, checked before relaying.

The server changes nothing in them. It refuses what a browser of ours never writes: unencrypted or SDES media, several
certificates, transports outside the bundle, media that the role may not send. Driven by `rooms.py`.

Spec: RFC 9429 (JSEP), 9143 (BUNDLE), 8839 (ICE in SDP), 8842 and 8122 (DTLS and its fingerprints), 8841 (SCTP).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from server.errors import ProtocolError, RefusalError
from server.signalling import sdp
from server.signalling.messages import IceCandidate, Role, SessionDescription

_RTP = "UDP/TLS/RTP/SAVPF"
_SCTP = "UDP/DTLS/SCTP"
HASH_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # RFC 8122 section 5; MD5 and SHA-1 are not enough

MAX_CANDIDATE_BYTES = 1024
"""Browsers write about 200."""

_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839 section 5.4
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_LEGAL: dict[str, dict[str, Callable[[str], object]]] = {
    kind: {"ice-ufrag": _UFRAG.fullmatch, "ice-pwd": _PWD.fullmatch, "setup": roles.__contains__}
    for kind, roles in {"offer": {"actpass", "active", "passive"}, "answer": {"active", "passive"}}.items()
}
"""What each attribute of the transport may be; the DTLS roles are from RFC 8842 section 5."""

_HEX_PAIRS = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*")
_CANDIDATE = re.compile(  # RFC 8839 section 5.1; RFC 6544 section 4.5 for TCP
    r"candidate:[A-Za-z0-9+/]{1,32} [12] (?:udp|UDP|tcp|TCP) \d{1,10}"
    r" [0-9A-Za-z.:-]{1,253} (\d{1,5}) typ (?:host|srflx|prflx|relay)((?: [!-~]+)*+)"
)


def check_candidate(candidate: IceCandidate) -> None:
    """Check the syntax of a trickled candidate; an empty one ends the list (RFC 8838 section 8).

    Raises:
        ProtocolError: `bad_sdp`.
    """
    if candidate.candidate:
        check_candidate_line(candidate.candidate)
    if candidate.username_fragment is not None and not _UFRAG.fullmatch(candidate.username_fragment):
        raise ProtocolError("bad_sdp", "a candidate whose username fragment is not one")


def check_description(description: SessionDescription, role: Role) -> None:
    """Check an offer or answer of a participant with this role.

    Raises:
        ProtocolError: `bad_sdp`, malformed or against the policy above.
        RefusalError: `not_permitted`, an observer who would send.
    """
    parsed = sdp.parse(description.sdp)
    levels = (parsed.session, *parsed.media)
    live = [section for section in parsed.media if section.port or section.has("bundle-only")]  # RFC 9143 section 6
    if not parsed.media:
        raise ProtocolError("bad_sdp", "no media section")
    for section in live:
        _check_section(section)
    check_bundle(parsed.session, live)
    _check_fingerprints(levels)
    check_transport(parsed.session, live, description.type)
    for level in levels:
        if level.has("crypto"):
            raise ProtocolError("bad_sdp", "SDES keys (a=crypto) are not accepted")
        for value in level.values("candidate"):
            check_candidate_line("candidate:" + value)
    if role == "observer" and any(sends(parsed.session, section) for section in live):
        raise RefusalError("not_permitted")


def _check_section(section: sdp.MediaSection) -> None:
    if section.kind in ("audio", "video"):
        if section.protocol != _RTP:
            raise ProtocolError("bad_sdp", f"media only over {_RTP}")
        if not section.has("rtcp-mux"):
            raise ProtocolError("bad_sdp", "media without rtcp-mux")
    elif section.kind == "application":
        if section.protocol != _SCTP or section.formats != ["webrtc-datachannel"]:
            raise ProtocolError("bad_sdp", f"data channels only over {_SCTP}")
        if not section.has("sctp-port"):
            raise ProtocolError("bad_sdp", "data channels without sctp-port")
    else:
        raise ProtocolError("bad_sdp", "a media section that is neither audio, video nor data channels")


def check_bundle(session: sdp.Section, live: list[sdp.MediaSection]) -> None:
    """Check that everything live shares one transport: a mid each, all in BUNDLE groups (RFC 9143)."""
    mids = {mid for section in live for mid in section.values("mid")}
    if len(mids) != len(live) or not all(section.has("mid") for section in live):
        raise ProtocolError("bad_sdp", "each media section has a mid of its own")
    for group in session.values("group"):
        semantics, *bundled = group.split(" ")
        if semantics == "BUNDLE":
            mids.difference_update(bundled)
    if mids:
        raise ProtocolError("bad_sdp", "a media section outside the BUNDLE group")


def _check_fingerprints(levels: tuple[sdp.Section, ...]) -> None:
    """One certificate for everything, hashed by SHA-256 or stronger (RFC 8122 section 5, SECURITY.md row 4)."""
    found = {value.lower() for value in {value for level in levels for value in level.values("fingerprint")}}
    if len(found) != 1:
        raise ProtocolError("bad_sdp", "exactly one certificate fingerprint is required")
    algorithm, _, pairs = found.pop().partition(" ")
    check_fingerprint(algorithm, pairs)


def check_fingerprint(algorithm: str, pairs: str) -> None:
    """Check the shape of one fingerprint, its algorithm in lower case."""
    if algorithm not in HASH_BYTES or not _HEX_PAIRS.fullmatch(pairs):
        raise ProtocolError("bad_sdp", "the fingerprint is not SHA-256 or stronger")
    if len(pairs) != 3 * HASH_BYTES[algorithm] - 1:
        raise ProtocolError("bad_sdp", "the fingerprint has the wrong length")


def check_transport(session: sdp.Section, live: list[sdp.MediaSection], kind: Literal["offer", "answer"]) -> None:
    """Check ICE credentials and DTLS role: present where the bundle's transport is, legal wherever they are."""
    for name, legal in _LEGAL[kind].items():
        found = {value for section in live for value in section.values(name)}.union(session.values(name))
        if not all(map(legal, found)):
            raise ProtocolError("bad_sdp", f"an {name} that an {kind} may not have")
        if live and not live[0].has(name) and not session.has(name):
            raise ProtocolError("bad_sdp", f"no {name}")


def sends(session: sdp.Section, section: sdp.MediaSection) -> bool:
    """Whether the section sends audio or video; `sendrecv` when it does not say (RFC 8866 section 6.7)."""
    if section.kind == "application":
        return False
    for level in (section, session):
        if level.has("sendrecv") or level.has("sendonly"):
            return True
        if level.has("recvonly") or level.has("inactive"):
            return False
    return True


def check_candidate_line(line: str) -> None:
    """Check the syntax of a candidate line, `candidate:` included."""
    match = _CANDIDATE.fullmatch(line)
    # Address, port and type are followed by names with a value each, `raddr` and `rport` among them.
    if match is None or int(match[1]) > 65_535 or match[2].count(" ") % 2 or len(line) > MAX_CANDIDATE_BYTES:
        raise ProtocolError("bad_sdp", "a candidate that does not parse")
