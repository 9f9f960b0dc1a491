"""Traces by OpenTelemetry, where its SDK is installed (`pip install 'offgrid-node[otel]'`) and a collector named by
OTEL_EXPORTER_OTLP_ENDPOINT; all else is set by the SDK's own variables (OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES).

Spans are made of what the meters are told, when it is over: one for each call of the owner's and of applications, one
for each of members' that failed, one for each job at its core, one for each attempt at its host, one for each transfer
where it was made, until it was final. A job's ids are made of its job id, so what its core and its hosts tell comes
together in one trace, and nothing about it goes over the wire.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node import __version__
from offgrid_node.logs import fields
from offgrid_node.meters import Meters
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.services.caller import Kind

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Facts = Mapping[str, str | int]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TURNED_OFF = "OTEL_SDK_DISABLED"
CLOSING_S = 2.0  # for what is still to be sent; a collector that is away must not hold up the end
ENDS = {EventType.JOB_COMPLETED: "completed", EventType.JOB_FAILED: "failed", EventType.JOB_CANCELLED: "cancelled"}

SAID_EVERY_S = 60.0

_log = logging.getLogger("offgrid")


def open_traces(name: str, node_id: str, environ: Mapping[str, str]) -> TracedMeters | None:
    """None where nobody wants any. Where somebody does and the SDK is missing, that is logged."""
    if not any(environ.get(key) for key in ENDPOINTS) or environ.get(TURNED_OFF, "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        said = fields("otel_missing", mend="pip install 'offgrid-node[otel]'")
        _log.warning("traces are asked for, and OpenTelemetry is not installed", extra=said)
        return None
    take_over_log()
    traced = TracedMeters(name, node_id)
    traced.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return traced


def take_over_log() -> None:
    """What the SDK says of itself, in this process, becomes an event of ours: spans that are lost are no defect."""
    sdk = logging.getLogger("opentelemetry")
    sdk.propagate = False
    if not any(isinstance(handler, SdkLines) for handler in sdk.handlers):
        sdk.addHandler(SdkLines())


class SdkLines(logging.Handler):
    """Of its warnings and errors one in SAID_EVERY_S, with how many were left out before it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said_at: float | None = None
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._said_at is not None and 0 <= record.created - self._said_at < SAID_EVERY_S:
            self._left_out += 1
            return
        why, left_out = " ".join(record.getMessage().split()), self._left_out
        self._said_at, self._left_out = record.created, 0
        _log.warning("traces are not sent", extra=fields("otel_failing", why=why, left_out=left_out or ""))


class JobIds:
    """An IdGenerator of the SDK's: random ids, but for the span that is begun with ids of its own."""

    def __init__(self) -> None:
        self.given: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.given[0] if self.given else int.from_bytes(os.urandom(16)) or 1

    def generate_span_id(self) -> int:
        return self.given[1] if self.given else int.from_bytes(os.urandom(8)) or 1

    def is_trace_id_random(self) -> bool:
        return self.given is None


def ids_of(job_id: str) -> tuple[int, int]:
    """The trace of a job, 16 bytes, and its span at its core, 8 bytes: the same at every node."""
    digest = hashlib.blake2b(job_id.encode(), digest_size=24, person=b"offgrid-trace").digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:]) or 1


