"""What a session's events come to: from snapshots and events, now and at any time before, whatever was lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from session_desk import START_US, Desk, event

from offgrid.reducers import STATE_BYTES_MAX, Recorded
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, InvalidRequest
from offgrid_node.protocol.state.sessions import keeping
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.protocol.state.sessions.tables import SNAPSHOTS
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions import folding, snapshots
from offgrid_node.storage.store import Batch


class Numbers:
    """The numbers of all events, and what they say."""

    name, version = "numbers", 1

    def __init__(self) -> None:
        self.applied = 0

    def initial(self) -> list[Any]:
        return []

    def apply(self, state: list[Any], event: Recorded) -> list[Any]:
        self.applied += 1
        if event.data.get("breaks"):
            raise ValueError("broken")
        return [*state, event.number]


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.reducers["numbers"] = Numbers()
    return desk


def state(desk: Desk, session: str, reducer: str = "numbers", **asked: int) -> state_pb2.ShowStateResponse:
    shown = desk.ask("show_state", state_pb2.ShowStateRequest(session=session, reducer=reducer, **asked))
    assert isinstance(shown, state_pb2.ShowStateResponse)
    return shown


def fill(desk: Desk, session: str, count: int, sent: int = 0, each: int = 4) -> None:
    for done in range(0, count, each):
        desk.record(session, *[event()] * each, sent=sent + done)


def kept(desk: Desk) -> list[int]:
    return [int.from_bytes(key[-8:], "big") for key, _ in desk.store.scan(SNAPSHOTS) if b"numbers" in key]


def test_it_is_what_all_events_come_to(desk: Desk) -> None:
    session = desk.session()
    assert json.loads(state(desk, session).state) == []
    fill(desk, session, 12)
    shown = state(desk, session)
    assert (json.loads(shown.state), shown.number, shown.snapshot) == ([*range(1, 13)], 12, 0)
    fill(desk, session, 4, sent=12)
    assert json.loads(state(desk, session).state) == [*range(1, 17)]


def test_what_is_asked_for_again_is_led_on_and_not_folded_anew(desk: Desk) -> None:
    session, reducer = desk.session(), desk.reducers["numbers"]
    assert isinstance(reducer, Numbers)
    fill(desk, session, 100)
    state(desk, session)
    reducer.applied = 0
    fill(desk, session, 4, sent=100)
    assert state(desk, session).number == 104
    assert reducer.applied == 4


def test_what_is_sent_again_is_folded_once(desk: Desk) -> None:
    session = desk.session()
    fill(desk, session, 8)
    assert state(desk, session).number == 8
    desk.record(session, *[event()] * 4, sent=4)
    assert json.loads(state(desk, session).state) == [*range(1, 9)]


def test_the_built_in_reducer_adds_the_energy_and_knows_the_frame(desk: Desk) -> None:
    session = desk.session()
    update = json.dumps({"energy": 1, "accumulator": 2, "fps": 59.5, "frame_budget_used": 0.5}).encode()
    desk.record(
        session, [START_US, "energy.update", 7, 0.25, update], [START_US + 1, "health.heartbeat", 8, 0.5, b"{}"]
    )
    shown = json.loads(state(desk, session, "").state)
    assert shown["energy_accumulator"] == 0.75
    assert shown["frame_state"] == {
        "frame_id": 8, "timestamp_us": START_US + 1, "fps": 59.5, "frame_budget_used": 0.5,
    }  # fmt: skip
    assert shown["kinds"] == {"energy.update": 1, "health.heartbeat": 1}


class TestASnapshot:
    def test_is_taken_after_so_many_events_and_a_start_folds_only_what_came_behind(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(snapshots, "SNAPSHOT_EVENTS", 20)
        session, reducer = desk.session(), desk.reducers["numbers"]
        assert isinstance(reducer, Numbers)
        fill(desk, session, 48)
        assert kept(desk) == [20, 40]
        before = state(desk, session)
        desk.start()
        reducer.applied = 0
        after = state(desk, session)
        assert (after.snapshot, after.number, after.digest) == (40, 48, before.digest)
        assert reducer.applied == 8

    def test_is_taken_after_a_minute_of_fewer(self, desk: Desk) -> None:
        session = desk.session()
        fill(desk, session, 8)
        desk.wait(snapshots.SNAPSHOT_MS - 1_000)
        assert kept(desk) == []
        desk.wait(2_000)
        assert kept(desk) == [8]
        desk.wait(10 * snapshots.SNAPSHOT_MS)
        assert kept(desk) == [8], "nothing has come since"

    def test_is_taken_by_hand_and_only_some_are_kept(self, desk: Desk) -> None:
        session = desk.session()
        request = state_pb2.TakeSnapshotRequest(session=session, reducer="numbers")
        with pytest.raises(FailedPrecondition, match="nothing is recorded"):
            desk.ask("take_snapshot", request)
        for number in range(6):
            desk.record(session, event(), sent=number)
            assert desk.ask("take_snapshot", request).number == number + 1
        assert kept(desk) == [3, 4, 5, 6]
        assert keeping.SNAPSHOTS_MAX == 4

    @pytest.mark.parametrize("how", ["damaged", "of another session", "of another version"])
    def test_that_is_no_good_is_passed_over_for_an_older_one(self, desk: Desk, how: str) -> None:
        session = desk.session()
        for number in range(3):
            fill(desk, session, 4, sent=4 * number)
            desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session, reducer="numbers"))
        good = state(desk, session)
        rows = [each for each in desk.store.scan(SNAPSHOTS) if b"numbers" in each[0]]
        row = state_pb2.SnapshotRow.FromString(rows[-1][1])
        if how == "damaged":
            row.sealed = row.sealed[:-1] + bytes([row.sealed[-1] ^ 1])
        elif how == "of another session":
            row.sealed = state_pb2.SnapshotRow.FromString(rows[0][1]).sealed
        else:
            row.version = 2
        desk.store.commit(Batch(writes={(SNAPSHOTS, rows[-1][0]): row.SerializeToString()}))
        desk.start()
        shown = state(desk, session)
        assert (shown.snapshot, shown.number, shown.digest) == (8, 12, good.digest)


class TestTimeTravel:
    def test_by_number_and_by_time(self, desk: Desk) -> None:
        session = desk.session()
        times = []
        for number in range(10):
            desk.record(session, event(), event(), sent=2 * number)
            times.append(desk.clock.now_us - 1)  # while this block was the newest
            if number == 4:
                desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session, reducer="numbers"))
        for number, at_us in enumerate(times):
            assert state(desk, session, at_us=at_us).number == 2 * number + 2
        assert state(desk, session, at_us=1).number == 0
        for number in (1, 9, 10, 11, 20, 99):
            assert json.loads(state(desk, session, number=number).state) == [*range(1, min(number, 20) + 1)]
        with pytest.raises(InvalidRequest, match="one of the two"):
            state(desk, session, number=1, at_us=1)

    def test_a_clock_that_goes_back_does_not_mix_up_what_was_known_when(self, desk: Desk) -> None:
        session = desk.session()
        desk.record(session, event())
        before_us = desk.clock.now_us
        desk.clock.now_us -= 3_600_000_000
        desk.record(session, event(), sent=1)
        desk.record(session, event(), sent=2)
        assert state(desk, session, at_us=before_us).number == 3
        assert state(desk, session, at_us=before_us - 1_000).number == 1


class TestAReducer:
    def test_that_is_not_known_is_named(self, desk: Desk) -> None:
        session = desk.session()
        with pytest.raises(InvalidRequest, match="'no such' is not known to this node; there are: session, numbers"):
            state(desk, session, "no such")

    def test_that_fails_is_told_with_the_event_and_recording_goes_on(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(snapshots, "SNAPSHOT_EVENTS", 4)
        session = desk.session()
        fill(desk, session, 4)
        state(desk, session)
        desk.record(session, event(breaks=True), event(), sent=4)
        fill(desk, session, 4, sent=6)
        with pytest.raises(FailedPrecondition, match=r"numbers \(version 1\) fails at event 5: ValueError"):
            state(desk, session)
        assert json.loads(state(desk, session, number=4).state) == [1, 2, 3, 4]
        assert len(desk.records(session)) == 10

    def test_that_failed_folds_nothing_up_to_there_once_more(self, desk: Desk) -> None:
        session, reducer = desk.session(), desk.reducers["numbers"]
        fill(desk, session, 4)
        desk.record(session, event(breaks=True), sent=4)
        for times in (5, 5, 5):
            with pytest.raises(FailedPrecondition, match="fails at event 5: ValueError"):
                state(desk, session)
            assert reducer.applied == times  # type: ignore[attr-defined]
        assert json.loads(state(desk, session, number=4).state) == [1, 2, 3, 4]

    def test_that_failed_is_tried_again_in_another_version_and_after_a_restart(self, desk: Desk) -> None:
        session, reducer = desk.session(), Numbers()
        desk.record(session, event(breaks=True))
        with pytest.raises(FailedPrecondition):
            state(desk, session)
        reducer.version = 2
        reducer.apply = lambda state, event: [*state, event.number]  # type: ignore[method-assign]
        desk.reducers["numbers"] = reducer
        assert json.loads(state(desk, session).state) == [1]
        desk.reducers["numbers"] = Numbers()
        desk.start()
        with pytest.raises(FailedPrecondition):
            state(desk, session)

    def test_whose_state_cannot_be_kept_is_told_and_recording_goes_on(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session, reducer = desk.session(), desk.reducers["numbers"]
        fill(desk, session, 4)
        for state_of, said in (
            (object(), "cannot be kept"),
            ({1, 2}, "come back as something else"),
            ("x" * STATE_BYTES_MAX, "at most are kept"),
        ):
            monkeypatch.setattr(reducer, "apply", lambda state, event, made=state_of: made)
            desk.start()
            with pytest.raises((FailedPrecondition, Exhausted), match=said):
                state(desk, session)
            with pytest.raises((FailedPrecondition, Exhausted), match=said):
                desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session, reducer="numbers"))
        desk.record(session, event(), sent=4)
        assert len(desk.records(session)) == 5

    def test_that_has_no_beginning_is_told_and_recording_goes_on(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(snapshots, "SNAPSHOT_EVENTS", 1)

        def broken() -> None:
            raise KeyError("beginning")

        monkeypatch.setattr(desk.reducers["numbers"], "initial", broken)
        session = desk.session()
        assert desk.record(session, event()) == 1
        with pytest.raises(FailedPrecondition, match="has no beginning: KeyError"):
            state(desk, session)


class TestALongSession:
    """In portions of 8 events; blocks have 4."""

    @pytest.fixture
    def session(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(folding, "PORTION_EVENTS", 8)
        session = desk.session()
        fill(desk, session, 40)
        return session

    def asked(self, desk: Desk, session: str, number: int = 0) -> Ticket:
        request = state_pb2.ShowStateRequest(session=session, reducer="numbers", number=number)
        return desk.handlers.show_state(ADMIN, request)

    def applied(self, desk: Desk) -> int:
        reducer = desk.reducers["numbers"]
        assert isinstance(reducer, Numbers)
        return reducer.applied

    def test_is_folded_in_portions_between_which_others_have_the_node(self, desk: Desk, session: str) -> None:
        ticket = self.asked(desk, session)
        done = [self.applied(desk)]
        while ticket.outcome is None:
            desk.record(session, event(), sent=40 + len(done) - 1)
            desk.wait(folding.PAUSE_MS)
            done.append(self.applied(desk))
        steps = [after - before for before, after in zip([0, *done], done, strict=False)]
        assert set(steps[:-1]) == {8}
        shown = ticket.outcome
        assert isinstance(shown, state_pb2.ShowStateResponse)
        assert json.loads(shown.state) == [*range(1, shown.number + 1)]
        assert shown.number > 40, "what came meanwhile is in it"

    def test_opens_so_many_bytes_in_a_portion(self, desk: Desk, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folding, "PORTION_BYTES", 1)
        self.asked(desk, session)
        assert self.applied(desk) == 4, "one block"

    def test_does_not_keep_others_waiting_who_fold_too(self, desk: Desk, session: str) -> None:
        """Each moment one portion, whoever's turn it is."""
        tickets = [self.asked(desk, session, 40 - n) for n in range(3)]
        before = self.applied(desk)
        while not all(ticket.outcome for ticket in tickets):
            desk.wait(folding.PAUSE_MS)
            assert self.applied(desk) - before <= 8
            before = self.applied(desk)
        for n, ticket in enumerate(tickets):
            assert isinstance(ticket.outcome, state_pb2.ShowStateResponse)
            assert json.loads(ticket.outcome.state) == [*range(1, 41 - n)]

    def test_so_many_at_once_and_no_more(self, desk: Desk, session: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(folding, "FOLDS_MAX", 2)
        tickets = [self.asked(desk, session, 40 - n) for n in range(3)]
        assert isinstance(tickets[2].outcome, Exhausted)
        desk.wait(100)
        for _ in range(20):
            desk.wait(folding.PAUSE_MS)
        assert [type(ticket.outcome) for ticket in tickets[:2]] == [state_pb2.ShowStateResponse] * 2
        desk.ask("show_state", state_pb2.ShowStateRequest(session=session, reducer="numbers", number=40))

    def test_that_is_shredded_meanwhile_is_not_shown(self, desk: Desk, session: str) -> None:
        ticket = self.asked(desk, session)
        desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        for _ in range(10):
            desk.wait(folding.PAUSE_MS)
        assert isinstance(ticket.outcome, FailedPrecondition)
        assert ticket.outcome.reason == "SessionShredded"

    def test_whose_beginning_goes_meanwhile_is_folded_from_the_snapshot_that_stays(
        self, desk: Desk, session: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticket = self.asked(desk, session)
        monkeypatch.setattr(folding, "PORTION_EVENTS", 100)
        for name in desk.reducers:
            desk.ask("take_snapshot", state_pb2.TakeSnapshotRequest(session=session, reducer=name))
        desk.runtime.ask("sessions", "test", DropOldest(desk.store.journal_seq, 1 << 30))
        desk.runtime.turn()
        assert desk.ask("get_session", state_pb2.GetSessionRequest(session=session)).session.kept == 4
        for _ in range(10):
            desk.wait(folding.PAUSE_MS)
        assert isinstance(ticket.outcome, state_pb2.ShowStateResponse)
        assert (ticket.outcome.snapshot, json.loads(ticket.outcome.state)) == (40, [*range(1, 41)])

    def test_is_watched_from_what_it_comes_to_in_the_end(self, desk: Desk, session: str) -> None:
        stream = desk.handlers.watch_session(ADMIN, state_pb2.WatchSessionRequest(session=session, reducer="numbers"))
        assert stream.take() == []
        found: list[Any] = []
        stream.when_ready(lambda: found.extend(stream.take()))
        for _ in range(10):
            desk.wait(folding.PAUSE_MS)
        desk.record(session, event(), sent=40)
        desk.wait(1)
        assert found[0].sync.number == 40
        assert [each.record.number for each in found[1:]] == [41]
