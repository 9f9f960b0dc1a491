"""Traces: calls, jobs and attempts as spans; of a job core and host tell one trace, and send each other nothing."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pytest
from log_lines import lines

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from offgrid.v1 import jobs_pb2, ledger_pb2, state_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.traces import SdkLines, TracedMeters, ids_of, open_traces, take_over_log

NOW_NS = 1_795_000_000_000_000_000


def traced(name: str = "attic") -> tuple[TracedMeters, InMemorySpanExporter]:
    made, kept = TracedMeters(name, f"n-{name}", lambda: NOW_NS), InMemorySpanExporter()
    made.provider.add_span_processor(SimpleSpanProcessor(kept))
    return made, kept


def ended(etype: EventType, **facts: Any) -> Record:
    job = jobs_pb2.Job(job_id="j-1", created_us=1_000_000, attempt=2, host="n-barn", **facts)
    return Record(state_pb2.Event(etype=etype, type=etype.name, subject="j-1", timestamp_us=3_500_000, job=job))


def test_an_owners_call_is_a_span_of_its_own_and_still_counted() -> None:
    meters, kept = traced()
    meters.on_rpc("offgrid.v1.JobService/GetJob", "admin", 0.25, NotFound("no such job", reason="UnknownJob"))
    (span,) = kept.get_finished_spans()
    assert (span.name, span.kind, span.parent) == ("offgrid.v1.JobService/GetJob", SpanKind.SERVER, None)
    assert (span.end_time, span.end_time - span.start_time) == (NOW_NS, 250_000_000)
    assert span.status.status_code is StatusCode.ERROR
    assert {**span.attributes} == {
        "rpc.system": "offgrid",
        "rpc.service": "offgrid.v1.JobService",
        "rpc.method": "GetJob",
        "offgrid.caller": "admin",
        "error.type": "UnknownJob",
    }
    assert span.resource.attributes["service.instance.id"] == "n-attic"
    assert dict(meters.rpc_errors.samples()) == {("offgrid.v1.JobService/GetJob", "UnknownJob"): 1}


def test_of_members_calls_only_those_that_failed_are_told() -> None:
    meters, kept = traced()
    meters.on_rpc("offgrid.v1.MeshService/Ping", "member", 0.001, None)
    assert not kept.get_finished_spans()
    meters.on_rpc("offgrid.v1.MeshService/Ping", "member", 0.001, NotFound("nobody"))
    assert len(kept.get_finished_spans()) == 1


def test_a_job_and_its_attempt_elsewhere_are_one_trace() -> None:
    core, at_core = traced("attic")
    host, at_host = traced("barn")
    core.on_events([ended(EventType.JOB_COMPLETED)])
    attempt = jobs_pb2.AttemptEvent(job_id="j-1", attempt=2, core="n-attic", outcome="completed")
    event = state_pb2.Event(etype=EventType.JOB_EXECUTED, type="JOB_EXECUTED", timestamp_us=3_000_000, attempt=attempt)
    host.on_events([Record(event)])
    (job,), (run,) = at_core.get_finished_spans(), at_host.get_finished_spans()
    assert job.context.trace_id == run.context.trace_id == ids_of("j-1")[0]
    assert run.parent.span_id == job.context.span_id
    assert (job.start_time, job.end_time) == (1_000_000_000, 3_500_000_000)
    assert (job.status.status_code, run.status.status_code) == (StatusCode.UNSET, StatusCode.UNSET)
    assert job.attributes["offgrid.job.attempts"] == 2

    core.on_rpc("offgrid.v1.JobService/GetJob", "admin", 0.1, None)
    assert at_core.get_finished_spans()[-1].context.trace_id != job.context.trace_id, "ids are a job's own only"


def test_a_transfer_is_a_span_where_it_was_made() -> None:
    meters, kept = traced()
    for etype, at_us in ((EventType.TX_CREATED, 1_000_000), (EventType.TX_FINAL, 4_000_000)):
        about = ledger_pb2.LedgerEvent(tx_id="t-1", amount_micro=7)
        meters.on_events(
            [Record(state_pb2.Event(etype=etype, type=etype.name, timestamp_us=at_us, subject="t-1", ledger=about))]
        )
    (span,) = kept.get_finished_spans()
    assert (span.name, span.start_time, span.end_time) == ("transfer", 1_000_000_000, 4_000_000_000)
    assert span.context.trace_id == ids_of("t-1")[0]
    assert {**span.attributes} == {"offgrid.tx.id": "t-1"}, "no amounts"


def test_a_job_that_failed_says_why() -> None:
    meters, kept = traced()
    meters.on_events([ended(EventType.JOB_FAILED, error="JobTimeout")])
    (span,) = kept.get_finished_spans()
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "JobTimeout")


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}],
)
def test_nothing_is_traced_where_nobody_asks(environ: dict[str, str]) -> None:
    assert open_traces("attic", "n-attic", environ) is None


def test_without_the_library_a_node_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert open_traces("attic", "n-attic", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) is None
    assert "pip install 'offgrid-node[otel]'" in lines(caplog)[0]


def test_a_collector_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    meters, _ = traced()
    monkeypatch.setattr("offgrid_node.traces.CLOSING_S", 0.05)
    answers = threading.Event()
    ended = threading.Event()
    monkeypatch.setattr(meters.provider, "shutdown", lambda: (answers.wait(60), ended.set()))
    meters.close()
    assert not ended.is_set()
    answers.set()


def test_what_the_sdk_says_is_an_event_of_ours_once_a_minute_and_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    take_over_log()
    take_over_log()  # two nodes of one process
    sdk = logging.getLogger("opentelemetry.exporter.otlp")
    (handler,) = (each for each in logging.getLogger("opentelemetry").handlers if isinstance(each, SdkLines))
    try:
        for at_s in (0.0, 2.0, 59.0, 60.5):
            record = sdk.makeRecord(sdk.name, logging.ERROR, "", 0, "Failed to export\nat %s", (at_s,), None)
            record.created = 1_000 + at_s
            sdk.handle(record)
        sdk.info("nothing")
    finally:
        logging.getLogger("opentelemetry").removeHandler(handler)
        logging.getLogger("opentelemetry").propagate = True
    assert lines(caplog) == [
        "traces are not sent event=otel_failing why='Failed to export at 0.0'",
        "traces are not sent event=otel_failing why='Failed to export at 60.5' left_out=2",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
