"""Writes an export in any form: head, events, and at the end what they come to and the digest over it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

from offgrid.exports.document import Digest, Head, StatePart, Tail
from offgrid.exports.folding import Fold
from offgrid.reducers import Recorded, SessionReducer


class Writer(Protocol):
    """One form; the file is the caller's."""

    def add(self, event: Recorded) -> None: ...

    def end(self, tail: Tail) -> None: ...


def _json(file: BinaryIO, head: Head) -> Writer:
    from offgrid.exports.json_lines import JsonWriter

    return JsonWriter(file, head)


def _yaml(file: BinaryIO, head: Head) -> Writer:
    from offgrid.exports.yaml_documents import YamlWriter

    return YamlWriter(file, head)


def _parquet(file: BinaryIO, head: Head) -> Writer:
    from offgrid.exports.parquet import ParquetWriter

    return ParquetWriter(file, head)


FORMS: Mapping[str, Callable[[BinaryIO, Head], Writer]] = {"json": _json, "yaml": _yaml, "parquet": _parquet}


def check_form(form: str) -> None:
    """Raises ValueError for one that is not known, NoPyarrow."""
    if form not in FORMS:
        raise ValueError(f"{form!r} is no form of an export; there are {', '.join(FORMS)}")
    if form == "parquet":
        from offgrid.exports.parquet import load_pyarrow

        load_pyarrow()


class ExportWriter:
    """`events` are to come in their order, all that the head says."""

    def __init__(self, file: BinaryIO, form: str, head: Head) -> None:
        """Raises NoPyarrow."""
        self._writer, self._digest, self._events = FORMS[form](file, head), Digest(head), 0
        self._fold = Fold(SessionReducer(), head)

    def add(self, event: Recorded) -> None:
        self._writer.add(event)
        self._digest.add(event)
        self._fold.add(event)
        self._events += 1

    def end(self) -> Tail:
        _, digest = self._fold.shown()
        state = StatePart(SessionReducer.name, SessionReducer.version, digest)
        tail = Tail(self._events, state, self._digest.end(state))
        self._writer.end(tail)
        return tail
