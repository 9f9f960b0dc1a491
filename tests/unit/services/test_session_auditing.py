"""Who reads what: told of in the journal where the owner wants that."""

from __future__ import annotations

import pytest
from porting_desk import filled, told
from session_desk import Desk

from offgrid.v1 import state_pb2
from offgrid_node.services.sessions import auditing
from offgrid_node.services.sessions.privacy import Privacy


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestAudited:
    @pytest.fixture
    def desk(self) -> Desk:
        desk = Desk()
        desk.privacy = Privacy(audit=True)
        desk.start()
        return desk

    def test_states_that_are_shown_are_told_of(self, desk: Desk) -> None:
        session = filled(desk)
        desk.ask("show_state", state_pb2.ShowStateRequest(session=session, number=3))
        assert told(desk)[-1] == ("shown", "admin", 3)

    def test_a_reading_is_told_of_a_few_times_and_for_no_less_than_it_was(self, desk: Desk) -> None:
        session = filled(desk, 100)
        before = len(told(desk))
        assert len(desk.records(session, page_size=3)) == 100
        said = [events for outcome, _, events in told(desk)[before:] if outcome == "read"]
        assert (said[0], len(said)) == (3, 7)
        assert 100 <= sum(said) < 200

    def test_a_page_alone_is_told_of_exactly(self, desk: Desk) -> None:
        session = filled(desk, 4)
        desk.records(session, kinds=["user.prompt"])
        desk.records(session)
        assert [events for outcome, _, events in told(desk) if outcome == "read"] == [4]

    def test_a_page_that_nobody_announced_is_told_of_anew(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(auditing, "LISTS_MAX", 0)
        session = filled(desk, 9)
        desk.records(session, page_size=2)
        assert [events for outcome, _, events in told(desk) if outcome == "read"] == [2, 2, 2, 2, 1]

    def test_nothing_is_told_of_readings_unless_it_is_asked_for(self) -> None:
        desk = Desk()
        session = filled(desk)
        desk.records(session)
        desk.ask("show_state", state_pb2.ShowStateRequest(session=session))
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        assert told(desk) == [("started", "", 0), ("ended", "", 0), ("purged", "admin", 5)]
