"""The sentences: the same ones in French and in English."""

import re

import pytest

from server.catalogue import LANGUAGES, Catalogue


def test_both_languages_say_the_same_things():
    french, english = (Catalogue.load().language(language) for language in LANGUAGES)
    assert french.keys() == english.keys()
    for key, sentence in french.items():
        assert sentence.strip() and english[key].strip(), key
        placeholders = [sorted(re.findall(r"{(\w+)}", text)) for text in (sentence, english[key])]
        assert placeholders[0] == placeholders[1], key


def test_sentence():
    catalogue = Catalogue({"fr": {"a": "Bonjour {name}"}, "en": {"a": "Hello {name}"}})
    assert catalogue.sentence("fr", "a", name="Ada") == "Bonjour Ada"
    assert catalogue.sentence("en", "a", name="{name}") == "Hello {name}"
    assert catalogue.sentence("de", "a", name="Ada") == "Bonjour Ada", "French by default"
    with pytest.raises(KeyError):
        catalogue.sentence("fr", "b")
    with pytest.raises(KeyError):
        catalogue.sentence("fr", "a")
