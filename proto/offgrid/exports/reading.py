"""Reads an export of any form, and looks while it does: whether it is whole, in order and as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from offgrid.exports.document import BadExport, Digest, Head, Said, Tail, event_of, head_of, tail_of
from offgrid.reducers import Recorded

PARQUET = b"PAR1"


class Export:
    """One reading of a file. `events` has to be read to its end before `tail` is there, and the file is known sound."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises BadExport, NoPyarrow."""
        self._parts = _form_of(file)(file)
        first = next(self._parts, None)
        if first is None:
            raise BadExport("the file is empty")
        self.head: Head = head_of(first)
        self.tail: Tail | None = None

    def events(self, on_event: Callable[[int], None] = lambda number: None) -> Iterator[Recorded]:
        """In their order. Raises BadExport where it was cut or changed, at the latest at its end."""
        head, digest, following = self.head, Digest(self.head), self.head.first
        for said in self._parts:
            if isinstance(said.item, dict) and "digest" in said.item:
                self._end(said, digest, following - head.first)
                return
            event = event_of(said)
            if event.number != following:
                raise BadExport(f"{said.place}: event {event.number}, where event {following} is due")
            digest.add(event)
            following += 1
            yield event
        raise BadExport(f"it was cut off: it ends behind event {following - 1}, without its digest")

    def _end(self, said: Said, digest: Digest, events: int) -> None:
        tail = tail_of(said)
        for where, number in (("at its beginning", self.head.events), ("at its end", tail.events)):
            if number != events:
                raise BadExport(f"{said.place}: it has {events} events, and says {where} that there are {number}")
        found = digest.end(tail.state)
        if found != tail.digest:
            raise BadExport(f"it was changed: its digest is {found}, and it says {tail.digest[:100]}")
        following = next(self._parts, None)
        if following is not None:
            raise BadExport(f"{following.place}: something comes behind its end")
        self.tail = tail


def _form_of(file: BinaryIO) -> Callable[[BinaryIO], Iterator[Said]]:
    """By its first bytes; the file can be sought in."""
    start = file.read(64)
    file.seek(0)
    if start.startswith(PARQUET):
        from offgrid.exports.parquet import read_rows

        return read_rows
    if start.lstrip().startswith(b"{"):
        from offgrid.exports.json_lines import read_lines

        return read_lines
    from offgrid.exports.yaml_documents import read_documents

    return read_documents
