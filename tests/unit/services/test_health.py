"""What a node sees of itself and of applications, and what comes of it: alerts, told to the journal and on."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

import pytest
from google.protobuf.message import Message
from log_lines import lines
from session_desk import Desk, event

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Effect, Machine, Record, Reply
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.mesh.commands import TellOfAlert
from offgrid_node.services.health.alerts import FALL, RISE, Alert, State
from offgrid_node.services.health.heartbeats import SESSIONS_MAX, Heartbeats
from offgrid_node.services.health.watching import Health, Thresholds

LOOK_MS = 5_000
THRESHOLDS = Thresholds(500, 50, 16.67, 4_096, 80.0, 95.0, 1, 3, 0)


class Mesh:
    """What the mesh's machine does with an alert, without the mesh."""

    def load(self, rows: object, now: Now) -> None: ...

    def deadline_ms(self) -> None:
        return None

    def step(self, inputs: Sequence[object], now: Now, rng: Random) -> list[Effect]:
        effects: list[Effect] = []
        for asked in inputs:
            assert isinstance(asked, Asked)
            assert isinstance(asked.command, TellOfAlert)
            alert = asked.command.alert
            event = state_pb2.Event(etype=EventType.HEALTH_CHANGED, subject=alert.about, alert=alert)
            effects += [Record(event), Reply(asked.ticket, alert)]
        return effects


class Watched(Desk):
    """A desk whose health is looked at."""

    def __init__(self, thresholds: Thresholds = THRESHOLDS) -> None:
        super().__init__()
        self.own: dict[str, float] = {}
        self.told: list[Alert] = []
        self.health = Health(
            self.runtime, thresholds, self.handlers.heartbeats, lambda: self.own, self.later, self.told.append, LOOK_MS
        )

    def machines(self) -> dict[str, Machine]:
        return {**super().machines(), "mesh": cast(Any, Mesh())}

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.health.look()
            self.runtime.turn()

    def beat(self, session: str, times: int, kind: str = "health.heartbeat", **data: Any) -> None:
        for _ in range(times):
            self.record(session, event(kind=kind, **data), sent=self.sent)
            self.sent += 1
            self.look()

    sent = 0

    def journaled(self) -> list[mesh_pb2.Alert]:
        events = (state_pb2.Event.FromString(body) for _, body in self.store.events())
        return [each.alert for each in events if each.etype == EventType.HEALTH_CHANGED]


@pytest.fixture
def desk() -> Watched:
    return Watched()


def said(alert: Alert) -> tuple[str, str, State, float]:
    return alert.name, alert.about, alert.state, alert.value


@pytest.mark.parametrize(
    ("name", "fine", "bad", "state"),
    [
        ("queue_depth", 500, 501, State.WARN),
        ("write_latency_ms", 50, 50.1, State.WARN),
        ("memory_mb", 4_096, 4_097, State.WARN),
        ("database_size_mb", 80, 80.5, State.WARN),
        ("database_size_mb", 80, 95.5, State.CRITICAL),
        ("objects_gone", 0, 1, State.CRITICAL),
        ("objects_at_risk", 2, 3, State.WARN),
    ],
)
def test_the_nodes_own_figures_have_their_thresholds(
    desk: Watched, name: str, fine: float, bad: float, state: State
) -> None:
    desk.own = {name: fine}
    desk.look(10)
    assert not desk.told
    desk.own = {name: bad}
    desk.look(RISE)
    assert [said(alert) for alert in desk.told] == [(name, "", state, bad)]
    assert [(alert.name, alert.value) for alert in desk.journaled()] == [(name, bad)]


@pytest.mark.parametrize("so_many", [1, 2, 9, 10, 50])
@pytest.mark.parametrize("name", ["objects_gone", "objects_at_risk", "objects_degraded"])
def test_an_alert_from_so_many_objects_on_ends_with_fewer(name: str, so_many: int) -> None:
    desk = Watched(Thresholds(0, 0, 0.0, 0, 0.0, 0.0, so_many, so_many, so_many))
    desk.own = {name: so_many}
    desk.look(RISE)
    desk.own = {name: so_many - 1}
    desk.look(FALL)
    assert [(alert.name, alert.state is State.OK, alert.value) for alert in desk.told] == [
        (name, False, so_many),
        (name, True, so_many - 1),
    ]


def test_a_threshold_of_nothing_is_none() -> None:
    desk = Watched(Thresholds(0, 0, 0.0, 0, 0.0, 0.0, 0, 0, 0))
    session = desk.session()
    names = ("queue_depth", "write_latency_ms", "memory_mb", "database_size_mb", "objects_gone", "objects_at_risk")
    desk.own = dict.fromkeys((*names, "objects_degraded"), 1e9)
    desk.beat(session, 10, frame_ms=1e9, queue_depth=10**9, memory_mb=1e9)
    assert (desk.told, desk.health.alerts) == ([], ())


