"""A clinic's logo: from the bytes of a stranger to a small PNG of our own making.

Only PNG, JPEG and WebP are even tried, the size is read from the header before a pixel is decoded, and what is kept is
drawn afresh: no metadata, no colour profile, no second frame, nothing that was in the file but its picture.
"""

from __future__ import annotations

import io

from PIL import Image, ImageOps

MAX_BYTES = 100_000
"""Of the upload, and of what is kept."""
MAX_SIDE = 1024
"""Pixels, of the upload: a million pixels decode in about 20 ms."""
_SIDES = (512, 384, 256, 128)
"""Kept at the first of these that fits MAX_BYTES. Pages show it 64 high; the rest is for dense screens."""


class LogoError(ValueError):
    """The upload is no logo; the message says why."""


def normalise(data: bytes) -> bytes:
    """Return the picture as a PNG of at most 512 x 512 pixels and 100 kB.

    Takes tens of milliseconds: call it on a thread.

    Raises:
        LogoError: Not a PNG, JPEG or WebP, broken, or too large.
    """
    if len(data) > MAX_BYTES:
        raise LogoError(f"a logo has at most {MAX_BYTES // 1000} kB")
    try:
        picture = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        if max(picture.size) > MAX_SIDE:
            raise LogoError(f"a logo has at most {MAX_SIDE} x {MAX_SIDE} pixels")
        pixels = ImageOps.exif_transpose(picture).convert("RGBA")
    except LogoError:
        raise
    except Exception:  # decoders raise whatever comes to them on malformed input
        raise LogoError("a logo is a PNG, JPEG or WebP picture, and this one cannot be read") from None
    fresh = Image.frombytes("RGBA", pixels.size, pixels.tobytes())
    for side in _SIDES:
        fresh.thumbnail((side, side), Image.Resampling.LANCZOS)
        png = io.BytesIO()
        fresh.save(png, "PNG", optimize=True)
        if png.tell() <= MAX_BYTES:
            break
    return png.getvalue()
