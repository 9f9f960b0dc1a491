"""Files on the command line: their names as text, what is read, and what can be written, which is seen before any work
is done and paid."""

from __future__ import annotations

import os
import sys
import unicodedata
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast

import click


class TargetFile(click.Path):
    """Where something is written to; - is standard output."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = os.fsdecode(super().convert(value, param, ctx))
        if path != "-":
            from offgrid.client.targets import check_target

            try:
                check_target(path)
            except OSError as error:
                self.fail(f"{click.format_filename(path)}: {error.strerror}", param, ctx)
        return path


def opened(path: str) -> AbstractContextManager[BinaryIO]:
    """A file to read; - is standard input. Raises click's usage error where that was closed, and OSError."""
    if path == "-" and sys.stdin is None:
        raise click.UsageError("standard input is closed")
    return cast("AbstractContextManager[BinaryIO]", click.open_file(path, "rb"))


def plain(name: str) -> str:
    """A file's name as text: bytes of it that are not UTF-8, and control characters, become replacement characters."""
    return "".join("�" if unicodedata.category(char) in ("Cc", "Cs") else char for char in name)
