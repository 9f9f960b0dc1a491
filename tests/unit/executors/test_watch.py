"""What looking after jobs costs their node: one part of its time, however many run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from offgrid_node.executors.watch import INTERVAL_S, SHARE, Allowed, Lookout, Watch

ALLOWED = Allowed(processes=4, memory_bytes=2**30, folder_bytes=2**20)


def watches(lookout: Lookout, count: int) -> list[Watch]:
    made = [Watch(ALLOWED, Path("/nowhere"), lambda problem: None, lookout=lookout) for _ in range(count)]
    for each in made:
        lookout.begin(each)
    return made


def test_a_job_alone_is_looked_at_ten_times_a_second() -> None:
    lookout = Lookout()
    watches(lookout, 1)
    assert lookout.pause_s(took_s=0.0002) == INTERVAL_S


@pytest.mark.parametrize("count", [1, 2, 64, 240])
def test_looking_at_all_jobs_together_takes_its_share_of_the_time_and_no_more(count: int) -> None:
    lookout, took_s = Lookout(), 0.005
    watches(lookout, count)
    assert count * took_s / lookout.pause_s(took_s) <= 1 / SHARE


def test_one_that_is_slow_to_look_at_does_not_slow_down_the_others() -> None:
    lookout = Lookout()
    watches(lookout, 8)
    assert lookout.pause_s(took_s=0.5) == pytest.approx(80)
    assert lookout.pause_s(took_s=0.0001) == INTERVAL_S


def test_one_that_has_ended_has_no_part_any_more() -> None:
    lookout = Lookout()
    first, second = watches(lookout, 2)
    second.end()
    second.end()
    assert lookout.pause_s(took_s=1) == SHARE
    first.end()
    assert lookout.pause_s(took_s=1) == INTERVAL_S


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is looked at")
def test_one_that_took_too_much_is_told_once_and_has_no_part_any_more(tmp_path: Path) -> None:
    async def story() -> list[str]:
        told: asyncio.Queue[str] = asyncio.Queue()
        lookout = Lookout()
        (tmp_path / "large").write_bytes(b"x" * 2 * ALLOWED.folder_bytes)
        watch = Watch(ALLOWED, tmp_path, told.put_nowait, lookout=lookout)
        watch.begin(1)
        said = [await asyncio.wait_for(told.get(), 10)]
        assert lookout.pause_s(took_s=1) == INTERVAL_S
        return [*said, *([told.get_nowait()] if not told.empty() else [])]

    [problem] = asyncio.run(story())
    assert problem.startswith("its files take ")
