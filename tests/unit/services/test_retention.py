"""What is kept stays within its budget, and is no older than wanted: the oldest goes, in the order of the journal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from retention_desk import BLOCK, SHARE, Kept

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.objects.tables import OBJECTS, OUTBOX_OPEN
from offgrid_node.protocol.state.sessions import dropping
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    SESSIONS,
    block_key,
)
from offgrid_node.services.retention import DAY_US, INTERVAL_MS, MIB, Budget
from offgrid_node.storage.store import Batch


@pytest.fixture
def desk() -> Kept:
    return Kept()


def test_the_budget_is_base_times_one_more_than_the_level_in_four_shares() -> None:
    names = ("events", "summaries", "chunks", "indices")
    assert [Budget().share_bytes(name) // MIB for name in names] == [51, 32, 32, 12]
    assert [Budget(128, 2).share_bytes(name) // MIB for name in names] == [153, 96, 96, 38]
    assert Budget(128, 2).total_bytes == 384 * MIB


class TestTooManyEvents:
    def test_the_oldest_go_and_what_they_came_to_stays(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 20)
        before = desk.state(session)

        told = desk.look()

        kept = desk.get(session)
        used = told.shares[0]
        assert used.name == "events"
        assert used.used_bytes <= used.budget_bytes == SHARE
        assert used.used_bytes > SHARE - 3 * BLOCK, "and no more go than must"
        assert 0 < kept.kept < 20
        assert desk.numbers(session) == list(range(21 - kept.kept, 21))
        assert desk.numbers(session, newest_first=True) == list(range(20, 20 - kept.kept, -1))
        assert desk.state(session) == before
        assert told.dropped.session_events == 20 - kept.kept
        assert told.dropped.why == "budget"
        assert told.journal_floor == told.dropped.upto > 0
        assert not told.held

    def test_nothing_goes_while_there_is_room(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 9)
        told = desk.look()
        assert (told.dropped.events, desk.get(session).kept) == (0, 9)

    def test_sessions_lose_in_the_order_in_which_they_were_recorded(self, desk: Kept) -> None:
        one, two = desk.session("one"), desk.session("two")
        for at in range(10):
            desk.fill(one, 1, at)
            desk.fill(two, 1, at)

        desk.look()

        assert abs(desk.get(one).kept - desk.get(two).kept) <= 1

    def test_a_session_goes_on_and_what_came_is_folded_on(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 20)
        desk.look()
        desk.fill(session, 3, 20)
        number, digest = desk.state(session)
        desk.start()
        assert desk.state(session) == (number, digest) == (23, digest)

    def test_a_level_has_more_kept(self) -> None:
        desk = Kept(token_level=1)
        session = desk.session()
        desk.fill(session, 15)
        assert desk.look().dropped.events == 0

    def test_what_was_before_is_told_from_snapshots_only(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 20)
        desk.look()
        gone = 20 - desk.get(session).kept
        with pytest.raises(FailedPrecondition) as caught:
            desk.state(session, number=1)
        assert caught.value.reason == "EventsGone"
        assert caught.value.metadata["number"] == str(gone)

    def test_a_damaged_block_goes_as_well(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 5)
        desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
        desk.fill(session, 15, 5)
        desk.state(session)
        desk.store.damage(BLOCKS, block_key(session, 2))

        desk.look()

        assert desk.told().shares[0].used_bytes <= SHARE
        assert len(desk.numbers(session)) == desk.get(session).kept

    def test_it_goes_on_in_portions_and_after_a_kill(self, desk: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dropping, "PORTION_EVENTS", 2)
        session = desk.session()
        desk.fill(session, 20)
        before = desk.state(session)
        desk.wait(INTERVAL_MS - 1)
        for callback in [each for _, each in desk.timers]:
            callback()
        pending = desk.runtime.gather()
        assert pending is not None
        desk.runtime.commit(pending)

        desk.start()

        assert desk.told().shares[0].used_bytes <= SHARE
        assert desk.state(session) == before
        assert desk.store.verify() == []


class TestAge:
    def test_what_is_old_goes_though_there_is_room(self) -> None:
        desk = Kept(cleanup_days=30)
        old, new = desk.session("old"), desk.session("new")
        desk.fill(old, 2)
        desk.wait(31 * DAY_US // 1_000)
        desk.fill(new, 2)

        told = desk.look()

        assert (desk.get(old).kept, desk.get(new).kept) == (0, 2)
        assert told.dropped.why == "age"

    def test_nothing_does_where_no_age_is_set(self) -> None:
        desk = Kept(cleanup_days=0)
        old = desk.session("old")
        desk.fill(old, 2)
        desk.wait(1_000 * DAY_US // 1_000)
        assert desk.look().dropped.events == 0

    def test_sessions_that_were_shredded_are_forgotten_in_the_end(self) -> None:
        desk = Kept(cleanup_days=30)
        session, other = desk.session(), desk.session("other")
        desk.fill(session, 1)
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        desk.look()
        assert desk.get(session).purged_us

        desk.wait(31 * DAY_US // 1_000)
        desk.look()

        assert [key.decode() for key, _ in desk.store.scan(SESSIONS)] == [other]


def test_own_objects_on_their_way_are_counted(desk: Kept) -> None:
    row = objects_pb2.ObjectRow(object=objects_pb2.Object(size_bytes=7_000))
    writes = {(OBJECTS, b"o-1"): row.SerializeToString(), (OUTBOX_OPEN, bytes(8)): b"o-1"}
    desk.store.commit(Batch(writes=dict(writes)))
    assert {share.name: share.used_bytes for share in desk.told().shares}["chunks"] == 7_000


def test_a_disk_that_fails_is_told_and_it_goes_on_later(desk: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    session = desk.session()
    desk.fill(session, 20)

    def damaged(after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        raise Corrupt("the pack at event 1 fails its checksum")

    with monkeypatch.context() as patch:
        patch.setattr(desk.store, "events", damaged)
        assert desk.look().held == (
            "what is kept is not brought within its budget: the pack at event 1 fails its checksum"
        )
    assert desk.look().held == ""
    assert desk.get(session).kept < 20
