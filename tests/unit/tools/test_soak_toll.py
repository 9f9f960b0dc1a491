"""A soak's folder: gone with a run that was sound, kept where somebody has to look."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_tools.soak.toll import Toll, at_home


@pytest.mark.parametrize(("violations", "given", "stays"), [([], False, False), (["x"], False, True), ([], True, True)])
def test_it_stays_if_anything_was_violated_or_if_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, violations: list[str], given: bool, stays: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    homes, said = list[Path](), list[str]()

    def soak(home: Path) -> Toll:
        homes.append(home)
        (home / "node.log").touch()
        return Toll(violations=violations)

    assert at_home("try", tmp_path if given else None, soak, said.append).violations == violations
    assert (homes[0] / "node.log").exists() == stays
    assert said == ([f"   the mesh's folder: {homes[0]}"] if stays else [])
    assert (homes[0] == tmp_path) == given
