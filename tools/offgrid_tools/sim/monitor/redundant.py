"""Rules of redundant jobs: what is accepted is the honest result while liars are fewer than the quorum; the executions
that agree with it are paid, and no other one ever is. Hosts are said to disagree only where one of them lied, too few
honest ones were heard for a quorum, and no further one could be asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.naming import execution_id
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.jobs.trust import TRUST, TRUSTED_FROM
from offgrid_node.protocol.jobs.votes import has_result, vote_of
from offgrid_node.protocol.ledger.tables import BOOKINGS
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.terms import Find

ALONE_MAX = 100  # without one spot check: where one in ten is checked, once in 37,000 runs that have so many


class Executions:
    """Of all redundant jobs, as they ended. `find` reads a job as its core's store has it."""

    def __init__(self, evidence: Evidence, find: Find) -> None:
        self._evidence, self._find = evidence, find
        self._ended: dict[str, dict[str, jobs_pb2.Job]] = defaultdict(dict)
        self._unpaid: set[tuple[str, str]] = set()
        self._accepted: dict[str, bytes] = {}  # parent → digest of its result
        self.agreed = self.late = 0
        self._alone = self._checked = 0  # adaptive jobs of hosts that are trusted

    def on_made(self, core: str, execution: jobs_pb2.Job) -> None:
        """A job's second one is a spot check where a trusted host has the first, or has brought its result."""
        parent = self._find(core, execution.parent_id)
        first = self._find(core, execution_id(execution.parent_id, 1))
        if parent is None or not parent.adaptive or execution.job_id != execution_id(parent.job_id, 2):
            return
        if first is not None and (first.state not in ENDED or has_result(first)):
            self._checked += any(self._is_trusted(core, host) for host in execution.avoid)

    def on_end(self, core: str, execution: jobs_pb2.Job, on_cost: Callable[[str, jobs_pb2.Job], None]) -> None:
        """One that ends after its parent has run on: it is paid if it agrees."""
        self._ended[execution.parent_id][execution.job_id] = execution
        accepted = self._accepted.get(execution.parent_id)
        if accepted is not None and _digest_of(execution) == accepted:
            on_cost(core, execution)
            self.late += 1
        else:
            self._unpaid.add((core, execution.job_id))

    def on_agreed(
        self, core: str, parent: jobs_pb2.Job, digest: bytes, on_cost: Callable[[str, jobs_pb2.Job], None]
    ) -> None:
        """The parent has ended with the result of this digest."""
        ended = self._ended[parent.job_id]
        taken, cost_micro, hosts = ended.get(parent.result_of), 0, set()
        if taken is None or parent.result.receipt != taken.result.receipt:
            raise Violation(f"job {parent.job_id} has the result of no execution of its own")
        for execution in ended.values():
            if _digest_of(execution) == digest:
                self._unpaid.discard((core, execution.job_id))
                on_cost(core, execution)
                cost_micro += execution.price_micro
                hosts.add(execution.host)
        if cost_micro != parent.price_micro:
            raise Violation(f"job {parent.job_id} says that it cost {parent.price_micro}; that is {cost_micro}")
        if len(hosts) < parent.quorum and not parent.adaptive:
            raise Violation(f"job {parent.job_id}: {len(hosts)} hosts agree on its result, not {parent.quorum}")
        self._accepted[parent.job_id] = digest
        self.agreed += 1
        if parent.adaptive:
            self._alone += len(ended) == 1 and self._is_trusted(core, taken.host)

    def _is_trusted(self, core: str, host: str) -> bool:
        """For longer than since just now."""
        return int.from_bytes(self._evidence.row(core, TRUST, host.encode()) or b"", "big") > TRUSTED_FROM

    def on_done_here(self, core: str, parent: jobs_pb2.Job, digest: bytes) -> None:
        """For want of brokers the core has done it itself in the end: who had brought the same before is paid."""
        for execution in self._ended.get(parent.job_id, {}).values():
            if _digest_of(execution) == digest:
                self._unpaid.discard((core, execution.job_id))

    def why_split(self, parent: jobs_pb2.Job, false_hosts: Collection[str], excuses: Collection[str]) -> str:
        """Which of the `excuses` kept a quorum from this job, whose hosts are said to disagree: that of an execution
        for which nobody was found. Whether the run explains that in turn is asked as of any other job."""
        ended = self._ended.get(parent.job_id, {}).values()
        heard = [(each.host in false_hosts, vote) for each in ended if (vote := vote_of(each))]
        honest = sum(not lies for lies, _ in heard)
        if honest == len(heard) or len({vote for _, vote in heard}) < 2:
            raise Violation(f"job {parent.job_id}: its hosts are said to disagree, and none of them lied")
        if honest >= parent.quorum:
            raise Violation(f"job {parent.job_id}: {honest} honest hosts agree, and its hosts are said to disagree")
        why = next((each.error for each in ended if each.error in excuses), "")
        if not why:
            raise Violation(f"job {parent.job_id}: its hosts are said to disagree before others were asked")
        return why

    def check_store(self, core: str) -> None:
        if self._alone >= ALONE_MAX and not self._checked:
            raise Violation(f"{self._alone} jobs ran alone at trusted hosts, and none was ever checked")
        for owner, job_id in self._unpaid:
            if owner == core:
                self._check_unpaid(core, job_id)

    def _check_unpaid(self, core: str, job_id: str) -> None:
        if self._evidence.row(core, BOOKINGS, job_id.encode()) is not None:
            raise Violation(f"execution {job_id} is paid, and no quorum agrees with it")


def _digest_of(execution: jobs_pb2.Job) -> bytes:
    """Of its result; empty without one."""
    body = execution.result.receipt.body
    return ReceiptBody.decode(body).result_digest if body else b""
