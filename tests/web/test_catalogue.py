"""The catalogue: both languages say the same things, every sentence is used, and every code has one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "web"
FR: dict[str, str] = json.loads((WEB / "catalogue/fr.json").read_text())
EN: dict[str, str] = json.loads((WEB / "catalogue/en.json").read_text())

CODES = """
    link_unknown link_not_yet link_expired link_revoked room_ended refused removed transferred taken_over room_full
    version_unsupported bad_message bad_order not_permitted unknown_participant bad_sdp too_large rate_limited
    too_many_connections unknown_room hello_timeout dead slow_reader going_away internal relay_untrusted
""".split()
"""Every code that the server sends to a client (PROTOCOL.md)."""
OURS = """
    permission_denied permission_dismissed permission_blocked_by_system permission_blocked_by_page device_missing
    device_busy insecure_context unsupported occupied offline not_found
""".split()
"""Those that the page and the pages' server make themselves."""

_STATIC = re.compile(r'data-t(?:-label)?="([a-z_]+\.\w+)"|\bt\("([a-z_]+\.\w+)"')
_LITERAL = re.compile(r"""['"`]([a-z_]+\.\w+)['"`]""")
_FAMILY = re.compile(r"""[`"']([a-z_]+\.\w*)(?:\$\{|["'] ~)""")
"""`error.${code}` and "error." ~ code: the beginning of a family of keys."""


def _sources() -> list[str]:
    files = [*WEB.glob("templates/*.html"), *WEB.glob("static/js/**/*.js"), *(ROOT / "server").rglob("*.py")]
    return [file.read_text() for file in files]


def _used() -> tuple[set[str], set[str]]:
    """Return the keys that the sources name, and the beginnings of those that they put together."""
    keys, families = set(), set()
    for source in _sources():
        keys |= {one or other for one, other in _STATIC.findall(source)}
        keys |= {
            key for key in _LITERAL.findall(source) if key in FR or key.split(".")[0] in {k.split(".")[0] for k in FR}
        }
        families |= set(_FAMILY.findall(source))
    return keys, families


def test_both_languages_have_the_same_keys_in_the_same_order() -> None:
    assert list(FR) == list(EN)


@pytest.mark.parametrize("key", FR)
def test_both_languages_have_the_same_placeholders_and_lines(key: str) -> None:
    def shape(text: str) -> tuple[Any, ...]:
        return sorted(re.findall(r"{(\w+)}", text)), text.count("\n"), bool(text.strip()), text == text.strip()

    assert shape(FR[key]) == shape(EN[key])


def test_every_key_that_is_used_exists() -> None:
    keys, families = _used()
    not_keys = re.compile(r"\.(js|ts|css|html|json|svg|py|toml|md|org|com)$")
    assert {key for key in keys if key not in FR and not not_keys.search(key) and _is_sentence(key)} == set()
    assert {
        family for family in families if _is_sentence(family) and not any(k.startswith(family) for k in FR)
    } == set()


def _is_sentence(key: str) -> bool:
    """Audit kinds (`room.created`), modules and files look like keys: only the catalogue's own areas count."""
    return key.split(".")[0] in {k.split(".")[0] for k in FR}


def test_every_key_is_used() -> None:
    keys, families = _used()
    assert {key for key in FR if key not in keys and not any(key.startswith(family) for family in families)} == set()


def test_every_code_has_a_sentence_and_no_sentence_has_lost_its_code() -> None:
    assert {key.removeprefix("error.") for key in FR if key.startswith("error.")} == {*CODES, *OURS}


def test_a_refusal_that_fills_the_page_has_a_title() -> None:
    shown = set(re.findall(r"^  (\w+): \[", (WEB / "static/js/ui/problems.js").read_text(), re.M))
    technical = set(CODES) - {"going_away", "internal", "taken_over", "link_not_yet"}
    assert {code for code in shown - technical if f"title.{code}" not in FR} == set()


def test_french_keeps_its_punctuation_with_its_word() -> None:
    loose = re.compile(r" [?!:;»]|« ")
    assert {key for key, text in FR.items() if loose.search(text)} == set()


def test_words_are_plain() -> None:
    jargon = re.compile(
        r"\b(WebRTC|socket|serveur|server|token|URL|device id|bug|cliquez ici|permission denied|login"
        r"|e-mail adresse|feedback|check)\b",
        re.I,
    )
    spoken = {key: f"{FR[key]} {'' if key == 'welcome.step_check' else EN[key]}" for key in FR}
    assert {key for key, text in spoken.items() if jargon.search(re.sub(r"\b[Cc]heck\b", "", text))} == set()
