"""What every file of the repository keeps to: its length, and nothing of anybody's machine in it."""

import os
import re
from pathlib import Path

import pytest

LONGEST = 350
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".json", ".js", ".css", ".svg", ".html", ""}

# Written in pieces where the pattern would match itself.
LEAKS = [
    (r"(?<![\w.~])/(home|Users|root)/\w", "a home folder"),
    (r"\b[A-Z]:\\+Users\\", "a home folder"),
    (r"\b(hf|ghp|gho|github_pat|glpat|sk)[_-][A-Za-z0-9_]{20,}", "an access token"),
    (r"\bAKIA[0-9A-Z]{16}\b", "an access key"),
    (r"-----BEGIN [A-Z ]*PRIVATE " + "KEY", "a private key"),
    (r"pypi\.(org|python)|pythonhosted\." + r"org|download\.pytorch\." + "org", "a package index's host"),
]


def repository_files(root: Path):
    """Files of the repository; what tools and installs leave behind is not part of it."""
    kept_hidden = {".github", ".ci", ".gitignore", ".comfyignore"}
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if (not name.startswith(".") or name in kept_hidden)
            and not name.endswith(".egg-info")
            and name not in ("__pycache__", "outputs", "build", "dist")
        ]
        for name in names:
            if not name.startswith(".") or name in kept_hidden:
                yield Path(folder) / name


def too_long(root: Path) -> list[str]:
    found = []
    for path in repository_files(root):
        relative = path.relative_to(root)
        if path.suffix == ".py" and relative.parts[0] != "tests":
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > LONGEST:
                found.append(f"{relative.as_posix()}: {lines} lines")
    return found


def leaks(root: Path, places: list[Path]) -> list[str]:
    """`places` are folders of this very machine that no file may name."""
    patterns = list(LEAKS)
    for place in places:
        if len(place.parts) > 1:
            pattern = r"(?<![\w.~-])" + re.escape(str(place)) + r"[/\\]\w"
            patterns.append((pattern, "a folder of this machine"))
    found = []
    for path in repository_files(root):
        if path.suffix not in TEXT:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found += [
                f"{path.relative_to(root).as_posix()}:{number}: {what}"
                for pattern, what in patterns
                if re.search(pattern, line)
            ]
    return found


def test_no_file_is_two_rooms(repo_root):
    assert too_long(repo_root) == []


def test_nothing_of_a_machine_is_in_a_file(repo_root):
    assert leaks(repo_root, [repo_root, repo_root.parent, Path.home()]) == []


def test_a_long_file_is_found(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "long.py").write_text("\n" * 999, encoding="utf-8")
    (tmp_path / "ok.py").write_text("\n" * LONGEST, encoding="utf-8")
    (tmp_path / "long.py").write_text("\n" * (LONGEST + 1), encoding="utf-8")
    assert too_long(tmp_path) == ["long.py: 351 lines"]


@pytest.mark.parametrize(
    "text",
    [
        "path = '/ho" + "me/ann/clip.mp4'",
        "path = 'C:\\\\Us" + "ers\\\\ann'",
        "token = 'hf" + "_abcdefghijklmnopqrstuvwx'",
        "-----BEGIN RSA PRIVATE " + "KEY-----",
        "--index-url https://py" + "pi.org/simple",
        "see /srv/" + "checkout/x",
    ],
)
def test_a_planted_leak_is_found(tmp_path, text):
    (tmp_path / "a.md").write_text(text, encoding="utf-8")
    assert len(leaks(tmp_path, [Path("/srv/checkout")])) == 1
    (tmp_path / "a.md").write_text("fine: ~/comfy/ComfyUI, ../shared, models/slotid/", encoding="utf-8")
    assert leaks(tmp_path, [Path("/srv/checkout")]) == []
