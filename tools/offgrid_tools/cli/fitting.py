"""Tables that fit a terminal: what to leave out, shorten and wrap, in that order; pure.

Columns that say nothing go first. Then stamps lose their milliseconds, ids that need not be copied whole are cut,
stamps lose the year. Where words would have to be broken even so, columns on the right give way, but for those that say
what is wrong; what is too wide still is wrapped between words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

GAP = 2
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\Z")
LONG_ID = re.compile(r"(?:[a-z]-)?[a-z2-7]{16,}(?:-\d+)?\Z")
ID_CHARS = 12
OBJECT_ID = re.compile(r"o-[a-z2-7]{32}\Z")  # six characters of it name an object
WORD_CHARS_MAX, NAMING_CHARS_MAX = 16, 36  # longer words are broken; in the first column only those longer than an id
KEPT = frozenset({"state", "result", "error", "trouble", "survives", "what was seen"})
COLUMNS_MIN = 2
SHORT_CHARS = 12

Cells = Sequence[Sequence[str]]


class Fitted(NamedTuple):
    """What is left of a table: each cell as its lines, none wider than its column; and the columns that gave way."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Sequence[str]]]
    widths: Sequence[int]
    left_out: Sequence[str]


def fitted(columns: Sequence[str], rows: Cells, width: int) -> Fitted:
    """At most `width` wide, as long as that is at least three for each column."""
    said = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in rows)]
    columns, cells = [columns[index] for index in said], [[row[index] for index in said] for row in rows]
    for shorten in (_without_milliseconds, _without_tails, _without_year):
        if _total(_widths(columns, cells)) <= width:
            break
        cells = [[shorten(cell, index) for index, cell in enumerate(row)] for row in cells]
    left_out = list[str]()
    while _total(_floors(columns, cells)) > width and (gone := _giving_way(columns)) is not None:
        left_out.insert(0, columns[gone])
        columns = [*columns[:gone], *columns[gone + 1 :]]
        cells = [[*row[:gone], *row[gone + 1 :]] for row in cells]
    widths = _narrowed(_widths(columns, cells), _floors(columns, cells), width)
    wrapped = [[wrap(cell, widths[index]) for index, cell in enumerate(row)] for row in cells]
    shown = [wrap(column, widths[index])[0] for index, column in enumerate(columns)]
    return Fitted(shown, wrapped, widths, left_out)


def _words(texts: Iterable[str]) -> Iterator[str]:
    """What is not to be broken: words, and what is short as a whole."""
    for text in texts:
        yield from (text,) if width_of(text) <= SHORT_CHARS else text.split(" ")


def _giving_way(columns: Sequence[str]) -> int | None:
    if len(columns) <= COLUMNS_MIN:
        return None
    free = [index for index, column in enumerate(columns) if index and column not in KEPT]
    return free[-1] if free else len(columns) - 1


def _floors(columns: Sequence[str], cells: Cells) -> list[int]:
    """How narrow each column may become without a word being broken."""
    return [
        min(
            max(map(width_of, _words((column, *(row[index] for row in cells))))),
            WORD_CHARS_MAX if index else NAMING_CHARS_MAX,
        )
        for index, column in enumerate(columns)
    ]


def width_of(text: str) -> int:
    """In columns of a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def wrap(text: str, width: int) -> Sequence[str]:
    """Lines of `width` columns at most, between words where that goes."""
    if width_of(text) <= width:
        return (text,)
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for piece in _pieces(word, width):
            lines[-1] = piece
            lines.append("")
        lines.pop()
    return lines


def _pieces(word: str, width: int) -> Iterator[str]:
    piece = ""
    for char in word:
        if piece and width_of(piece + char) > width:
            yield piece
            piece = ""
        piece += char
    yield piece


def _widths(columns: Sequence[str], cells: Cells) -> list[int]:
    return [max(map(width_of, (columns[index], *(row[index] for row in cells)))) for index in range(len(columns))]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowed(widths: list[int], floors: Sequence[int], width: int) -> list[int]:
    """The one with most to give away gives, down to its floor; then down to one."""
    for least in (floors, [1] * len(widths)):
        while _total(widths) > width:
            widest = max(range(len(widths)), key=lambda index: widths[index] - least[index])
            if widths[widest] <= least[widest]:
                break
            widths[widest] -= 1
    return widths


Shorten = Callable[[str, int], str]


def _without_milliseconds(cell: str, index: int) -> str:
    return cell[:19] if STAMP.match(cell) else cell


def _without_tails(cell: str, index: int) -> str:
    return f"{cell[:ID_CHARS]}…" if (LONG_ID if index else OBJECT_ID).match(cell) else cell


def _without_year(cell: str, index: int) -> str:
    return cell[5:16] if STAMP.match(f"{cell}.000") else cell
