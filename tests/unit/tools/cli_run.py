"""`offgrid` as the tests of its commands run it: in this process, or in one of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_node import SmallNode

from offgrid_tools.cli import exits, run

OFFGRID = [sys.executable, "-c", "from offgrid_tools.cli import main; main()"]


class Run:
    """One run of the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], node: SmallNode) -> None:
        self._capsys, self._node = capsys, node

    def __call__(self, *argv: str | Path) -> tuple[int, str, str]:
        code = run(["--socket", self._node.address, *map(str, argv)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *argv: str) -> object:
        code, out, _ = self("--json", *argv)
        assert code == exits.OK
        assert out.count("\n") == 1, "one document on one line"
        return json.loads(out)
