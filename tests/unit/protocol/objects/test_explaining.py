"""What is said of each host is what placement does, and says why in figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.explaining import Outcome, Verdict, Wanted, explain
from offgrid_node.protocol.objects.manifest import FULL_COPIES, Code
from offgrid_node.protocol.objects.placement import assign, choose
from offgrid_node.protocol.objects.preference import Facts, Host, Policy, refusal

COPIES = Wanted("o-1", FULL_COPIES, 10, 2, 1_000, Policy.BALANCED)
SHARDS = Wanted("o-1", Code(2, 4), 10, 0, 1_000, Policy.BALANCED)


def host(name: str, domain: str = "", *, alive: bool = True, **facts: object) -> Host:
    return Host(name, 1_000, domain, alive, Facts(**facts))  # type: ignore[arg-type]


def said_of(wanted: Wanted, *hosts: Host) -> dict[str, Verdict]:
    return {verdict.host.node_id: verdict for verdict in explain(wanted, hosts)}


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
    wanted = replace(SHARDS, policy=policy)
    laid = assign("o-1", hosts, 4, {}, shard_bytes=10, policy=policy)
    for verdict in explain(wanted, hosts):
        assert verdict.gets == tuple(shard for shard, node in enumerate(laid) if node == verdict.host.node_id)
        assert (verdict.outcome is Outcome.GETS) == bool(verdict.gets)
    chosen = {h.node_id for h in choose("o-1", hosts, [], 1_000, 2, copy_bytes=10, policy=policy)}
    for verdict in explain(replace(COPIES, policy=policy), hosts):
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
    holding = said_of(replace(COPIES, held={"h": (0,)}), refused, host("other"))["h"]
    assert (holding.outcome, holding.holds) == (outcome, (0,))
    assert holding.reason.startswith(f"{reason}; what it holds ")


def test_a_domain_that_has_its_part_and_hosts_that_come_later() -> None:
    said = said_of(COPIES, host("a", "x"), host("b", "x"), host("c", room_bytes=20))
    assert said["c"].outcome is Outcome.GETS
    assert said["c"].reason == "fails with no other host; 20 bytes free for this node"
    first, second = sorted((said["a"], said["b"]), key=lambda verdict: verdict.outcome)
    assert first.reason == "in domain x, with 1 of 2 copies; its room is not known yet"
    assert (second.outcome, second.reason) == (Outcome.NOT_NEEDED, "domain x has its part already: 1")
    far = said_of(
        replace(COPIES, copies=1, policy=Policy.LATENCY),
        host("near", round_trip_ms=5),
        host("far", round_trip_ms=900),
    )["far"]
    assert far.reason == "1 copies are laid, and others come first by distance; 900 ms away"


def test_what_is_held_stays_and_what_nobody_can_take_is_nobodys() -> None:
    wanted = replace(SHARDS, laid={0: "a", 1: "b", 2: "gone", 3: "dead"}, held={"a": (0,), "gone": (2,)})
    said = said_of(wanted, host("a"), host("b"), host("dead", alive=False))
    assert (said["a"].holds, said["b"].gets[0]) == ((0,), 1)
    assert said["gone"].outcome is Outcome.NOT_ALIVE
    assert said["gone"].holds == (2,)
    assert sorted(shard for verdict in said.values() for shard in (*verdict.gets, *verdict.holds)) == [0, 1, 2, 3]
    assert 3 in said["a"].gets + said["b"].gets, "that of a dead host goes on"


def test_what_a_drained_host_holds_is_to_go_elsewhere() -> None:
    wanted = replace(SHARDS, laid=dict.fromkeys(range(4), "a"), held={"a": (0, 1, 2, 3)})
    said = said_of(wanted, host("a", drained=True), host("b"))
    assert (said["a"].outcome, said["a"].holds) == (Outcome.DRAINED, (0, 1, 2, 3))
    assert said["b"].gets == (0, 1, 2, 3)


def test_those_with_a_part_come_first() -> None:
    wanted = replace(COPIES, held={"h": (0,)})
    verdicts = explain(wanted, [host("c", alive=False), host("b"), host("h")])
    assert [verdict.host.node_id for verdict in verdicts] == ["h", "b", "c"]
