"""What is final is asked first: on a terminal; nowhere else without --yes."""

from __future__ import annotations

import io

import pytest
from cli_run import Run

from offgrid.command_line import exits

FINAL = [["rm", "notes.txt"], ["mesh", "remove", "barn"], ["host", "drop", "barn"]]


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr("sys.stdin", Keyboard(request.param))


@pytest.mark.parametrize("argv", FINAL, ids=" ".join)
@pytest.mark.usefixtures("node")
def test_where_nobody_can_be_asked_nothing_final_is_done(og: Run, argv: list[str]) -> None:
    code, out, err = og(*argv)
    assert (code, out) == (exits.USAGE, "")
    assert "--yes does it without asking" in err


@pytest.mark.parametrize("argv", FINAL, ids=" ".join)
@pytest.mark.parametrize("typed", ["n\n", "\n", ""], indirect=True)
@pytest.mark.usefixtures("node", "typed")
def test_what_is_not_confirmed_is_not_done(og: Run, argv: list[str]) -> None:
    code, out, err = og(*argv)
    assert (code, out) == (exits.INTERRUPTED, "")
    assert "for good" in err


@pytest.mark.parametrize("typed", ["y\n"], indirect=True)
@pytest.mark.usefixtures("node", "typed")
def test_what_is_confirmed_is_done(og: Run) -> None:
    assert og("mesh", "remove", "barn")[1].startswith("removed barn")
