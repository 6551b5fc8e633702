"""A clinic's colour: readable, whatever it is."""

import re

import pytest

from server.signalling import theme

COLOURS = ("#000000", "#ffffff", "#ffcc00", "#1f6f8b", "#777777", "#ff0000", "#00ff00", "#0000ff", "#767676", "#abcdef")


@pytest.mark.parametrize("colour", COLOURS)
def test_a_page_stays_readable_in_any_colour(colour):
    sheet = theme.css(colour)
    values = dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6})", sheet.partition("@media")[0]))
    dark = re.findall(r"--brand-text:(#[0-9a-f]{6})", sheet)[1]

    def contrast(one: str, other: str) -> float:
        return theme.contrast(theme.parse(one), theme.parse(other))

    assert values["brand"] == colour
    assert contrast(values["on-brand"], values["brand"]) >= 4.5
    assert contrast(values["on-brand"], values["brand-strong"]) >= 4.5
    assert contrast(values["brand-text"], "#ffffff") >= 4.5
    assert contrast(dark, "#101820") >= 4.5


@pytest.mark.parametrize(
    ("one", "other", "ratio"), [((0, 0, 0), (255, 255, 255), 21.0), ((119,) * 3, (255,) * 3, 4.48)]
)
def test_contrast(one, other, ratio):
    """Figures of WebAIM's contrast checker."""
    assert theme.contrast(one, other) == pytest.approx(ratio, abs=0.005)


def test_without_a_colour_ours_stays():
    assert "--brand" not in theme.css("")
