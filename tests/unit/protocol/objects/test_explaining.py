"""What is said of each host is what placement does, and says why in figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import HOST, PeerUp
from offgrid_node.protocol.objects.explaining import Outcome, Placed, Verdict, explain
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.parcels import FAILING, Failed, Parcel, Terms
from offgrid_node.protocol.objects.placement import assign, choose
from offgrid_node.protocol.objects.preference import Facts, Host, Policy, refusal

REPAIR_AFTER_MS = 1_000
COPIES = Parcel(0, "o-1", 1_000, 2, 10, durable=False)
SHARDS = replace(COPIES, shards_needed=2, shards_total=4)


def host(name: str, domain: str = "", *, alive: bool = True, **facts: object) -> Host:
    return Host(name, 1_000, domain, alive, Facts(**facts))  # type: ignore[arg-type]


def met(hosts: Sequence[Host]) -> Hosts:
    """As the owner has heard of them; whoever is dead died at 0."""
    known, start = Hosts("owner", REPAIR_AFTER_MS), Now(0, 0)
    for each in hosts:
        known.on_up(PeerUp(each.node_id, "", frozenset({HOST}), each.weight_milli, each.domain), start)
        known.on_facts(each.node_id, each.facts)
        if not each.alive:
            known.on_down(each.node_id, start)
    return known


def in_epoch(parcel: Parcel, *layout: str, members: Iterable[str] = "", **more: Any) -> Parcel:
    """Under its first epoch."""
    weights = dict.fromkeys(members or sorted({*layout}), 1_000)
    return replace(parcel, epoch=1, terms=Terms(weights, layout, 1_000), **more)


def verdicts_of(parcel: Parcel, *hosts: Host, policy: Policy = Policy.BALANCED, now_ms: int = 0) -> list[Verdict]:
    return explain(Placed(parcel, 10, policy), met(hosts), now_ms)


def said_of(parcel: Parcel, *hosts: Host, policy: Policy = Policy.BALANCED, now_ms: int = 0) -> dict[str, Verdict]:
    return {said.host.node_id: said for said in verdicts_of(parcel, *hosts, policy=policy, now_ms=now_ms)}


def test_outcomes_are_those_of_the_wire() -> None:
    for outcome in Outcome:
        assert objects_pb2.PlacementOutcome.Name(outcome.value) == f"PLACEMENT_OUTCOME_{outcome.name}"


some_hosts = st.lists(
    st.builds(
        Host,
        st.sampled_from("abcdef"),
        st.just(1_000),
        st.sampled_from(["", "x"]),
        st.booleans(),
        st.builds(Facts, st.booleans(), st.booleans(), st.none() | st.integers(0, 40)),
    ),
    unique_by=lambda host: host.node_id,
)


@given(some_hosts, st.sampled_from(Policy))
def test_of_a_new_object_hosts_get_what_placement_gives_them(hosts: list[Host], policy: Policy) -> None:
    laid = assign("o-1", hosts, 4, {}, shard_bytes=10, policy=policy)
    for verdict in verdicts_of(SHARDS, *hosts, policy=policy):
        assert verdict.gets == tuple(shard for shard, node in enumerate(laid) if node == verdict.host.node_id)
        assert (verdict.outcome is Outcome.GETS) == bool(verdict.gets)
    chosen = {h.node_id for h in choose("o-1", hosts, [], 1_000, 2, copy_bytes=10, policy=policy)}
    for verdict in verdicts_of(COPIES, *hosts, policy=policy):
        assert verdict.gets == ((0,) if verdict.host.node_id in chosen else ())
        if verdict.outcome is Outcome.NOT_NEEDED:
            assert refusal(verdict.host, 10) is None


@pytest.mark.parametrize(
    ("refused", "outcome", "reason"),
    [
        (host("h", alive=False), Outcome.NOT_ALIVE, "not alive"),
        (host("h", takes=False), Outcome.STORAGE_OFF, "keeps nothing for others: storage.enabled is off there"),
        (host("h", drained=True), Outcome.DRAINED, "drained: its owner empties it"),
        (host("h", room_bytes=9), Outcome.NO_ROOM, "no room: a copy needs 10 bytes, it has 9 for this node"),
    ],
)
def test_why_a_host_gets_nothing(refused: Host, outcome: Outcome, reason: str) -> None:
    said = said_of(COPIES, refused, host("other"))["h"]
    assert (said.outcome, said.reason, said.gets) == (outcome, reason, ())
    held = in_epoch(COPIES, members=["h", "other"], held={"h": (0,)})
    holding = said_of(held, refused, host("other"))["h"]
    assert (holding.outcome, holding.holds) == (outcome, (0,))
    assert holding.reason.startswith(f"{reason}; what it holds ")


def test_a_host_that_failed_says_so_after_the_object_has_left_memory() -> None:
    hosts = met([host("a"), host("b"), host("h")])
    parcel = in_epoch(COPIES, members=["a", "b"], held={"a": (0,), "b": (0,)}, durable=True)
    hosts.on_failed("h", "o-1", "its disk refuses")
    said = {each.host.node_id: each for each in explain(Placed(parcel, 10, Policy.BALANCED), hosts, 0)}
    assert (said["h"].outcome, said["a"].outcome) == (Outcome.FAILING, Outcome.HOLDS)
    assert said["h"].reason == "what was brought there failed: its disk refuses; it is tried again later"
    other = replace(parcel, object_id="o-2")
    said = {each.host.node_id: each for each in explain(Placed(other, 10, Policy.BALANCED), hosts, 0)}
    assert said["h"].outcome is Outcome.NOT_NEEDED
    assert said["h"].reason.endswith("; the last that was brought there failed: its disk refuses")
    hosts.on_took("h")
    said = {each.host.node_id: each for each in explain(Placed(parcel, 10, Policy.BALANCED), hosts, 0)}
    assert said["h"].outcome is Outcome.NOT_NEEDED
    assert "failed" not in said["h"].reason


def test_a_domain_that_has_its_part_and_hosts_that_come_later() -> None:
    said = said_of(COPIES, host("a", "x"), host("b", "x"), host("c", room_bytes=20))
    assert said["c"].outcome is Outcome.GETS
    assert said["c"].reason == "fails with no other host; 20 bytes free for this node"
    first, second = sorted((said["a"], said["b"]), key=lambda verdict: verdict.outcome)
    assert first.reason == "in domain x, with 1 of 2 copies; its room is not known yet"
    assert (second.outcome, second.reason) == (Outcome.NOT_NEEDED, "domain x has its part already: 1")
    far = said_of(
        replace(COPIES, copies=1),
        host("near", round_trip_ms=5),
        host("far", round_trip_ms=900),
        policy=Policy.LATENCY,
    )["far"]
    assert far.reason == "1 copies are laid, and others come first by distance; 900 ms away"


def test_what_is_held_stays_and_what_nobody_can_take_is_nobodys() -> None:
    parcel = in_epoch(SHARDS, "a", "b", "gone", "dead", held={"a": (0,), "gone": (2,)})
    said = said_of(parcel, host("a"), host("b"), host("dead", alive=False))
    assert (said["a"].holds, said["b"].gets[0]) == ((0,), 1)
    assert said["gone"].outcome is Outcome.NOT_ALIVE
    assert said["gone"].holds == (2,)
    assert sorted(shard for verdict in said.values() for shard in (*verdict.gets, *verdict.holds)) == [0, 1, 2, 3]
    assert 3 in said["a"].gets + said["b"].gets, "that of a dead host goes on"


def test_what_a_drained_host_holds_is_to_go_elsewhere() -> None:
    parcel = in_epoch(SHARDS, *"aaaa", durable=True, held={"a": (0, 1, 2, 3)})
    said = said_of(parcel, host("a", drained=True), host("b"))
    assert (said["a"].outcome, said["a"].holds) == (Outcome.DRAINED, (0, 1, 2, 3))
    assert said["b"].gets == (0, 1, 2, 3)


@pytest.mark.parametrize("lost", [False, True])
def test_what_a_dead_host_holds_goes_elsewhere_once_it_is_lost(lost: bool) -> None:
    hosts, now_ms = [host(name, alive=name != "a") for name in "abc"], REPAIR_AFTER_MS - (not lost)
    shards = in_epoch(SHARDS, *"aabb", durable=True, held={"a": (0, 1), "b": (2, 3)})
    copies = in_epoch(COPIES, members="abc", durable=True, held={"a": (0,), "b": (0,)})
    for parcel, gone in ((shards, (0, 1)), (copies, (0,))):
        said = said_of(parcel, *hosts, now_ms=now_ms)
        assert (said["a"].outcome, said["a"].holds, said["a"].gets) == (Outcome.NOT_ALIVE, gone, ())
        assert sorted((*said["b"].gets, *said["c"].gets)) == ([*gone] if lost else [])


def test_a_host_that_keeps_failing_gets_nothing_where_another_can_take_it() -> None:
    failed = {"a": Failed(FAILING, 60_000, 1)}
    for parcel in (in_epoch(SHARDS, *"aabb", failed=failed), in_epoch(COPIES, members="abc", failed=failed)):
        said = said_of(parcel, *(host(name) for name in "abc"))
        assert (said["a"].outcome, said["a"].gets) == (Outcome.FAILING, ())
        assert said["a"].reason == "what was brought there failed; it is tried again later"
        assert said["b"].gets
        assert said["c"].gets


def test_a_host_beyond_the_epoch_is_seen_where_the_next_one_names_it() -> None:
    said = said_of(in_epoch(COPIES, members="a", durable=True, held={"a": (0,)}), host("a"), host("b"))
    assert (said["a"].outcome, said["b"].gets) == (Outcome.HOLDS, (0,))


def test_what_is_being_brought_is_what_a_host_gets() -> None:
    said = said_of(in_epoch(COPIES, members="abc", flights={"a": 1, "b": 1}), *(host(name) for name in "abc"))
    assert [said[name].gets for name in "abc"] == [(0,), (0,), ()]


def test_those_with_a_part_come_first() -> None:
    parcel = in_epoch(COPIES, members="bch", held={"h": (0,)})
    verdicts = verdicts_of(parcel, host("c", alive=False), host("b"), host("h"))
    assert [verdict.host.node_id for verdict in verdicts] == ["h", "b", "c"]
