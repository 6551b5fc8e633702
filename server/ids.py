"""Identifiers and secrets, and how they are made.

Every id that a stranger could try has at least 128 bits from the operating system's generator, so that a room, a link
or a participant cannot be guessed or enumerated. Secrets are kept only as SHA-256 digests: they carry 128 bits of
entropy themselves, so a slow password hash would add cost and no safety.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NewType

RoomId = NewType("RoomId", str)
ParticipantId = NewType("ParticipantId", str)
LinkId = NewType("LinkId", str)
TenantSlug = NewType("TenantSlug", str)

ID_LENGTH = 22
"""Of base64url, 6 bits each: short enough for an SMS, too many to try."""


def new_id() -> str:
    """Return a fresh id or link secret: 22 random characters of base64url, 131 bits.

    It begins and ends with a letter or digit: a command line takes no option for it, and a messaging application that
    makes links out of text takes all of it.
    """
    while True:
        candidate = secrets.token_urlsafe(17)[:ID_LENGTH]
        if candidate[0].isalnum() and candidate[-1].isalnum():
            return candidate


def new_api_key() -> str:
    """Return a fresh host API key: 256 random bits behind a prefix that secret scanners can recognise."""
    return "clq_" + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal: the only form in which it is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def shorten(identifier: str) -> str:
    """Return the first six characters of an id: enough to follow it through a log, too little to use it."""
    return identifier[:6]
