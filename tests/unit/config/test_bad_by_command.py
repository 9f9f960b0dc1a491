"""What a person sees of each bad config and each bad variable: one line of where, what, and what was meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_bad_configs import BAD, GOOD, Bad
from test_environment import BAD as BAD_VARIABLES

from offgrid_node.__main__ import EXIT_CONFIG, main

PROMISED = 60


def said(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """By `offgrid-node config check`, which ends as it should; anything else it raises would be a traceback."""
    monkeypatch.setattr(sys, "argv", ["offgrid-node", "config", "check", str(file)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_CONFIG
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def test_as_many_are_tried_as_are_promised() -> None:
    assert len(BAD) + len(BAD_VARIABLES) >= PROMISED


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_config(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(bad.text)
    line = said(file, monkeypatch, capsys)
    assert line.startswith(f"{file}:{bad.at[0]}:{bad.at[1]}: ")
    assert line.count("\n") == 1
    assert ("did you mean" in line) == bool(bad.guess)


@pytest.mark.parametrize(("name", "value", "says", "guess"), BAD_VARIABLES.values(), ids=BAD_VARIABLES.keys())
@pytest.mark.parametrize("place", ["environment", ".env"])
def test_a_bad_variable(
    name: str,
    value: str,
    says: str,
    guess: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(GOOD)
    if place == ".env":
        if not value.isprintable() or "'" in value:
            pytest.skip("it would be another value in a file")
        (tmp_path / ".env").write_text(f"# mine\n{name}='{value}'\n")
    else:
        monkeypatch.setenv(name, value)
    line = said(file, monkeypatch, capsys)
    assert name in line
    assert says in line
    assert guess in line
    if place == ".env":
        assert line.startswith(f"{tmp_path / '.env'}:2:")
