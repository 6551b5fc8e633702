"""The HTTP headers that keep a browser on our side, on every answer.

Spec: OWASP ASVS 5.0 chapter V3, W3C CSP level 3, W3C Permissions Policy; SECURITY row 21. No inline script or style, no
third party, no cookie, no referrer; camera and microphone for ourselves only; framing by nobody unless a page says so.
"""

from __future__ import annotations

from collections.abc import Sequence

_ALLOWED = (
    "autoplay", "camera", "display-capture", "fullscreen", "microphone", "picture-in-picture", "screen-wake-lock",
    "speaker-selection",
)  # fmt: skip
_DENIED = (
    "accelerometer", "attribution-reporting", "bluetooth", "browsing-topics", "clipboard-read", "encrypted-media",
    "gamepad", "geolocation", "gyroscope", "hid", "identity-credentials-get", "idle-detection", "local-fonts",
    "magnetometer", "midi", "otp-credentials", "payment", "publickey-credentials-create", "publickey-credentials-get",
    "serial", "storage-access", "usb", "web-share", "window-management", "xr-spatial-tracking",
)  # fmt: skip
PERMISSIONS_POLICY = ", ".join([*(f"{name}=(self)" for name in _ALLOWED), *(f"{name}=()" for name in _DENIED)])

_HSTS = "max-age=31536000"
"""One year; without subdomains, which are not ours to speak for."""


def content_security_policy(origin: str, ancestors: Sequence[str] = ()) -> str:
    """Return the policy of one answer.

    Args:
        origin: Our own, `https://video.example.org`; its WebSocket form is named because older Safari versions do not
            count it as 'self'.
        ancestors: Exact origins that may frame this page; nobody when empty.
    """
    socket_origin = "ws" + origin.removeprefix("http")
    return "; ".join([
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "media-src 'self' blob:",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        f"connect-src 'self' {socket_origin}",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors " + (" ".join(ancestors) or "'none'"),
    ])  # fmt: skip


def base_headers(origin: str) -> dict[str, str]:
    """Return the headers of every answer; a page or file may set its own value first."""
    headers = {
        "Content-Security-Policy": content_security_policy(origin),
        "Permissions-Policy": PERMISSIONS_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Server": "colloque",
    }
    if origin.startswith("https:"):
        headers["Strict-Transport-Security"] = _HSTS
    return headers


def static_headers(path: str) -> dict[str, str]:
    """Return what a file under /static/ adds: revalidated at each use, so that an upgrade is never half seen.

    The SDK is the one thing that a host's page loads from us: any origin may.
    """
    headers = {"Cache-Control": "no-cache"}
    if path.startswith("/static/sdk/"):
        headers |= {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
    return headers


def embed_headers(origin: str, ancestors: Sequence[str]) -> dict[str, str]:
    """Return what the embedded page changes: who may frame it, and that it keeps no window apart from its host's."""
    return {
        "Content-Security-Policy": content_security_policy(origin, ancestors),
        "Cross-Origin-Opener-Policy": "unsafe-none",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
