"""What a job says while it runs, as people or scripts read it: its log, how far it is, a model's words as they come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import click

from offgrid_tools.cli.settings import settings

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import JobProgress


class Saying:
    """Writes log and words to `stream`, progress to standard error; with --json a document each, bytes as base64."""

    def __init__(self, stream: TextIO) -> None:
        self.log_bytes = 0  # that have been written
        self._stream, self._line = stream, ""

    def on_progress(self, told: JobProgress) -> None:
        self.log_bytes += len(told.log)
        if settings().json:
            from offgrid_tools.cli.json_form import emit, json_of

            emit({"progress": json_of(told)})
            return
        from offgrid_tools.cli.output import clean

        share = f"{told.fraction:4.0%} " if told.HasField("fraction") else ""
        line = f"{share}{clean(told.message)}".rstrip()
        if line and line != self._line:
            click.echo(line, err=True)
            self._line = line
        write(told.log, self._stream)
        write(told.output, self._stream)


def write(data: bytes, stream: TextIO | None = None) -> None:
    """As it is into a file or pipe; a terminal gets no control characters of a stranger's."""
    from offgrid_tools.cli.output import clean

    stream = stream or sys.stdout
    if not data:
        return
    if stream.isatty():
        click.echo(clean(data.decode("utf-8", "replace"), lines=True), file=stream, nl=False)
    else:
        stream.flush()
        stream.buffer.write(data)
    stream.flush()
