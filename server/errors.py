"""The exception tree.

    ColloqueError
    ├── ConfigError            the operator's settings are wrong; the message says which and what to do
    ├── RefusalError           somebody asked for what they may not have; carries a stable code
    │   └── ApiError           the same towards a host, with an HTTP status (RFC 9457)
    ├── ProtocolError          bytes from the network that do not parse; never leaves the machine that parses them
    └── InvalidStateError      our own misuse of our own code

A `code` is for programs and never changes; the sentence for people is looked up in the catalogue (`error.<code>`).
"""

from __future__ import annotations


class ColloqueError(Exception):
    """Root of everything we raise on purpose."""


class ConfigError(ColloqueError):
    """A setting is missing, malformed or contradictory."""


class RefusalError(ColloqueError):
    """A request that is understood and not granted.

    Args:
        code: The stable code of PROTOCOL.md, for instance `link_expired`.
        reason: What the page needs beside the code; for `link_not_yet` when the link opens, ISO 8601.
    """

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.reason = reason


class ApiError(RefusalError):
    """A refusal towards a host, answered as an RFC 9457 problem document.

    Args:
        status: The HTTP status.
        code: The stable code, last part of the problem's `type`.
        detail: One English sentence that says what is wrong and what to do; never a secret, never a person's name.
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(code)
        self.status = status
        self.detail = detail


class ProtocolError(ColloqueError):
    """Bytes from the network that do not parse.

    Args:
        code: The stable code of PROTOCOL.md, for instance `bad_message`.
        detail: What is wrong with them, for the developer at the other end; quotes nothing that was received.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class InvalidStateError(ColloqueError):
    """Our own code called something out of order: a bug to fix, never an input to handle."""
