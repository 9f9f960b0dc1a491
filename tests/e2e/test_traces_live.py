"""What nodes tell a collector of OpenTelemetry's, over OTLP: a job of a core and its attempt at a host in one trace.
And a collector that is not there, which costs them nothing but the spans."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from live import COMPLETED, eventually, log_of

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from offgrid.client import payloads
from offgrid_node.local_mesh import LocalMesh
from offgrid_node.traces import ids_of

JOBS = 30


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP at /v1/traces: `spans` are (service.instance.id, span)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.spans: list[tuple[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def named(self, name: str) -> list[tuple[str, Any]]:
        return [(node, span) for node, span in self.spans if span.name == name]


class Answer(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        told = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for each in told.resource_spans:
            node = next(a.value.string_value for a in each.resource.attributes if a.key == "service.instance.id")
            self.server.spans += [(node, span) for scope in each.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def mesh_with(folder: Path, url: str) -> LocalMesh:
    mesh = LocalMesh(folder, "t", {"core": ["core", "broker"], "host": ["host"]})
    runner = ("env", f"OTEL_EXPORTER_OTLP_ENDPOINT={url}", "OTEL_BSP_SCHEDULE_DELAY=100")
    for node in mesh.nodes.values():
        node.runner = runner
    return mesh


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.shutdown()
    made.server_close()


def run_jobs(mesh: LocalMesh, count: int) -> list[str]:
    with mesh["core"].client() as client:
        jobs = [client.jobs.run(payloads.builtin("echo", input=b"x")) for _ in range(count)]
    assert {job.state for job in jobs} == {COMPLETED}
    return [job.job_id for job in jobs]


def test_a_job_and_its_attempt_at_another_node_are_one_trace(tmp_path: Path, collector: Collector) -> None:
    with mesh_with(tmp_path / "m", collector.url) as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(1)
        (job_id,) = run_jobs(mesh, 1)
        job = eventually(lambda: collector.named("job"), "the core has told of it")[0]
        attempt = eventually(lambda: collector.named("job attempt"), "the host has told of it")[0]
        assert (job[0], attempt[0]) == (mesh["core"].node_id, mesh["host"].node_id)
        assert job[1].trace_id == attempt[1].trace_id == ids_of(job_id)[0].to_bytes(16)
        assert attempt[1].parent_span_id == job[1].span_id
        assert job[1].start_time_unix_nano < job[1].end_time_unix_nano
        calls = [span for node, span in collector.spans if span.name.startswith("offgrid.v1.")]
        assert any(span.name == "offgrid.v1.JobService/GetJob" or "Job" in span.name for span in calls)
        mesh.stop()
        assert all(log_of(node) for node in mesh.nodes.values())


@pytest.mark.soak
def test_a_collector_that_is_away_costs_nothing_but_the_spans(tmp_path: Path, collector: Collector) -> None:
    """Spans that find no room are dropped; the log has few lines of it, and a node stops as soon as ever."""
    with mesh_with(tmp_path / "m", "http://127.0.0.1:9") as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(1)
        run_jobs(mesh, JOBS)
        began = time.monotonic()
        mesh.stop()
        assert time.monotonic() - began < 10
        for node in mesh.nodes.values():
            assert sum("OTLP" in line or "otlp" in line for line in node.log_path.read_text().splitlines()) < 40
