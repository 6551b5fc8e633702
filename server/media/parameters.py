"""What negotiation tells the media plane, and what it answers: plain values, after the dictionaries of ORTC.

Made by: signalling (out of SDP), the Sfu (its answers). Read by every part of `media`. No behaviour here.
Spec: RFC 8445 (ICE), RFC 8122 (fingerprints), RFC 8285 (header extensions), RFC 8852 (rid).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

Kind = Literal["audio", "video"]
Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
DtlsRole = Literal["auto", "client", "server"]


class Endpoint(NamedTuple):
    """Where datagrams come from or go to. A tuple, because the relay gives and takes it as one."""

    ip: str
    """IPv4 or IPv6, as text without brackets or zone."""
    port: int
    kind: Literal["udp", "tcp"] = "udp"


class SrtpProfile(IntEnum):
    """DTLS-SRTP protection profiles, by their registered number (RFC 5764 section 4.1.2, RFC 7714 section 14.2)."""

    AES128_CM_SHA1_80 = 0x0001
    AEAD_AES_128_GCM = 0x0007
    AEAD_AES_256_GCM = 0x0008


@dataclass(frozen=True)
class IceParameters:
    """Credentials of one side (RFC 8445 section 5.3)."""

    ufrag: str
    pwd: str = field(repr=False)


@dataclass(frozen=True)
class Fingerprint:
    """Digest of a certificate: `sha-256` and hexadecimal with colons, as in SDP."""

    algorithm: str
    value: str


@dataclass(frozen=True)
class DtlsParameters:
    """Who a peer is, and who opens the handshake (`a=setup`: active is client, passive is server, actpass is auto)."""

    fingerprints: tuple[Fingerprint, ...]
    role: DtlsRole = "auto"


@dataclass(frozen=True)
class LocalParameters:
    """What our answer says about one transport."""

    ice: IceParameters
    dtls: DtlsParameters
    candidates: tuple[Endpoint, ...]
    """Host candidates, best first; TCP ones are passive (RFC 6544)."""


@dataclass(frozen=True)
class CodecParameters:
    """One payload type."""

    name: str
    """Without the kind, as registered: `opus`, `VP8`, `H264`, `red`."""
    payload_type: int
    clock_rate: int
    channels: int = 1
    parameters: tuple[tuple[str, str], ...] = ()
    """Of `a=fmtp`, in order; a lone token has an empty value."""
    feedback: tuple[str, ...] = ()
    """Of `a=rtcp-fb`: `nack`, `nack pli`, `ccm fir`, `transport-cc`."""
    rtx_payload_type: int | None = None


@dataclass(frozen=True)
class HeaderExtension:
    """One `a=extmap`."""

    id: int
    uri: str


@dataclass(frozen=True)
class EncodingParameters:
    """One stream of a track: found by `rid`, by `ssrc`, or by both."""

    rid: str = ""
    ssrc: int | None = None
    """None until the first packet that carries the rid."""
    rtx_ssrc: int | None = None
    active: bool = True


@dataclass(frozen=True)
class TrackParameters:
    """One media section, as negotiated."""

    mid: str
    kind: Kind
    direction: Direction
    codecs: tuple[CodecParameters, ...]
    extensions: tuple[HeaderExtension, ...] = ()
    encodings: tuple[EncodingParameters, ...] = ()
    cname: str = ""


@dataclass(frozen=True)
class SendParameters:
    """What the answer says about a track that we forward."""

    mid: str
    ssrc: int
    rtx_ssrc: int | None
    codecs: tuple[CodecParameters, ...]
    cname: str
    msid: str
