"""What the REST API takes and gives: one struct per body and query, the source of its JSON Schema.

JSON members are camelCase. A member that is not described is refused, so that a misspelt one is noticed. What a schema
cannot say (an expiry in the past, a key that is too short) is in `checks.py` and answered 422.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from server import checks
from server.audit import AuditKind
from server.records import Algorithm, AuditEvent, Language, LinkRecord, Role, RoomRecord, SigningKey, Tenant, Topology

Moment = Annotated[
    datetime, Meta(tz=True, description="RFC 3339 with its offset from UTC, such as 2026-03-02T09:00:00+01:00.")
]
Identity = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{22}$", description="128 random bits in base64url.")]
Name = Annotated[str, Meta(max_length=checks.MAX_NAME, pattern=checks.TEXT_PATTERN)]
Reference = Annotated[
    str,
    Meta(
        max_length=128,
        pattern=checks.TEXT_PATTERN,
        description="Your own identifier of the consultation, unique among your rooms. Choose one that names nobody.",
    ),
]
Colour = Annotated[
    str,
    Meta(
        pattern="^(#[0-9a-fA-F]{6})?$",
        description="Of buttons and accents. Text on it is black or white, whichever reads better. Empty: ours.",
    ),
]
Origin = Annotated[str, Meta(max_length=270, description="As a browser writes it: https://rdv.example.fr")]
Origins = Annotated[
    list[Origin], Meta(max_length=checks.MAX_ORIGINS, description="Who may embed the room in a frame; nobody if empty.")
]
RetentionDays = Annotated[
    int,
    Meta(
        ge=1,
        le=checks.MAX_RETENTION_DAYS,
        description="How long an ended room, its links, seats and events are kept.",
    ),
]
KeyId = Annotated[str, Meta(pattern=checks.KEY_ID_PATTERN, description="The `kid` of the tokens it signs.")]
Cursor = Annotated[
    str, Meta(max_length=64, pattern="^[A-Za-z0-9_-]*$", description="`next` of the page before; the first without.")
]
Limit = Annotated[int, Meta(ge=1, le=100)]


class Body(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A JSON object."""


class Page(Body, frozen=True, kw_only=True):
    """One page of a list."""

    next: str | None
    """Cursor of the next page; null on the last."""


# -- rooms ------------------------------------------------------------------------------------------------------------


class NewRoom(Body, frozen=True, kw_only=True):
    """A room to open."""

    reference: Reference = ""
    topology: Topology | None = None


class RoomPath(Body, frozen=True, kw_only=True):
    """Which way a room's sound and pictures are to go."""

    path: Annotated[
        Literal["relayed", "auto"],
        Meta(description="`relayed`: through the media server until told otherwise. `auto`: as the server sees fit."),
    ]


class Room(Body, frozen=True, kw_only=True):
    """A consultation."""

    id: Identity
    reference: str
    state: Literal["open", "ended"]
    topology: Topology
    created_at: Moment
    ended_at: Moment | None
    end_reason: Annotated[str, Meta(description="clinician, host or limit; empty while it is open.")]
    participants: Annotated[
        dict[str, int],
        Meta(description="How many are there now: arrived, waiting, admitted, joined, left. Empty when nobody is."),
    ]


class Rooms(Page, frozen=True, kw_only=True):
    """Rooms, newest first."""

    items: list[Room]


class RoomsQuery(Body, frozen=True, kw_only=True):
    """Which rooms."""

    state: Literal["open", "ended"] | None = None
    reference: Reference = ""
    after: Cursor = ""
    limit: Limit = 50


class PageQuery(Body, frozen=True, kw_only=True):
    """Which page."""

    after: Cursor = ""
    limit: Limit = 50


class Event(Body, frozen=True, kw_only=True):
    """One line of a room's audit trail. It never holds a name: `subject` and `actor` are ids or roles of the system."""

    seq: int
    at: Moment
    kind: AuditKind
    actor: Annotated[str, Meta(description="A participant's id, host, operator or server.")]
    subject: Annotated[str, Meta(description="A participant's or link's id, or empty.")]
    detail: Annotated[str, Meta(description="A code, or empty.")]


class Events(Page, frozen=True, kw_only=True):
    """Events in the order in which they happened. `next` is never null: ask with it again for what came later."""

    items: list[Event]


# -- links ------------------------------------------------------------------------------------------------------------


class NewLink(Body, frozen=True, kw_only=True):
    """An invitation to make."""

    role: Role
    name: Annotated[Name, Meta(description="What the others in the room see.")] = ""
    not_before: Moment | None = None
    expires_at: Annotated[Moment | None, Meta(description="To come in by; whoever is in the room stays.")] = None
    single_use: Annotated[
        bool, Meta(description="One device at a time; false: each device that opens the link is a participant.")
    ] = True


