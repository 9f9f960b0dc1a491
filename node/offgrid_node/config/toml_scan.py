"""Where the keys and values of a TOML text stand: a scanner that finds extents and leaves meaning to `tomllib`.

Grammar: TOML 1.0 (toml.io/en/v1.0.0). The scanner knows keys, the four strings, arrays and inline tables, and takes
any other run of characters for a scalar; whether that scalar is a value, `tomllib` decides (`toml_document.py`).
"""

from __future__ import annotations

import re
import tomllib

import msgspec

NESTING_MAX = 32
"""Arrays and inline tables within each other, and parts of one dotted key; a Python parser recurses over both."""

TOKENS_MAX = 20_000
"""Keys and values in one text; a configuration has dozens."""

_BLANK = re.compile(r"[ \t]*")
_BLANK_LINES = re.compile(r"(?:[ \t\n]|\r\n|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\[^\n])*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
_BASIC_END = re.compile(r'\\.|"{3,5}', re.DOTALL)  # up to two quotes next to the fence belong to the text
_LITERAL_END = re.compile(r"'{3,5}")
_SCALAR = re.compile(r"[^\[\]{},#\n]*")
# Anchored and possessive: whatever a line holds, looking at it costs its length once. Groups with a choice inside are
# not possessive: Python 3.11.2, which Debian 12 has, matches those wrongly (3.11.7 does not).
_ANY_KEY = r"(?:[A-Za-z0-9_-]++|\"[^\"\n]*+\"|'[^'\n]*+')"
_STATEMENT = re.compile(
    r"^[ \t]*+(?:\[{1,2}[ \t]*+[A-Za-z][^\[\]\n\"',=]*+\]{1,2}[ \t]*+(?:#.*+)?\r?$"
    rf"|{_ANY_KEY}(?:[ \t]*+\.[ \t]*+{_ANY_KEY})*[ \t]*+=)",
    re.MULTILINE,
)

Path = tuple[str | int, ...]
"""Keys and array indices from the document's root down."""


class TomlFault(Exception):
    """Something that is not TOML: `offset` is where, `path` what it concerns (() when unknown).

    `in_value` means that lines below may belong to it too, `fatal` that nothing after it can be made sense of.
    """

    def __init__(
        self, offset: int, message: str, *, path: Path = (), suggestion: str = "", fatal: bool = False
    ) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.path = path
        self.suggestion = suggestion
        self.in_value = False
        self.fatal = fatal


class Part(msgspec.Struct, frozen=True):
    """One part of a dotted key, unquoted, and where it starts."""

    name: str
    offset: int


class Extent(msgspec.Struct, frozen=True):
    """Where a value starts and ends; an array has `items`, an inline table `fields`, a leaf neither."""

    start: int
    end: int
    items: tuple[Extent, ...] | None = None
    fields: tuple[tuple[tuple[Part, ...], Extent], ...] | None = None


class Scanner:
    """Reads keys and values at given offsets of one text (line ends are LF or CRLF)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = 0

    def blank(self, at: int) -> int:
        """The offset after spaces and tabs."""
        return _end(_BLANK, self._text, at)

    def blank_lines(self, at: int) -> int:
        """The offset after spaces, line ends and comments."""
        return _end(_BLANK_LINES, self._text, at)

    def line_end(self, at: int) -> int:
        """The offset of the line feed that ends the line of `at`, or of the text's end."""
        found = self._text.find("\n", at)
        return len(self._text) if found < 0 else found

    def at_line_end(self, at: int) -> bool:
        return self._text.startswith(("\n", "\r\n", "#"), at) or at >= len(self._text)

    def next_statement(self, at: int) -> int:
        """The first offset from `at` (a line start) on where a header or a key stands at a line's start."""
        found = _STATEMENT.search(self._text, at)
        return found.start() if found else len(self._text)

    def key(self, at: int) -> tuple[int, tuple[Part, ...]]:
        """Reads `a."b".c`; returns the offset after it and its parts."""
        self._count(at)
        parts: list[Part] = []
        while True:
            if len(parts) == NESTING_MAX:
                raise TomlFault(at, f"this key has more than {NESTING_MAX} parts", fatal=True)
            at = self.blank(at)
            part = self._key_part(at)
            parts.append(part[1])
            at = self.blank(part[0])
            if not self._text.startswith(".", at):
                return at, tuple(parts)
            at += 1

    def _count(self, at: int) -> None:
        self._tokens += 1
        if self._tokens > TOKENS_MAX:
            raise TomlFault(at, f"more than {TOKENS_MAX} keys and values in one file", fatal=True)

    def _key_part(self, at: int) -> tuple[int, Part]:
        if bare := _BARE_KEY.match(self._text, at):
            return bare.end(), Part(bare.group(), at)
        if literal := _LITERAL.match(self._text, at):
            return literal.end(), Part(literal.group(1), at)
        if basic := _BASIC.match(self._text, at):
            try:
                (name,) = tomllib.loads(f"{basic.group()} = 0")
            except ValueError:
                raise TomlFault(at, "this quoted key has a bad escape or character") from None
            return basic.end(), Part(name, at)
        raise TomlFault(at, "a key is expected here")

    def value(self, at: int, depth: int = 0) -> Extent:
        """Reads the value at `at`, which is behind any blanks."""
        self._count(at)
        if depth > NESTING_MAX:
            raise TomlFault(at, f"nested deeper than {NESTING_MAX}", fatal=True)
        match self._text[at : at + 1]:
            case "[":
                return self._array(at, depth)
            case "{":
                return self._inline_table(at, depth)
            case '"':
                return self._string(at, '"""', _BASIC_END, _BASIC)
            case "'":
                return self._string(at, "'''", _LITERAL_END, _LITERAL)
        token = self._text[at : _end(_SCALAR, self._text, at)].rstrip(" \t\r")
        if not token:
            raise TomlFault(at, "a value is expected here")
        return Extent(at, at + len(token))

    def _string(self, at: int, fence: str, end: re.Pattern[str], short: re.Pattern[str]) -> Extent:
        if self._text.startswith(fence, at):
            for closing in end.finditer(self._text, at + len(fence)):
                if closing.group().startswith(fence):
                    return Extent(at, closing.end())
            raise TomlFault(at, f"the text is not closed with {fence}", fatal=True)
        if found := short.match(self._text, at):
            return Extent(at, found.end())
        raise TomlFault(at, f"the text is not closed with {fence[0]} in its line")

    def _array(self, start: int, depth: int) -> Extent:
        try:
            return self._array_items(start, depth)
        except TomlFault as fault:
            line = self._text.rfind("\n", 0, fault.offset) + 1
            if fault.fatal or depth or line <= start or not _STATEMENT.match(self._text, line):
                raise
            raise TomlFault(line, "the array above is not closed with ']'") from None

    def _array_items(self, start: int, depth: int) -> Extent:
        items: list[Extent] = []
        at = self.blank_lines(start + 1)
        while not self._text.startswith("]", at):
            if at >= len(self._text):
                raise TomlFault(start, "the array is not closed with ']'")
            items.append(self.value(at, depth + 1))
            at = self.blank_lines(items[-1].end)
            if self._text.startswith(",", at):
                at = self.blank_lines(at + 1)
            elif not self._text.startswith("]", at):
                if at >= len(self._text):
                    raise TomlFault(start, "the array is not closed with ']'")
                raise TomlFault(at, "',' or ']' is expected here")
        return Extent(start, at + 1, items=tuple(items))

    def _inline_table(self, start: int, depth: int) -> Extent:
        fields: list[tuple[tuple[Part, ...], Extent]] = []
        at = self.blank(start + 1)
        if self._text.startswith("}", at):
            return Extent(start, at + 1, fields=())
        while True:
            if self.at_line_end(at):
                raise TomlFault(start, "the inline table is not closed with '}' in its line")
            at, parts = self.key(at)
            if not self._text.startswith("=", at):
                raise TomlFault(at, "'=' is expected here")
            fields.append((parts, self.value(self.blank(at + 1), depth + 1)))
            at = self.blank(fields[-1][1].end)
            if self._text.startswith("}", at):
                return Extent(start, at + 1, fields=tuple(fields))
            if self.at_line_end(at):
                raise TomlFault(start, "the inline table is not closed with '}' in its line")
            if not self._text.startswith(",", at):
                raise TomlFault(at, "',' or '}' is expected here")
            at = self.blank(at + 1)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
