"""What the simulator's monitor takes for a spot check: one that has begun, whenever it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.jobs.naming import execution_id
from offgrid_node.protocol.jobs.table import AWARDED, COMPLETED, FAILED, QUEUED
from offgrid_node.protocol.jobs.trust import TRUST, TRUSTED_FROM
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.redundant import ALONE_MAX, Executions

CORE, A_HOST = (node_id_from(bytes([number]) * 20) for number in (1, 2))


@dataclass(slots=True)
class Town:
    """A core that trusts a host."""

    jobs: dict[str, jobs_pb2.Job] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=lambda: Evidence(str))
    executions: Executions = field(init=False)

    def __post_init__(self) -> None:
        self.evidence.stores[CORE] = MemoryStore()
        self.executions = Executions(self.evidence, lambda core, job_id: self.jobs.get(job_id))
        self.trust(TRUSTED_FROM + 1)

    def trust(self, count: int) -> None:
        self.evidence.stores[CORE].commit(Batch(writes={(TRUST, A_HOST.encode()): count.to_bytes(4, "big")}))

    def begin(self, name: str, state: jobs_pb2.JobState.ValueType) -> tuple[jobs_pb2.Job, jobs_pb2.Job]:
        """An adaptive job and its first execution, which is in this state at the host."""
        parent = jobs_pb2.Job(job_id=name, replicas=3, quorum=2, adaptive=True)
        first = jobs_pb2.Job(job_id=execution_id(name, 1), parent_id=name, host=A_HOST, state=state)
        self.jobs |= {each.job_id: each for each in (parent, first)}
        return parent, first

    def run_alone(self, name: str) -> None:
        parent, first = self.begin(name, COMPLETED)
        parent.result_of = first.job_id
        self.executions.on_end(CORE, first, lambda core, job: None)
        self.executions.on_agreed(CORE, parent, b"", lambda core, job: None)

    def lay_second(self, name: str, first: jobs_pb2.JobState.ValueType) -> None:
        """It is on its way; the first is in that state."""
        self.begin(name, first)
        second = jobs_pb2.Job(job_id=execution_id(name, 2), parent_id=name, state=QUEUED, avoid=[A_HOST])
        self.executions.on_made(CORE, second)

    def run_many(self) -> None:
        for number in range(ALONE_MAX):
            self.run_alone(f"j-{number}")


def test_who_is_trusted_and_never_checked_is_seen() -> None:
    town = Town()
    town.run_many()
    with pytest.raises(Violation, match="none was ever checked"):
        town.executions.check_store(CORE)


def test_a_check_counts_before_it_has_ended() -> None:
    town = Town()
    town.lay_second("checked", AWARDED)
    town.run_many()
    town.executions.check_store(CORE)


@pytest.mark.parametrize(("trust", "first"), [(TRUSTED_FROM + 1, FAILED), (TRUSTED_FROM, AWARDED)])
def test_a_second_one_for_want_of_a_result_or_of_trust_is_no_check(
    trust: int, first: jobs_pb2.JobState.ValueType
) -> None:
    town = Town()
    town.trust(trust)
    town.lay_second("asked again", first)
    town.trust(TRUSTED_FROM + 1)
    town.run_many()
    with pytest.raises(Violation, match="none was ever checked"):
        town.executions.check_store(CORE)
