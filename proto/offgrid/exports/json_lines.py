"""An export as JSON lines: `jq` and a text editor read it, and it takes the memory of one event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from offgrid.exports.document import ITEM_BYTES_MAX, BadExport, Head, Said, Tail, plain
from offgrid.reducers import Recorded

_encode = msgspec.json.encode


class JsonWriter:
    """Writes as it is told; nothing waits in it."""

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._file = file
        self._line(plain(head))

    def add(self, event: Recorded) -> None:
        self._line(event._asdict())

    def end(self, tail: Tail) -> None:
        self._line(plain(tail))

    def _line(self, item: dict[str, Any]) -> None:
        self._file.write(_encode(item) + b"\n")


def read_lines(file: BinaryIO) -> Iterator[Said]:
    """Each with its line. Raises BadExport for what is no JSON."""
    number = 0
    while line := file.readline(ITEM_BYTES_MAX + 1):
        number += 1
        place = f"line {number}"
        if len(line) > ITEM_BYTES_MAX:
            raise BadExport(f"{place}: it is longer than {ITEM_BYTES_MAX} bytes")
        try:
            yield Said(place, msgspec.json.decode(line))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadExport(f"{place}: no JSON, or cut off: {error}") from error
