"""Every language says everything that English says, in that language."""

import json
import re

import pytest

CHINESE = re.compile(r"[\u4e00-\u9fff]")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
# The same word in both languages.
NAMES = {"VAE", "Sigmas"}


@pytest.fixture(scope="module")
def texts(repo_root) -> dict[str, dict]:
    """Language -> path of a text -> text, of all files."""
    found = {}
    for folder in (repo_root / "locales").iterdir():
        found[folder.name] = {}
        for path in folder.iterdir():
            _flatten((path.name,), json.loads(path.read_text(encoding="utf-8")), found[folder.name])
    return found


def _flatten(path: tuple, value, found: dict) -> None:
    if isinstance(value, str):
        found[path] = value
        return
    for key, inner in value.items():
        _flatten((*path, key), inner, found)


def test_there_are_two_languages(texts):
    assert sorted(texts) == ["en", "zh"]


def test_the_languages_have_the_same_texts(texts):
    assert texts["zh"].keys() == texts["en"].keys()


def test_everything_is_translated(texts):
    left = [path for path, text in texts["zh"].items() if not CHINESE.search(text) and text not in NAMES]
    assert left == []


def test_numbers_were_not_lost_in_translation(texts):
    """Sizes, ranges and special values: the part of a tooltip that does harm when it is wrong."""
    for path, text in texts["en"].items():
        if path[-1] == "tooltip":
            assert set(NUMBER.findall(text)) <= set(NUMBER.findall(texts["zh"][path])), path


def test_words_of_one_text_are_translated_alike(texts):
    """The same English text is the same Chinese text on every node."""
    seen = {}
    for path, text in texts["en"].items():
        assert seen.setdefault(text, texts["zh"][path]) == texts["zh"][path], text
