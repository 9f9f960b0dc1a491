"""What `bench state` measures of a real node, in small: paced, on a slow disk, and shredded."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_tools.bench import slow_disk, state_live
from offgrid_tools.bench.groups import Plan

pytestmark = pytest.mark.e2e


@pytest.mark.skipif(bool(slow_disk.missing()), reason=slow_disk.missing() or "there is one")
def test_nothing_that_matters_is_lost_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PACED_S_QUICK": 0.5, "FRAMES_QUICK": 20, "CALLS_QUICK": 500, "MARKERS": 50}.items():
        monkeypatch.setattr(state_live, name, value)
    figures = {each.name: each for each in state_live.measure_live(Plan(tmp_path, quick=True, say=lambda line: None))}
    assert figures.keys() | {"disk_bytes_per_event_at_75_per_s"} == {  # where the disk says
        "disk_bytes_per_event_at_75_per_s", "late_frames_60hz_slow_disk", "critical_lost_60hz_slow_disk",
        "record_p999_ms", "purge_s", "purge_markers_left",
    }  # fmt: skip
    assert figures["critical_lost_60hz_slow_disk"].value == 0
    assert figures["purge_markers_left"].value == 0
