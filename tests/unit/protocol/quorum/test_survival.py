"""What must be lost before the object is: against every set of hosts."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.quorum.survival import survival_milli

HOSTS = ("a", "b", "c", "d", "e", "f")
weights = st.fixed_dictionaries({host: st.sampled_from((0, 500, 1_000, 2_000)) for host in HOSTS})
counts = st.fixed_dictionaries({host: st.integers(0, 4) for host in HOSTS})
ackers = st.sets(st.sampled_from((*HOSTS, "stranger")))


def tried(nodes: set[str], weights: dict[str, int], counts: dict[str, int], needed: int) -> int:
    """By trying every loss."""
    held = {node: counts[node] for node in nodes if node in weights}
    losses = (loss for size in range(len(held) + 1) for loss in combinations(held, size))
    fatal = (loss for loss in losses if sum(held.values()) - sum(held[node] for node in loss) < needed)
    return min((sum(weights[node] for node in loss) for loss in fatal), default=0)


@given(ackers, weights, counts, st.integers(1, 12))
def test_it_is_the_least_weight_whose_loss_loses_the_object(
    nodes: set[str], weights: dict[str, int], counts: dict[str, int], needed: int
) -> None:
    shards = {node: tuple(range(count)) for node, count in counts.items()}
    assert survival_milli(nodes, weights, shards, needed) == tried(nodes, weights, counts, needed)


def test_of_copies_it_is_the_weight_of_all_who_acked() -> None:
    weights = {"a": 1_000, "b": 500, "c": 2_000}
    copies = dict.fromkeys(weights, (0,))
    assert survival_milli(["a", "c"], weights, copies, 1) == 3_000
    assert survival_milli([], weights, copies, 1) == 0


def test_twelve_of_twenty_on_ten_hosts_outlive_any_four_and_not_five() -> None:
    hosts = {str(host): 1_000 for host in range(10)}
    shards = {host: (int(host), int(host) + 10) for host in hosts}
    assert survival_milli(hosts, hosts, shards, 12) == 5_000
