"""Orders that wait are sorted without being read: what is looked at of their bytes says what reading them would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_bench import OTHER, OWNER, RIVAL, WORKER, BrokerBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import CORE, HOST
from offgrid_node.protocol.jobs.clearing import Group
from offgrid_node.protocol.jobs.orders import JobOrder, alike_and_priority, key_of_row, row_key

TEXTS = st.text(max_size=4)
ORDERS = st.builds(
    JobOrder,
    core=st.sampled_from([OWNER.node_id, RIVAL.node_id]),
    job_id=st.text(min_size=1, max_size=8),
    attempt=st.integers(1, 2**32 - 1),
    kind=TEXTS,
    needs=TEXTS,
    size_tokens=st.integers(0, 2**64 - 1),
    payload_bytes=st.integers(0, 2**64 - 1),
    payload_digest=st.binary(min_size=32, max_size=32),
    timeout_ms=st.integers(0, 2**32 - 1),
    priority=st.integers(-100, 100),
    price_max_micro=st.integers(0, 2**63),
    requirements=TEXTS,
    avoid=st.lists(st.sampled_from([WORKER.node_id, OTHER.node_id]), max_size=2).map(tuple),
)


@given(ORDERS, ORDERS)
def test_orders_look_alike_where_they_are(one: JobOrder, other: JobOrder) -> None:
    alike, priority = alike_and_priority(one.encode())
    assert priority == one.priority
    assert (alike == alike_and_priority(other.encode())[0]) == (Group.of(one) == Group.of(other))
    changed = one._replace(job_id=other.job_id, attempt=other.attempt, size_tokens=1, priority=other.priority)
    assert alike_and_priority(changed.encode()) == (alike, other.priority)


@given(ORDERS)
def test_a_row_s_key_says_which_attempt_it_is(order: JobOrder) -> None:
    assert key_of_row(row_key(order.key)) == order.key


@pytest.mark.parametrize("restarts", [False, True])
def test_the_line_keeps_its_order_over_a_restart(restarts: bool) -> None:
    bench = BrokerBench()
    bench.offer(slots=1)
    assert bench.submit(OWNER, "j-busy").kind == jobs_pb2.CLEARING_KIND_AWARDED
    for job_id in ("j-z", "j-a", "j-m"):
        bench.submit(OWNER, job_id)
    if restarts:
        bench.restart()
        bench.seen(CORE, OWNER, RIVAL)
        bench.up(WORKER, HOST)
        bench.offer(seq=2, slots=1)
    else:
        bench.close(OWNER, "j-busy", 1)
    for job_id in ("j-z", "j-a"):
        bench.close(OWNER, job_id, 1)
    assert bench.delivered() == ["j-z", "j-a", "j-m"]
