"""What a job says while it runs, as people or scripts read it: its log, how far it is, a model's words as they come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import click

from offgrid_tools.cli.settings import settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import JobProgress


MARK = b"::progress "  # a line of the log that is told as progress, see docs/executors.md
LINE_BYTES_MAX = 512  # what is longer is none


class Saying:
    """Writes log and words to `stream`, progress to standard error; with --json a document each, bytes as base64. Where
    both are before the same eyes, the log's own lines of progress are left out: they are told already."""

    def __init__(self, stream: TextIO) -> None:
        self.log_bytes = 0  # that have been written
        self._stream, self._line = stream, ""
        self._marks = MarkedLines() if stream is sys.stderr or stream.isatty() else None

    def on_progress(self, told: JobProgress) -> None:
        self.log_bytes += len(told.log)
        if settings().json:
            from offgrid.json_form import json_of
            from offgrid_tools.cli.emitting import emit

            emit({"progress": json_of(told)})
            return
        from offgrid.command_line.terminal import clean

        share = f"{told.fraction:4.0%} " if told.HasField("fraction") else ""
        line = f"{share}{clean(told.message)}".rstrip()
        if line and line != self._line:
            click.echo(line, err=True)
            self._line = line
        self._write_log(told.log)
        write(told.output, self._stream)

    def end(self, rest: bytes = b"") -> None:
        """`rest` is of the log."""
        self._write_log(rest)
        write(self._marks.end() if self._marks else b"", self._stream)

    def _write_log(self, log: bytes) -> None:
        write(self._marks.without(log) if self._marks else log, self._stream)


class MarkedLines:
    """Takes the lines that say `::progress …` out of a log that comes in pieces, as executors find them there."""

    def __init__(self) -> None:
        self._begun = b""  # of a line that may be one, and has not ended
        self._inside = False  # of another one

    def without(self, data: bytes) -> bytes:
        *lines, rest = (self._begun + data).split(b"\n")
        kept = []
        for line in lines:
            if self._inside or not line.startswith(MARK) or len(line) > LINE_BYTES_MAX:
                kept += [line, b"\n"]
            self._inside = False
        may_be = (rest.startswith(MARK) or MARK.startswith(rest)) and len(rest) <= LINE_BYTES_MAX
        self._inside = self._inside or not may_be
        self._begun = b"" if self._inside else rest
        return b"".join([*kept, rest] if self._inside else kept)

    def end(self) -> bytes:
        rest, self._begun = self._begun, b""
        return rest


def write(data: bytes, stream: TextIO | None = None) -> None:
    """As it is into a file or pipe; a terminal gets no control characters of a stranger's."""
    from offgrid.command_line.terminal import clean

    stream = stream or sys.stdout
    if not data:
        return
    if stream.isatty():
        click.echo(clean(data.decode("utf-8", "replace"), lines=True), file=stream, nl=False)
    else:
        stream.flush()
        stream.buffer.write(data)
    stream.flush()
