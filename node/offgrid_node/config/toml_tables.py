"""TOML statements put together into one tree: who may open, extend or set what, and where each key stands.

The rules are TOML 1.0's on tables, dotted keys and arrays of tables; a breach is a `TomlFault` that names the line
of the earlier setting, which `tomllib` does not.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from enum import Enum, auto
from typing import Any

import msgspec

from .toml_scan import Extent, Part, Path, TomlFault

_WORDS = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_UNQUOTED = re.compile(r"(?=[A-Za-z./]|.*:)[A-Za-z0-9_./:@+-]{1,80}")
_LEADING_ZEROS = re.compile(r"0+([1-9][0-9]*)")


class Span(msgspec.Struct, frozen=True):
    """Offsets of a key (for an array's element: of the element) and of its value (for a table: of its name)."""

    key: int
    value: int


class _Kind(Enum):
    """How a node of the tree came to be, which decides who may add to it."""

    IMPLICIT = auto()  # only named on the way to a table below it
    HEADER = auto()
    DOTTED = auto()
    LIST = auto()  # [[array of tables]]
    VALUE = auto()


class Tables:
    """The tree that grows: `data` as `tomllib` would have it and `spans` by path."""

    def __init__(self, text: str, line_of: Callable[[int], int]) -> None:
        self.data: dict[str, Any] = {}
        self.spans: dict[Path, Span] = {}
        self._text = text
        self._line_of = line_of
        self._kinds: dict[Path, _Kind] = {}
        self._section: tuple[dict[str, Any], Path] | None = (self.data, ())

    def path_of(self, parts: tuple[Part, ...]) -> Path:
        """The path that `parts` name in the open section; () after a broken header."""
        return (*self._section[1], *(part.name for part in parts)) if self._section else ()

    def lose_section(self) -> None:
        """After a broken header: the keys that follow belong to nothing that is known, and are dropped."""
        self._section = None

    def open(self, parts: tuple[Part, ...], *, is_list: bool) -> None:
        """`[a.b]` or, with `is_list`, `[[a.b]]`: what is assigned from now on goes there."""
        self._section = None
        table, path = self._walk(self.data, (), parts[:-1], _Kind.IMPLICIT)
        part = parts[-1]
        path = (*path, part.name)
        kind = self._kinds.get(path)
        if kind not in (None, _Kind.LIST if is_list else _Kind.IMPLICIT):
            raise self._already(part, path)
        if is_list:
            self._note(path, _Kind.LIST, part.offset)
            rows = table.setdefault(part.name, [])
            rows.append({})
            path = (*path, len(rows) - 1)
            table = rows[-1]
        else:
            table = table.setdefault(part.name, {})
        self._note(path, _Kind.HEADER, part.offset)
        self._section = table, path

    def assign(self, parts: tuple[Part, ...], extent: Extent) -> list[TomlFault]:
        """`a.b = value` in the open section. Returns what is wrong inside the value; such parts are left out."""
        if self._section is None:
            return []
        faults: list[TomlFault] = []
        table, path = self._section
        self._assign(table, path, parts, extent, faults)
        return faults

    def _assign(
        self, table: dict[str, Any], path: Path, parts: tuple[Part, ...], extent: Extent, faults: list[TomlFault]
    ) -> None:
        table, path = self._walk(table, path, parts[:-1], _Kind.DOTTED)
        part = parts[-1]
        path = (*path, part.name)
        if path in self._kinds:
            raise self._already(part, path)
        self._kinds[path] = _Kind.VALUE
        self.spans[path] = Span(part.offset, extent.start)
        try:
            table[part.name] = self._value(path, extent, faults)
        except TomlFault as fault:
            faults.append(fault)

    def _value(self, path: Path, extent: Extent, faults: list[TomlFault]) -> object:
        if extent.items is not None:
            return self._array(path, extent.items, faults)
        if extent.fields is None:
            return self._leaf(path, extent)
        table: dict[str, Any] = {}
        for parts, inner in extent.fields:
            try:
                self._assign(table, path, parts, inner, faults)
            except TomlFault as fault:
                faults.append(fault)
        return table

    def _array(self, path: Path, items: tuple[Extent, ...], faults: list[TomlFault]) -> list[object]:
        values: list[object] = []
        for item in items:
            item_path = (*path, len(values))
            try:
                value = self._value(item_path, item, faults)
            except TomlFault as fault:
                faults.append(fault)
            else:
                values.append(value)
                self.spans[item_path] = Span(item.start, item.start)
        return values

    def _leaf(self, path: Path, extent: Extent) -> object:
        token = self._text[extent.start : extent.end]
        try:
            return tomllib.loads(f"v = {token}")["v"]
        except ValueError as error:
            if token[0] in "\"'":
                message = str(error).partition(" (at ")[0]
                raise TomlFault(extent.start, f"is a text with a fault: {message}", path=path) from None
            shown = token if len(token) <= 40 else token[:40] + "…"
            raise TomlFault(extent.start, f"{shown} is not a TOML value", path=path, suggestion=_meant(token)) from None

    def _walk(
        self, table: dict[str, Any], path: Path, parts: tuple[Part, ...], kind: _Kind
    ) -> tuple[dict[str, Any], Path]:
        """Goes down from `table` (at `path`) by `parts`, making tables of `kind` where there are none."""
        for part in parts:
            path = (*path, part.name)
            found = self._kinds.get(path)
            if found is _Kind.VALUE or (kind is _Kind.DOTTED and found in (_Kind.HEADER, _Kind.LIST)):
                raise self._already(part, path)
            if found is None:
                self._note(path, kind, part.offset)
            elif kind is _Kind.DOTTED:
                self._kinds[path] = kind
            inner = table.setdefault(part.name, {})
            if found is _Kind.LIST:
                path = (*path, len(inner) - 1)
                inner = inner[-1]
            table = inner
        return table, path

    def _already(self, part: Part, path: Path) -> TomlFault:
        line = self._line_of(self.spans[path].key)
        return TomlFault(part.offset, f"is already set in line {line}", path=path)

    def _note(self, path: Path, kind: _Kind, offset: int) -> None:
        self._kinds[path] = kind
        self.spans.setdefault(path, Span(offset, offset))


def _meant(token: str) -> str:
    if word := _WORDS.get(token.lower()):
        return word
    if zeros := _LEADING_ZEROS.fullmatch(token):
        return zeros[1]
    return f'"{token}"' if _UNQUOTED.fullmatch(token) else ""
