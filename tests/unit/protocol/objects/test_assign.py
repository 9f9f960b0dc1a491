"""Which host is to hold which shard: evenly over domains as far as room allows, moving as little as it takes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid_node.protocol.objects.placement import assign
from offgrid_node.protocol.objects.preference import UNKNOWN, Facts, Host, Policy, refusal
from offgrid_node.protocol.quorum.records import MEMBERS_MAX

DOMAINS = ["", "x", "y", "z"]
policies = st.sampled_from(Policy)
facts_of_shards = st.builds(
    Facts,
    st.just(True),
    st.just(False),
    st.none() | st.integers(0, 5),
    st.none() | st.integers(0, 900),
    st.none() | st.integers(0, 10**9),
)
living = st.lists(
    st.builds(
        Host, st.sampled_from("abcdef"), st.just(1_000), st.sampled_from(DOMAINS), st.just(True), facts_of_shards
    ),
    unique_by=lambda host: host.node_id,
)


def host(name: str, domain: str = "", room: int | None = None) -> Host:
    return Host(name, 1_000, domain, alive=True, facts=Facts(room_bytes=room))


def some_held(hosts: Sequence[Host], shards: int, picks: Iterable[int]) -> dict[int, str]:
    """What an earlier placement left: some shards at some of these hosts."""
    nodes = [h.node_id for h in hosts]
    return {s: nodes[pick % len(nodes)] for s, pick in zip(range(shards), picks, strict=False) if pick and nodes}


def by_domain(hosts: Sequence[Host], laid: Iterable[str]) -> Counter[str]:
    domains = {h.node_id: h.fails_with for h in hosts}
    return Counter(domains[node] for node in laid if node)


def least_possible(hosts: Sequence[Host], held: Mapping[int, str], shards: int) -> tuple[int, int]:
    """By trying every number of shards for every domain: how many can be laid at all, and the least that the fullest
    domain has then."""
    start = by_domain(hosts, held.values())
    room = Counter({h.fails_with: 0 for h in hosts})
    for h in hosts:
        room[h.fails_with] += shards if h.facts.room_bytes is None else h.facts.room_bytes
    domains = sorted(room)
    ranges = [range(start[d], min(shards, start[d] + room[d]) + 1) for d in domains]
    sums = [(-sum(counts), max(counts, default=0)) for counts in itertools.product(*ranges) if sum(counts) <= shards]
    most, fullest = min(sums)
    return -most, fullest


@given(living, st.integers(1, 7), st.lists(st.integers(0, 6), max_size=7), policies)
def test_no_domain_holds_more_than_the_least_that_is_possible(
    hosts: list[Host], shards: int, picks: list[int], policy: Policy
) -> None:
    held = some_held(hosts, shards, picks)
    laid = assign("o-1", hosts, shards, held, shard_bytes=1, policy=policy)
    most, fullest = least_possible(hosts, held, shards)
    assert sum(node != "" for node in laid) == most
    assert max(by_domain(hosts, laid).values(), default=0) == fullest


@given(living, st.integers(1, 12), st.lists(st.integers(0, 6), max_size=12), policies)
def test_within_a_domain_hosts_share_evenly_as_far_as_they_have_room(
    hosts: list[Host], shards: int, picks: list[int], policy: Policy
) -> None:
    held = some_held(hosts, shards, picks)
    laid = assign("o-1", hosts, shards, held, shard_bytes=1, policy=policy)
    has, before = Counter(laid), Counter(held.values())
    for one, other in itertools.permutations(hosts, 2):
        if one.fails_with == other.fails_with and has[one.node_id] > before[one.node_id]:
            full = other.facts.room_bytes == has[other.node_id] - before[other.node_id]
            assert full or has[one.node_id] <= has[other.node_id] + 1


@given(living, st.integers(1, 12), st.lists(st.integers(0, 6), max_size=12), st.integers(0, 3), policies)
def test_what_is_held_stays_and_no_host_gets_more_than_it_has_room_for(
    hosts: list[Host], shards: int, picks: list[int], size: int, policy: Policy
) -> None:
    held = some_held(hosts, shards, picks)
    laid = assign("o-1", hosts, shards, held, shard_bytes=size, policy=policy)
    assert all(laid[shard] == node for shard, node in held.items())
    for h in hosts:
        new = sum(node == h.node_id for shard, node in enumerate(laid) if shard not in held)
        assert h.facts.room_bytes is None or new * size <= h.facts.room_bytes


@given(living, st.lists(st.sampled_from("abcdef")), st.integers(1, 12), policies)
def test_who_is_refused_gets_nothing_new_and_a_drained_one_keeps_only_what_nobody_else_can_take(
    hosts: list[Host], changed: list[str], shards: int, policy: Policy
) -> None:
    laid = assign("o-1", hosts, shards, {}, shard_bytes=1, policy=policy)
    held = {shard: node for shard, node in enumerate(laid) if node}
    drained = [
        replace(h, facts=replace(h.facts, drained=True)) if h.node_id in changed else replace(h, facts=UNKNOWN)
        for h in hosts
    ]
    again = assign("o-1", drained, shards, held, shard_bytes=1, policy=policy)
    leaving = {h.node_id for h in drained if h.facts.drained}
    if len(leaving) < len(hosts):
        assert leaving.isdisjoint(again)
    else:
        assert again == laid
    assert all(again[shard] == node for shard, node in held.items() if node not in leaving)


def test_a_host_is_refused_for_what_this_node_knows_of_it() -> None:
    able = host("a", room=5)
    assert refusal(able, 5) is None
    assert refusal(able, 6) == "no room"
    assert refusal(host("b"), 10**12) is None
    assert refusal(replace(able, facts=Facts(drained=True)), 0) == "drained"
    assert refusal(replace(able, facts=Facts(takes=False)), 0) == "storage off"
    assert refusal(replace(able, alive=False), 0) == "not alive"


def test_no_hosts_and_hosts_without_room_leave_shards_with_nobody() -> None:
    assert assign("o-1", [], 3, {}) == ("", "", "")
    assert assign("o-1", [host("a", room=1)], 3, {0: "gone"}, shard_bytes=1) == ("a", "", "")


def test_a_host_that_goes_moves_only_what_it_held_and_one_that_comes_moves_nothing() -> None:
    hosts = [host(f"h{n}", DOMAINS[n % 4]) for n in range(10)]
    laid = assign("o-1", hosts, 20, {})
    held = dict(enumerate(laid))
    for gone in hosts:
        left = [h for h in hosts if h is not gone]
        again = assign("o-1", left, 20, held)
        assert {shard for shard in held if again[shard] != held[shard]} == {s for s in held if held[s] == gone.node_id}
    assert assign("o-1", [*hosts, host("new")], 20, held) == laid


def test_what_nobody_has_goes_before_what_only_moves() -> None:
    hosts = [replace(host("a"), facts=Facts(drained=True)), host("b", room=1)]
    assert assign("o-1", hosts, 3, {0: "a", 1: "a"}, shard_bytes=1) == ("a", "a", "b")


def test_an_epoch_has_names_for_all_who_hold_a_shard() -> None:
    hosts = [host(f"h{n:03}") for n in range(100)]
    laid = assign("o-1", hosts, 200, {0: "h099"})
    assert len(set(laid)) == MEMBERS_MAX
    assert laid[0] == "h099"


def test_balanced_gives_each_host_its_share_of_the_room() -> None:
    hosts = [host("small", room=10**9), host("large", room=4 * 10**9), host("unknown")]
    firsts = Counter(assign(f"o-{n}", hosts, 1, {})[0] for n in range(3_000))
    assert 400 < firsts["small"] < 600  # of six parts one, one and four: what is not known counts as the middle one
    assert 400 < firsts["unknown"] < 600
    assert 1_800 < firsts["large"] < 2_200


def measured(name: str, round_trip_ms: int | None, bytes_per_s: int | None, domain: str = "") -> Host:
    facts = Facts(round_trip_ms=round_trip_ms, bytes_per_s=bytes_per_s)
    return Host(name, 1_000, domain, alive=True, facts=facts)


def test_latency_takes_the_nearest_that_fail_apart() -> None:
    hosts = [
        measured("near", 5, None, "x"),
        measured("near too", 6, None, "x"),
        measured("far", 90, None),
        measured("farther", 300, None),
        measured("unknown", None, None),
    ]
    for n in range(20):
        laid = assign(f"o-{n}", hosts, 3, {}, policy=Policy.LATENCY)
        assert laid[0] in ("near", "near too")
        assert laid[1:] == ("far", "farther")


def test_bandwidth_takes_the_fastest_and_tries_who_was_never_measured() -> None:
    hosts = [measured("slow", 1, 10**6), measured("fast", 500, 10**9), measured("fast too", 1, 10**9 - 1)]
    for n in range(20):
        laid = assign(f"o-{n}", hosts, 3, {}, policy=Policy.BANDWIDTH)
        assert set(laid[:2]) == {"fast", "fast too"}
        fresh = assign(f"o-{n}", [*hosts, measured("fresh", 1, None)], 1, {}, policy=Policy.BANDWIDTH)
        assert fresh == ("fresh",)


def test_hosts_that_are_alike_share_what_comes_whatever_the_policy() -> None:
    hosts = [measured(f"h{n}", n, 10**9 + n) for n in range(4)]  # all within what is measured of this machine itself
    for policy in Policy:
        firsts = Counter(assign(f"o-{n}", hosts, 1, {}, policy=policy)[0] for n in range(1_000))
        assert all(180 < firsts[h.node_id] < 320 for h in hosts), policy
