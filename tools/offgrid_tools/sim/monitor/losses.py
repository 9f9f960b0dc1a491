"""The rule of dead hosts: once a core's own journal says that a host is dead, none of its jobs stays there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.table import AWARDED, RUNNING
from offgrid_tools.sim.engine import SECOND
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Journaled, Rules

STEP_US = SECOND  # what follows is decided in the same step


class LossRules(Rules):
    """Of jobs that are durably at a host. Who begins anew has heard of nobody yet, so nobody is dead."""

    def __init__(self, evidence: Evidence, now_us: Callable[[], int]) -> None:
        self._evidence, self._now_us = evidence, now_us
        self._at: dict[str, dict[str, tuple[str, int]]] = defaultdict(dict)  # by core and job: host and attempt
        self._due: dict[str, dict[str, int]] = defaultdict(dict)  # by core and job: when it must be elsewhere

    def events(self) -> Mapping[str, Journaled]:
        return {"peer": self._on_peer}

    def _on_peer(self, node: str, event: state_pb2.Event) -> None:
        if event.etype == EventType.PEER_DEAD:
            lost = [job_id for job_id, (host, _) in self._at[node].items() if host == event.peer.node_id]
            self._due[node].update(dict.fromkeys(lost, self._now_us() + STEP_US))

    def on_job(self, core: str, job: jobs_pb2.Job) -> None:
        """Any row of a job."""
        now = (job.host, job.attempt) if job.state in (AWARDED, RUNNING) else None
        if self._at[core].get(job.job_id) != now:
            self._due[core].pop(job.job_id, None)
        if now is None:
            self._at[core].pop(job.job_id, None)
        else:
            self._at[core][job.job_id] = now

    def on_batch(self, node: str) -> None:
        for job_id, due_us in self._due[node].items():
            if due_us < self._now_us():
                host = self._evidence.name_of(self._at[node][job_id][0])
                raise Violation(f"job {job_id} is still at {host}, which its core's journal has called dead")

    def forget(self, node: str) -> None:
        self._due.pop(node, None)

    def on_start(self, node: str) -> None:
        self.forget(node)
