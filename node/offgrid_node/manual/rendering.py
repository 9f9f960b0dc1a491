"""PURE: one document as HTML. Markdown is CommonMark with tables; HTML in it is shown as text (markdown-it).

Headings get the anchors that GitHub gives them. A link to another document leads to its page; one to what is no page,
such as a file of the source, stays as text. What leads out of the manual is marked as such by `rel`.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

OUTSIDE = ("http", "https", "mailto")
_HEADING = re.compile(r"(#{1,6}) +(.*?)(?: +#+)?$")


class Heading(NamedTuple):
    level: int
    text: str
    anchor: str


class Rendered(NamedTuple):
    """`broken`: links to pages that are not there; anchors are looked at where all headings are known."""

    headings: tuple[Heading, ...]
    body: str
    links: tuple[tuple[str, str], ...]
    broken: tuple[str, ...]


class Renderer:
    """`urls`: from a document's path to that of its page, both below their roots."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls
        self._markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

    def render(self, text: str, path: str) -> Rendered:
        """The document at `path`."""
        tokens = self._markdown.parse(text)
        _anchor(tokens, headings := self.headings(text))
        links: list[tuple[str, str]] = []
        broken: list[str] = []
        for token in tokens:
            if align := str(token.attrs.pop("style", "")).removeprefix("text-align:"):  # of cells; nothing is inline
                token.attrSet("class", align)
            if token.children:
                self._linked(token.children, path, links, broken)
        body = str(self._markdown.renderer.render(tokens, self._markdown.options, {}))
        return Rendered(headings, body, tuple(links), tuple(broken))

    def headings(self, text: str) -> tuple[Heading, ...]:
        """Those of a document, at a hundredth of what it takes to render it."""
        return tuple(heading for heading, _ in self.sections(text))

    def sections(self, text: str) -> Iterator[tuple[Heading, str]]:
        """Each heading with the Markdown below it. They begin with # in these documents."""
        seen: Counter[str] = Counter()
        heading, below, fenced = None, list[str](), False
        for line in text.splitlines():
            fenced ^= line.startswith("```")
            if fenced or not (match := _HEADING.match(line)):
                below.append(line)
                continue
            if heading is not None:
                yield heading, "\n".join(below)
            told = _plain(self._markdown.parseInline(match[2])[0].children or ())
            slug = slug_of(told)
            heading = Heading(len(match[1]), told, f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
            below = []
        if heading is not None:
            yield heading, "\n".join(below)

    def _linked(self, tokens: list[Token], path: str, links: list[tuple[str, str]], broken: list[str]) -> None:
        """Turns the links of one line of text; those that lead nowhere here are taken off, with their ends."""
        kept, off = [], 0
        for token in tokens:
            if token.type == "link_open":
                target = str(token.attrGet("href") or "")
                url = self._url(target, path, links, broken)
                if url is None:
                    off += 1
                    continue
                token.attrSet("href", url)
                if urlsplit(url).scheme:
                    token.attrSet("rel", "noreferrer external")
            elif token.type == "link_close" and off:
                off -= 1
                continue
            kept.append(token)
        tokens[:] = kept

    def _url(self, target: str, path: str, links: list[tuple[str, str]], broken: list[str]) -> str | None:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return target if parts.scheme in OUTSIDE else None
        if not parts.path:
            links.append((path, parts.fragment))
            return target
        document = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path)))
        if document not in self._urls:
            if document.endswith(".md"):
                broken.append(target)
            return None
        links.append((document, parts.fragment))
        url = posixpath.relpath(self._urls[document], posixpath.dirname(self._urls[path]) or ".")
        return f"{url}#{parts.fragment}" if parts.fragment else url


def _anchor(tokens: Sequence[Token], headings: Sequence[Heading]) -> None:
    """Gives each heading its anchor."""
    opened = [token for token in tokens if token.type == "heading_open"]
    for token, heading in zip(opened, headings, strict=True):
        token.attrSet("id", heading.anchor)


def slug_of(heading: str) -> str:
    """As GitHub makes it: lower case, no punctuation but - and _, blanks as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _plain(tokens: Sequence[Any]) -> str:
    return "".join(token.content for token in tokens if token.type in ("text", "code_inline"))
