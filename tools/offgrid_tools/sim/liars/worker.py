"""A host that does its work wrong: a false output, in a receipt that is valid all the same.

All such hosts of a seed give the same false output, as if they were in league. Nothing but other hosts' results can
tell; what is not redundant is believed.
"""

from __future__ import annotations

from msgspec.structs import replace

from offgrid_node.executors.executor import Outcome
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.process import Process

FALSE = b"a false result of "


class FalseWorker:
    """Stands between the process and its executors."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self.lies = 0
        process.finished = self._falsify
        cluster.monitor.jobs.false_hosts.add(process.node_id)

    def _falsify(self, outcome: Outcome) -> Outcome:
        if outcome.error:
            return outcome
        self.lies += 1
        return replace(outcome, output=FALSE + outcome.output, exit_code=0)
