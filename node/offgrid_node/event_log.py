"""The log's view of the journal: one line for each rare event, with ids as fields (levels: `logs.py`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.etypes import EventType

LEVELS: Mapping[int, int] = {
    EventType.NODE_STARTED: logging.INFO,
    EventType.MEMBER_ADMITTED: logging.INFO,
    EventType.MEMBER_REMOVED: logging.WARNING,
    EventType.INVITE_ISSUED: logging.INFO,
    EventType.INVITE_USED: logging.INFO,
    EventType.INVITE_REVOKED: logging.INFO,
    EventType.PEER_ALIVE: logging.INFO,
    EventType.PEER_DEAD: logging.WARNING,
    EventType.HOST_CHANGED: logging.INFO,
    EventType.JOB_FAILED: logging.WARNING,
    EventType.HEALTH_CHANGED: logging.WARNING,
}
DISPATCHES = frozenset({EventType.JOB_CREATED, EventType.JOB_DISPATCHED})  # many a job sets out as it is made

_log = logging.getLogger("offgrid.events")


def log_events(events: Sequence[Record]) -> None:
    """A `runtime.Watcher`: events are durable when they come here."""
    least = _log.getEffectiveLevel()
    for record in events:
        level = LEVELS.get(record.etype, logging.DEBUG)
        if level >= least:
            event = record.event
            _log.log(
                level, event.type, extra=fields(event.type, seq=event.seq, subject=event.subject, **_details(event))
            )
    _log_ways(events)


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


def _details(event: state_pb2.Event) -> dict[str, str]:
    match event.WhichOneof("data"):
        case "member":
            found = {"name": event.member.name}
        case "job":
            found = {"attempt": str(event.job.attempt), "host": event.job.host, "error": event.job.error}
            found["detail"] = event.job.error_detail
        case "attempt":
            found = {
                "attempt": str(event.attempt.attempt),
                "host": event.attempt.host,
                "outcome": event.attempt.outcome,
            }
        case "invite":
            found = {"used_by": event.invite.used_by}
        case "alert":
            state = mesh_pb2.AlertState.Name(event.alert.state).removeprefix("ALERT_STATE_").lower()
            found = {"name": event.alert.name, "state": state, "threshold": f"{event.alert.threshold:g}"}
        case _:
            found = {}
    return found
