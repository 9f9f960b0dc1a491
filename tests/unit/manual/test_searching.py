"""What is looked for in the documents is found, the most to the point first, and shown as text."""

from __future__ import annotations

import time

import pytest

from offgrid_node.manual import Library, Site
from offgrid_node.manual.searching import HITS_MAX, WORDS_MAX, Section, find, plain, words_of

SECTIONS = [
    Section("Jobs", "Where it may run", "guide/jobs.html#where", "Requirements say what a host must be. A lease ends."),
    Section("Design of jobs", "Leases", "design/jobs.html#leases", "A lease has a deadline; a lease is renewed.", 0.5),
    Section("Money", "Cut off", "guide/money.html#cut", "A credit line <b> of a payer."),
]


def found(query: str) -> list[str]:
    return [hit.section.heading for hit in find(words_of(query), SECTIONS)]


@pytest.mark.parametrize(
    ("query", "headings"),
    [
        ("lease", ["Leases", "Where it may run"]),
        ("LEASE deadline", ["Leases"]),
        ("requirements lease", ["Where it may run"]),
        ("credit nosuchword", ["Cut off"]),
        ("nosuchword", []),
        ("", []),
    ],
)
def test_sections_with_all_words_come_first_or_else_those_with_most(query: str, headings: list[str]) -> None:
    assert found(query) == headings


def test_what_is_shown_is_around_the_first_word_and_is_no_html() -> None:
    (hit,) = find(["credit"], SECTIONS)
    assert hit.shown == "A <mark>credit</mark> line &lt;b&gt; of a payer."
    far = find(["needle"], [Section("T", "H", "t.html", "word " * 100 + "needle" + " word" * 100)])[0].shown
    assert far.startswith("… word ")
    assert far.endswith(" …")
    assert "<mark>needle</mark>" in far


def test_signs_of_markdown_are_not_searched() -> None:
    text = "See [the `client`](../client.md).\n\n| a | b |\n|---|---|\n| **c** | d |\n```sh\noffgrid put\n```\n"
    assert plain(text) == "See the client . a b c d offgrid put"


def test_much_is_bounded() -> None:
    assert len(words_of("a b c d e f g h i j k")) == WORDS_MAX
    assert len(find(["x"], [Section("T", "x", "t.html", "x")] * 100)) == HITS_MAX


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(Library.found(), searched=True)


class TestTheDocuments:
    @pytest.mark.parametrize(
        ("query", "url"),
        [
            ("backup restore", "operations.html"),
            ("airtime region", "links.html"),
            ("signed requests hmac", "http.html#signed-requests"),
            ("lost disk", "guide/lost-disk.html"),
        ],
    )
    def test_have_what_people_look_for_among_the_first_five(self, site: Site, query: str, url: str) -> None:
        first = site.search(query).decode().split('class="found"')[1].split("</ol>")[0].split("<li>")[1:6]
        assert any(f'href="{url}' in each for each in first), first

    def test_say_what_was_looked_for_as_text(self, site: Site) -> None:
        page = site.search('"><script>x').decode()
        assert "<script" not in page
        assert 'value="&quot;&gt;&lt;script&gt;x"' in page

    def test_are_searched_in_a_moment(self, site: Site) -> None:
        site.search("warm")
        began = time.process_time()
        for _ in range(10):
            site.search("a e i o u the of and")
        assert (time.process_time() - began) / 10 < 0.5

    def test_of_files_that_nobody_serves_are_not_searched(self) -> None:
        assert b"<form" not in Site(Library.found()).page("index.html")
