"""What misfortunes met: a crash of a machine that has nothing to do proves nothing. Counted, never judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.awards import QUEUE
from offgrid_node.protocol.jobs.index import OPEN_JOBS
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.monitor.evidence import Evidence
from offgrid_tools.sim.monitor.rules import Passed, Rules

MOVES = {  # by the routes of two rows of a job that waits
    (jobs_pb2.ROUTE_OFFGRID, jobs_pb2.ROUTE_FILE_QUEUE): "takeovers by the local queue",
    (jobs_pb2.ROUTE_FILE_QUEUE, jobs_pb2.ROUTE_OFFGRID): "returns from the local queue",
}
LATE = ("is over", "has ended", "another host")  # in why a core refuses a report


class Met(Rules):
    """By what is said between nodes, by rows, and by who dies."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.counts: Counter[str] = Counter()
        self._reports: set[tuple[str, str, int]] = set()  # (host, job, attempt) that were reported in earnest
        self._asked: dict[tuple[str, str, int], set[str]] = {}  # brokers, by core and attempt
        self._routes: dict[str, jobs_pb2.Route.ValueType] = {}  # of open jobs

    def requests(self) -> Mapping[type[Message], Passed]:
        return {jobs_pb2.SubmitJobsRequest: self._submitted, jobs_pb2.ReportResultsRequest: self._reported}

    def replies(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.SubmitJobsResponse: self._cleared,
            jobs_pb2.StartJobsResponse: self._taken,
            jobs_pb2.ReportResultsResponse: self._judged,
            jobs_pb2.RenewLeasesResponse: self._renewed,
        }

    # ---- who is struck

    def on_crash(self, node: str, *, at_work: bool) -> None:
        store = self._evidence.stores[node]
        self.counts["hosts killed at work"] += at_work
        self.counts["brokers killed with a line"] += any(True for _ in store.scan(QUEUE))
        self.counts["cores killed with open jobs"] += any(True for _ in store.scan(OPEN_JOBS))

    def on_freeze(self, *, at_work: bool) -> None:
        self.counts["hosts frozen at work"] += at_work

    def on_parted(self, message: Message) -> None:
        """A message was lost between parted nodes."""
        if message.DESCRIPTOR.name.startswith(("Submit", "Deliver", "Start", "Report", "Cancel", "Close")):
            self.counts["job messages cut off"] += 1

    # ---- what came of it

    def _submitted(self, core: str, broker: str, request: jobs_pb2.SubmitJobsRequest) -> None:
        for body in request.orders:
            brokers = self._asked.setdefault(JobOrder.decode(body).key, set())
            self.counts["takeovers by another broker"] += bool(brokers) and broker not in brokers
            brokers.add(broker)

    def _cleared(self, broker: str, core: str, reply: jobs_pb2.SubmitJobsResponse) -> None:
        for clearing in reply.clearings:
            match clearing.kind:
                case jobs_pb2.CLEARING_KIND_QUEUED:
                    self.counts["orders that wait"] += clearing.fresh
                case jobs_pb2.CLEARING_KIND_FORGOTTEN:
                    self.counts["awards forgotten"] += 1

    def _taken(self, host: str, core: str, reply: jobs_pb2.StartJobsResponse) -> None:
        self.counts["starts refused"] += sum(not outcome.accepted for outcome in reply.outcomes)

    def _reported(self, host: str, core: str, request: jobs_pb2.ReportResultsRequest) -> None:
        self._reports.update((host, report.job_id, report.attempt) for report in request.reports)

    def _judged(self, core: str, host: str, reply: jobs_pb2.ReportResultsResponse) -> None:
        late = [each for each in reply.outcomes if any(words in each.refusal for words in LATE)]
        own = sum((host, each.job_id, each.attempt) in self._reports for each in late)
        self.counts["late reports refused"] += own
        self.counts["forged reports refused"] += len(late) - own

    def _renewed(self, core: str, host: str, reply: jobs_pb2.RenewLeasesResponse) -> None:
        self.counts["leases that nobody wants"] += len(reply.unwanted)

    def on_job(self, job: jobs_pb2.Job) -> None:
        """A row of a job is durable."""
        move = self._routes.get(job.job_id, job.route), job.route
        if move in MOVES:
            self.counts[MOVES[move]] += 1
        if job.state not in ENDED:
            self._routes[job.job_id] = job.route
            return
        self._routes.pop(job.job_id, None)
        name = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
        self.counts[f"jobs {name}"] += 1
        self.counts["jobs of more than one attempt"] += job.attempt > 1
        for attempt in job.attempts:
            why = attempt.outcome.partition(":")[0].partition(" ")[0]
            if why[:1].isupper():  # HostDied, LeaseExpired, Unreachable, HostRestarted, …
                self.counts[f"attempts lost: {why}"] += 1
