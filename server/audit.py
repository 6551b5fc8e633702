"""The vocabulary of the audit trail: every kind of event there is, in one place.

The trail is append-only (the database refuses anything else, see `store.py`) and holds ids, roles and codes, never a
name, a secret, an address or a word that somebody typed. Hosts read it through `GET /api/v1/rooms/{room}/events`.
"""

from __future__ import annotations

from typing import Literal

AuditKind = Literal[
    "tenant.created",
    "tenant.changed",
    "key.added",
    "key.revoked",
    "signing_key.added",
    "signing_key.deleted",
    "room.created",
    "room.ended",
    "link.minted",
    "link.revoked",
    "participant.arrived",
    "participant.waiting",
    "participant.admitted",
    "participant.refused",
    "participant.joined",
    "participant.reconnecting",
    "participant.resumed",
    "participant.left",
    "participant.sent_back",
    "participant.removed",
    "participant.transferred",
    "participant.taken_over",
    "path.moved",
    "path.ordered",
]
"""`<what>.<what happened to it>`, past tense. A new kind is added here first; hosts ignore kinds they do not know."""

HOST = "host"
"""Actor: the clinic's own software, through the REST API."""
OPERATOR = "operator"
"""Actor: somebody with a shell on the server, through the command line."""
SERVER = "server"
"""Actor: ourselves, for instance when a limit is reached."""
