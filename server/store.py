"""The durable tables and the few queries on them, on SQLite and PostgreSQL alike. [IO]

CONTRACT (being implemented): records and signatures below are agreed; the owner of this file fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Role = Literal["clinician", "patient", "guest", "observer"]
Topology = Literal["auto", "direct-only", "relay-only"]


@dataclass(frozen=True)
class Tenant:
    """A clinic."""

    slug: str                       # ^[a-z0-9](-?[a-z0-9])*$, <= 40 characters; in page addresses
    name: str                       # shown to patients
    language: Literal["fr", "en"] = "fr"
    colour: str = ""                # "#1f6f8b" or "" for ours
    origins: tuple[str, ...] = ()   # exact origins that may embed: frame-ancestors and postMessage
    topology: Topology = "auto"
    retention_days: int = 30        # of ended rooms, their links and seats
    logo_digest: str = ""           # "" = none; served at /t/<slug>/logo?v=<digest>


@dataclass(frozen=True)
class SigningKey:
    """A public key of the host's, for links it signs itself (EdDSA, ES256 or RS256; never a shared secret)."""

    tenant: str
    kid: str
    algorithm: Literal["EdDSA", "ES256", "RS256"]
    public_pem: str
    created_at: datetime


@dataclass(frozen=True)
class RoomRecord:
    id: str
    tenant: str
    reference: str                  # the host's own id, unique per tenant, "" = none
    topology: Topology
    created_at: datetime
    ended_at: datetime | None
    end_reason: str                 # "clinician" | "host" | "limit" | ""


@dataclass(frozen=True)
class LinkRecord:
    id: str
    room: str
    tenant: str
    role: Role
    name: str
    secret_digest: str
    not_before: datetime | None
    expires_at: datetime | None
    single_use: bool                # one device at a time; False: each device gets a seat of its own
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class SeatRecord:
    """A participant's place, kept until the room ends. `origin` is the link id or "jwt:<digest of iss+jti>"."""

    id: str                         # ParticipantId
    room: str
    origin: str
    role: Role
    name: str
    resume_digest: str              # "" after removal
    admitted: bool
    closed: str                     # "" | "refused" | "removed" | "transferred"; a closed seat is never resumed
    created_at: datetime


@dataclass(frozen=True)
class AuditEvent:
    """Append-only. `kind`: room.created, room.ended, link.minted, link.revoked, participant.arrived, participant.waiting,
    participant.admitted, participant.refused, participant.joined, participant.reconnecting, participant.resumed,
    participant.left, participant.sent_back, participant.removed, participant.transferred, tenant.changed ..."""

    at: datetime
    tenant: str
    room: str                       # "" when none
    kind: str
    actor: str                      # participant id, "host", "operator" or "server"
    subject: str                    # participant or link id, ""
    detail: str                     # a reason code, never free text of a person