class Link(Body, frozen=True, kw_only=True):
    """An invitation into a room."""

    id: Identity
    room: Identity
    role: Role
    name: str
    not_before: Moment | None
    expires_at: Moment | None
    single_use: bool
    created_at: Moment
    revoked_at: Moment | None


class MintedLink(Link, frozen=True, kw_only=True):
    """A new invitation, with its addresses. They hold the secret, which we do not keep: they cannot be had again."""

    url: Annotated[str, Meta(description="To send to the person.")]
    embed_url: Annotated[str, Meta(description="For the iframe or `Colloque.mount` in one of your own pages.")]


class Links(Page, frozen=True, kw_only=True):
    """Links, oldest first."""

    items: list[Link]


# -- the tenant -------------------------------------------------------------------------------------------------------


class TenantSettings(Body, frozen=True, kw_only=True):
    """Your clinic, as its patients see it, and its policies."""

    slug: str
    name: str
    language: Language
    colour: str
    origins: list[str]
    topology: Topology
    retention_days: int
    logo: Annotated[str | None, Meta(description="Address of the logo; null without one.")]


class TenantChanges(Body, frozen=True, kw_only=True):
    """What to change; what is left out stays."""

    name: Annotated[Name, Meta(min_length=1)] | UnsetType = UNSET
    language: Language | UnsetType = UNSET
    colour: Colour | UnsetType = UNSET
    origins: Origins | UnsetType = UNSET
    topology: Topology | UnsetType = UNSET
    retention_days: RetentionDays | UnsetType = UNSET


class NewSigningKey(Body, frozen=True, kw_only=True):
    """A public key whose owner may sign links instead of asking us for them."""

    kid: KeyId
    public_key: Annotated[
        str,
        Meta(max_length=4096, description="PEM: Ed25519, P-256, or RSA of at least 2048 bits. Never a private key."),
    ]


class PublicKey(Body, frozen=True, kw_only=True):
    """A registered public key."""

    kid: str
    algorithm: Algorithm
    public_key: str
    created_at: Moment


class PublicKeys(Page, frozen=True, kw_only=True):
    """All registered public keys, oldest first."""

    items: list[PublicKey]


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was not carried out (RFC 9457)."""

    type: Annotated[str, Meta(description="urn:colloque:problem:<code>")]
    title: str
    status: int
    detail: Annotated[str, Meta(description="One sentence: what is wrong and what to do.")]
    code: Annotated[str, Meta(description="For programs; never changes.")]
    member: Annotated[str, Meta(description="The member of the body or query that is wrong, such as `origins[1]`.")] = (
        ""
    )
    room: Annotated[str, Meta(description="With reference_taken: the id of the room that has it.")] = ""


# -- from records -----------------------------------------------------------------------------------------------------


def room(record: RoomRecord, participants: dict[str, int]) -> Room:
    """Show a room."""
    return Room(
        id=record.id,
        reference=record.reference,
        state="ended" if record.ended_at else "open",
        topology=record.topology,
        created_at=record.created_at,
        ended_at=record.ended_at,
        end_reason=record.end_reason,
        participants=participants,
    )


def event(record: AuditEvent) -> Event:
    """Show a line of the audit trail."""
    return Event(
        seq=record.seq,
        at=record.at,
        kind=record.kind,
        actor=record.actor,
        subject=record.subject,
        detail=record.detail,
    )


def link(record: LinkRecord) -> Link:
    """Show a link."""
    return Link(**_link_members(record))


def minted_link(record: LinkRecord, origin: str, secret: str) -> MintedLink:
    """Show a link just made, with the addresses that its secret opens."""
    page = f"{origin}/t/{record.tenant}"
    return MintedLink(**_link_members(record), url=f"{page}/r#{secret}", embed_url=f"{page}/embed#{secret}")


def _link_members(record: LinkRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Link.__struct_fields__}


def settings(record: Tenant, origin: str) -> TenantSettings:
    """Show a tenant."""
    return TenantSettings(
        slug=record.slug,
        name=record.name,
        language=record.language,
        colour=record.colour,
        origins=list(record.origins),
        topology=record.topology,
        retention_days=record.retention_days,
        logo=f"{origin}/t/{record.slug}/logo?v={record.logo_digest}" if record.logo_digest else None,
    )


def public_key(record: SigningKey) -> PublicKey:
    """Show a signing key."""
    return PublicKey(
        kid=record.kid, algorithm=record.algorithm, public_key=record.public_pem, created_at=record.created_at
    )
