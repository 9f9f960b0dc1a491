"""docs/reference says what the code says: whoever changes the one is told how to write the other."""

from __future__ import annotations

import re

import pytest

from offgrid_node.config.tree import settings
from offgrid_node.meters import Meters
from offgrid_node.services.access import ACCESS
from offgrid_tools.reference import FOLDER, PAGES
from offgrid_tools.reference.log import logged, logged_in


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


def test_every_line_of_the_log_is_an_event_with_a_sentence_that_is_always_the_same() -> None:
    """`logged` refuses any other form, and an event that is logged in two ways."""
    assert len(logged()) > 80
    said = 'def f(node):\n    said = fields("peer_left", peer=node)\n    _log.info("a peer left", extra=said)\n'
    assert list(logged_in(said, "a.py")) == [("peer_left", "info", "a peer left", ("peer",))]


@pytest.mark.parametrize(
    "call",
    [
        '_log.warning("%s left", node)',
        '_log.warning(f"{node} left", extra=fields("peer_left"))',
        '_log.warning("a peer left")',
        '_log.warning("a peer left", extra=fields(event))',
        '_log.log(level, "a peer left", extra=fields("peer_left"))',
    ],
)
def test_a_line_of_another_form_is_named_with_its_place(call: str) -> None:
    with pytest.raises(ValueError, match=r"a.py:1"):
        list(logged_in(call, "a.py"))
