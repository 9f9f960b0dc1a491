"""What the simulator's monitor takes for a line, and for a host alone: it sees what leaves nodes, not what arrives."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.lines import STEP_US, LineRules
from offgrid_tools.sim.plan import MESHES, draw
from offgrid_tools.sim.vices import REMOVED

CORE, BROKER, A_HOST = (node_id_from(bytes([number]) * 20) for number in (1, 2, 3))
RESERVE_MICRO = 1_000_000  # for a million tokens, which each job here has


def order(job_id: str, priority: int = 0) -> JobOrder:
    return JobOrder(CORE, job_id, 1, "compute", "wasm", 10**6, 0, bytes(32), 5_000, priority, RESERVE_MICRO)


@dataclass(slots=True)
class Town:
    """A core and a broker, as the rules hear them; one host has offered what is asked for."""

    now_us: int = 0
    evidence: Evidence = field(default_factory=lambda: Evidence(str))
    rules: LineRules = field(init=False)

    def __post_init__(self) -> None:
        self.rules = LineRules(self.evidence, lambda: self.now_us)
        offer = jobs_pb2.Offer(executors=["wasm"])
        self.rules.requests()[jobs_pb2.PostOffersRequest](A_HOST, BROKER, jobs_pb2.PostOffersRequest(offers=[offer]))

    def ordered(self, *orders: JobOrder) -> None:
        bodies = [each.encode() for each in orders]
        self.rules.requests()[jobs_pb2.SubmitJobsRequest](CORE, BROKER, jobs_pb2.SubmitJobsRequest(orders=bodies))

    def closed(self, job_id: str) -> None:
        lease = jobs_pb2.ClosedLease(job_id=job_id, attempt=1)
        self.rules.requests()[jobs_pb2.CloseLeasesRequest](CORE, BROKER, jobs_pb2.CloseLeasesRequest(leases=[lease]))

    def awarded(self, job_id: str) -> None:
        """By the broker, in its journal; it has told nobody."""
        said = jobs_pb2.AttemptEvent(job_id=job_id, attempt=1, core=CORE, host=A_HOST)
        self.rules.events()["attempt"](BROKER, state_pb2.Event(etype=EventType.JOB_AWARDED, attempt=said))

    def said(self, kind: jobs_pb2.ClearingKind.ValueType, *job_ids: str, price_micro: int = RESERVE_MICRO) -> None:
        """By the broker; after that its step is over."""
        host = A_HOST if kind == jobs_pb2.CLEARING_KIND_AWARDED else ""
        clearings = [
            jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=kind, host=host, price_micro=price_micro * bool(host))
            for job_id in job_ids
        ]
        self.rules.replies()[jobs_pb2.SubmitJobsResponse](
            BROKER, CORE, jobs_pb2.SubmitJobsResponse(clearings=clearings)
        )
        self.now_us += STEP_US + 1


@pytest.fixture
def town() -> Town:
    return Town()


def test_a_more_urgent_order_that_waits_is_not_passed_over(town: Town) -> None:
    town.ordered(order("usual"), order("urgent", priority=1))
    town.said(jobs_pb2.CLEARING_KIND_QUEUED, "usual", "urgent")
    with pytest.raises(Violation, match="usual was awarded while urgent waited"):
        town.said(jobs_pb2.CLEARING_KIND_AWARDED, "usual")


def test_an_attempt_waits_no_more_once_any_later_one_is_ordered(town: Town) -> None:
    """Those between may have gone to other brokers."""
    town.ordered(order("usual"), order("urgent", priority=1))
    town.said(jobs_pb2.CLEARING_KIND_QUEUED, "usual", "urgent")
    town.ordered(order("urgent", priority=1)._replace(attempt=3))
    town.said(jobs_pb2.CLEARING_KIND_AWARDED, "usual")


def test_an_order_that_was_closed_before_it_arrived_is_not_in_line_though_its_broker_says_so(town: Town) -> None:
    town.ordered(order("usual"), order("urgent", priority=1))
    town.closed("urgent")
    town.said(jobs_pb2.CLEARING_KIND_QUEUED, "usual", "urgent")
    town.said(jobs_pb2.CLEARING_KIND_AWARDED, "usual")


def test_an_order_that_was_awarded_is_not_in_line_though_its_core_is_told_later(town: Town) -> None:
    town.ordered(order("usual"), order("urgent", priority=1))
    town.said(jobs_pb2.CLEARING_KIND_QUEUED, "usual", "urgent")
    town.awarded("urgent")
    town.said(jobs_pb2.CLEARING_KIND_AWARDED, "usual", "urgent")


def test_a_host_alone_is_paid_the_reserve(town: Town) -> None:
    town.ordered(order("job"))
    with pytest.raises(Violation, match="has one host alone, and pays 900 instead of 1000000"):
        town.said(jobs_pb2.CLEARING_KIND_AWARDED, "job", price_micro=900)


@pytest.mark.parametrize(("executors", "sound"), [((), False), (("process:tool",), False), (("wasm",), True)])
def test_a_broker_that_is_a_host_as_well_is_a_rival_that_nobody_hears(
    town: Town, executors: tuple[str, ...], sound: bool
) -> None:
    town.evidence.executors[BROKER] = executors
    town.ordered(order("job"))
    if sound:
        town.said(jobs_pb2.CLEARING_KIND_AWARDED, "job", price_micro=900)
    else:
        with pytest.raises(Violation):
            town.said(jobs_pb2.CLEARING_KIND_AWARDED, "job", price_micro=900)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_quorum_of_sound_hosts_stays_in_every_seed_with_false_ones(mesh: str) -> None:
    for plan in (draw(seed, mesh) for seed in range(400)):
        stay = {spec.name for spec in plan.layout if HOST in spec.roles and plan.vices.get(spec.name) != REMOVED}
        assert not plan.false_hosts or plan.redundancy is not None
        assert not plan.false_hosts or len(stay - set(plan.false_hosts)) >= plan.redundancy.quorum
