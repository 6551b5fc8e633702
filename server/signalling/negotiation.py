"""What two browsers may agree on through us: the policy on descriptions and candidates, checked before relaying.

The server changes nothing in them. It refuses what a browser of ours never writes: unencrypted or SDES media, several
certificates, transports outside the bundle, media that the role may not send. Driven by `rooms.py`.

Spec: RFC 9429 (JSEP), 9143 (BUNDLE), 8839 (ICE in SDP), 8842 and 8122 (DTLS and its fingerprints), 8841 (SCTP).
"""

from __future__ import annotations

import re
from typing import Literal

from server.errors import ProtocolError, RefusalError
from server.signalling import sdp
from server.signalling.messages import IceCandidate, Role, SessionDescription

_RTP = "UDP/TLS/RTP/SAVPF"
_SCTP = "UDP/DTLS/SCTP"
_SETUP = {"offer": {"actpass", "active", "passive"}, "answer": {"active", "passive"}}  # RFC 8842 section 5
_HASH_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # RFC 8122 section 5; MD5 and SHA-1 are not enough
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
_MAY_SEND = frozenset({"sendrecv", "sendonly"})

_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")  # RFC 8839 section 5.4
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_HEX_PAIRS = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*")
_BUNDLE = re.compile(r"BUNDLE((?: [!-~]+)*)")
_CANDIDATE = re.compile(  # RFC 8839 section 5.1; RFC 6544 section 4.5 for TCP
    r"candidate:[A-Za-z0-9+/]{1,32} [12] (?:udp|UDP|tcp|TCP) \d{1,10}"
    r" [0-9A-Za-z.:-]{1,253} (\d{1,5}) typ (?:host|srflx|prflx|relay)"
    r"(?: raddr [0-9A-Za-z.:-]{1,253})?(?: rport \d{1,5})?(?: [!-~]{1,64} [!-~]{1,256}){0,16}"
)


def check_candidate(candidate: IceCandidate) -> None:
    """Check the syntax of a trickled candidate; an empty one ends the list (RFC 8838 section 8).

    Raises:
        ProtocolError: `bad_sdp`.
    """
    if candidate.candidate:
        _check_candidate_line(candidate.candidate)
    if candidate.username_fragment is not None and not _UFRAG.fullmatch(candidate.username_fragment):
        raise ProtocolError("bad_sdp", "a candidate whose username fragment is not one")


def check_description(description: SessionDescription, role: Role) -> None:
    """Check an offer or answer of a participant with this role.

    Raises:
        ProtocolError: `bad_sdp`, malformed or against the policy above.
        RefusalError: `not_permitted`, an observer who would send.
    """
    parsed = sdp.parse(description.sdp)
    if not parsed.media:
        raise ProtocolError("bad_sdp", "no media section")
    levels = (parsed.session, *parsed.media)
    live = [section for section in parsed.media if _is_live(section)]
    if any("crypto" in level.attributes for level in levels):
        raise ProtocolError("bad_sdp", "SDES keys (a=crypto) are not accepted")
    for section in live:
        _check_section(section)
    _check_bundle(parsed, live)
    _check_fingerprint(levels)
    _check_transport(parsed, live, description.type)
    for level in levels:
        for value in level.attributes.get("candidate", ()):
            _check_candidate_line("candidate:" + value)
    if role == "observer" and any(_sends(parsed.session, section) for section in live):
        raise RefusalError("not_permitted")


def _is_live(section: sdp.MediaSection) -> bool:
    """Port 0 rejects a section, unless it is `bundle-only` (RFC 9143 section 6)."""
    return section.port != 0 or "bundle-only" in section.attributes


def _check_section(section: sdp.MediaSection) -> None:
    if section.kind in ("audio", "video"):
        if section.protocol != _RTP:
            raise ProtocolError("bad_sdp", f"media only over {_RTP}")
        if "rtcp-mux" not in section.attributes:
            raise ProtocolError("bad_sdp", "media without rtcp-mux")
    elif section.kind == "application":
        if section.protocol != _SCTP or section.formats != ("webrtc-datachannel",):
            raise ProtocolError("bad_sdp", f"data channels only over {_SCTP}")
        if "sctp-port" not in section.attributes:
            raise ProtocolError("bad_sdp", "data channels without sctp-port")
    else:
        raise ProtocolError("bad_sdp", "a media section that is neither audio, video nor data channels")


def _check_bundle(parsed: sdp.Sdp, live: list[sdp.MediaSection]) -> None:
    mids = [section.first("mid") for section in live]
    if None in mids or len(set(mids)) != len(mids):
        raise ProtocolError("bad_sdp", "each media section has a mid of its own")
    bundled: set[str] = set()
    for value in parsed.session.attributes.get("group", ()):
        match = _BUNDLE.fullmatch(value)
        if match:
            bundled.update(match[1].split())
    if not bundled.issuperset(mids):
        raise ProtocolError("bad_sdp", "a media section outside the BUNDLE group")


def _check_fingerprint(levels: tuple[sdp.Section, ...]) -> None:
    """One certificate for everything, hashed by SHA-256 or stronger (RFC 8122 section 5, SECURITY.md row 4)."""
    found = {value.lower() for level in levels for value in level.attributes.get("fingerprint", ())}
    if len(found) != 1:
        raise ProtocolError("bad_sdp", "exactly one certificate fingerprint is required")
    algorithm, _, pairs = found.pop().partition(" ")
    if algorithm not in _HASH_BYTES or not _HEX_PAIRS.fullmatch(pairs):
        raise ProtocolError("bad_sdp", "the fingerprint is not SHA-256 or stronger")
    if len(pairs) != 3 * _HASH_BYTES[algorithm] - 1:
        raise ProtocolError("bad_sdp", "the fingerprint has the wrong length")


def _check_transport(parsed: sdp.Sdp, live: list[sdp.MediaSection], kind: Literal["offer", "answer"]) -> None:
    """Check ICE credentials and DTLS role: present where the bundle's transport is, legal wherever they are."""
    for name, legal in (("ice-ufrag", _UFRAG), ("ice-pwd", _PWD)):
        for level in (parsed.session, *live):
            for value in level.attributes.get(name, ()):
                if not legal.fullmatch(value):
                    raise ProtocolError("bad_sdp", f"an {name} that is not one")
    for level in (parsed.session, *live):
        if not _SETUP[kind].issuperset(level.attributes.get("setup", ())):
            raise ProtocolError("bad_sdp", f"a setup role that an {kind} may not have")
    if live:
        for name in ("ice-ufrag", "ice-pwd", "setup"):
            if live[0].first(name) is None and parsed.session.first(name) is None:
                raise ProtocolError("bad_sdp", f"no {name}")


def _sends(session: sdp.Section, section: sdp.MediaSection) -> bool:
    """Whether the section sends audio or video; `sendrecv` when it does not say (RFC 8866 section 6.7)."""
    if section.kind == "application":
        return False
    for level in (section, session):
        stated = [name for name in _DIRECTIONS if name in level.attributes]
        if stated:
            return not _MAY_SEND.isdisjoint(stated)
    return True


def _check_candidate_line(line: str) -> None:
    match = _CANDIDATE.fullmatch(line)
    if match is None or int(match[1]) > 65_535:
        raise ProtocolError("bad_sdp", "a candidate that does not parse")
