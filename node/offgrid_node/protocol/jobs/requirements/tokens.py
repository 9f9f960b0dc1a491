"""The words of a requirement and where they stand. Nothing here knows what they mean."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.bounds import REQUIREMENTS_CHARS_MAX

SPACES = " \t\n\r\f\v"
DIGITS_MAX = 18  # of a number, on either side of the point


class Word(Enum):
    """Kinds of tokens."""

    NAME = "name"
    TEXT = "text"
    NUMBER = "number"
    SIGN = "sign"
    END = "end"


class Token(NamedTuple):
    """`at` counts characters from 1; `value` is a text's or number's."""

    word: Word
    text: str
    at: int
    value: object = None


_TOKEN = re.compile(
    r"""[\x20\t\n\r\f\v]*(?:
        (?P<number>[0-9]+(?:\.[0-9]+)?)(?![A-Za-z0-9_.])
      | (?P<name>[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*)
      | (?P<text>"(?:[^"\\\x00-\x1f\x7f]|\\["\\])*" | '(?:[^'\\\x00-\x1f\x7f]|\\['\\])*')
      | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.ASCII,
)
_ESCAPED = re.compile(r"\\(.)")


def wrong(field: str, at: int, why: str) -> InvalidRequest:
    """The one form of all this language's errors."""
    return InvalidRequest.field(field, f"at character {at}: {why}")


def tokens_of(text: str, field: str) -> list[Token]:
    """All words, the last one END. Raises InvalidRequest."""
    if len(text) > REQUIREMENTS_CHARS_MAX:
        raise InvalidRequest.field(field, f"{len(text)} characters; at most {REQUIREMENTS_CHARS_MAX} are allowed")
    tokens: list[Token] = []
    at = 0
    while not tokens or tokens[-1].word != Word.END:
        found = _TOKEN.match(text, at)
        if found is None:
            raise _stuck(field, text, at)
        word = Word(found.lastgroup)
        start = found.start(word.value)
        tokens.append(_token(field, word, found[word.value], start + 1))
        at = found.end()
    return tokens


def quoted(text: str) -> str:
    """The text as it is written in an expression."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _token(field: str, word: Word, text: str, at: int) -> Token:
    if word == Word.TEXT:
        return Token(word, text, at, _ESCAPED.sub(r"\1", text[1:-1]))
    if word == Word.NUMBER:
        whole, _, rest = text.partition(".")
        if max(len(whole), len(rest)) > DIGITS_MAX:
            raise wrong(field, at, f"a number has at most {DIGITS_MAX} digits on either side of the point")
        return Token(word, text, at, Decimal(text) if rest else int(text))
    return Token(word, text, at)


def _stuck(field: str, text: str, at: int) -> InvalidRequest:
    while text[at] in SPACES:
        at += 1
    here = text[at : at + 12]
    if here[0] in "\"'":
        return wrong(field, at + 1, f"the text that begins with {here[0]} does not end, or holds a control character")
    if here.startswith("="):
        return wrong(field, at + 1, "'=' is not known; equality is '=='")
    if here[:2] in ("&&", "||") or here[0] == "!":
        return wrong(field, at + 1, f"{here[:2]!r} is not known; write 'and', 'or', 'not'")
    return wrong(field, at + 1, f"{here!r} is not known; names, numbers, texts in quotes, == != < <= > >= ( ) [ ] ,")
