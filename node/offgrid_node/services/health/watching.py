"""Looks every so often at what there is to see, and has others told of what has changed.

Nothing is measured for it where the node works: a look reads what is there already. What is told goes to the journal
(HEALTH_CHANGED), which may refuse it while the disk is full: then the log has it, and the journal has what comes next.
It has no value that an application said, which a purge could not take back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mesh.commands import TellOfAlert
from offgrid_node.protocol.state.sessions.tables import OPEN_SESSIONS
from offgrid_node.runtime import Runtime
from offgrid_node.services.flow import Later
from offgrid_node.services.health.alerts import Alert, Alerts, Limits, State
from offgrid_node.services.health.heartbeats import FRAME_MS, MEMORY_MB, QUEUE_DEPTH, Heartbeats

WRITE_LATENCY_MS, DATABASE_MB = "write_latency_ms", "database_size_mb"
OBJECTS_GONE, OBJECTS_AT_RISK, OBJECTS_DEGRADED = "objects_gone", "objects_at_risk", "objects_degraded"
CALLER = "health"

_STATES: Mapping[State, mesh_pb2.AlertState.ValueType] = {
    State.OK: mesh_pb2.ALERT_STATE_OK,
    State.WARN: mesh_pb2.ALERT_STATE_WARN,
    State.CRITICAL: mesh_pb2.ALERT_STATE_CRITICAL,
}
_log = logging.getLogger("offgrid.health")


class Thresholds(msgspec.Struct, frozen=True):
    """As the owner set them; 0: none. Of objects so many are an alert, of all else what is above."""

    queue_depth: int
    write_latency_ms: int
    frame_ms: float
    memory_mb: int
    database_warn_mb: float
    database_critical_mb: float
    objects_gone: int
    objects_at_risk: int
    objects_degraded: int

    def by_name(self) -> Mapping[str, Limits]:
        return {
            QUEUE_DEPTH: Limits(warn=self.queue_depth or None),
            WRITE_LATENCY_MS: Limits(warn=self.write_latency_ms or None),
            FRAME_MS: Limits(critical=self.frame_ms or None),
            MEMORY_MB: Limits(warn=self.memory_mb or None),
            DATABASE_MB: Limits(warn=self.database_warn_mb or None, critical=self.database_critical_mb or None),
            OBJECTS_GONE: Limits(critical=_above(self.objects_gone), is_count=True),
            OBJECTS_AT_RISK: Limits(warn=_above(self.objects_at_risk), is_count=True),
            OBJECTS_DEGRADED: Limits(warn=_above(self.objects_degraded), is_count=True),
        }


def _above(count: int) -> float | None:
    """What so many are above."""
    return count - 1 if count else None


class Health:
    """Belongs to the runtime's thread. `own` gives this node's figures by name, without those not known now."""

    def __init__(
        self,
        runtime: Runtime,
        thresholds: Thresholds,
        heartbeats: Heartbeats,
        own: Callable[[], Mapping[str, float]],
        later: Later,
        tell: Callable[[Alert], None],
        interval_ms: int,
    ) -> None:
        self._runtime, self._heartbeats, self._own, self._later, self._tell = runtime, heartbeats, own, later, tell
        self._frame_ms, self._interval_ms = thresholds.frame_ms, interval_ms
        self._alerts = Alerts(thresholds.by_name())
        self._going = False

    def start(self) -> None:
        self._going = True
        self._later(self._interval_ms, self._turn)

    def close(self) -> None:
        self._going = False

    @property
    def alerts(self) -> tuple[mesh_pb2.Alert, ...]:
        """The worst first."""
        return tuple(map(message_of, self._alerts.all()))

    def look(self) -> None:
        """Once."""
        now_us, store = self._runtime.clock.now().utc_us, self._runtime.store
        samples = dict(self._heartbeats.take(self._frame_ms)) | {(name, ""): each for name, each in self._own().items()}
        abouts = self._alerts.abouts | {about for _, about in samples}
        over = {about for about in abouts if about and store.get(OPEN_SESSIONS, about.encode()) is None}
        for about in over:
            self._alerts.end(about, now_us)
        for alert in self._alerts.look({key: each for key, each in samples.items() if key[1] not in over}, now_us):
            self._on_change(alert)

    def _turn(self) -> None:
        if not self._going:
            return
        try:
            self.look()
        except Fault as fault:  # the store is being closed, or cannot be read now
            _log.info("the node's figures were not looked at", extra=fields("health_not_looked", why=fault.message))
        self._later(self._interval_ms, self._turn)

    def _on_change(self, alert: Alert) -> None:
        told = message_of(alert)
        if alert.about:
            told.ClearField("value")

        def journaled(outcome: Message | Fault) -> None:
            if isinstance(outcome, Fault):
                said = fields("alert_not_kept", name=alert.name, state=alert.state.name, why=outcome.message)
                _log.warning("an alert is not in the journal", extra=said)

        try:
            self._runtime.ask("mesh", CALLER, TellOfAlert(told)).when_done(journaled)
        except Fault as fault:
            journaled(fault)
        self._tell(alert)


def message_of(alert: Alert) -> mesh_pb2.Alert:
    return mesh_pb2.Alert(
        name=alert.name,
        about=alert.about,
        state=_STATES[alert.state],
        since_us=alert.since_us,
        value=alert.value,
        threshold=alert.threshold,
    )