class TracedMeters(Meters):
    """Counts as meters do, and tells what it is told as spans to `provider`'s processors."""

    def __init__(self, name: str, node_id: str, now_ns: Callable[[], int] = time.time_ns) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        super().__init__()
        self._api, self._ids, self._now_ns = trace, JobIds(), now_ns
        facts = {
            "service.name": "offgrid-node",
            "service.version": __version__,
            "service.instance.id": node_id,
            "host.name": name,
        }
        made: Any = TracerProvider(resource=Resource.create(facts), id_generator=self._ids, shutdown_on_exit=False)
        self.provider: TracerProvider = made
        self._tracer = made.get_tracer("offgrid-node", __version__)

    def on_rpc(self, method: str, caller: str, took_s: float, fault: Fault | None) -> None:
        super().on_rpc(method, caller, took_s, fault)
        if caller == Kind.MEMBER and fault is None:
            return
        service, _, name = method.partition("/")
        facts = {"rpc.system": "offgrid", "rpc.service": service, "rpc.method": name, "offgrid.caller": caller}
        end_ns = self._now_ns()
        self._tell(
            method,
            end_ns - int(took_s * 1e9),
            end_ns,
            facts,
            self._api.SpanKind.SERVER,
            fault.reason if fault else None,
        )

    def on_events(self, events: Sequence[Record]) -> None:
        super().on_events(events)
        for event in events:
            if event.etype in ENDS and event.job is not None:
                self._on_ended(event.event)
            elif event.etype == EventType.JOB_EXECUTED:
                self._on_attempt(event.event)

    def on_final(self, tx_id: str, created_us: int, final_us: int) -> None:
        super().on_final(tx_id, created_us, final_us)
        self._ids.given = ids_of(tx_id)
        try:
            facts = {"offgrid.tx.id": tx_id}
            self._tell("transfer", created_us * 1_000, final_us * 1_000, facts, self._api.SpanKind.INTERNAL, None)
        finally:
            self._ids.given = None

    def close(self) -> None:
        """Sends what is left, as far as CLOSING_S allows."""
        closing = threading.Thread(target=self.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSING_S)

    def _on_ended(self, event: state_pb2.Event) -> None:
        job, status = event.job, ENDS[EventType(event.etype)]
        facts: Facts = {
            "offgrid.job.id": job.job_id,
            "offgrid.job.status": status,
            "offgrid.job.attempts": job.attempt,
            "offgrid.job.route": jobs_pb2.Route.Name(job.route).removeprefix("ROUTE_").lower(),
            "offgrid.host": job.host,
        }
        failed = job.error or status if status != "completed" else None
        self._ids.given = ids_of(job.job_id)
        try:
            began_ns = job.created_us * 1_000
            self._tell("job", began_ns, event.timestamp_us * 1_000, facts, self._api.SpanKind.INTERNAL, failed)
        finally:
            self._ids.given = None

    def _on_attempt(self, event: state_pb2.Event) -> None:
        attempt = event.attempt
        took_us = ReceiptBody.decode(attempt.receipt.body).latency_us if attempt.HasField("receipt") else 0
        facts: Facts = {
            "offgrid.job.id": attempt.job_id,
            "offgrid.job.attempt": attempt.attempt,
            "offgrid.core": attempt.core,
            "offgrid.outcome": attempt.outcome,
        }
        trace_id, span_id = ids_of(attempt.job_id)
        api, end_ns = self._api, event.timestamp_us * 1_000
        sampled = api.TraceFlags(api.TraceFlags.SAMPLED)
        core = api.NonRecordingSpan(api.SpanContext(trace_id, span_id, is_remote=True, trace_flags=sampled))
        within = api.set_span_in_context(core)
        failed = attempt.outcome if attempt.outcome != "completed" else None
        self._tell("job attempt", end_ns - took_us * 1_000, end_ns, facts, api.SpanKind.CONSUMER, failed, within)

    def _tell(
        self,
        name: str,
        began_ns: int,
        end_ns: int,
        facts: Facts,
        kind: Any,
        failed: str | None,
        within: Any = None,
    ) -> None:
        """One span that is over; without `within` it has no parent."""
        root = within if within is not None else self._api.set_span_in_context(self._api.INVALID_SPAN)
        span = self._tracer.start_span(name, context=root, kind=kind, attributes=facts, start_time=began_ns)
        if failed:
            span.set_attribute("error.type", failed)
            span.set_status(self._api.Status(self._api.StatusCode.ERROR))
        span.end(end_time=max(began_ns, end_ns))
