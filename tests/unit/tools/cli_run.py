"""`offgrid` as the tests of its commands run it: in this process, or in one of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click import unstyle
from google.protobuf.message import Message
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid.json_form import json_of
from offgrid_tools.cli import emitting, output, run
from offgrid_tools.cli.documents import DOCUMENTS, schema_for
from offgrid_tools.cli.fitting import width_of

COLUMNS = 80
NAMES = sorted(DOCUMENTS, key=len, reverse=True)
OFFGRID = [sys.executable, "-c", "from offgrid_tools.cli import main; main()"]


@contextmanager
def documents_checked(argv: Sequence[str | Path]) -> Iterator[None]:
    """Whatever is printed by --json meanwhile must be as the command's schema says; whatever table is printed would fit
    a terminal of 80 columns, and so would one of much longer words."""
    command = next((name for name in NAMES if words_of(argv)[: name.count(" ") + 1] == name.split()), "")
    emit = emitting.emit

    def checked(document: Any) -> None:
        plain = json_of(document) if isinstance(document, Message) else document
        if command:
            validator(command).validate(json.loads(json.dumps(plain)))
        emit(document)

    table = output.table

    def fitting(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        cells = [[output.clean(str(cell)) for cell in row] for row in rows]
        longer = [[cell and f"{cell} {cell}-{cell}" for cell in row] for row in cells]
        for shown in (cells, longer):
            too_wide = [line for line in output.fitting(columns, shown, COLUMNS) if width_of(unstyle(line)) > COLUMNS]
            assert not too_wide
        table(columns, cells, empty=empty)

    emitting.emit, output.table = checked, fitting
    try:
        yield
    finally:
        emitting.emit, output.table = emit, table


def words_of(argv: Sequence[str | Path]) -> list[str]:
    """The words that name the command, without options before them."""
    words = [str(word) for word in argv if word != "--json"]
    while words[:1] and words[0] in ("--socket", "--node-dir", "--context"):
        words = words[2:]
    return words


@cache
def validator(command: str) -> jsonschema_rs.Validator:
    """By the schema that takes no field that it does not name."""
    return jsonschema_rs.validator_for(schema_for(command, strict=True))


class Run:
    """One run of the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], node: SmallNode) -> None:
        self._capsys, self._node = capsys, node

    def __call__(self, *argv: str | Path) -> tuple[int, str, str]:
        with documents_checked(argv):
            code = run(["--socket", self._node.address, *map(str, argv)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *argv: str) -> object:
        code, out, _ = self("--json", *argv)
        assert code == exits.OK
        assert out.count("\n") == 1, "one document on one line"
        return json.loads(out)
