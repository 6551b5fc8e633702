"""Every sentence that a person reads, in French and English, from `web/catalogue/{fr,en}.json`.

Flat keys `area.name` (`error.<code>` for refusals and problems), values with `{placeholders}`. Both files have the same
keys with the same placeholders: `tests/server/test_catalogue.py` holds them to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import msgspec

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
"""The first is the default."""
_FOLDER = Path(__file__).resolve().parent.parent / "web" / "catalogue"


class Catalogue:
    """The sentences, immutable once loaded.

    Args:
        sentences: For each language, key to sentence.
    """

    def __init__(self, sentences: Mapping[str, Mapping[str, str]]) -> None:
        self._sentences: dict[str, Mapping[str, str]] = {
            language: MappingProxyType(dict(sentences[language])) for language in LANGUAGES
        }

    @classmethod
    def load(cls) -> Catalogue:
        """Read the files shipped with the code. [IO]"""
        sentences: dict[str, dict[str, str]] = {
            language: msgspec.json.decode((_FOLDER / f"{language}.json").read_bytes(), type=dict[str, str])
            for language in LANGUAGES
        }
        return cls(sentences)

    def sentence(self, language: str, key: str, **values: object) -> str:
        """Return one sentence with its placeholders filled.

        Raises:
            KeyError: The key, or a value for one of its placeholders, is missing: a mistake in our own code.
        """
        return self.language(language)[key].format_map(values)

    def language(self, language: str) -> Mapping[str, str]:
        """Return every sentence of one language; of French when we do not speak the one asked for."""
        return self._sentences[language if language in LANGUAGES else LANGUAGES[0]]
