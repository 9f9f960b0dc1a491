"""An export as a Parquet file, by pyarrow, which an extra brings: for those who ask it with SQL or pandas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from offgrid.exports.document import BadExport, Head, Said, Tail, data_text
from offgrid.reducers import Recorded

GROUP_EVENTS = 10_000
HEAD, TAIL = b"offgrid.head", b"offgrid.tail"
COLUMNS = ("number", "timestamp_us", "kind", "frame_id", "energy_delta", "data")


class NoPyarrow(RuntimeError):
    """It is not installed."""

    def __init__(self) -> None:
        super().__init__("Parquet needs pyarrow, which is not installed: pip install 'offgrid-node[parquet]'")


def load_pyarrow() -> tuple[Any, Any]:
    """It, and its part for Parquet. Raises NoPyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise NoPyarrow from error
    return pyarrow, pyarrow.parquet


class ParquetWriter:
    """Holds GROUP_EVENTS before they are written. Raises NoPyarrow."""

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._arrow, parquet = load_pyarrow()
        arrow = self._arrow
        self._schema = arrow.schema(
            [
                arrow.field("number", arrow.uint64(), nullable=False),
                arrow.field("timestamp_us", arrow.timestamp("us", tz="UTC"), nullable=False),
                arrow.field("kind", arrow.string(), nullable=False),
                arrow.field("frame_id", arrow.uint64()),
                arrow.field("energy_delta", arrow.float64()),
                arrow.field("data", arrow.string(), nullable=False),
            ]
        )
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._writer.add_key_value_metadata({HEAD: msgspec.json.encode(head)})
        self._waiting: list[tuple[Any, ...]] = []

    def add(self, event: Recorded) -> None:
        self._waiting.append((*event[:-1], data_text(event.data)))
        if len(self._waiting) == GROUP_EVENTS:
            self._write()

    def end(self, tail: Tail) -> None:
        self._write()
        self._writer.add_key_value_metadata({TAIL: msgspec.json.encode(tail)})
        self._writer.close()

    def _write(self) -> None:
        if self._waiting:
            columns = zip(*self._waiting, strict=True)
            arrays = [
                self._arrow.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)
            ]
            self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
            self._waiting = []


def read_rows(file: BinaryIO) -> Iterator[Said]:
    """Head, events and tail. Raises BadExport for what is no Parquet, or none of ours; NoPyarrow."""
    arrow, parquet = load_pyarrow()
    row = 0
    try:
        opened = parquet.ParquetFile(file)
        metadata = opened.metadata.metadata or {}
        if HEAD not in metadata or tuple(opened.schema_arrow.names) != COLUMNS:
            raise BadExport(f"this is no export of a session: its columns are {', '.join(opened.schema_arrow.names)}")
        yield Said("metadata", msgspec.json.decode(metadata[HEAD]))
        for batch in opened.iter_batches(GROUP_EVENTS):
            rows = zip(*(_column(arrow, batch, name) for name in COLUMNS), strict=True)
            for *fields, data in rows:
                row += 1
                item = dict(zip(COLUMNS, (*fields, msgspec.json.decode(data)), strict=True))
                yield Said(f"row {row}", item)
        if TAIL in metadata:
            yield Said("metadata", msgspec.json.decode(metadata[TAIL]))
    except (arrow.ArrowException, msgspec.MsgspecError, OSError, RecursionError) as error:
        raise BadExport(f"row {row + 1}: no Parquet, or cut off: {error}") from error


def _column(arrow: Any, batch: Any, name: str) -> list[Any]:
    column = batch.column(name)
    if name == "timestamp_us":
        column = column.cast(arrow.int64())
    return list(column.to_pylist())
