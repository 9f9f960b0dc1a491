"""`bench state`: a store of sessions in one process, its peers, what is killed and looked at, how frames are judged.

It runs for real, in small; what needs a node is in tests/e2e."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from offgrid.client.backlog import BacklogFull
from offgrid.client.sessions import Session
from offgrid.kinds import Kinds
from offgrid_tools.bench import slow_disk, state, state_live, state_million
from offgrid_tools.bench.figures import read_goals
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.slow_disk import SlowDisk
from offgrid_tools.bench.state_events import A_FRAME, CRITICAL, entry, sample
from offgrid_tools.bench.state_ours import OurStore
from offgrid_tools.bench.state_peers import EventSourcing, RawLmdb

LIVE = {
    "disk_bytes_per_event_at_75_per_s", "record_p999_ms", "late_frames_60hz_slow_disk", "critical_lost_60hz_slow_disk",
    "purge_s", "purge_markers_left",
}  # fmt: skip
BESIDE_EVENTSOURCING = {"append_batch15_vs_eventsourcing", "replay_1m_vs_eventsourcing"}


class TestTheEvents:
    def test_are_what_their_kinds_schemas_say(self) -> None:
        kinds = Kinds()
        for number in range(2 * A_FRAME):
            each = entry(number)
            kinds.check(each.kind, json.loads(each.data))
            assert (each.frame_id, each.kind) == (number // A_FRAME, sample(number).kind)

    def test_one_of_a_frame_may_never_be_dropped(self) -> None:
        kinds = [sample(number).kind for number in range(A_FRAME)]
        assert [kind for kind in kinds if kind not in Kinds().expendable] == [CRITICAL]


class TestOurs:
    def test_goes_on_in_the_session_that_it_finds(self, tmp_path: Path) -> None:
        with closing(OurStore(tmp_path)) as ours:
            ours.append(15)
            ours.append(1)
            shown = ours.show()
        with closing(OurStore(tmp_path)) as ours:
            assert (ours.recorded, ours.show().digest) == (16, shown.digest)
            ours.append(15)
            assert (ours.show().number, ours.show(15).number) == (31, 15)

    def test_waits_its_turns_where_a_state_takes_long(self, tmp_path: Path) -> None:
        with closing(OurStore(tmp_path)) as ours:
            for _ in range(9):
                ours.append(1_000)
            assert json.loads(ours.show(4_500).state)["events"] == 4_500


class TestThePeers:
    def test_raw_lmdb_has_each_event_and_its_place_by_type(self, tmp_path: Path) -> None:
        with closing(RawLmdb(tmp_path)) as raw:
            raw.append(15)
            raw.append(15)
            with raw._env.begin() as txn:
                assert [txn.stat(db)["entries"] for db in (raw._events, raw._by_type)] == [30, 30]

    def test_eventsourcing_has_each_event_again(self, tmp_path: Path) -> None:
        pytest.importorskip("eventsourcing")
        with closing(EventSourcing(tmp_path / "peer")) as theirs:
            theirs.append(15)
            theirs.append(15)
            assert theirs.replay() == 31, "the first is the aggregate's making"
        with closing(EventSourcing(tmp_path / "another")) as theirs:
            theirs.append(1)
            assert theirs.replay() == 2


def test_it_measures_every_figure_that_has_a_goal_but_those_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BATCHES_PER_SAMPLE", "SINGLES_QUICK", "PAIRS_QUICK"):
        monkeypatch.setattr(state, name, 2)
    for name, value in {"EVENTS_QUICK": 6_000, "KILLS_QUICK": 1, "THEIRS_QUICK": 10, "GOES_ON_S": 0}.items():
        monkeypatch.setattr(state_million, name, value)
    plan = Plan(tmp_path, quick=True, say=lambda line: None)
    figures = [*state.measure_appends(plan), *state_million.measure_million(plan)]
    assert {figure.name for figure in figures} | BESIDE_EVENTSOURCING == read_goals()["state"].keys() - LIVE
    assert all(figure.value > 0 for figure in figures)


def test_a_state_that_is_not_what_the_events_come_to_is_no_figure(tmp_path: Path) -> None:
    class Wrong:
        def show(self, number: int = 0) -> Any:
            return type("Shown", (), {"state": b'{"events": 7}', "number": 8, "snapshot": 0})

    with pytest.raises(RuntimeError, match="the state at event 8 is not what 8 events come to"):
        state_million.check_whole(cast(OurStore, Wrong()), 8)


class FakeTime:
    """Time goes by where somebody sleeps, and where `record` takes some."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class FakeSession:
    """`takes`: how long a call takes, by its number; one in `full` finds no room."""

    def __init__(self, clock: FakeTime, takes: dict[int, float], full: int = 0) -> None:
        self._clock, self._takes, self._full, self._calls = clock, takes, full, 0

    def record(self, *_: object, **__: object) -> None:
        self._clock.now_s += self._takes.get(self._calls, 0.0)
        self._calls += 1
        if self._full and self._calls % self._full == 0:
            raise BacklogFull("full")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(state_live, "time", clock)
    return clock


class TestFrames:
    def frames(self, clock: FakeTime, takes: dict[int, float]) -> tuple[int, int, float]:
        return state_live.run_frames(cast(Session, FakeSession(clock, takes)), 10)

    def test_are_in_time_where_recording_takes_what_is_left(self, clock: FakeTime) -> None:
        late, otherwise, longest = self.frames(clock, {5: 0.002, 6: 0.002})
        assert (late, otherwise, round(longest, 6)) == (0, 0, 0.004)

    def test_are_late_because_of_the_store_where_they_would_not_be_without(self, clock: FakeTime) -> None:
        assert self.frames(clock, {15: 0.005, 35: 0.005})[:2] == (2, 0)

    def test_that_are_late_anyway_are_not_the_stores(self, clock: FakeTime, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(state_live, "WORK_S", 0.02)
        assert self.frames(clock, {})[:2] == (0, 10)


def test_calls_are_timed_one_by_one_and_those_without_room_counted(clock: FakeTime) -> None:
    times, refused = state_live.run_calls(cast(Session, FakeSession(clock, {7: 0.5}, full=10)), 100)
    assert (len(times), refused, max(times)) == (100, 10, 0.5)
    assert sorted(times)[-2] == 0


def test_markers_are_found_in_files_and_in_what_is_packed(tmp_path: Path) -> None:
    (tmp_path / "node" / "deep").mkdir(parents=True)
    (tmp_path / "node" / "deep" / "file").write_bytes(b"..one..")
    with zipfile.ZipFile(tmp_path / "backup.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inside", "two" * 1_000)
    places = [tmp_path / "node", tmp_path / "backup.zip"]
    assert state_live.found(places, [b"one", b"two", b"three"]) == 2


@pytest.mark.skipif(bool(slow_disk.missing()), reason=slow_disk.missing() or "there is one")
class TestASlowDisk:
    PROGRAM = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
began = time.monotonic()
for _ in range(4):
    os.pwrite(fd, b"x" * 5000, 0)
os.fsync(fd)
print(time.monotonic() - began)
"""

    def test_takes_for_an_fsync_what_the_pages_that_were_written_take(self, tmp_path: Path) -> None:
        disk = SlowDisk(tmp_path / "disk")
        disk.at(64 * 1024)
        command = [*disk.runner, sys.executable, "-c", self.PROGRAM, str(tmp_path / "file")]
        took = float(subprocess.run(command, check=True, capture_output=True).stdout)
        assert took >= 0.5, "four times two pages at 16 a second"
