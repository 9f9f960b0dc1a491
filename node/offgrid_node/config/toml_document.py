"""A TOML text as values and positions, with every fault at once instead of only the first.

`tomllib` is the authority: when it accepts the text, its values are the document's and no fault is reported; this
file adds where each key and value stands. When it refuses, the text is read statement by statement (each value still
by `tomllib`), broken statements are reported and left out, and reading goes on behind them.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Any

from .toml_scan import Path, Scanner, TomlFault
from .toml_tables import Span, Tables

FAULTS_MAX = 100
"""Faults reported for one text; what follows them is not read."""

_TOMLLIB_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


class Document:
    """A text that was read. `data` and `spans` hold what could be read, `faults` what could not, in order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.faults: list[TomlFault] = []
        self._line_starts = [0, *(found.end() for found in re.finditer("\n", text))]
        self._tables = Tables(text, lambda offset: self.line_column(offset)[0])
        self.data: dict[str, Any] = self._tables.data
        self.spans: dict[Path, Span] = self._tables.spans
        if self._read():
            self._ask_tomllib()

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column (in characters), both from 1."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def position(self, path: Path, *, of_key: bool = False) -> tuple[int, int]:
        """Line and column of the value (or key) at `path`, else of the nearest table above it, else 1, 1."""
        for length in range(len(path), 0, -1):
            if span := self.spans.get(path[:length]):
                return self.line_column(span.key if of_key or length < len(path) else span.value)
        return 1, 1

    def _read(self) -> bool:
        """Reads statement by statement; False when it had to stop before the end."""
        scan = Scanner(self.text)
        at = scan.blank_lines(0)
        while at < len(self.text):
            start = at
            try:
                at = self._statement(scan, start)
            except TomlFault as fault:
                self.faults.append(fault)
                if fault.fatal or len(self.faults) >= FAULTS_MAX:
                    return False
                at = self._behind(scan, start, fault)
            at = scan.blank_lines(at)
        return True

    def _behind(self, scan: Scanner, start: int, fault: TomlFault) -> int:
        """Where to go on: in the line below, but behind a broken value at the next line that looks like a start."""
        if not fault.in_value:
            return scan.line_end(start)
        line = self.text.rfind("\n", 0, fault.offset) + 1
        return scan.next_statement(line if line > start else scan.line_end(start) + 1)

    def _statement(self, scan: Scanner, start: int) -> int:
        if self.text.startswith("[", start):
            return self._header(scan, start)
        at, parts = scan.key(start)
        if not self.text.startswith("=", at):
            raise TomlFault(at, "'=' is expected here")
        try:
            extent = scan.value(scan.blank(at + 1))
            end = self._finish_line(scan, extent.end)
        except TomlFault as fault:
            fault.path, fault.in_value = self._tables.path_of(parts), True
            raise
        self.faults.extend(self._tables.assign(parts, extent))
        return end

    def _header(self, scan: Scanner, start: int) -> int:
        self._tables.lose_section()
        brackets = "]]" if self.text.startswith("[[", start) else "]"
        at, parts = scan.key(start + len(brackets))
        if not self.text.startswith(brackets, at):
            raise TomlFault(at, f"'{brackets}' is expected here")
        self._tables.open(parts, is_list=brackets == "]]")
        return self._finish_line(scan, at + len(brackets))

    def _finish_line(self, scan: Scanner, at: int) -> int:
        at = scan.blank(at)
        if not scan.at_line_end(at):
            raise TomlFault(at, "the line should end here")
        return scan.line_end(at)

    def _ask_tomllib(self) -> None:
        try:
            self.data = tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:
            if not self.faults:
                self.faults.append(self._foreign(error))
        else:
            self.faults.clear()

    def _foreign(self, error: Exception) -> TomlFault:
        """What only `tomllib` saw, at the position that its message names."""
        found = _TOMLLIB_POSITION.search(str(error))
        if not found:
            return TomlFault(0, str(error))
        offset = self._line_starts[int(found[1]) - 1] + int(found[2]) - 1 if found[1] else len(self.text)
        return TomlFault(offset, str(error)[: found.start()])
