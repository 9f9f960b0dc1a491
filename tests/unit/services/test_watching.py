"""A session that is watched: its state first, then each event once and in order, whatever comes in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_desk import Desk, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions import watching
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.stream import Stream


class Reader:
    """Takes what there is, when it is told to."""

    def __init__(self, desk: Desk, session: str, **asked: Any) -> None:
        self._desk = desk
        self.stream: Stream = desk.handlers.watch_session(
            ADMIN, state_pb2.WatchSessionRequest(session=session, **asked)
        )
        desk.runtime.turn()
        self.ready = False
        self.syncs: list[state_pb2.SessionSync] = []
        self.numbers: list[int] = []
        self.stream.when_ready(self._on_ready)

    def _on_ready(self) -> None:
        self.ready = True

    def take(self) -> None:
        """What is there now, and what follows when others have had their turn."""
        while self.ready:
            self.ready = False
            for message in self.stream.take():
                assert isinstance(message, state_pb2.WatchSessionResponse)
                if message.HasField("sync"):
                    self.syncs.append(message.sync)
                else:
                    self.numbers.append(message.record.number)
            self._desk.wait(watching.PAUSE_MS)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def fill(desk: Desk, session: str, count: int, sent: int = 0) -> None:
    for at in range(sent, sent + count):
        desk.record(session, event(n=at), sent=at)


def test_the_state_comes_first_and_then_what_comes_behind_it(desk: Desk) -> None:
    session = desk.session()
    fill(desk, session, 3)
    reader = Reader(desk, "run")
    reader.take()
    shown = desk.ask("show_state", state_pb2.ShowStateRequest(session=session))
    fill(desk, session, 2, 3)
    reader.take()

    (sync,) = reader.syncs
    assert (sync.number, sync.digest, sync.state, sync.session.session_id) == (3, shown.digest, shown.state, session)
    assert reader.numbers == [4, 5]


def test_who_was_cut_off_goes_on_behind_what_it_has(desk: Desk) -> None:
    session = desk.session()
    fill(desk, session, 5)
    reader = Reader(desk, session, after=2)
    reader.take()
    fill(desk, session, 1, 5)
    reader.take()
    assert (reader.syncs, reader.numbers) == ([], [3, 4, 5, 6])


def test_a_long_past_comes_in_portions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "TAKE_EVENTS", 2)
    session = desk.session()
    fill(desk, session, 9)
    reader = Reader(desk, session, after=0)
    assert len(reader.stream.take()) == 2
    reader.ready = True
    reader.take()
    assert reader.numbers == list(range(3, 10))


@given(st.lists(st.sampled_from(["record", "take", "other", "kill"]), max_size=25), st.sampled_from([None, 0]))
def test_none_is_lost_or_told_twice_whatever_comes_in_between(steps: list[str], after: int | None) -> None:
    desk, recorded = Desk(), 0
    session, other = desk.session(), desk.session("other")
    reader = Reader(desk, session, after=after)
    seen: list[int] = []
    for step in [*steps, "record", "take"]:
        match step:
            case "record":
                fill(desk, session, 1, recorded)
                recorded += 1
            case "other":
                desk.record(other, event(), sent=0, writer=recorded.to_bytes(8, "big"))
            case "take":
                reader.take()
            case "kill":
                seen += reader.numbers
                desk.start()
                at = max(seen, default=0) or (reader.syncs[-1].number if reader.syncs else after)
                reader = Reader(desk, session, after=at)
    began = 0 if after == 0 or not reader.syncs else reader.syncs[0].number
    assert seen + reader.numbers == list(range(recorded - len(seen + reader.numbers) + 1, recorded + 1))
    assert after != 0 or len(seen + reader.numbers) == recorded
    assert began <= recorded


def test_kinds_are_chosen(desk: Desk) -> None:
    session = desk.session()
    reader = Reader(desk, session, kinds=["energy.update"])
    desk.record(session, event(), event(kind="energy.update", energy=1.0, accumulator=2.0))
    reader.take()
    assert reader.numbers == [2]


def test_it_ends_with_the_session_once_all_is_told(desk: Desk) -> None:
    session = desk.session()
    reader = Reader(desk, session)
    fill(desk, session, 2)
    desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
    assert not reader.stream.ended
    reader.take()
    assert reader.numbers == [1, 2]
    assert (reader.stream.ended, reader.stream.fault) == (True, None)


def test_a_purge_ends_it_and_nothing_of_what_was_said_leaves_any_more(desk: Desk) -> None:
    session = desk.session()
    fill(desk, session, 2)
    reader = Reader(desk, session, after=0)
    desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
    reader.take()
    assert reader.numbers == []
    assert reader.stream.fault is not None
    assert reader.stream.fault.reason == "SessionShredded"


def test_a_slow_reader_whom_retention_overtakes_is_told(desk: Desk) -> None:
    session = desk.session()
    fill(desk, session, 3)
    desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session))
    reader = Reader(desk, session, after=0)
    desk.runtime.ask("sessions", "test", DropOldest(desk.store.journal_seq, 1 << 30))
    desk.runtime.turn()
    reader.take()
    assert isinstance(reader.stream.fault, FailedPrecondition)
    assert reader.stream.fault.reason == "EventsGone"


def test_what_cannot_be_watched_is_refused(desk: Desk) -> None:
    session = desk.session()
    with pytest.raises(NotFound):
        Reader(desk, "nobody")
    with pytest.raises(InvalidRequest, match="after"):
        Reader(desk, session, after=1)
    with pytest.raises(InvalidRequest, match="reducer"):
        Reader(desk, session, reducer="none")
    with pytest.raises(InvalidRequest, match=r"kinds\[0\]"):
        Reader(desk, session, kinds=["No Kind"])


def test_who_has_gone_is_forgotten(desk: Desk) -> None:
    reader = Reader(desk, desk.session())
    reader.stream.cancel()
    assert desk.runtime._watchers == []


def test_in_audit_mode_the_journal_has_it_before_anything_leaves() -> None:
    desk = Desk()
    desk.privacy = Privacy(audit=True)
    desk.start()
    session = desk.session()
    fill(desk, session, 1)
    request = state_pb2.WatchSessionRequest(session=session, after=0)
    stream = desk.handlers.watch_session(ADMIN, request)
    assert stream.take() == []

    desk.runtime.turn()

    assert len(stream.take()) == 1
    newest = state_pb2.Event.FromString(next(iter(desk.store.events(reverse=True)))[1])
    assert (newest.etype, newest.session.outcome) == (EventType.SESSION_CHANGED, "watched")
