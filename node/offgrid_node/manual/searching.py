"""PURE: which sections of the documents have the words that somebody looks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WORDS_MAX, WORD_CHARS_MAX, HITS_MAX = 8, 64, 40
BEFORE_CHARS, SHOWN_CHARS = 60, 240
COUNTED = 5
"""How often a word counts in one section."""
IN_HEADING, IN_TITLE = 10, 4


class Section(NamedTuple):
    """What stands below one heading, as plain text. `weight`: guides before references."""

    title: str
    heading: str
    url: str
    text: str
    weight: float = 1.0


class Hit(NamedTuple):
    """`shown` is HTML: a part of the text in which what was looked for is marked."""

    section: Section
    shown: str


def words_of(query: str) -> list[str]:
    """What is looked for, at most WORDS_MAX words."""
    return list(dict.fromkeys(word[:WORD_CHARS_MAX] for word in query.casefold().split()))[:WORDS_MAX]


def find(words: Sequence[str], sections: Sequence[Section]) -> list[Hit]:
    """The best first: those that have all words, or, where there is none, those that have most of them."""
    judged = [(_judge(words, section), section) for section in sections]
    most = max((found for (found, _), _ in judged), default=0)
    best = sorted(((score, each) for (found, score), each in judged if most and found == most), key=lambda x: -x[0])
    return [Hit(section, _shown(words, section.text)) for _, section in best[:HITS_MAX]]


def plain(markdown: str) -> str:
    """A text without the signs of Markdown."""
    text = re.sub(r"^```.*$|^\|[-:| ]+\|$", "", markdown, flags=re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[`*|]|^#+ ", " ", text, flags=re.MULTILINE).split())


def _judge(words: Sequence[str], section: Section) -> tuple[int, float]:
    """How many of the words it has, and how much it is about them."""
    heading, title, text = (part.casefold() for part in (section.heading, section.title, section.text))
    found, score = 0, 0.0
    for word in words:
        points = IN_HEADING * (word in heading) + IN_TITLE * (word in title) + min(text.count(word), COUNTED)
        found += points > 0
        score += points
    return found, score * section.weight


def _shown(words: Sequence[str], text: str) -> str:
    any_word = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)
    first = any_word.search(text)
    begin = max(0, first.start() - BEFORE_CHARS) if first else 0
    begin = text.rfind(" ", 0, begin) + 1
    part = text[begin : begin + SHOWN_CHARS]
    at, shown = 0, ["… " if begin else ""]
    for match in any_word.finditer(part):
        shown += escape(part[at : match.start()]), f"<mark>{escape(match[0])}</mark>"
        at = match.end()
    return "".join([*shown, escape(part[at:]), " …" if begin + SHOWN_CHARS < len(text) else ""])
