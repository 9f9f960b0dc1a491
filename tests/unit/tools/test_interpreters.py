"""The ledger's simulator by other Pythons."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from offgrid_tools.ledgersim.main import Case
from offgrid_tools.soak import interpreters

CASES = [Case(0, "slots", 4), Case(1, "slots", 4)]


def test_another_process_comes_to_the_same_traces() -> None:
    said: list[str] = []
    assert interpreters.compare([Path(sys.executable)], CASES, said.append) == []
    assert said == [f"   Python {sys.version.split()[0]} at {sys.executable}: 2 of 2 traces are the same"]


def test_a_trace_that_differs_is_named_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "_run", lambda python, cases: ("3.99", [interpreters._line(CASES[0]), "x"], ""))
    broken = interpreters.compare([Path("python3.99")], CASES, lambda line: None)
    assert broken == ["seed 1 of the slots level has another trace by Python 3.99"]


def test_one_that_is_named_and_cannot_run_is_wrong(tmp_path: Path) -> None:
    said: list[str] = []
    missing = tmp_path / "python3.99"
    broken = interpreters.compare([missing], CASES[:1], said.append)
    assert len(broken) == 1
    assert str(missing) in broken[0]
    assert "compared with none" in said[-1]


def test_what_is_on_the_path_and_lacks_packages_is_said_and_not_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "python3.99"
    bare.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'google'\" >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(interpreters, "on_path", lambda: [bare])
    said: list[str] = []
    assert interpreters.compare([], CASES[:1], said.append) == []
    assert said[0] == f"   {bare}: not tried: ModuleNotFoundError: No module named 'google'"
