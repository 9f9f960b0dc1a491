"""docs/reference says what the code says: whoever changes the one is told how to write the other."""

from __future__ import annotations

import re

import pytest

from offgrid_node.config.tree import settings
from offgrid_node.meters import Meters
from offgrid_node.services.access import ACCESS
from offgrid_tools.reference import FOLDER, PAGES


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: text() for name, text in PAGES.items()}


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_what_the_code_makes(name: str, pages: dict[str, str]) -> None:
    assert (FOLDER / name).read_text("utf-8") == pages[name], "python3 tools/run.py docs writes it anew"


def test_nothing_else_lies_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


def test_every_key_method_and_instrument_has_its_place(pages: dict[str, str]) -> None:
    assert {f"### {'.'.join(path)}" for path, _ in settings()} <= set(pages["config.md"].splitlines())
    methods = {f"### {name.removeprefix('offgrid.v1.').replace('/', '.')}" for name in ACCESS}
    assert methods <= set(pages["rpc.md"].splitlines())
    assert {instrument.name for instrument in Meters()} <= set(
        re.findall(r"^\| `(\w+)`", pages["metrics.md"], re.MULTILINE)
    )


def test_no_heading_is_there_twice(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        headings = re.findall(r"^#+ .*$", page, re.MULTILINE)
        assert len(headings) == len(set(headings)), name
