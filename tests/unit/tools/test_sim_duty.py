"""What the simulator's monitor takes for work done for less than a host's rules ask."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_node.protocol.jobs.settings import Rule
from offgrid_tools.sim.monitor.duty import DutyRules
from offgrid_tools.sim.monitor.evidence import Evidence, Violation

FRIEND, STRANGER, A_HOST = (node_id_from(bytes([number]) * 20) for number in (1, 2, 3))
RULES = (Rule("friend", owners=(FRIEND,), price_micro=300, slots=1), Rule("rest", price_micro=900))
LARGE, SMALL = 1_000_000, 10  # tokens; of a small job every price is 1


def begin(*jobs: tuple[str, int], size_tokens: int = LARGE) -> None:
    """The host begins jobs of these owners at these prices, one after another, and ends none."""
    rules, executing = DutyRules(Evidence(str)), list[ClaimKey]()
    for number, (core, price_micro) in enumerate(jobs):
        order = JobOrder(core, f"j{number}", 1, "compute", "wasm", size_tokens, 0, bytes(32), 5_000)
        start = jobs_pb2.StartJob(order=order.encode(), price_micro=price_micro)
        rules.requests()[jobs_pb2.StartJobsRequest](core, A_HOST, jobs_pb2.StartJobsRequest(starts=[start]))
        rules.on_execute(A_HOST, RULES, order.key, "wasm", executing)
        executing.append(order.key)


@pytest.mark.parametrize("jobs", [[(FRIEND, 300)], [(FRIEND, 300), (FRIEND, 900)], [(STRANGER, 900), (FRIEND, 899)]])
def test_what_some_rule_takes_is_right(jobs: Sequence[tuple[str, int]]) -> None:
    begin(*jobs)


@pytest.mark.parametrize("jobs", [[(FRIEND, 299)], [(STRANGER, 899)], [(FRIEND, 300), (FRIEND, 899)]])
def test_what_no_rule_takes_is_seen(jobs: Sequence[tuple[str, int]]) -> None:
    with pytest.raises(Violation, match="for less than its rules ask"):
        begin(*jobs)


def test_the_smallest_jobs_cost_the_same_by_any_rule() -> None:
    begin((FRIEND, 1), (FRIEND, 1), (STRANGER, 1), size_tokens=SMALL)
