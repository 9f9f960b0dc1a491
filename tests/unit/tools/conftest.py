"""The command as its tests run it, and a text to give to jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_run import Run

if TYPE_CHECKING:
    from small_node import SmallNode


@pytest.fixture
def og(capsys: pytest.CaptureFixture[str], node: SmallNode) -> Run:
    return Run(capsys, node)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "notes.txt"
    path.write_text("one two three\n", encoding="utf-8")
    return str(path)
