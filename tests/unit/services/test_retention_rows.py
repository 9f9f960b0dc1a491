"""Sessions that have nothing left, summaries and snapshots: what goes of them where their rows are too many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from retention_desk import LOOK_MS, Kept

from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.sessions import keeping
from offgrid_node.protocol.state.sessions.commands import ThinSnapshots
from offgrid_node.protocol.state.sessions.tables import (
    SESSIONS,
    SNAPSHOTS,
    snapshots_of,
)
from offgrid_node.protocol.state.summaries.tables import SUMMARIES
from offgrid_node.protocol.state.tables import number_key, number_of
from offgrid_node.services import retention
from offgrid_node.services.retention import DAY_US, INTERVAL_MS, MIB
from offgrid_node.storage.store import Batch

SUMMARIES_SHARE = MIB * 25 // 100


@pytest.fixture
def desk() -> Kept:
    return Kept()


class TestSessionsThatEnded:
    def test_are_shredded_once_they_are_old_where_the_owner_wants_that(self) -> None:
        desk = Kept(auto_purge_days=7)
        old, pinned, is_open = desk.session("old"), desk.session("pinned"), desk.session("open")
        desk.fill(old, 1)
        desk.pin(pinned)
        for session in (old, pinned):
            desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
        desk.wait(6 * DAY_US // 1_000)
        desk.look()
        assert not desk.get(old).purged_us

        desk.wait(2 * DAY_US // 1_000)
        desk.look()

        assert [bool(desk.get(each).purged_us) for each in (old, pinned, is_open)] == [True, False, False]
        assert old not in desk.keys

    def test_stay_for_ever_else(self) -> None:
        desk = Kept(cleanup_days=0)
        session = desk.session()
        desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
        desk.wait(10_000 * DAY_US // 1_000)
        desk.look()
        assert not desk.get(session).purged_us

    def test_are_looked_at_some_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("offgrid_node.services.retention.LOOKED_MAX", 2)
        desk = Kept(auto_purge_days=7)
        sessions = [desk.session(str(at)) for at in range(5)]
        for session in sessions:
            desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
        desk.wait(8 * DAY_US // 1_000)
        for _ in range(3):
            desk.look()
        assert all(desk.get(session).purged_us for session in sessions)


class TestTooManySessions:
    def test_the_oldest_that_have_nothing_left_are_shredded_and_forgotten(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        desk = Kept()
        monkeypatch.setattr("offgrid_node.services.retention.SHARES", {"events": 40, "summaries": 25, "indices": 0})
        empty, full, is_open, pinned = (desk.session(name) for name in ("empty", "full", "open", "pinned"))
        desk.fill(full, 1)
        desk.pin(pinned)
        for session in (empty, full, pinned):
            desk.ask("end_session", state_pb2.EndSessionRequest(session=session))

        desk.look()
        desk.look()

        assert {key.decode() for key, _ in desk.store.scan(SESSIONS)} == {full, is_open, pinned}
        assert empty not in desk.keys


def test_the_oldest_summaries_are_put_together_and_then_they_go(desk: Kept) -> None:
    big = bytes(MIB * 25 // 100 // 2)
    desk.store.commit(Batch(writes={(SUMMARIES, bytes([at])): big for at in range(4)}))
    desk.look()
    assert desk.shrunk == ["folded", "folded", "folded", "dropped"]
    assert {share.name: share.used_bytes for share in desk.told().shares}["summaries"] <= MIB * 25 // 100


def test_snapshots_leave_summaries_half_of_their_share(desk: Kept) -> None:
    session, share = desk.session(), MIB * 25 // 100
    snapshot, summary = (SNAPSHOTS, snapshots_of(session, "session") + bytes(8)), (SUMMARIES, b"journal" + bytes(8))
    desk.store.commit(Batch(writes={snapshot: bytes(share), summary: bytes(share // 4)}))
    assert desk.look().held == (
        "1 MB more of summaries are kept than storage.retention_base_mb allows: they are snapshots of sessions: "
        "purge some"
    )
    assert desk.shrunk == []


class TestSnapshots:
    """Of which a few are kept of each session and reducer, as long as there is room."""

    def numbers(self, desk: Kept, session: str) -> list[int]:
        prefix = snapshots_of(session, "session")
        return [number_of(key[-8:]) for key, _ in desk.store.scan(SNAPSHOTS, prefix=prefix)]

    def snapshot(self, desk: Kept, session: str, number: int, size: int, version: int = 1) -> None:
        row = state_pb2.SnapshotRow(version=version, sealed=bytes(size)).SerializeToString()
        key = snapshots_of(session, "session") + number_key(number)
        desk.store.commit(Batch(writes={(SNAPSHOTS, key): row}))

    def test_that_are_not_the_newest_go_first_where_they_need_more_than_their_half(self, desk: Kept) -> None:
        old, new = desk.session("old"), desk.session("new")
        for session in (old, new):
            for number in (1, 2, 3):
                self.snapshot(desk, session, number, SUMMARIES_SHARE // 5)
        assert desk.look().held == ""
        assert (self.numbers(desk, old), self.numbers(desk, new)) == ([3], [1, 2, 3]), "the oldest session's alone"
        assert desk.shrunk == [], "no summary goes for them"

    def test_of_the_version_of_now_stay(self, desk: Kept) -> None:
        """The state is folded on from there."""
        session = desk.session()
        for number, version in ((1, 1), (2, 1), (3, 7), (4, 7)):
            self.snapshot(desk, session, number, SUMMARIES_SHARE // 3, version)
        desk.look()
        assert self.numbers(desk, session) == [2, 4]

    def test_stay_where_there_is_room(self, desk: Kept) -> None:
        session = desk.session()
        for number in (1, 2, 3):
            self.snapshot(desk, session, number, SUMMARIES_SHARE // 4)
        desk.look()
        assert self.numbers(desk, session) == [1, 2, 3]

    def test_stay_where_it_is_summaries_that_are_too_many(self, desk: Kept) -> None:
        session = desk.session()
        for number in (1, 2, 3):
            self.snapshot(desk, session, number, SUMMARIES_SHARE // 8)
        desk.store.commit(Batch(writes={(SUMMARIES, bytes([at])): bytes(SUMMARIES_SHARE) for at in range(4)}))
        desk.look()
        assert self.numbers(desk, session) == [1, 2, 3]
        assert desk.shrunk

    def test_are_looked_at_some_at_a_time(self, desk: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keeping, "THINNED_ROWS", 2)
        sessions = [desk.session(f"run {at}") for at in range(4)]
        for session in sessions:
            for number in (1, 2):
                self.snapshot(desk, session, number, SUMMARIES_SHARE // 4)
        asked, thin = list[bytes](), keeping.Keeping.thin

        def counted(self: keeping.Keeping, command: ThinSnapshots) -> state_pb2.Thinned:
            asked.append(command.start)
            return thin(self, command)

        monkeypatch.setattr(keeping.Keeping, "thin", counted)
        desk.look()
        assert len(asked) == len({*asked}) == 4
        assert [self.numbers(desk, session) for session in sessions] == [[2]] * 4


def test_sessions_are_looked_at_some_at_a_time(desk: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOKED_PORTION", 2)
    for at in range(5):
        desk.session(f"run {at}")
    read, at_once, scan = [0], list[int](), desk.store.scan

    def counted(table: str, *args: Any, **asked: Any) -> Iterator[tuple[bytes, bytes]]:
        for row in scan(table, *args, **asked):
            read[0] += table == SESSIONS
            yield row

    monkeypatch.setattr(desk.store, "scan", counted)
    desk.wait(INTERVAL_MS)
    for _ in range(LOOK_MS):
        at_once.append(read[0])
        read[0] = 0
        desk.wait(1)
    assert max(at_once) <= 3
    assert sum(at_once) >= 5
