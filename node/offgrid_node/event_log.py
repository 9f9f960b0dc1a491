"""The log's view of the journal: one line for each rare event, with ids as fields (levels: `logs.py`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.open_job import FINAL_ERRORS

ALERT_LEVELS: Mapping[mesh_pb2.AlertState.ValueType, int] = {
    mesh_pb2.ALERT_STATE_CRITICAL: logging.ERROR,
    mesh_pb2.ALERT_STATE_WARN: logging.WARNING,
    mesh_pb2.ALERT_STATE_OK: logging.INFO,
}
LEVELS: Mapping[int, tuple[int, ...]] = {  # that an event of the journal may have, the worst first; others: DEBUG
    EventType.NODE_STARTED: (logging.INFO,),
    EventType.MEMBER_ADMITTED: (logging.INFO,),
    EventType.MEMBER_REMOVED: (logging.WARNING,),
    EventType.INVITE_ISSUED: (logging.INFO,),
    EventType.INVITE_USED: (logging.INFO,),
    EventType.INVITE_REVOKED: (logging.INFO,),
    EventType.PEER_ALIVE: (logging.INFO,),
    EventType.PEER_DEAD: (logging.WARNING,),
    EventType.HOST_CHANGED: (logging.INFO,),
    EventType.JOB_FAILED: (logging.WARNING, logging.INFO),
    EventType.HEALTH_CHANGED: tuple(ALERT_LEVELS.values()),
}
DISPATCHES = frozenset({EventType.JOB_CREATED, EventType.JOB_DISPATCHED})  # many a job sets out as it is made

_log = logging.getLogger("offgrid.events")


def log_events(events: Sequence[Record]) -> None:
    """A `runtime.Watcher`: events are durable when they come here."""
    least = _log.getEffectiveLevel()
    for record in events:
        level = _level(record)
        if level >= least:
            event = record.event
            _log.log(
                level, event.type, extra=fields(event.type, seq=event.seq, subject=event.subject, **_details(event))
            )
    _log_ways(events)


def _level(record: Record) -> int:
    """A job that ended by its own fault is no trouble of the node's, and an alert is as bad as what it has become."""
    levels = LEVELS.get(record.etype)
    if levels is None:
        return logging.DEBUG
    if record.etype == EventType.HEALTH_CHANGED:
        return ALERT_LEVELS.get(record.event.alert.state, logging.WARNING)
    if record.etype == EventType.JOB_FAILED and record.event.job.error in FINAL_ERRORS:
        return logging.INFO
    return levels[0]


def _log_ways(events: Sequence[Record]) -> None:
    """Jobs that go another way than usual, and why: one line for all of a batch that go the same."""
    ways: dict[tuple[jobs_pb2.Route.ValueType, str], list[str]] = {}
    for event in events:
        if event.etype in DISPATCHES and (job := event.job) is not None and job.route_reason:
            ways.setdefault((job.route, job.route_reason), []).append(event.subject)
    for (route, reason), job_ids in ways.items():
        name = jobs_pb2.Route.Name(route).removeprefix("ROUTE_").lower()
        said = fields("jobs_rerouted", jobs=len(job_ids), first=job_ids[0], route=name, reason=reason)
        _log.info("jobs go another way than usual", extra=said)


def _details(event: state_pb2.Event) -> dict[str, str | float]:
    found: dict[str, str | float]
    match event.WhichOneof("data"):
        case "member":
            found = {"name": event.member.name}
        case "job":
            found = {"attempt": event.job.attempt, "host": event.job.host, "error": event.job.error}
            found["detail"] = event.job.error_detail
        case "attempt":
            found = {
                "attempt": event.attempt.attempt,
                "host": event.attempt.host,
                "outcome": event.attempt.outcome,
            }
        case "invite":
            found = {"used_by": event.invite.used_by}
        case "alert":
            state = mesh_pb2.AlertState.Name(event.alert.state).removeprefix("ALERT_STATE_").lower()
            found = {"name": event.alert.name, "state": state, "threshold": event.alert.threshold}
            if not event.alert.about:  # what an application says is not in the journal
                found["value"] = round(event.alert.value, 3)
        case _:
            found = {}
    return found
