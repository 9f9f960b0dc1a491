"""What retention leaves however little room there is: what is safe nowhere else, pinned, or not summed up."""

from __future__ import annotations

from typing import Any

import pytest
from log_lines import lines
from retention_desk import SHARE, Kept
from session_desk import event

from offgrid.reducers import Recorded, SessionReducer
from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.sessions import dropping
from offgrid_node.protocol.state.sessions.tables import (
    PASSED,
)


@pytest.fixture
def desk() -> Kept:
    return Kept()


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

    def test_and_names_the_reducer_where_that_is_too_much(self, caplog: pytest.LogCaptureFixture) -> None:
        """But not what the session says: logs are not shredded with it."""

        class Broken(SessionReducer):
            def apply(self, state: Any, event: Recorded) -> Any:
                raise ValueError(f"what it says: {event.data}")

        desk = Kept()
        desk.reducers["session"] = Broken()
        desk.start()
        session = desk.session()
        desk.fill(session, 20)
        assert desk.look().held.endswith(
            f"(session {session}: the reducer session (version 1) fails at event 1: ValueError)"
        )
        said = " ".join(lines(caplog))
        assert "cannot be summed up event=session_not_summed" in said
        assert "the reducer session" in said
        assert "what it says" not in said
