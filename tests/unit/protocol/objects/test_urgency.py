"""What is nearest to loss comes first, whatever its number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid_node.protocol.objects.parcels import Parcel, Terms
from offgrid_node.protocol.objects.tables import spreading_key
from offgrid_node.protocol.objects.urgency import NOT_DURABLE_MILLI, OUT_OF_REACH_MILLI, Urgent, spare_milli


def coded(held: dict[str, tuple[int, ...]], needed: int = 2, *, durable: bool = True) -> Parcel:
    weights = dict.fromkeys("abcde", 1_000)
    terms = Terms(weights, (), 0)
    return Parcel(1, "o-x", 2_000, 3, 10, durable, needed, 5, local=False, epoch=1, terms=terms, held=held)


def test_how_near_it_is_is_the_weight_of_living_hosts_whose_loss_loses_it() -> None:
    held = {node: (shard,) for shard, node in enumerate("abcde")}
    for dead, left in (("", 4_000), ("a", 3_000), ("abc", 1_000)):
        assert spare_milli(coded(held), lambda node, dead=dead: node not in dead) == left  # type: ignore[misc]


def test_what_is_not_durable_comes_after_what_one_more_death_loses_and_before_the_rest() -> None:
    assert spare_milli(coded({}, durable=False), lambda node: True) == NOT_DURABLE_MILLI
    one_more, two_more = {"a": (0,), "b": (1,)}, {"a": (0,), "b": (1,), "c": (2,)}
    near, far = (spare_milli(coded(held), lambda node: True) for held in (one_more, two_more))
    assert near < NOT_DURABLE_MILLI < far


def test_what_those_who_are_alive_cannot_give_back_comes_last_unless_it_is_here() -> None:
    held = {"a": (0,), "b": (1,), "c": (2,)}
    gone = coded(held)
    assert spare_milli(gone, lambda node: node == "a") == OUT_OF_REACH_MILLI
    assert spare_milli(replace(gone, local=True), lambda node: node == "a") == 0
    assert spreading_key(2_000, 9) < spreading_key(OUT_OF_REACH_MILLI, 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=40))
def test_each_comes_once_the_most_urgent_first_and_of_equals_who_came_first(added: list[tuple[int, int]]) -> None:
    urgency: dict[str, int] = {}
    waiting = Urgent(urgency.__getitem__)
    best: dict[str, tuple[int, int]] = {}
    for place, (name, wanted) in enumerate(added):
        urgency[str(name)] = wanted
        waiting.add(str(name))
        if str(name) not in best or wanted < best[str(name)][0]:
            best[str(name)] = wanted, place
    popped = []
    while waiting:
        assert waiting.first() == min(best[name][0] for name in best if name not in popped)
        popped.append(waiting.pop())
    assert popped == sorted(best, key=best.__getitem__)


def test_rows_of_what_is_short_are_walked_in_that_order() -> None:
    places = [(3_000, 1), (0, 9), (1_000, 2), (1_000, 1)]
    assert sorted(places) == sorted(places, key=lambda place: spreading_key(*place))
