"""What the design book and security say of the code is there: bounds with their values, files, tests, soaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from offgrid_tools.soak.__main__ import ROUNDS

ROOT = Path(__file__).parents[3]
BOOK = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "design").glob("*.md"))
PAGES = (*BOOK, "docs/design.md", "docs/security.md")
UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
MS = {"ms": 1, "s": 1_000, "h": 3_600_000}
BOUND = re.compile(r"\| *(?P<value>[\d,]+) ?(?P<unit>\w*) *\| `(?P<file>[\w/]+\.py)` (?P<name>[A-Z_]+) *\|")
SOURCES = ("node", "transports", "proto", "tools", "tests", "docs")
MOST_AT_LEAST = 5  # bounds of a page


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def bounds_of(page: str) -> Iterator[tuple[str, int, int]]:
    """Of each its name, what the page says and what the code has."""
    for found in BOUND.finditer(text_of(page)):
        module = found["file"].removesuffix(".py").replace("/", ".")
        held = getattr(
            import_module(module if module.startswith("offgrid") else f"offgrid_node.{module}"), found["name"]
        )
        said = int(found["value"].replace(",", "")) * {**UNITS, **MS}[found["unit"]]
        yield found["name"], said, held


@pytest.mark.parametrize("page", BOOK)
def test_bounds_are_those_of_the_code(page: str) -> None:
    bounds = list(bounds_of(page))
    assert len(bounds) >= MOST_AT_LEAST
    assert [name for name, said, held in bounds if said != held] == []
    assert len(bounds) == len(re.findall(r"`[\w/]+\.py` [A-Z_]+ *\|", text_of(page)))


@pytest.mark.parametrize("page", BOOK)
def test_a_page_begins_with_all_of_it_on_one(page: str) -> None:
    headings = re.findall(r"^## (.*)$", text_of(page), re.MULTILINE)
    assert headings[0] == "In one page"


@pytest.fixture(scope="module")
def sources() -> str:
    """The path of each file, one a line."""
    paths = [path.as_posix() for base in SOURCES for path in (ROOT / base).rglob("*.*")]
    return "\n".join([*paths, ""])


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_are_there(page: str, sources: str) -> None:
    named = set(re.findall(r"`([\w/-]+\.(?:py|proto|toml|md|wat))\b", text_of(page)))
    assert [name for name in sorted(named) if f"/{name}\n" not in sources] == []


@pytest.mark.parametrize("page", PAGES)
def test_tests_and_soaks_that_are_named_are_there(page: str) -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"\btest_\w+\.py", text_of(page))) <= tests
    assert set(re.findall(r"`soak ([\w-]+)", text_of(page))) <= set(ROUNDS)
