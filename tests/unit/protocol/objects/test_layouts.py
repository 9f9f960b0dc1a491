"""A layout after another: what need not move stays, and what is moved makes the object harder to lose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.objects.layouts import laid_anew, survived_milli
from offgrid_node.protocol.objects.placement import assign
from offgrid_node.protocol.objects.preference import Host

SHARDS = 5


@st.composite
def fleets(draw: st.DrawFn) -> list[Host]:
    weights = draw(st.lists(st.sampled_from([500, 1_000, 2_000]), min_size=1, max_size=6))
    domains = st.sampled_from(["", "attic", "barn"])
    return [Host(f"host-{place}", weight, draw(domains), draw(st.booleans())) for place, weight in enumerate(weights)]


@given(fleets(), st.integers(1, SHARDS - 1), st.sampled_from([500, 1_000, 2_000, 4_000]), st.data())
def test_any_layout(hosts: list[Host], needed: int, required_milli: int, data: st.DataObject) -> None:
    names = [host.node_id for host in hosts]
    present = tuple(data.draw(st.lists(st.sampled_from(["", *names]), min_size=SHARDS, max_size=SHARDS)))
    stays = {shard: node for shard, node in enumerate(present) if node and data.draw(st.booleans())}
    layout = laid_anew("o-1", needed, present, stays, hosts, required_milli)
    alive = {host.node_id for host in hosts if host.alive}
    for shard, node in enumerate(layout):
        assert node == present[shard] or node in alive, "only the living take more"
    least = [node or before for node, before in zip(assign("o-1", hosts, SHARDS, stays), present, strict=True)]
    simplest = survived_milli(least, needed, hosts)
    assert survived_milli(layout, needed, hosts) >= min(simplest, required_milli)
    if simplest >= required_milli:
        assert all(layout[shard] == node for shard, node in stays.items()), "nothing moves that need not"
    assert layout == laid_anew("o-1", needed, present, stays, hosts, required_milli)


def test_a_layout_that_would_do_is_left_as_it_is() -> None:
    hosts = [Host(f"host-{place}", 1_000, "", alive=True) for place in range(9)]
    present = tuple(f"host-{place}" for place in range(SHARDS))
    assert laid_anew("o-1", 3, present, dict(enumerate(present)), hosts, 2_000) == present


def test_what_began_on_one_host_goes_on_to_others() -> None:
    present = ("host-0",) * SHARDS
    hosts = [Host(f"host-{place}", 1_000, "", alive=True) for place in range(3)]
    alone = laid_anew("o-1", 3, present, dict(enumerate(present)), hosts[:1], 2_000)
    assert alone == present
    layout = laid_anew("o-1", 3, present, dict(enumerate(present)), hosts, 2_000)
    assert sorted(layout.count(host.node_id) for host in hosts) == [1, 2, 2]
    assert survived_milli(layout, 3, hosts) == 2_000
    assert layout.count("host-0") == 2, "no more moves than must"


def test_a_domain_gets_more_than_its_part_where_nothing_else_weighs_enough() -> None:
    """No more than may be lost, should that do: with the domain nothing is lost then."""
    hosts = [Host(f"host-{place}", 1_000, "attic" if place < 5 else "", alive=True) for place in range(7)]
    spread = laid_anew("o-1", 3, ("",) * 6, {}, hosts, 2_000)
    assert sum(spread.count(f"host-{place}") for place in range(5)) == 2
    full = laid_anew("o-1", 3, spread, dict(enumerate(spread)), hosts, 3_000)
    assert survived_milli(full, 3, hosts) == 3_000
    assert sum(full.count(f"host-{place}") for place in range(5)) == 3
    apart = laid_anew("o-1", 3, full, dict(enumerate(full)), hosts, 4_000)
    assert survived_milli(apart, 3, hosts) == 4_000


def test_light_hosts_are_passed_over_where_only_heavy_ones_weigh_enough() -> None:
    hosts = [Host(f"host-{place}", weight, "", alive=True) for place, weight in enumerate([100] * 5 + [1_000] * 3)]
    layout = laid_anew("o-1", 3, ("",) * SHARDS, {}, hosts, 2_000)
    assert survived_milli(layout, 3, hosts) == 2_000
