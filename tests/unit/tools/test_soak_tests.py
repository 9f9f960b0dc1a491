"""`soak tests` runs what `test` leaves out, and says so if it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offgrid_tools.soak import long_tests

THREE = """
import pytest
from hypothesis import given, strategies as st

@pytest.mark.soak
def test_long():
    assert {passes}

@given(st.integers())
def test_drawn(n):
    pass

def test_quick():
    pass
"""


@pytest.mark.parametrize("passes", [True, False])
def test_it_runs_what_is_long_and_what_draws(passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = soak\naddopts = -m 'not soak' -p no:cacheprovider\n")
    (tmp_path / "conftest.py").write_text("from hypothesis import settings\nsettings.register_profile('soak')\n")
    (tmp_path / "test_three.py").write_text(THREE.format(passes=passes))
    monkeypatch.setattr(long_tests, "ROOT", tmp_path)
    monkeypatch.setattr(long_tests, "WORKERS", 0)
    monkeypatch.setenv("PYTEST_ADDOPTS", f"--basetemp={tmp_path / 'base'}")
    said: list[str] = []
    broken = long_tests.soak_tests(1, said.append)
    assert broken == ([] if passes else ["round 0: pytest ended with 1, as said above"])
    assert f"{1 + passes} passed" in said[-1].replace("1 failed, ", ""), said
    assert "1 deselected" in said[-1]


def test_those_who_test_leave_out_what_is_long() -> None:
    text = (Path(long_tests.ROOT) / "pyproject.toml").read_text(encoding="utf-8")
    assert "-m 'not soak'" in text
    assert os.path.samefile(long_tests.ROOT / "tests", Path(__file__).parents[2])
