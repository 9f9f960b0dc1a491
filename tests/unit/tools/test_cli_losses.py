"""What an object survives, in words: what they say is checked against every set of hosts that could be lost."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import objects_pb2
from offgrid_tools.cli.losses import needs, survives, words_of

NAMES = {f"n{index}": f"host{index}" for index in range(64)}


def held(*shards: int) -> dict[str, int]:
    return {f"n{index}": count for index, count in enumerate(shards)}


@pytest.mark.parametrize(
    ("shards", "needed", "words"),
    [
        ((1, 1, 1), 1, "loss of any 2 of its 3 hosts"),
        ((1, 1), 1, "loss of any 1 of its 2 hosts"),
        ((1,), 1, "no loss: one host keeps it"),
        ((2,) * 10, 12, "loss of any 4 of its 10 hosts"),
        ((1,) * 20, 12, "loss of any 8 of its 20 hosts"),
        ((2, 2, 1, 1, 1), 4, "loss of any 1 of its 5 hosts; not of host0 and host1 together"),
        ((3, 3, 1), 4, "loss of any 1 of its 3 hosts"),
        ((4, 1, 1, 1), 4, "loss of none of its 4 hosts for sure; not of host0"),
        ((2, 2, 2, 1, 1, 1), 4, "loss of any 2 of its 6 hosts; not of host0, host1 and host2 together"),
        ((2,) * 40 + (1,) * 24, 60, "loss of any 22 of its 64 hosts"),
        ((1, 1), 4, "no loss: its hosts hold 2 shards, and 4 are needed"),
    ],
)
def test_the_words(shards: tuple[int, ...], needed: int, words: str) -> None:
    assert words_of(held(*shards), needed, NAMES) == words


@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(1, 12))
def test_what_is_promised_is_so_whichever_hosts_are_lost(shards: list[int], needed: int) -> None:
    has = held(*shards)
    words = words_of(has, needed, NAMES)
    said = re.match(r"loss of (?:any (\d+)|none) of", words)
    if said is None:
        assert sum(shards) < needed
        return
    sure = int(said[1] or 0)

    def left(lost: tuple[str, ...]) -> int:
        return sum(count for node, count in has.items() if node not in lost)

    assert all(left(lost) >= needed for lost in combinations(has, sure))
    fatal = [lost for lost in combinations(has, sure + 1) if left(lost) < needed]
    assert fatal, "one more would have been promised as well"
    for nodes in re.findall(r"; not of ([a-z0-9, ]+)", words):
        lost = tuple(f"n{name[4:]}" for name in re.findall(r"host\d+", nodes))
        assert lost in fatal or tuple(sorted(lost)) in [tuple(sorted(each)) for each in fatal]


def test_before_any_ack_nothing_is_promised_and_its_own_copy_counts_for_itself() -> None:
    made = objects_pb2.Object(local=True)
    assert survives(made, {}) == "no loss yet: no host has acked"
    made.acks.add(node_id="n0")
    made.acks.add(node_id="n1")
    assert survives(made, {}).startswith("loss of any 1 of its 2 hosts; of all of them, while this node")
    made.local = False
    assert survives(made, {}) == "loss of any 1 of its 2 hosts"


def test_of_hosts_that_are_away_nothing_is_promised() -> None:
    made = objects_pb2.Object()
    for node in ("n0", "n1", "n2"):
        made.acks.add(node_id=node)
    made.acks[0].away = True
    assert survives(made, {}) == "loss of any 1 of its 2 hosts; 1 more is away"
    made.acks[1].away = True
    assert survives(made, {}) == "no loss: one host keeps it; 2 more are away"
    made.acks[2].away = True
    assert survives(made, {}) == "no loss: it cannot be read while all of its hosts are away"


def test_what_is_damaged_and_was_never_durable_survives_nothing() -> None:
    made = objects_pb2.Object(state=objects_pb2.OBJECT_STATE_DAMAGED, local=True)
    assert survives(made, {}).startswith("no loss: the copy here is damaged")


def test_of_a_coded_object_shards_count() -> None:
    made = objects_pb2.Object(shards_needed=4, shards_total=7)
    for node, shards in (("n0", [0, 4]), ("n1", [1, 5]), ("n2", [2, 6]), ("n3", [3])):
        made.acks.add(node_id=node, shards=shards)
    assert survives(made, NAMES) == (
        "loss of any 1 of its 4 hosts; not of host0 and host1 together; not of host0 and host2 together; "
        "not of host1 and host2 together"
    )


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5), st.integers(1, 6), st.booleans())
def test_a_host_is_needed_where_the_others_in_reach_have_too_little(
    hosts: list[tuple[int, bool]], needed: int, local: bool
) -> None:
    made = objects_pb2.Object(local=local, shards_needed=needed)
    for index, (shards, away) in enumerate(hosts):
        made.acks.add(node_id=f"n{index}", shards=range(shards), away=away)
    for index in range(len(hosts)):
        rest = sum(shards or 1 for place, (shards, away) in enumerate(hosts) if place != index and not away)
        assert needs(made, f"n{index}") == (not local and rest < needed <= rest + (hosts[index][0] or 1))
    assert not needs(made, "nobody")
