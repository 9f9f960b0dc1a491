"""`offgrid` as the tests of its commands run it: in this process, or in one of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from google.protobuf.message import Message
from small_node import SmallNode

from offgrid.json_form import json_of
from offgrid_tools.cli import emitting, exits, run
from offgrid_tools.cli.documents import DOCUMENTS, schema_for

NAMES = sorted(DOCUMENTS, key=len, reverse=True)
OFFGRID = [sys.executable, "-c", "from offgrid_tools.cli import main; main()"]


@contextmanager
def documents_checked(argv: Sequence[str | Path]) -> Iterator[None]:
    """Whatever is printed by --json meanwhile must be as the command's schema says."""
    command = next((name for name in NAMES if words_of(argv)[: name.count(" ") + 1] == name.split()), "")
    emit = emitting.emit

    def checked(document: Any) -> None:
        plain = json_of(document) if isinstance(document, Message) else document
        if command:
            validator(command).validate(json.loads(json.dumps(plain)))
        emit(document)

    emitting.emit = checked
    try:
        yield
    finally:
        emitting.emit = emit


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
