"""Sessions that come into a node from another one, in parts, once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from porting_desk import CHAT, DIGEST, HASH, begun, bring, coming, ended, exported, register, told
from session_desk import START_US, Desk, event

from offgrid.reducers import STATE_BYTES_MAX
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
)
from offgrid_node.protocol.state.sessions import machine
from offgrid_node.protocol.state.sessions.commands import ForgetSessions
from offgrid_node.protocol.state.sessions.tables import IMPORTS
from offgrid_node.services.sessions.privacy import Privacy


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestAnImport:
    def test_keeps_times_numbers_and_where_it_comes_from(self, desk: Desk) -> None:
        session = begun(desk, started_us=7, ended_us=9, dropped={"health.heartbeat": 4}, lost=2)
        assert bring(desk, session, 1, event(8), event(9)) == 2
        assert bring(desk, session, 3, event(10)) == 3
        whole = ended(desk, session)
        assert (whole.started_us, whole.ended_us, whole.lost, whole.dropped["health.heartbeat"]) == (7, 9, 2, 4)
        assert (whole.origin.node_id, whole.origin.session_id, whole.origin.digest) == ("node-0", "s-there", DIGEST)
        assert whole.origin.imported_us > START_US
        assert [(r.number, r.timestamp_us) for r in desk.records("run")] == [(1, 8), (2, 9), (3, 10)]
        state = desk.ask("show_state", state_pb2.ShowStateRequest(session="run"))
        assert json.loads(state.state)["events"] == 3
        assert [each for each in told(desk) if each[1]] == [("importing", "admin", 3), ("imported", "admin", 3)]

    def test_that_was_open_where_it_comes_from_ends_with_its_newest_event(self, desk: Desk) -> None:
        session = begun(desk, started_us=7)
        bring(desk, session, 1, event(8), event(9), event(9))
        assert ended(desk, session).ended_us == 9

    def test_of_the_same_digest_is_answered_with_the_session_that_it_became(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event(), event(), event())
        whole = ended(desk, session)
        keys = [*desk.keys]
        again = desk.ask("begin_import", coming(3)).session
        assert (again, [*desk.keys]) == (whole, keys)
        assert ended(desk, session) == whole
        assert begun(desk, digest=b"e" * 32) != session

    def test_goes_on_where_it_was_left(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event(), event())
        desk.start()
        again = desk.ask("begin_import", coming(3)).session
        assert (again.session_id, again.recorded, again.origin.imported_us) == (session, 2, 0)
        bring(desk, session, 3, event())
        assert ended(desk, session).recorded == 3

    def test_takes_a_block_that_comes_twice_once(self, desk: Desk) -> None:
        session = begun(desk)
        assert [bring(desk, session, 1, event(), event()) for _ in range(2)] == [2, 2]
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.recorded == 2

    @pytest.mark.parametrize(
        ("first", "count", "said"),
        [(3, 1, "event 2 .* comes next, and not event 3"), (2, 3, "is to have 3 events"), (1, 2, "recorded")],
    )
    def test_takes_no_gap_nor_more_than_there_are_to_be(self, desk: Desk, first: int, count: int, said: str) -> None:
        session = begun(desk)
        bring(desk, session, 1, event())
        with pytest.raises(Fault, match=said):
            bring(desk, session, first, *[event()] * count)

    def test_that_is_half_is_never_taken_for_a_whole_one(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event(), event())
        asked: list[Callable[[], object]] = [
            lambda: desk.records(session),
            lambda: exported(desk, session),
            lambda: desk.ask("show_state", state_pb2.ShowStateRequest(session=session)),
            lambda: desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session)),
            lambda: desk.ask("end_session", state_pb2.EndSessionRequest(session=session)),
            lambda: desk.record(session, event()),
            lambda: ended(desk, session),
        ]
        for ask in asked:
            with pytest.raises(FailedPrecondition, match="2 of 3 events have been imported") as caught:
                ask()
            assert caught.value.reason == "SessionImporting"
        listed = desk.ask("list_sessions", state_pb2.ListSessionsRequest()).sessions
        assert (listed[0].ended_us, listed[0].origin.imported_us) == (0, 0)

    def test_that_is_half_can_be_purged_and_begun_anew(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event())
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        other = begun(desk)
        assert other != session
        bring(desk, other, 1, event(), event(), event())
        assert ended(desk, other).recorded == 3

    def test_that_was_purged_and_forgotten_can_be_begun_anew(self, desk: Desk) -> None:
        before = begun(desk)
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[before]))
        desk.wait(1)
        desk.runtime.ask("sessions", "retention", ForgetSessions((before,)))
        desk.runtime.turn()
        assert not [*desk.store.scan(IMPORTS)]

        assert begun(desk) != before

    def test_whose_key_is_lost_begins_anew(self, desk: Desk) -> None:
        session = begun(desk)
        bring(desk, session, 1, event())
        desk.keys.drop([session])
        other = begun(desk)
        assert other != session
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.ended_us

    def test_does_not_take_the_name_of_a_session_that_is_open(self, desk: Desk) -> None:
        here = desk.session("run")
        session = begun(desk, events=0)
        ended(desk, session)
        assert desk.session("run") == here
        desk.ask("end_session", state_pb2.EndSessionRequest(session=here))
        other = begun(desk, events=0, digest=b"e" * 32)
        ended(desk, other)
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session="run")).session.session_id == other

    def test_checks_each_event_against_its_kind(self, desk: Desk) -> None:
        session = begun(desk)
        with pytest.raises(InvalidRequest) as caught:
            bring(desk, session, 1, event(), event(status="fine"))
        (violation,) = caught.value.violations
        assert violation.field == "events[1]/status"

    def test_takes_content_as_this_node_may_have_it(self, desk: Desk) -> None:
        register(desk, "chat.turn", CHAT | {"properties": {"said": CHAT["properties"]["said"] | {"maxLength": 9}}})
        session = begun(desk, 2)
        with pytest.raises(InvalidRequest):
            bring(desk, session, 1, event(kind="chat.turn", said="to be"))
        bring(desk, session, 1, event(kind="chat.turn", said=HASH))
        desk.privacy = Privacy(raw_content=True)
        desk.start()
        bring(desk, session, 2, event(kind="chat.turn", said="to be"))
        other = begun(desk, 2, digest=b"e" * 32)
        bring(desk, other, 1, event(kind="chat.turn", said=HASH))
        with pytest.raises(InvalidRequest):
            bring(desk, other, 2, event(kind="chat.turn", said="too long by far"))

    def test_counts_as_open_until_it_is_whole(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "OPEN_MAX", 1)
        session = begun(desk, events=0)
        keys = [*desk.keys]
        with pytest.raises(Exhausted):
            begun(desk, digest=b"e" * 32)
        assert [*desk.keys] == keys, "the key that was made for it is gone"
        ended(desk, session)
        desk.session("other")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": ""}, "session.name"),
            ({"digest": b"short"}, "session.origin.digest"),
            ({"started_us": -1}, "session.started_us"),
            ({"lost": 1 << 60}, "session.lost"),
            ({"events": 1 << 60}, "session.origin.events"),
            ({"dropped": {"no.such": 1}}, "dropped[no.such]"),
        ],
    )
    def test_says_what_is_wrong_with_it(self, desk: Desk, change: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            begun(desk, **change)
        assert [violation.field for violation in caught.value.violations] == [field]

    @pytest.mark.parametrize(
        ("first", "change", "field"),
        [
            (0, {}, "session.origin.first"),
            (1, {}, "bases[0].number"),
            (5, {"number": 3}, "bases[0].number"),
            (5, {"number": 8}, "bases[0].number"),
            (5, {"reducer": ""}, "bases[0].reducer"),
            (5, {"state": b"\xc1"}, "bases[0].state"),
            (5, {"state": b"\0" * (STATE_BYTES_MAX + 1)}, "bases[0].state"),
        ],
    )
    def test_says_what_is_wrong_with_what_came_before(
        self, desk: Desk, first: int, change: dict[str, Any], field: str
    ) -> None:
        request = coming(3)
        request.session.origin.first = first
        request.bases.add(**{"reducer": "session", "version": 1, "number": 5, "state": b"\x80"} | change)
        with pytest.raises(InvalidRequest) as caught:
            desk.ask("begin_import", request)
        assert [violation.field for violation in caught.value.violations] == [field]

    def test_is_none_of_a_session_that_was_recorded_here(self, desk: Desk) -> None:
        session = desk.session()
        for ask in (lambda: bring(desk, session, 1, event()), lambda: ended(desk, session)):
            with pytest.raises(FailedPrecondition, match="none that is imported"):
                ask()
