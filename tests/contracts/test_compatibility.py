"""``docs/compatibility.md`` and ``tests/host/compat`` are one to one, and no row claims what no test backs."""

import ast
import re

import pytest

RESULTS = {"works", "refused", "not tested"}
NEVER_TESTED = ("macOS", "Windows", "Several GPUs", "Dynamic VRAM", "GPUs")


@pytest.fixture(scope="module")
def rows(repo_root) -> list[list[str]]:
    """The first table: what, result, note, test."""
    lines = (repo_root / "docs" / "compatibility.md").read_text(encoding="utf-8").splitlines()
    table = lines[lines.index("| what | result | note | test |") + 2 :]
    table = table[: table.index("")]
    return [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in table]


@pytest.fixture(scope="module")
def tests(repo_root) -> dict[str, ast.FunctionDef]:
    """The tests by id, as the table writes it."""
    return {
        f"`{path.name}::{node.name}`": node
        for path in sorted((repo_root / "tests" / "host" / "compat").glob("test_*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_the_table_has_four_columns_and_known_results(rows):
    for row in rows:
        assert len(row) == 4 and row[0], row
        assert row[1] in RESULTS, row
    assert len({row[0] for row in rows}) == len(rows), "a row stands twice"


def test_every_row_names_an_existing_test_or_says_why_there_is_none(rows, tests):
    for what, result, note, test in rows:
        if result == "not tested":
            assert not test and note, f"{what}: a row without a test gives the reason"
        else:
            assert test in tests, f"{what}: {test} is not there"


def test_every_test_has_exactly_one_row(rows, tests):
    named = [row[3] for row in rows if row[3]]
    assert sorted(named) == sorted(tests)


def test_a_row_is_called_refused_where_its_test_expects_an_error(rows, tests):
    for what, result, _, test in rows:
        if test:
            raises = bool(re.search(r"attr='raises'", ast.dump(tests[test])))
            assert raises is (result == "refused"), what


def test_what_cannot_be_tested_here_says_so(rows):
    results = {row[0]: row[1] for row in rows}
    for start in NEVER_TESTED:
        (result,) = {result for what, result in results.items() if what.startswith(start)}
        assert result == "not tested", start


def test_the_readme_links_the_table(repo_root):
    assert "docs/compatibility.md" in (repo_root / "README.md").read_text(encoding="utf-8")
