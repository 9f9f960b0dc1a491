"""What is kept stays within its budget: the oldest goes, in order, and nothing that is pinned or safe nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from session_desk import START_US, Desk, event

from offgrid.reducers import Recorded, SessionReducer
from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.objects.tables import OBJECTS, OUTBOX_OPEN
from offgrid_node.protocol.state.sessions import dropping
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    PASSED,
    SESSIONS,
    SNAPSHOTS,
    block_key,
    snapshots_of,
)
from offgrid_node.protocol.state.summaries.tables import SUMMARIES
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.retention import DAY_US, FIRST_MS, INTERVAL_MS, MIB, Budget, Retention, Surroundings
from offgrid_node.storage.store import Batch

BLOCK = 40_000  # bytes of data in what `fill` records at a time
SHARE = MIB * 40 // 100
LOOK_MS = 10  # that a look takes


class Kept(Desk):
    """A desk whose node keeps little. `safe`: what hosts have of its journal; None: it does not go to hosts."""

    def __init__(self, **budget: int) -> None:
        self.budget = Budget(**{"base_mb": 1, **budget})
        self.safe: int | None = None
        self.summed: int | None = None
        self.summing: int | None = None
        self.shrunk: list[str] = []
        super().__init__()

    def start(self) -> None:
        super().start()
        self.timers.clear()
        around = Surroundings(
            lambda: self.safe,
            lambda: self.store.journal_seq if self.summed is None else self.summed,
            self.compact,
            self.handlers.summing_up,
            lambda sessions: self.handlers.shredding.purge(sessions, "retention"),
            lambda: self.shrink("folded"),
            lambda: self.shrink("dropped"),
        )
        self.retention = Retention(self.runtime, self.budget, around, self.later)
        self.retention.start()
        self.wait(FIRST_MS)

    def compact(self) -> Ticket:
        """`summing`: up to where there are summaries then."""
        self.summed, ticket = self.summing, Ticket()
        ticket.resolve(state_pb2.SummariesChanged())
        return ticket

    def shrink(self, how: str) -> Ticket:
        """A summary; three are there to be put together, and one that they become."""
        said, ticket = len(self.shrunk), Ticket()
        self.shrunk.append(how)
        goes = (how == "folded" and said < 2) or (how == "dropped" and said == 3)
        if goes:
            key, _ = next(self.store.scan(SUMMARIES))
            self.store.commit(Batch(writes={(SUMMARIES, key): None}))
        ticket.resolve(state_pb2.SummariesChanged(folded=int(goes)))
        return ticket

    def look(self) -> state_pb2.GetRetentionResponse:
        self.wait(INTERVAL_MS)
        for _ in range(LOOK_MS):  # a long session is summed up in portions
            self.wait(1)
        return self.told()

    def told(self) -> state_pb2.GetRetentionResponse:
        told = self.retention.get_retention(ADMIN, state_pb2.GetRetentionRequest())
        assert isinstance(told, state_pb2.GetRetentionResponse)
        return told

    def fill(self, session: str, blocks: int, sent: int = 0) -> None:
        for at in range(sent, sent + blocks):
            data = {"note": f"{at}-".ljust(BLOCK, "x")}
            self.record(session, event(START_US + at, energy=1.0, **data), sent=at)

    def pin(self, session: str, *, pinned: bool = True) -> state_pb2.Session:
        request = state_pb2.PinSessionRequest(session=session, pinned=pinned)
        return self.ask("pin_session", request).session

    def get(self, session: str) -> state_pb2.Session:
        return self.ask("get_session", state_pb2.GetSessionRequest(session=session)).session

    def state(self, session: str, **asked: Any) -> tuple[int, bytes]:
        shown = self.ask("show_state", state_pb2.ShowStateRequest(session=session, **asked))
        return shown.number, shown.digest

    def numbers(self, session: str, **asked: Any) -> list[int]:
        return [record.number for record in self.records(session, **asked)]


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


class TestWhatStays:
    def test_what_hosts_do_not_have(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 20)
        desk.safe = 4

        told = desk.look()

        assert told.journal_floor == 4
        assert (
            told.held
            == "1 MB more of events are kept than storage.retention_base_mb allows: hosts do not have them yet"
        )
        assert desk.retention.notices == (told.held,)
        desk.safe = desk.store.journal_seq
        assert desk.look().held == ""
        assert desk.told().shares[0].used_bytes <= SHARE

    def test_what_is_in_no_summary(self, desk: Kept) -> None:
        session = desk.session()
        desk.fill(session, 20)
        desk.safe, desk.summed, desk.summing = 9, 3, 3
        told = desk.look()
        assert (told.journal_floor, told.held[-24:]) == (3, "they are in no summary yet"[-24:])

    def test_and_has_all_summarised_where_only_that_is_missing(self, desk: Kept) -> None:
        desk.fill(desk.session(), 20)
        desk.summed = 3
        told = desk.look()
        assert desk.summed is None
        assert told.journal_floor > 3
        assert told.held == ""

    def test_what_a_pinned_session_said(self, desk: Kept) -> None:
        pinned, other = desk.session("pinned"), desk.session("other")
        assert desk.pin(pinned).pinned
        desk.fill(pinned, 6)
        desk.fill(other, 14)

        desk.look()

        assert desk.numbers(pinned) == list(range(1, 7))
        assert desk.get(other).kept < 8

    def test_till_it_is_pinned_no_more_then_it_is_the_first_to_go(self, desk: Kept) -> None:
        pinned, other = desk.session("pinned"), desk.session("other")
        desk.pin(pinned)
        desk.fill(pinned, 6)
        desk.fill(other, 14)
        desk.look()
        kept, before = desk.get(other).kept, desk.state(pinned)

        desk.pin(pinned, pinned=False)
        desk.fill(other, 3, 14)
        desk.look()

        assert desk.get(pinned).kept < 6
        assert desk.get(other).kept == kept + 3
        assert desk.state(pinned) == before

        desk.fill(other, 9, 17)
        desk.look()

        assert desk.get(pinned).kept == 0
        assert not [*desk.store.scan(PASSED)]

    def test_which_stays_then_where_there_is_room_by_now(self, desk: Kept) -> None:
        pinned, other = desk.session("pinned"), desk.session("other")
        desk.pin(pinned)
        desk.fill(pinned, 5)
        desk.fill(other, 10)
        desk.look()
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[other]))
        desk.pin(pinned, pinned=False)

        desk.look()

        assert desk.numbers(pinned) == [1, 2, 3, 4, 5]

    def test_and_says_so_where_that_is_too_much(self, desk: Kept) -> None:
        pinned = desk.session("pinned")
        desk.pin(pinned)
        desk.fill(pinned, 20)
        assert desk.look().held == (
            "1 MB more of events are kept than storage.retention_base_mb allows: "
            "they are of sessions that are pinned, imported in part, or that a reducer fails at"
        )
        desk.pin(pinned, pinned=False)
        assert desk.look().held == ""

    def test_nothing_for_a_reducer_that_lacks_what_came_before(self, desk: Kept) -> None:
        class Newer(SessionReducer):
            version = SessionReducer.version + 1

        session, old = desk.session(), SessionReducer()
        desk.fill(session, 20)
        desk.look()
        desk.reducers = {"session": Newer(), "old": old}
        desk.start()
        desk.fill(session, 20, 20)

        told = desk.look()

        assert told.shares[0].used_bytes <= SHARE
        assert desk.get(session).kept < 11

    def test_snapshots_are_looked_at_once_in_a_step(self, desk: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        session, read = desk.session(), list[str]()
        desk.fill(session, 20)
        newest = dropping.Dropping._newest_snapshot

        def counted(self: dropping.Dropping, session_id: str, reducer: str, version: int) -> int:
            read.append(session_id)
            return newest(self, session_id, reducer, version)

        monkeypatch.setattr(dropping.Dropping, "_newest_snapshot", counted)
        desk.look()
        assert read == [session] * 2, "for the step that wants a snapshot, and the one behind it"

    def test_what_a_reducer_cannot_sum_up_but_nothing_else_for_that(self) -> None:
        class Picky(SessionReducer):
            def apply(self, state: Any, event: Recorded) -> Any:
                if event.data.get("bad"):
                    raise ValueError("no")
                return super().apply(state, event)

        desk = Kept()
        desk.reducers["session"] = Picky()
        desk.start()
        bad, good = desk.session("bad"), desk.session("good")
        desk.record(bad, event(bad=True))
        desk.fill(good, 20)

        told = desk.look()

        assert desk.get(bad).kept == 1
        assert desk.get(good).kept < 11
        assert told.shares[0].used_bytes <= SHARE


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