@pytest.mark.parametrize(
    ("kind", "data", "name", "state"),
    [
        ("health.heartbeat", {"queue_depth": 501}, "queue_depth", State.WARN),
        ("health.heartbeat", {"frame_ms": 17}, "frame_ms", State.CRITICAL),
        ("health.heartbeat", {"memory_mb": 4_097.5}, "memory_mb", State.WARN),
        ("energy.update", {"energy": 1, "accumulator": 1, "frame_budget_used": 1.1}, "frame_ms", State.CRITICAL),
    ],
)
def test_applications_are_judged_by_what_they_say(
    desk: Watched, kind: str, data: dict[str, Any], name: str, state: State
) -> None:
    session = desk.session()
    desk.beat(session, RISE - 1, kind, **data)
    desk.look(20)  # nothing new was said
    assert not desk.told
    desk.beat(session, 1, kind, **data)
    assert [(alert.name, alert.about, alert.state) for alert in desk.told] == [(name, session, state)]


def test_the_journal_has_nothing_that_an_application_said(desk: Watched) -> None:
    session = desk.session()
    desk.beat(session, RISE, memory_mb=54_321)
    (alert,) = desk.journaled()
    assert (alert.about, alert.value, alert.threshold) == (session, 0, 4_096)
    assert desk.health.alerts[0].value == 54_321


def test_a_session_that_has_ended_is_well(desk: Watched) -> None:
    session = desk.session()
    desk.beat(session, RISE, frame_ms=40)
    desk.ask("end_session", state_pb2.EndSessionRequest(session=session))
    desk.look()
    assert [alert.state for alert in desk.told] == [State.CRITICAL, State.OK]
    assert desk.health.alerts == ()


def test_it_is_over_after_some_looks_that_are_well(desk: Watched) -> None:
    session = desk.session()
    desk.beat(session, RISE, frame_ms=40)
    desk.beat(session, FALL, frame_ms=10)
    assert [alert.state for alert in desk.journaled()] == [mesh_pb2.ALERT_STATE_CRITICAL, mesh_pb2.ALERT_STATE_OK]


def test_a_journal_that_takes_nothing_keeps_nobody_from_being_told(
    desk: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    desk.own = {"database_size_mb": 99}
    desk.look(RISE - 1)
    desk.store.fail_next(Exhausted("the store is full", reason="StoreFull"))
    desk.look()
    assert [alert.state for alert in desk.told] == [State.CRITICAL]
    assert desk.journaled() == []
    assert lines(caplog) == [
        (
            "an alert is not in the journal event=alert_not_kept name=database_size_mb "
            "state=CRITICAL why='the store is full'"
        )
    ]


def test_it_looks_by_itself_until_it_is_closed(desk: Watched) -> None:
    desk.own = {"memory_mb": 5_000}
    desk.health.start()
    for _ in range(RISE):
        desk.wait(LOOK_MS)
    assert len(desk.told) == 1
    desk.health.close()
    desk.wait(LOOK_MS)
    desk.own = {"memory_mb": 1}
    for _ in range(FALL):
        desk.wait(LOOK_MS)
    assert len(desk.told) == 1


class TestHeartbeats:
    def entries(self, *events: Message | list[Any]) -> Any:
        from offgrid_node.protocol.state.sessions.blocks import Entry

        return [Entry(*each) for each in events]  # type: ignore[misc]

    def test_the_newest_of_a_block_counts(self) -> None:
        heartbeats = Heartbeats()
        heartbeats.on_events("s", ["health.heartbeat"], self.entries(event(frame_ms=1), event(frame_ms=2)))
        assert heartbeats.take(16.67) == {("frame_ms", "s"): 2}
        assert heartbeats.take(16.67) == {}

    def test_a_heartbeat_tells_better_of_frames_than_their_budget(self) -> None:
        heartbeats = Heartbeats()
        both = self.entries(event(frame_ms=12), event(kind="energy.update", frame_budget_used=3))
        heartbeats.on_events("s", ["health.heartbeat", "energy.update"], both)
        assert heartbeats.take(16.67) == {("frame_ms", "s"): 12}

    def test_other_kinds_and_other_data_are_nothing_to_it(self) -> None:
        heartbeats = Heartbeats()
        heartbeats.on_events("s", ["user.prompt"], self.entries(event(kind="user.prompt", frame_ms=99)))
        heartbeats.on_events("t", ["health.heartbeat"], self.entries(event(status="ok", more={"a": [1]})))
        heartbeats.on_events("u", ["health.heartbeat"], self.entries(event(queue_depth=10**400)))
        assert heartbeats.take(16.67) == {}

    def test_of_too_many_those_that_said_something_last_are_looked_after(self) -> None:
        heartbeats = Heartbeats()
        for number in range(SESSIONS_MAX + 10):
            heartbeats.on_events(str(number), ["health.heartbeat"], self.entries(event(frame_ms=1)))
        found = {about for _, about in heartbeats.take(16.67)}
        assert found == {str(number) for number in range(10, SESSIONS_MAX + 10)}
