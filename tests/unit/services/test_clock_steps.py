"""A clock that is set an hour back or two days forward: what was recorded keeps its order, nothing goes before its
time, and what is done by itself goes on. Timers run by another clock, which nobody sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from session_desk import Desk, event
from test_backups import HOUR_MS, Node
from test_retention import Kept

from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS
from offgrid_node.services.backups.making import FIRST_MS
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

HOUR_US = 3_600_000_000
STEPS_US = (-HOUR_US, 48 * HOUR_US)


def step(desk: Desk, by_us: int) -> None:
    desk.clock.now_us += by_us
    desk.timers = [(at_ms + by_us // 1_000, callback) for at_ms, callback in desk.timers]


@pytest.mark.parametrize("step_us", STEPS_US)
class TestASession:
    def test_has_its_events_in_the_order_in_which_they_came(self, step_us: int) -> None:
        desk = Desk()
        session = desk.session()
        times = list[int]()
        for number in range(9):
            if number in (3, 6):
                step(desk, step_us if number == 3 else -step_us)
                desk.start()
            at_us = desk.clock.now_us
            desk.record(session, event(at_us, n=number), event(at_us, n=number), sent=2 * number)
            times.append(at_us)
        assert [record.number for record in desk.records(session)] == [*range(1, 19)]
        assert [record.number for record in desk.records(session, newest_first=True)] == [*range(18, 0, -1)]
        found = [record.number for record in desk.records(session, since_us=times[3], until_us=times[5])]
        assert {7, 8, 9, 10, 11, 12} <= {*found}, "by the times that they are said to be of"
        assert found == sorted(found)

    def test_says_what_was_known_when_as_if_the_clock_had_only_run_on(self, step_us: int) -> None:
        """Of each block it is written when the node had it: by that clock, or one more than the block before."""
        desk = Desk()
        session = desk.session()
        for number in range(9):
            step(desk, {3: step_us, 6: -step_us}.get(number, 0))
            desk.record(session, event(), sent=number)
        had = [state_pb2.BlockRow.FromString(row).had_us for _, row in desk.store.scan(BLOCKS)]
        assert had == sorted({*had})
        for number, at_us in enumerate(had, 1):
            request = state_pb2.ShowStateRequest(session=session, at_us=at_us)
            assert desk.ask("show_state", request).number == number

    def test_that_began_later_is_the_newest_of_its_name(self, step_us: int) -> None:
        desk = Desk()
        first = desk.session("run")
        desk.ask("end_session", state_pb2.EndSessionRequest(session=first))
        step(desk, step_us)
        second = desk.session("run")
        assert second != first
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session.session_id == second
        ended = desk.ask("end_session", state_pb2.EndSessionRequest(session=second)).session
        assert ended.ended_us >= ended.started_us

    def test_keeps_what_is_not_old(self, step_us: int) -> None:
        desk = Kept(cleanup_days=30, auto_purge_days=7)
        session = desk.session()
        desk.fill(session, 3)
        desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
        for by_us in (step_us, -step_us, -step_us, step_us):
            step(desk, by_us)
            assert desk.look().dropped.events == 0
            assert (desk.get(session).kept, desk.get(session).purged_us) == (3, 0)


def test_a_key_is_not_dropped_for_a_session_that_is_young_only_by_a_wrong_clock() -> None:
    """The store is put back from before a session; it knows another one, of a clock that was ahead."""
    desk = Desk()
    step(desk, STEPS_US[1])
    desk.session("of the day after tomorrow")
    old = {(table, key): value for table in desk.store.tables for key, value in desk.store.scan(table)}
    step(desk, -STEPS_US[1])
    unknown = desk.session("put right yet")
    whole, desk.store = desk.store, MemoryStore()
    desk.store.commit(Batch(writes={**old}))
    desk.start()
    desk.handlers.shredding.start()
    desk.runtime.turn()
    assert unknown in desk.keys
    assert whole.get(SESSIONS, unknown.encode()) is not None


class Skewed(Node):
    """A node's backups."""

    skew_us = 0

    def now(self) -> Now:
        right = super().now()
        return Now(right.mono_ms, right.utc_us + self.skew_us)


def begun(folder: Path, skew_us: int, journal_seq: int, **settings: Any) -> Skewed:
    node = Skewed(folder, **{"interval_ms": HOUR_MS, "bytes_max": 1 << 40, **settings})
    node.skew_us, node.file.journal_seq = skew_us, journal_seq
    node.making.start()
    return node


@pytest.mark.parametrize("step_us", STEPS_US)
class TestBackups:
    def test_are_made_each_hour_all_the_same(self, tmp_path: Path, step_us: int) -> None:
        node = begun(tmp_path / "backups", 0, 1)
        node.wait(HOUR_MS)
        for journal_seq, skew_us in ((2, step_us), (3, 0), (4, -step_us)):
            node.skew_us, node.file.journal_seq = skew_us, journal_seq
            node.wait(HOUR_MS)
            assert len(node.file.made) == journal_seq

    def test_are_made_within_the_hour_after_a_start(self, tmp_path: Path, step_us: int) -> None:
        begun(tmp_path / "backups", 0, 1).wait(HOUR_MS)
        ahead = begun(tmp_path / "backups", step_us, 2)
        ahead.wait(HOUR_MS if step_us < 0 else FIRST_MS)
        again = begun(tmp_path / "backups", 0, 3)
        again.wait(HOUR_MS)
        assert (len(ahead.file.made), len(again.file.made)) == (1, 1)
        names = {Path(backup.path).name for backup in again.listed().backups}
        assert len(names) == 3, "each stays, whatever its name says"
