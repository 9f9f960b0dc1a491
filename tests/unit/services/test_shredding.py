"""What sessions said is shredded: unreadable once a purge answers, wherever it was killed, and nothing else is lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from session_desk import Desk, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.state.sessions import purging
from offgrid_node.protocol.state.sessions.tables import BLOCKS, PURGING, SNAPSHOTS, block_key
from offgrid_node.services.caller import ADMIN


def purge(desk: Desk, *sessions: str, everything: bool = False) -> state_pb2.PurgeSessionsResponse:
    asked = state_pb2.PurgeSessionsRequest(sessions=sessions, all=everything)
    answer = desk.ask("purge_sessions", asked)
    assert isinstance(answer, state_pb2.PurgeSessionsResponse)
    return answer


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    for name in ("keep", "go"):
        session = desk.session(name)
        for number in range(10):
            desk.record(session, event(said=name), sent=number)
        desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
    return desk


def rows(desk: Desk, session: str) -> int:
    return sum(1 for table in (BLOCKS, SNAPSHOTS) for _ in desk.store.scan(table, prefix=session.encode()))


def test_it_is_unreadable_at_once_and_its_rows_go(desk: Desk) -> None:
    go, keep = desk.session("go"), desk.session("keep")
    answer = purge(desk, "go")
    assert (answer.sessions, answer.events) == (1, 10)
    assert desk.keys.get(go) is None
    desk.wait(1)
    assert (rows(desk, go), rows(desk, keep)) == (0, 11)
    assert not [*desk.store.scan(PURGING)]
    told = desk.ask("get_session", state_pb2.GetSessionRequest(session=go)).session
    assert (told.recorded, told.kept, told.bytes, bool(told.purged_us), bool(told.ended_us)) == (10, 0, 0, True, True)
    with pytest.raises(FailedPrecondition) as caught:
        desk.records(go)
    assert caught.value.reason == "SessionShredded"
    assert len(desk.records(keep)) == 10
    other = desk.session("go")
    assert other != go, "the name is free again"
    assert purge(desk, go).sessions == 0, "once is enough"


def test_nothing_of_it_stays_in_memory(desk: Desk) -> None:
    go = desk.session("go")
    desk.ask("show_state", state_pb2.ShowStateRequest(session=go))
    purge(desk, go)
    assert go not in repr((desk.handlers._folding._live, desk.handlers._snapshots._since))


def test_everything(desk: Desk) -> None:
    assert purge(desk, everything=True).sessions == 2
    desk.wait(1)
    assert not [*desk.store.scan(BLOCKS)]
    for named, everything in (((), False), (("go",), True)):
        with pytest.raises(InvalidRequest, match="either some are named"):
            purge(desk, *named, everything=everything)
    with pytest.raises(NotFound):
        purge(desk, "nothing")


def test_many_rows_go_in_steps(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "SWEPT_ROWS", 3)
    go = desk.session("go")
    purge(desk, go)
    left = [rows(desk, go)]
    while left[-1]:
        desk.runtime.wake()
        desk.runtime.turn()
        left.append(rows(desk, go))
    assert all(before - after <= 3 for before, after in itertools.pairwise(left))
    assert desk.runtime.deadline_ms() is None


def test_each_step_begins_where_the_last_one_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that remembers each row that went would have it walk over them all."""
    monkeypatch.setattr(purging, "SWEPT_ROWS", 3)
    go = desk.session("go")
    starts = list[bytes]()
    scan = desk.store.scan

    def noted(table: str, start: bytes = b"", **named: Any) -> Iterator[tuple[bytes, bytes]]:
        if table == BLOCKS:
            starts.append(start)
        return scan(table, start, **named)

    monkeypatch.setattr(desk.store, "scan", noted)
    purge(desk, go)
    while desk.runtime.deadline_ms() is not None:
        desk.runtime.wake()
        desk.runtime.turn()
    assert starts == [go.encode(), *(block_key(go, first) for first in (4, 7, 10))]


def test_killed_before_the_key_is_gone_it_goes_on_at_the_next_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = desk.session("go")

    def refuse(session_ids: object) -> None:
        raise Unavailable("the disk refuses")

    with monkeypatch.context() as broken:
        broken.setattr(desk.keys, "drop", refuse)
        with pytest.raises(Unavailable, match="the disk refuses"):
            purge(desk, go)
    assert desk.keys.get(go) is not None
    with pytest.raises(FailedPrecondition):
        desk.record(go, event(), sent=10)
    desk.start()
    desk.handlers.shredding.start()
    desk.wait(1)
    assert desk.keys.get(go) is None
    assert rows(desk, go) == 0


def test_killed_before_the_rows_are_gone_they_go_after_the_next_start(desk: Desk) -> None:
    go = desk.session("go")
    desk.handlers.shredding._end = desk.handlers.shredding._drop  # type: ignore[method-assign]
    purge(desk, go)
    assert rows(desk, go) == 11
    desk.start()
    desk.handlers.shredding.start()
    desk.wait(1)
    assert rows(desk, go) == 0


def test_machines_that_are_loaded_anew_go_on_sweeping(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "SWEPT_ROWS", 3)
    go = desk.session("go")
    purge(desk, go)
    left = rows(desk, go)
    assert left
    desk.runtime.reload()
    while desk.runtime.deadline_ms() is not None:
        desk.runtime.wake()
        desk.runtime.turn()
    assert rows(desk, go) == 0


def test_what_is_damaged_goes_as_well_and_keeps_nothing_else_from_it(desk: Desk) -> None:
    go = desk.session("go")
    desk.store.damage(BLOCKS, block_key(go, 3))
    purge(desk, go)
    desk.wait(1)
    assert rows(desk, go) == 0
    assert len(desk.records(desk.session("keep"))) == 10


@pytest.mark.parametrize("many", [1, 600], ids=["few rows", "more than go in a step"])
def test_one_that_is_forgotten_is_listed_no_more(desk: Desk, many: int) -> None:
    go = desk.session("passing")
    for sent in range(many):
        desk.record(go, event(), sent=sent)
    purging = desk.handlers.purge_sessions(ADMIN, state_pb2.PurgeSessionsRequest(sessions=[go], forget=True))
    desk.runtime.turn()
    while purging.outcome is None:
        desk.wait(1)
    assert isinstance(purging.outcome, state_pb2.PurgeSessionsResponse)
    assert purging.outcome.events == many
    assert "passing" not in [
        session.name for session in desk.handlers.list_sessions(ADMIN, state_pb2.ListSessionsRequest()).sessions
    ]
    assert rows(desk, go) == 0
    assert desk.session("passing") != go


def test_nothing_comes_to_it_any_more(desk: Desk) -> None:
    """A snapshot that was on its way would stay for ever."""
    go = desk.session("go")
    desk.handlers.shredding._end = desk.handlers.shredding._drop  # type: ignore[method-assign]
    late = desk.handlers.take_snapshot(ADMIN, state_pb2.TakeSnapshotRequest(session=go))
    desk.runtime.turn()
    assert isinstance(late.outcome, state_pb2.TakeSnapshotResponse)
    ticket = desk.handlers.shredding.purge([go], "me")
    late = desk.handlers.take_snapshot(ADMIN, state_pb2.TakeSnapshotRequest(session=go))
    desk.runtime.turn()
    assert isinstance(ticket.outcome, state_pb2.PurgeSessionsResponse)
    assert isinstance(late.outcome, FailedPrecondition)
