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


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (mesh_pb2.ALERT_STATE_OK, logging.INFO),
        (mesh_pb2.ALERT_STATE_WARN, logging.WARNING),
        (mesh_pb2.ALERT_STATE_CRITICAL, logging.ERROR),
    ],
)
def test_an_alert_is_one_line_with_its_figure_as_bad_as_what_it_has_become(
    caplog: pytest.LogCaptureFixture, state: mesh_pb2.AlertState.ValueType, level: int
) -> None:
    caplog.set_level(logging.INFO, "offgrid.events")
    log_events(
        [event(EventType.HEALTH_CHANGED, alert=mesh_pb2.Alert(name="memory_mb", state=state, threshold=40, value=41.5))]
    )
    word = mesh_pb2.AlertState.Name(state).removeprefix("ALERT_STATE_").lower()
    assert lines(caplog) == [f"HEALTH_CHANGED seq=7 subject=s name=memory_mb state={word} threshold=40.0 value=41.5"]
    assert [record.levelno for record in caplog.records] == [level]


def test_what_an_application_measures_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "offgrid.events")
    alert = mesh_pb2.Alert(name="frame_ms", about="s-1", state=mesh_pb2.ALERT_STATE_WARN, threshold=40)
    log_events([event(EventType.HEALTH_CHANGED, alert=alert)])
    assert "value" not in lines(caplog)[0]


@pytest.mark.parametrize(
    ("error", "level"),
    [("ExecutionFailed", logging.INFO), ("JobTimeout", logging.INFO), ("NoHostsAvailable", logging.WARNING)],
)
def test_a_job_that_fails_by_its_own_fault_is_no_warning_of_the_node(
    caplog: pytest.LogCaptureFixture, error: str, level: int
) -> None:
    caplog.set_level(logging.INFO, "offgrid.events")
    log_events([event(EventType.JOB_FAILED, job=jobs_pb2.Job(error=error))])
    assert [record.levelno for record in caplog.records] == [level]
