"""The rule of work that its core took back: a host that has said that it stopped brings no result of it."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules


class StopRules(Rules):
    """A host that loses its memory is told again, and may bring what it kept until then."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._stopped: dict[str, set[tuple[str, str, int]]] = {}  # by host

    def requests(self) -> Mapping[type[Message], Passed]:
        return {jobs_pb2.ReportResultsRequest: self._reported}

    def on_stopped(self, host: str, core: str, request: jobs_pb2.CancelStartsRequest) -> None:
        """The host's answer to this leaves it."""
        stopped = self._stopped.setdefault(host, set())
        stopped.update((core, each.job_id, each.attempt) for each in request.attempts)

    def on_start(self, node: str) -> None:
        self._stopped.pop(node, None)

    def _reported(self, host: str, core: str, request: jobs_pb2.ReportResultsRequest) -> None:
        for report in request.reports:
            if report.HasField("result") and (core, report.job_id, report.attempt) in self._stopped.get(host, ()):
                name = self._evidence.name_of(host)
                raise Violation(f"{name} stopped {report.job_id}/{report.attempt}, and brings its result")
