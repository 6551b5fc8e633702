"""What a clinic may set, beyond what a type can say: the same checks for the REST API and the command line.

Each function returns the value in the form in which it is kept, or raises ValueError with one sentence that says what
is wrong and what to write instead. The sentence quotes nothing of the value.
"""

from __future__ import annotations

import ipaddress
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from server.records import Algorithm

SLUG_PATTERN = "^[a-z0-9](-?[a-z0-9])*$"
MAX_SLUG = 40
"""`/t/<slug>/embed#<22 characters>` stays within the 80 characters of an SMS after the host."""
COLOUR_PATTERN = "^#[0-9a-fA-F]{6}$"
TEXT_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]*$(?!\n)"
"""One line of text: no control characters, and none that turn the direction of what is written around it."""
KEY_ID_PATTERN = "^[A-Za-z0-9._-]{1,64}$"
MAX_NAME = 80
MAX_ORIGINS = 20
MAX_RETENTION_DAYS = 3650
_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
_MAX_RSA_BITS = 8192  # a signature check is at most a millisecond
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def slug(text: str) -> str:
    """Check a tenant's name in page addresses."""
    if len(text) > MAX_SLUG or not re.fullmatch(SLUG_PATTERN.strip("^$"), text):
        raise ValueError(f"a slug has 1 to {MAX_SLUG} characters a-z, 0-9 and single hyphens between them")
    return text


def line(text: str) -> str:
    """Check a label that people read."""
    if len(text) > MAX_NAME or not re.search(TEXT_PATTERN, text):
        raise ValueError(f"a name or label has at most {MAX_NAME} characters, on one line")
    return text


def name(text: str) -> str:
    """Check a clinic's name."""
    if not text.strip():
        raise ValueError("a clinic has a name, which its patients read")
    return line(text)


def key_id(text: str) -> str:
    """Check a `kid`."""
    if not re.fullmatch(KEY_ID_PATTERN.strip("^$"), text):
        raise ValueError("a kid has 1 to 64 characters a-z, A-Z, 0-9, dot, hyphen and underscore")
    return text


def colour(text: str) -> str:
    """Check a colour, `#1f6f8b`, or "" for ours.

    Any colour will do: the pages keep its hue and take a lightness that can be read on (`web/static/css/tokens.css`).
    """
    if text and not re.fullmatch(COLOUR_PATTERN.strip("^$"), text):
        raise ValueError("a colour is written #rrggbb, such as #1f6f8b")
    return text.lower()


def origin(text: str) -> str:
    """Check an origin, exactly as a browser writes it (RFC 6454 section 6.1): scheme, host, and port unless usual."""
    match = re.fullmatch(r"(https?)://(\[[0-9a-f:.]+\]|[^\[\]:/?#@\s*]+)(?::([1-9][0-9]{0,4}))?", text)
    if match is None:
        raise ValueError(
            "an origin is scheme://host or scheme://host:port, in lower case, with no path, no slash at the end and no "
            "wildcard, such as https://rdv.example.fr"
        )
    scheme, host, port = match[1], match[2], int(match[3] or 0)
    if not _is_host(host):
        raise ValueError(
            "the host of an origin is a name (in lower case, accents as xn--...), an IPv4 address, or an IPv6 address "
            "in brackets and in its short form"
        )
    if port > 65_535:
        raise ValueError("the port of an origin is at most 65535")
    if port == (443 if scheme == "https" else 80):
        raise ValueError(f"an origin leaves out the usual port: remove :{port}")
    if scheme == "http" and host not in _LOOPBACK:
        raise ValueError("an origin starts with https://, but for localhost, 127.0.0.1 and [::1]")
    return text


def origins(texts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Check the origins that may embed: at most 20, each once."""
    if len(texts) > MAX_ORIGINS:
        raise ValueError(f"at most {MAX_ORIGINS} origins")
    return tuple(dict.fromkeys(origin(text) for text in texts))


def retention_days(days: int) -> int:
    """Check how long ended rooms are kept."""
    if not 1 <= days <= MAX_RETENTION_DAYS:
        raise ValueError(f"retention is 1 to {MAX_RETENTION_DAYS} days")
    return days


def public_key(pem: str) -> tuple[Algorithm, str]:
    """Check a public key in PEM and return its JWT algorithm, which follows from its kind, and its usual form.

    Ed25519 is for EdDSA (RFC 8037), P-256 for ES256, RSA of 2048 to 8192 bits for RS256 (RFC 7518).
    """
    if "PRIVATE" in pem:
        raise ValueError(
            "this is a private key, which is nobody's but yours: consider it disclosed, make another pair, and send "
            "the public key of that one"
        )
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("not a public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if isinstance(key, Ed25519PublicKey):
        algorithm: Algorithm = "EdDSA"
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithm = "ES256"
    elif isinstance(key, RSAPublicKey):
        if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS or key.public_numbers().e < 65_537:
            raise ValueError("an RSA key has 2048 to 8192 bits and a public exponent of at least 65537")
        algorithm = "RS256"
    else:
        raise ValueError("a signing key is Ed25519, P-256, or RSA of at least 2048 bits")
    return algorithm, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])) == host[1:-1]
        except ValueError:
            return False
    labels = host.split(".")
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(host)) == host
        except ValueError:
            return False
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
