"""What a node that is up tells its owner to type next."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from offgrid_node.banner import NEXT, which
from offgrid_tools.cli.root import ROOT


def test_in_the_node_s_own_folder_the_commands_find_it_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert which(tmp_path / "data") == []
    assert which(tmp_path / "barn" / "data") == ["--node-dir", str(tmp_path / "barn")]
    assert which(tmp_path / "my disk") == ["--node-dir", f"'{tmp_path}/my disk'"]


@pytest.mark.parametrize("words", [words for words, _ in NEXT])
def test_each_is_a_command(words: str) -> None:
    assert CliRunner().invoke(ROOT, [*words.split(), "--help"]).exit_code == 0
