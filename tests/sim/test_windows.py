"""Whole nodes that are killed at any moment, and whose clocks are wrong, summarise each event once."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace
from seeds import seeds

from offgrid.event_types import type_name
from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.summaries.summary import decode
from offgrid_node.protocol.state.summaries.tables import JOURNAL, SUMMARIES, summarised_upto
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.plan import FIVE
from offgrid_tools.sim.process import Process

WINDOW_S, ROUNDS = 3, 12


def summarised(process: Process) -> Counter[str]:
    """By type; each number of the journal is in one summary, up to where it says."""
    found, after = Counter[str](), 0
    for _, value in process.store.scan(SUMMARIES, prefix=JOURNAL.encode()):
        row = state_pb2.SummaryRow.FromString(value)
        assert (row.first, row.count) == (after + 1, row.last - after)
        after = row.last
        found.update(decode(row.body).types)
    assert after == summarised_upto(process.store)
    return found


def happened(process: Process) -> Counter[str]:
    """Up to where it is summarised."""
    upto = summarised_upto(process.store)
    events = (state_pb2.Event.FromString(raw) for seq, raw in process.store.events() if seq <= upto)
    return Counter(type_name(event.etype) for event in events)


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_each_event_is_summarised_once_wherever_a_node_is_killed(seed: int) -> None:
    cluster = Cluster(seed, [replace(spec, window_s=WINDOW_S) for spec in FIVE])
    rng = cluster.engine.rng
    cluster.start()
    for _ in range(ROUNDS):
        cluster.run_for(rng.uniform(0.1, 2 * WINDOW_S))
        for process in cluster.processes.values():
            if process.up and rng.random() < 0.5:
                process.crash()
                cluster.engine.after(rng.randint(0, 1_000_000), process.start)
    cluster.run_for(5 * WINDOW_S)
    for process in cluster.processes.values():
        assert summarised(process) == happened(process)
        assert summarised_upto(process.store) > process.store.journal_seq / 2
        assert summarised(process)["NODE_STARTED"] > 1
