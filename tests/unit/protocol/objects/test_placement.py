"""Which hosts are chosen: hosts that fail apart first, evenly, and as many as it takes."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.objects.placement import choose, members_of, order, outgrown
from offgrid_node.protocol.objects.preference import Facts, Host, Policy, refusal
from offgrid_node.protocol.quorum.records import MEMBERS_MAX, Member


def host(name: str, weight: int = 1_000, domain: str = "", *, alive: bool = True) -> Host:
    return Host(name, weight, domain, alive)


A, B, C, D = host("a", domain="attic"), host("b", domain="attic"), host("c", domain="barn"), host("d")
some_hosts = st.lists(
    st.builds(
        Host,
        st.sampled_from("abcdefgh"),
        st.integers(0, 3_000),
        st.sampled_from(["", "x", "y"]),
        st.booleans(),
        st.builds(
            Facts,
            st.booleans(),
            st.booleans(),
            st.none() | st.integers(0, 9),
            st.none() | st.integers(0, 900),
            st.none() | st.integers(0, 10**9),
        ),
    ),
    unique_by=lambda host: host.node_id,
)
policies = st.sampled_from(Policy)


@pytest.mark.parametrize("number", range(50))
def test_hosts_that_fail_together_come_after_each_other_only_when_nothing_else_is_left(number: int) -> None:
    found = order(f"o-{number}", [A, B, C, D], [])
    assert found[3] in (A, B)
    assert {found[0], found[1], found[2]} >= {C, D}


def test_what_is_held_counts_by_domain() -> None:
    assert [order(f"o-{n}", [B, C], [A])[0] for n in range(20)] == [C] * 20


@given(some_hosts, some_hosts, st.text(min_size=1), policies)
def test_the_order_is_a_permutation_and_asks_nothing_of_its_input(
    candidates: list[Host], held: list[Host], object_id: str, policy: Policy
) -> None:
    found = order(object_id, candidates, held, policy)
    assert sorted(found, key=lambda h: h.node_id) == sorted(candidates, key=lambda h: h.node_id)
    assert order(object_id, reversed(candidates), reversed(held), policy) == found


@given(some_hosts, some_hosts, st.integers(0, 9_000), st.integers(0, 6), st.integers(0, 9), policies)
def test_no_more_are_chosen_than_it_takes(
    candidates: list[Host], held: list[Host], required: int, copies: int, size: int, policy: Policy
) -> None:
    chosen = choose("o-1", candidates, held, required, copies, copy_bytes=size, policy=policy)
    able = [h for h in candidates if refusal(h, size) is None]

    def suffices(hosts: list[Host]) -> bool:
        staying = [h for h in held if not h.facts.drained]
        weights = {h.node_id: h.weight_milli for h in (*staying, *hosts)}  # a node counts once
        places = len({h.node_id for h in staying}) + len(hosts)
        return sum(weights.values()) >= required and places >= copies

    assert all(refusal(h, size) is None for h in chosen)
    assert suffices(chosen) or len(chosen) == len(able)
    assert not chosen or not suffices(chosen[:-1])


def test_load_spreads_evenly_and_a_newcomer_moves_only_what_it_takes() -> None:
    hosts = [host(f"h{n}") for n in range(5)]
    first = {n: order(f"o-{n}", hosts, [])[0] for n in range(2_000)}
    shares = Counter(chosen.node_id for chosen in first.values())
    assert all(300 < count < 500 for count in shares.values())
    newcomer = host("new")
    for number, before in first.items():
        assert order(f"o-{number}", [*hosts, newcomer], [])[0] in (before, newcomer)


def test_an_epoch_names_all_hosts_living_ones_first_where_there_are_too_many() -> None:
    dead = [host(f"dead-{n:02}", 9_000, alive=False) for n in range(40)]
    living = [host(f"live-{n:02}") for n in range(40)]
    members = members_of([*dead, *living])
    assert len(members) == MEMBERS_MAX
    assert {h.node_id for h in living} <= {member.node_id for member in members}
    assert [member.node_id for member in members] == sorted(member.node_id for member in members)


def test_when_an_epoch_is_outgrown() -> None:
    """Every combination of three hosts: member, alive, acked, failing."""
    names = "abc"
    for bits in itertools.product(range(2), repeat=12):
        flags = {name: bits[4 * n : 4 * n + 4] for n, name in enumerate(names)}
        members = [Member(name, 1_000) for name in names if flags[name][0]]
        hosts = [host(name, alive=bool(flags[name][1])) for name in names]
        acked = [name for name in names if flags[name][0] and flags[name][2]]
        failing = [name for name in names if flags[name][3]]
        able = {name for name in names if flags[name][1] and not flags[name][3]}
        reach = sum(name in able or name in acked for name in names if flags[name][0])
        expected = reach < 2 <= len(able)
        assert outgrown(members, hosts, acked, failing, 2_000) == expected, flags
