"""A clinic's colour, turned into the few colours that a page needs to stay readable with it.

Spec: WCAG 2.2, definitions of relative luminance and contrast ratio; success criterion 1.4.3 (text, 4.5:1).
"""

from __future__ import annotations

Rgb = tuple[int, int, int]

_TEXT_CONTRAST = 4.5
_LIGHT_PAGE: Rgb = (255, 255, 255)
_DARK_PAGE: Rgb = (16, 24, 32)
"""The lightest and darkest grounds that text in the clinic's colour is put on (web/static/css/tokens.css)."""
_WHITE: Rgb = (255, 255, 255)
_BLACK: Rgb = (0, 0, 0)


def css(colour: str) -> str:
    """Return the style sheet of a tenant's colour; nothing but a comment for a tenant without one.

    Sets `--brand` (as given), `--brand-strong` (pressed, hovered), `--on-brand` (text on it, at least 4.5:1) and
    `--brand-text` (the colour itself as text on the page, made darker or lighter until it can be read).

    Args:
        colour: "#rrggbb", or "".
    """
    if not colour:
        return "/* This clinic uses the colours of tokens.css. */\n"
    brand = parse(colour)
    on_brand = max((_WHITE, _BLACK), key=lambda text: contrast(text, brand))
    away = _BLACK if on_brand == _WHITE else _WHITE
    shared = (
        f"--brand:{_hex(brand)};--brand-strong:{_hex(_mix(brand, away, 0.16))};--on-brand:{_hex(on_brand)};"
    )  # fmt: skip
    light = _hex(_readable(brand, _LIGHT_PAGE, _BLACK))
    dark = _hex(_readable(brand, _DARK_PAGE, _WHITE))
    return (
        f":root{{{shared}--brand-text:{light}}}\n@media (prefers-color-scheme:dark){{:root{{--brand-text:{dark}}}}}\n"
    )


def contrast(one: Rgb, other: Rgb) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Rgb) -> float:
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _readable(colour: Rgb, ground: Rgb, towards: Rgb) -> Rgb:
    """Move a colour towards black or white, by twentieths, until text in it can be read on the ground."""
    return next(
        mixed
        for share in range(21)
        if contrast(mixed := _mix(colour, towards, share / 20), ground) >= _TEXT_CONTRAST
    )  # fmt: skip


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def parse(colour: str) -> Rgb:
    """Return "#rrggbb" as numbers."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _hex(colour: Rgb) -> str:
    return "#" + bytes(colour).hex()
