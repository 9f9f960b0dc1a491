"""The documents as a site: each page whole, with the list of all; and what is found in them.

A node searches for its readers; files that nobody serves have a page of all headings for the browser's own search.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from html import escape
from importlib import resources
from pathlib import Path

from offgrid_node.manual.library import START, Library
from offgrid_node.manual.rendering import Heading, Renderer
from offgrid_node.manual.searching import Hit, Section, find, plain, words_of

INDEX, HEADINGS, SEARCH, STYLE = "index.html", "headings.html", "search.html", "style.css"
QUERY_CHARS_MAX = 200
LOOKED_UP: Mapping[str, float] = {"docs/reference/": 0.5, "docs/design": 0.5, "CHANGELOG": 0.3}
"""What weighs less than a guide where something is searched, by how its path begins."""
TOC_LEVELS = (2, 3)
TOC_MIN = 3
"""Headings from which on a page has a list of them."""
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8"}


class Site:
    """Pages by their path, "guide/jobs.html", each made when it is first asked for. Several threads may use it.
    `searched`: whoever serves it answers SEARCH, by `search`."""

    def __init__(self, library: Library, *, searched: bool = False) -> None:
        self._library, self._searched = library, searched
        self._urls = {document: _url(document) for document in library.pages}
        self._renderer = Renderer(self._urls)
        self._documents = {url: document for document, url in self._urls.items()}
        self.page = lru_cache(maxsize=len(self._urls) + 2)(self._page)

    @property
    def paths(self) -> tuple[str, ...]:
        """All that there is."""
        return (*self._documents, HEADINGS, STYLE)

    def write(self, folder: Path) -> int:
        """Writes everything below `folder`, which is made; returns how many files."""
        for path in self.paths:
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.page(path))
        return len(self.paths)

    def search(self, query: str) -> bytes:
        """The page of what is found."""
        words = words_of(query[:QUERY_CHARS_MAX])
        hits = find(words, self._sections) if words else []
        return self._whole(SEARCH, "Search", (), "".join(_found(words, hits)), " ".join(words)).encode()

    def broken(self) -> Iterator[str]:
        """Links to pages and anchors that are not there."""
        anchors = {document: {heading.anchor for heading in self._headings[document]} for document in self._urls}
        for document in self._urls:
            rendered = self._renderer.render(self._library.text(document), document)
            yield from (f"{document}: {target}" for target in rendered.broken)
            for target, fragment in rendered.links:
                if fragment and fragment not in anchors[target]:
                    yield f"{document}: {target}#{fragment}"

    # ---- inside

    def _page(self, path: str) -> bytes:
        """Raises KeyError for a path that is none of `paths`."""
        if path == STYLE:
            return resources.files("offgrid_node.manual").joinpath(STYLE).read_bytes()
        if path == HEADINGS:
            return self._whole(path, "All headings", (), "".join(self._all_headings())).encode()
        document = self._documents[path]
        body = _scrollable(self._renderer.render(self._library.text(document), document).body) + self._turn(document)
        return self._whole(path, self._title(document), tuple(_toc(self._headings[document])), body).encode()

    def _turn(self, document: str) -> str:
        """Links to the page before and to the next one, as they are read."""
        pages, here = self._library.pages, posixpath.dirname(self._urls[document]) or "."
        at, links = pages.index(document), ""
        for word, index in (("Before", at - 1), ("Next", at + 1)):
            if 0 <= index < len(pages):
                url = posixpath.relpath(self._urls[pages[index]], here)
                links += f'<span>{word}: <a href="{escape(url)}">{escape(self._title(pages[index]))}</a></span>'
        return f'<nav class="turn" aria-label="Before and next">{links}</nav>'

    @cached_property
    def _headings(self) -> dict[str, tuple[Heading, ...]]:
        return {document: self._renderer.headings(self._library.text(document)) for document in self._urls}

    @cached_property
    def _sections(self) -> list[Section]:
        found = []
        for document, url in self._urls.items():
            weight = next((less for begin, less in LOOKED_UP.items() if document.startswith(begin)), 1.0)
            for heading, text in self._renderer.sections(self._library.text(document)):
                place = f"{url}#{heading.anchor}" if heading.level > 1 else url
                found.append(Section(self._title(document), heading.text, place, plain(text), weight))
        return found

    def _title(self, document: str) -> str:
        return next((heading.text for heading in self._headings[document] if heading.level == 1), document)

    def _all_headings(self) -> Iterator[str]:
        yield '<h1>All headings</h1><p>To search in, with the browser\'s own search.</p><ul class="headings">'
        found = [
            (heading.text, self._title(document), f"{url}#{heading.anchor}")
            for document, url in self._urls.items()
            for heading in self._headings[document]
        ]
        for text, title, url in sorted(found, key=lambda each: (each[0].casefold(), each)):
            where = "" if text == title else f" <span>{escape(title)}</span>"
            yield f'<li><a href="{escape(url)}">{escape(text)}</a>{where}</li>'
        yield "</ul>"

    def _whole(self, path: str, title: str, toc: tuple[str, ...], body: str, query: str = "") -> str:
        def to(other: str) -> str:
            return escape(posixpath.relpath(other, posixpath.dirname(path) or "."))

        nav = "".join(self._nav(path, to))
        search = (
            f'<form role="search" action="{to(SEARCH)}"><input type="search" name="q" value="{escape(query)}" '
            f'maxlength="{QUERY_CHARS_MAX}" placeholder="Search" aria-label="Search the documents"></form>'
        )
        if len(toc) >= TOC_MIN:
            contents = f'<nav class="toc" aria-label="On this page"><h2>On this page</h2><ul>{"".join(toc)}</ul></nav>'
            body = body.replace("</h1>", f"</h1>{contents}", 1)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(title)} · offgrid-node</title><link rel="stylesheet" href="{to(STYLE)}"></head><body>'
            '<a class="skip" href="#main">To the text</a>'
            f'<header><a href="{to(INDEX)}">offgrid-node</a>{search if self._searched else ""}'
            f'<a href="{to(HEADINGS)}">All headings</a><a href="#pages">All pages</a></header>'
            f'<div class="columns"><main id="main" tabindex="-1">{body}</main>'
            f'<nav id="pages" aria-label="All pages">{nav}</nav></div></body></html>\n'
        )

    def _nav(self, path: str, to: Callable[[str], str]) -> Iterator[str]:
        for group, documents in self._library.groups.items():
            if documents:
                yield f"<h2>{escape(group)}</h2><ul>"
                for document in documents:
                    url = self._urls[document]
                    here = ' aria-current="page"' if url == path else ""
                    yield f'<li><a href="{to(url)}"{here}>{escape(self._title(document))}</a></li>'
                yield "</ul>"


def _found(words: Sequence[str], hits: Sequence[Hit]) -> Iterator[str]:
    told = "Type some words above." if not words else "Nothing has these words." if not hits else "The best first."
    yield f'<h1>Search</h1><p role="status">{told}</p><ol class="found">'
    for (title, heading, url, _, _), shown in hits:
        where = "" if heading == title else f" <span>{escape(title)}</span>"
        yield f'<li><a href="{escape(url)}">{escape(heading)}</a>{where}<p>{shown}</p></li>'
    yield "</ol>"


def _url(document: str) -> str:
    """docs/guide/jobs.md is guide/jobs.html; what lies beside docs lies beside the index."""
    if document == START:
        return INDEX
    return f"{document.removeprefix('docs/').removesuffix('.md')}.html"


def _scrollable(body: str) -> str:
    """What may be wider than a screen is scrolled by itself, by keys too, and a head without a word is none. (A text's
    own < is written &lt;.)"""
    body = body.replace("<pre>", '<pre tabindex="0">').replace("<th></th>", "<td></td>")
    return body.replace("<table>", '<div class="wide" tabindex="0"><table>').replace("</table>", "</table></div>")


def _toc(headings: Sequence[Heading]) -> Iterator[str]:
    for heading in headings:
        if heading.level in TOC_LEVELS:
            link = f'<a href="#{escape(heading.anchor)}">{escape(heading.text)}</a>'
            yield f'<li class="level-{heading.level}">{link}</li>'
