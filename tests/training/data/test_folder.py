"""A plain folder of videos and captions: who is in it, under which names, and what is left out and why."""

import os
from collections import Counter

import pytest

from slotid_core.errors import SlotIDError
from training.data.sources import open_source
from training.settings_file import from_dict


def settings(root, **data):
    return from_dict(
        {
            "run": {"folder": "out"},
            "model": {"preset": "tiny", "transformer": "tiny", "vae": "tiny", "text_encoder": "hashed"},
            "data": {"layout": "folder", "source": str(root), "cache": "out/cache", **data},
            "optim": {"steps": 1, "batch": 1},
        },
        "test",
    )


def listed(root, **data):
    return open_source(settings(root, **data)).videos()


def add(root, name, caption="A person smiles.", suffix=".mp4"):
    """Nothing is decoded while a dataset is listed, so a video may be empty."""
    path = root / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def test_every_kind_of_video_is_found_with_its_caption(tmp_path):
    names = {"a": ".mp4", "b": ".mov", "d.v2": ".webm", "e": ".MP4", "sub/deep/c": ".mkv"}
    paths = [add(tmp_path, name, f"Caption of {name}.", suffix) for name, suffix in reversed(names.items())]
    add(tmp_path, "f", None, suffix=".avi")
    videos, rejects = listed(tmp_path)
    assert [video.id for video in videos] == list(names)
    assert [video.path for video in videos] == paths[::-1]
    assert [video.caption for video in videos] == [f"Caption of {name}." for name in names]
    assert not rejects and all(video.person_hint is None for video in videos)


def test_what_can_not_be_used_is_said_by_reason(tmp_path):
    add(tmp_path, "good")
    add(tmp_path, "silent", None)
    add(tmp_path, "blank", " \n")
    add(tmp_path, "latin", None).with_suffix(".txt").write_bytes("Zoë smiles.".encode("latin-1"))
    (tmp_path / "lost.txt").write_text("Nobody.")
    videos, rejects = listed(tmp_path)
    assert [video.id for video in videos] == ["good"]
    assert [(reject.id, reject.reason) for reject in rejects] == [
        ("blank", "no caption"),
        ("latin", "caption is not UTF-8"),
        ("lost", "caption without a video"),
        ("silent", "no caption"),
    ]
    assert "latin.txt" in rejects[1].detail and "lost.txt" in rejects[2].detail


def test_a_caption_is_read_as_its_author_wrote_it(tmp_path):
    add(tmp_path, "a", None).with_suffix(".txt").write_bytes("\ufeff  Zoë turns,\nthen smiles. \n".encode())
    ((video,), _) = listed(tmp_path)
    assert video.caption == "Zoë turns,\nthen smiles."


def test_hidden_files_are_none_of_it(tmp_path):
    add(tmp_path, "a")
    add(tmp_path, "._a")
    add(tmp_path, ".trash/b")
    (tmp_path / ".notes.txt").write_text("x")
    videos, rejects = listed(tmp_path)
    assert [video.id for video in videos] == ["a"] and rejects == []


def test_videos_of_one_name_get_names_of_their_own(tmp_path):
    add(tmp_path, "a")
    add(tmp_path, "a", suffix=".mov")
    add(tmp_path, "a.mp4", "Named like another one.")
    add(tmp_path, "b")
    videos, rejects = listed(tmp_path)
    assert [video.id for video in videos] == ["a.mov", "a.mp4", "a.mp4.mp4", "b"]
    assert len({video.path for video in videos}) == 4 and not rejects


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "data"
    add(tmp_path / "elsewhere", "far")
    add(root, "anna/a")
    (root / "anna" / "loop").symlink_to(root)
    (root / "anna" / "self").symlink_to(root / "anna" / "self")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    videos, rejects = listed(root)
    assert [video.id for video in videos] == ["anna/a", "linked/far"] and not rejects


def people(videos):
    return Counter(video.person for video in videos)


def test_who_is_who(tmp_path):
    for name in ("anna/1", "anna/day2/2", "ben/1", "x", "y"):
        add(tmp_path, name)
    assert people(listed(tmp_path)[0]) == {"anna": 2, "ben": 1, "x": 1, "y": 1}
    videos, rejects = listed(tmp_path, person=r"([^/]+)\.mp4$")
    assert people(videos) == {"1": 2, "2": 1, "x": 1, "y": 1} and not rejects
    videos, rejects = listed(tmp_path, person=r"^(\w+)/")
    assert people(videos) == {"anna": 2, "ben": 1}
    assert [(reject.id, reject.reason) for reject in rejects] == [(n, "no person in its name") for n in ("x", "y")]


@pytest.mark.parametrize(("pattern", "said"), [("(", "no regular expression"), ("anna", "has no group")])
def test_a_pattern_that_can_name_nobody_is_refused(tmp_path, pattern, said):
    with pytest.raises(SlotIDError, match=said):
        open_source(settings(tmp_path, person=pattern))


def test_a_folder_without_videos_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SlotIDError, match="no video in"):
        listed(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_names_that_are_no_text_are_printable_and_apart(tmp_path):
    for name in (b"a\xff", b"a\xfe", b"two\nlines"):
        for suffix in (b".mp4", b".txt"):
            with open(os.path.join(os.fsencode(tmp_path), name + suffix), "wb") as file:
                file.write(b"A person.")
    videos, rejects = listed(tmp_path)
    assert len({video.id for video in videos}) == 3 and not rejects
    assert all(video.id.isprintable() and video.id.encode() for video in videos)
    assert all(video.path.is_file() for video in videos)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("caption", [b"Nobody.", b"", b"\xff", None], ids=["alone", "empty", "no UTF-8", "missing"])
def test_reasons_name_files_whose_names_are_no_text(tmp_path, caption):
    add(tmp_path, "good")
    base = os.path.join(os.fsencode(tmp_path), b"Zo\xeb\n")
    if caption != b"Nobody.":
        open(base + b".mp4", "w").close()
    if caption is not None:
        with open(base + b".txt", "wb") as file:
            file.write(caption)
    _, (reject,) = listed(tmp_path)
    assert reject.id == r"Zo\udceb\n" and r"Zo\udceb" in reject.detail
    assert reject.detail.isprintable() and reject.detail.encode()
