"""What a clinic may set: the tables of what passes and what does not."""

from __future__ import annotations

import re

import pytest

from server import checks

NEVER_QUOTED = "canary"


@pytest.mark.parametrize(
    "text",
    [
        "https://rdv.example.fr", "https://rdv.example.fr:8443", "https://a", "https://xn--mdecin-bva.example",
        "https://10.0.0.1", "https://[2001:db8::1]", "https://[2001:db8::1]:8443",
        "http://localhost", "http://localhost:9000", "http://127.0.0.1:1", "http://[::1]:65535", "https://localhost",
    ],
)  # fmt: skip
def test_origins(text: str):
    assert checks.origin(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "scheme://host"),
        ("*", "wildcard"),
        ("https://*", "wildcard"),
        ("https://*.canary.example", "wildcard"),
        ("null", "scheme://host"),
        ("canary.example", "scheme://host"),
        ("//canary.example", "scheme://host"),
        ("ftp://canary.example", "scheme://host"),
        ("javascript:alert(1)", "scheme://host"),
        ("HTTPS://canary.example", "lower case"),
        ("https://Canary.example", "lower case"),
        ("https://canary.example/", "no slash"),
        ("https://canary.example/page", "no path"),
        ("https://canary.example?x", "no path"),
        ("https://canary.example#x", "no path"),
        ("https://user@canary.example", "scheme://host"),
        ("https://canary.example ", "scheme://host"),
        ("https://canary.example\n", "scheme://host"),
        ("https://canary.example https://b.example", "scheme://host"),
        ("https://canary.example;script-src *", "scheme://host"),
        ("https://canary.example;", "name"),
        ("https://canary.example,b", "name"),
        ("https://canary..example", "name"),
        ("https://canary.example.", "name"),
        ("https://-canary.example", "name"),
        ("https://canary_.example", "name"),
        ("https://médecin.example", "xn--"),
        ("https://" + "a" * 64 + ".example", "name"),
        ("https://" + "a." * 130 + "example", "name"),
        ("https://1.2.3", "IPv4"),
        ("https://1.2.3.256", "IPv4"),
        ("https://01.2.3.4", "IPv4"),
        ("https://2130706433", "IPv4"),
        ("https://[::g]", "scheme://host"),
        ("https://[2001:db8:0:0::1]", "short form"),
        ("https://2001:db8::1", "scheme://host"),
        ("https://canary.example:443", "usual port"),
        ("http://localhost:80", "usual port"),
        ("https://canary.example:0", "scheme://host"),
        ("https://canary.example:65536", "65535"),
        ("https://canary.example:", "scheme://host"),
        ("http://canary.example", "https://"),
        ("http://127.0.0.2", "https://"),
        ("http://localhost.canary.example", "https://"),
    ],
)
def test_what_is_no_origin(text: str, why: str):
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        checks.origin(text)
    assert NEVER_QUOTED not in str(caught.value)


def test_lists_of_origins():
    assert checks.origins(["https://a.example", "https://b.example", "https://a.example"]) == (
        "https://a.example",
        "https://b.example",
    )
    with pytest.raises(ValueError, match="at most 20"):
        checks.origins([f"https://{number}.example" for number in range(21)])


@pytest.mark.parametrize("text", ["a", "clinique", "clinique-du-parc", "2", "a" * 40])
def test_slugs(text: str):
    assert checks.slug(text) == text


@pytest.mark.parametrize("text", ["", "-", "a-", "-a", "a--b", "A", "é", "a b", "a/b", "a.b", "a_b", "a\n", "a" * 41])
def test_what_is_no_slug(text: str):
    with pytest.raises(ValueError, match="slug"):
        checks.slug(text)


def test_colours():
    assert checks.colour("") == ""
    assert checks.colour("#1F6f8B") == "#1f6f8b"
    for text in ("red", "#fff", "1f6f8b", "#1f6f8b00", "#1f6f8g", "#1f6f8b\n", "url(x)"):
        with pytest.raises(ValueError, match="#rrggbb"):
            checks.colour(text)


def test_names():
    assert checks.name("Clinique du Parc — Éole 日本") == "Clinique du Parc — Éole 日本"
    assert checks.line("") == ""
    for text in ("", " ", "x" * 81, "a\nb", "a\n", "\x00", "\x85", "\u2028", "\u202e"):
        with pytest.raises(ValueError):
            checks.name(text)


def test_retention():
    assert checks.retention_days(1) == 1
    for days in (0, -1, 3651):
        with pytest.raises(ValueError, match="3650"):
            checks.retention_days(days)
