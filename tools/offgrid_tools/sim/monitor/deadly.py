"""Rules of work that kills: a host that went down under it so often takes it no more, and nobody has its result."""

from __future__ import annotations

from collections import Counter

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import payload_digest
from offgrid_node.protocol.jobs.quarantine import RESTARTS_MAX
from offgrid_node.protocol.jobs.table import COMPLETED
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules


class DeadlyRules(Rules):
    """Told of what kills, of what begins and of who has died of it. A clock that is set may end a quarantine, so each
    setting begins a new count."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._deadly: set[bytes] = set()
        self._deaths: Counter[tuple[str, int, bytes]] = Counter()  # by host, setting of its clock, and payload

    def expect(self, payload: jobs_pb2.JobPayload) -> None:
        self._deadly.add(_digest_of(payload))

    def is_deadly(self, job: jobs_pb2.Job) -> bool:
        return job.payload_digest in self._deadly

    def on_execute(self, host: str, clock_sets: int, payload: jobs_pb2.JobPayload) -> None:
        times = self._deaths[host, clock_sets, _digest_of(payload)]
        if times >= RESTARTS_MAX:
            name = self._evidence.name_of(host)
            raise Violation(f"{name} went down {times} times under a payload, and takes it again")

    def on_died(self, host: str, clock_sets: int, payload: jobs_pb2.JobPayload) -> None:
        self._deaths[host, clock_sets, _digest_of(payload)] += 1

    def check_end(self, job: jobs_pb2.Job) -> None:
        if job.state == COMPLETED:
            raise Violation(f"job {job.job_id} kills whoever does it, and is completed")


def _digest_of(payload: jobs_pb2.JobPayload) -> bytes:
    return payload_digest(payload.SerializeToString(deterministic=True))
