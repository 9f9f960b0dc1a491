"""No command of ours runs Python files of the folder that its user happens to stand in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import offgrid_node
from offgrid_node.local_mesh import start_command

SOURCES = sorted(Path(offgrid_node.__file__).parent.rglob("*.py"))
RUNS_A_MODULE = re.compile(r'(?<!"-P", )(?<!case \[)"-m",(?! "json\.tool")')  # json.tool is a sentence of the doctor


def test_a_node_that_up_starts_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "click.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        assert start_command(["--version"], log).wait(60) == 0, (tmp_path / "log").read_text()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", [path for path in SOURCES if '"-m"' in path.read_text(encoding="utf-8")], ids=str)
def test_modules_are_run_with_a_safe_path(path: Path) -> None:
    """`python -m` puts the current folder first into the import path, `python -P -m` does not."""
    assert not RUNS_A_MODULE.findall(path.read_text(encoding="utf-8"))
