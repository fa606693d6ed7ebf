"""The page that people look at."""

import re
from dataclasses import replace

import pytest

from training.data.cache import read_manifest
from training.data.sources import Reject
from training.data.summary import write_summary


@pytest.fixture
def page(drawn_cache, tmp_path):
    """The page of the drawn cache with changes of its manifest."""

    def write(**changes):
        manifest, _ = read_manifest(drawn_cache.data.cache)
        write_summary(tmp_path / "summary.html", replace(manifest, **changes), drawn_cache.data.cache)
        return (tmp_path / "summary.html").read_text(encoding="utf-8")

    return write


def test_it_shows_the_clips_and_loads_nothing(page):
    text = page()
    assert "4 of 4" in text and "4 disjoint" in text
    assert all(f"person{n}/clip" in text and f"number {n}." in text for n in range(4))
    assert text.count("data:image/jpeg;base64,") == 12 and text.count('class="held"') == 2
    assert not re.search(r"https?:|<script|src=\"(?!data:)|href=", text)


def test_it_says_what_was_left_out(page, drawn_cache):
    manifest, _ = read_manifest(drawn_cache.data.cache)
    rejects = tuple(Reject(id=f"clip{n}", reason="no face", detail="<b>Dark & small") for n in range(3))
    text = page(rejects=rejects, facts={**manifest.facts, "rejected": {"no face": 3}})
    assert '<td>no face</td><td class="number">3</td>' in text
    assert text.count("&lt;b&gt;Dark &amp; small") == 3


def test_it_shows_clips_from_all_over_a_large_cache(page, drawn_cache):
    manifest, _ = read_manifest(drawn_cache.data.cache)
    many = tuple(replace(manifest.entries[n % 4], id=f"clip{n:03d}") for n in range(240))
    shown = re.findall(r'class="id">(clip\d+)', page(entries=many))
    assert len(shown) == 60 and shown[1] == "clip004" and shown[-1] == "clip236"


def test_a_cache_without_clips_still_has_a_page(page):
    assert "Left out" in page(entries=())
