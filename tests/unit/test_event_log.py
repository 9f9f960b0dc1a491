"""The log: one line per rare event, quiet about jobs that go well, nothing a peer wrote breaks the line."""

from __future__ import annotations

import logging

import pytest
from log_lines import lines

from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.event_log import log_events
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.etypes import EventType


def event(etype: EventType, subject: str = "s", **data: object) -> Record:
    return Record(state_pb2.Event(seq=7, etype=etype, type=etype.name, subject=subject, **data))


def test_what_an_operator_wants_to_know_is_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "offgrid.events")
    log_events(
        [
            event(EventType.MEMBER_REMOVED, member=mesh_pb2.Member(name="old-laptop")),
            event(EventType.JOB_COMPLETED, job=jobs_pb2.Job()),
            event(EventType.JOB_FAILED, job=jobs_pb2.Job(error="JobTimeout", attempt=2)),
        ]
    )
    assert lines(caplog) == [
        "MEMBER_REMOVED seq=7 subject=s name=old-laptop",
        "JOB_FAILED seq=7 subject=s attempt=2 error=JobTimeout",
    ]


def test_what_a_peer_wrote_stays_in_its_field(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "offgrid.events")
    log_events([event(EventType.JOB_FAILED, job=jobs_pb2.Job(error_detail="a\n\x1b[2Jforged line" + "x" * 999))])
    (message,) = lines(caplog)
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 400


def test_jobs_that_go_another_way_than_usual_are_told_of_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "offgrid.events")
    usual = jobs_pb2.Job(job_id="j-0", route=jobs_pb2.ROUTE_OFFGRID)
    local = [
        jobs_pb2.Job(job_id=f"j-{n}", route=jobs_pb2.ROUTE_FILE_QUEUE, route_reason="no broker is alive")
        for n in range(1, 4)
    ]
    log_events([event(EventType.JOB_DISPATCHED, job.job_id, job=job) for job in (usual, *local)])
    assert lines(caplog) == [
        (
            "jobs go another way than usual event=jobs_rerouted jobs=3 first=j-1 route=file_queue "
            "reason='no broker is alive'"
        )
    ]


def test_an_alert_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    alert = mesh_pb2.Alert(name="memory_mb", state=mesh_pb2.ALERT_STATE_WARN, threshold=4_096)
    log_events([event(EventType.HEALTH_CHANGED, alert=alert)])
    assert lines(caplog) == ["HEALTH_CHANGED seq=7 subject=s name=memory_mb state=warn threshold=4096"]
