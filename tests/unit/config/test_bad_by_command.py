"""What a person sees of each bad config and each bad variable: one line of where, what, and what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_command import typed
from test_bad_configs import BAD, GOOD, Bad
from test_environment import BAD as BAD_VARIABLES

from offgrid.command_line import exits

PROMISED = 60


def said(file: Path) -> str:
    """By `offgrid-node config check`, which ends as it should."""
    done = typed("config", "check", file)
    assert (done.exit_code, done.stdout) == (exits.USAGE, "")
    return done.stderr


def test_as_many_are_tried_as_are_promised() -> None:
    assert len(BAD) + len(BAD_VARIABLES) >= PROMISED


def fits_a_file(value: str) -> bool:
    """Whether it is the same value in quotes on a line of `.env`."""
    return value.isprintable() and "'" not in value


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_config(bad: Bad, tmp_path: Path) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(bad.text)
    line = said(file)
    assert line.startswith(f"{file}:{bad.at[0]}:{bad.at[1]}: ")
    assert line.count("\n") == 1
    assert ("did you mean" in line) == bool(bad.guess)


@pytest.mark.parametrize(
    ("name", "value", "says", "guess", "place"),
    [
        pytest.param(*bad, place, id=f"{place}-{about}")
        for place in ("environment", ".env")
        for about, bad in BAD_VARIABLES.items()
        if place == "environment" or fits_a_file(bad[1])
    ],
)
def test_a_bad_variable(
    name: str,
    value: str,
    says: str,
    guess: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(GOOD)
    if place == ".env":
        (tmp_path / ".env").write_text(f"# mine\n{name}='{value}'\n")
    else:
        monkeypatch.setenv(name, value)
    line = said(file)
    assert name in line
    assert says in line
    assert guess in line
    if place == ".env":
        assert line.startswith(f"{tmp_path / '.env'}:2:")
