"""What is remembered, as plain values: the rows of the database as the rest of the server sees them.

`store.py` keeps them, `tables.py` says how. Secrets appear as digests only (see `ids.py`); times are aware, in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from server.audit import AuditKind

Language = Literal["fr", "en"]
Role = Literal["clinician", "patient", "guest", "observer"]
Topology = Literal["auto", "direct-only", "relay-only"]
Algorithm = Literal["EdDSA", "ES256", "RS256"]


@dataclass(frozen=True)
class Tenant:
    """A clinic. Its slug is in page addresses; from it come branding, language and who may embed."""

    slug: str
    """`^[a-z0-9](-?[a-z0-9])*$`, at most 40 characters."""
    name: str
    """Shown to patients."""
    language: Language = "fr"
    colour: str = ""
    """`#1f6f8b`, or empty for ours."""
    origins: tuple[str, ...] = ()
    """Exact origins that may embed: `frame-ancestors` and postMessage."""
    topology: Topology = "auto"
    retention_days: int = 30
    """How long ended rooms, their links, seats and audit events are kept."""
    logo_digest: str = ""
    """Empty: no logo. Otherwise served at `/t/<slug>/logo?v=<digest>`."""


@dataclass(frozen=True)
class ApiKeyRecord:
    """A host's key to the REST API. The key itself is shown once and kept as a digest."""

    id: str
    tenant: str
    label: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class SigningKey:
    """A public key of the host's, for links it signs itself; never a shared secret."""

    tenant: str
    kid: str
    algorithm: Algorithm
    public_pem: str
    created_at: datetime


@dataclass(frozen=True)
class RoomRecord:
    """A consultation."""

    id: str
    tenant: str
    reference: str
    """The host's own id, unique per tenant; empty: none."""
    topology: Topology
    created_at: datetime
    ended_at: datetime | None
    end_reason: str
    """`clinician`, `host`, `limit`, or empty while it is open."""


@dataclass(frozen=True)
class LinkRecord:
    """An invitation. Its secret is in the address that the person gets, and here only as a digest."""

    id: str
    room: str
    tenant: str
    role: Role
    name: str
    secret_digest: str
    not_before: datetime | None
    expires_at: datetime | None
    single_use: bool
    """One device at a time; False: each device gets a seat of its own."""
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class SeatRecord:
    """A participant's place, kept until the room ends."""

    id: str
    """The ParticipantId."""
    room: str
    origin: str
    """The link's id, or `jwt:<digest of iss and jti>`."""
    role: Role
    name: str
    resume_digest: str
    """Of the current resume secret; empty after removal."""
    admitted: bool
    closed: str
    """Empty, `refused`, `removed` or `transferred`; a closed seat is never resumed."""
    created_at: datetime


@dataclass(frozen=True)
class AuditEvent:
    """One line of the audit trail."""

    at: datetime
    tenant: str
    room: str
    """Empty for what concerns the tenant only."""
    kind: AuditKind
    actor: str
    """A participant id, `host`, `operator` or `server`."""
    subject: str
    """A participant, link or key id, or empty."""
    detail: str
    """A code, never the free text of a person."""
    seq: int = 0
    """Place in the trail, given by the database; 0 before that."""


class Position(NamedTuple):
    """Where a page of rooms or links ended: the next one starts behind it."""

    created_at: datetime
    id: str
