"""`offgrid-node` as it is typed, in this process."""

from __future__ import annotations

from typing import NamedTuple

from click.testing import CliRunner

from offgrid_node.__main__ import run


class Typed(NamedTuple):
    """What came of it: `output` is both streams, as a terminal shows them."""

    exit_code: int
    stdout: str
    stderr: str
    output: str


def typed(*words: object, stdin: str | bytes | None = None) -> Typed:
    with CliRunner().isolation(stdin) as (out, err, both):
        code = run([str(word) for word in words])
        return Typed(code, *(stream.getvalue().decode() for stream in (out, err, both)))
