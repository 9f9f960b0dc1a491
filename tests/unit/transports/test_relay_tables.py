"""What relays keep of ways, neighbours and labels: soft, bounded, and the best of it first."""

from __future__ import annotations

import itertools

from still_link import StillLink

from offgrid_transports.path import Path
from offgrid_transports.relay.circuits import CIRCUITS_MAX, IDLE_MS, OF_ONE_MAX, Circuit, Circuits
from offgrid_transports.relay.metric import Metric
from offgrid_transports.relay.neighbours import NEIGHBOUR_MS, NEIGHBOURS_MAX, PLACES_MAX, PROVED_MAX, Neighbours
from offgrid_transports.relay.routes import ROUTE_MS, ROUTES_MAX, Routes

METRIC = Metric(0, 0, 0, 1200, False)
LINK = StillLink(shared=False, frame_bytes=1200)


def path(address: str) -> Path:
    return Path(LINK, address)


def circuit(number: int, who: str | None) -> Circuit:
    return Circuit(number.to_bytes(4), b"targ", (b"ow",), 1, 0, METRIC, who=who)


def test_who_is_known_to_be_somewhere_is_found_by_the_place() -> None:
    neighbours = Neighbours()
    neighbours.on_heard(0, b"said", path("x"))
    assert not neighbours.has_proved(1, path("x"))
    neighbours.on_heard(0, b"seen", path("x"), 1_000)
    neighbours.on_heard(0, b"here", path("x"), 500)
    assert (neighbours.has_proved(1, path("x")), neighbours.has_proved(1, path("y"))) == (True, False)
    neighbours.lost(b"seen", path("x"))
    assert (neighbours.has_proved(499, path("x")), neighbours.has_proved(500, path("x"))) == (True, False)
    for number in range(2 * PROVED_MAX):
        neighbours.on_heard(0, b"seen", path(str(number)), 1_000)
    assert len(neighbours._proved) == PROVED_MAX


def test_labels_lead_to_a_circuit_and_a_direction_until_it_is_dropped() -> None:
    numbers, dropped = itertools.count(1), list[Circuit]()
    circuits = Circuits(lambda: next(numbers), dropped.append)
    one = circuit(1, "a")
    circuits.add(0, one)
    forth, back = circuits.label(one, one.forth), circuits.label(one, one.back)
    assert circuits.label(one, one.forth) == forth, "given once"
    assert circuits.by_label(forth) == (one, one.forth)
    assert circuits.by_label(back) == (one, one.back)
    circuits.drop(one)
    assert circuits.by_label(forth) is None
    assert dropped == [one]


def test_one_neighbour_takes_no_more_than_its_share_and_all_no_more_than_there_is() -> None:
    circuits = Circuits(lambda: 1, lambda circuit: None)
    for number in range(OF_ONE_MAX + 10):
        circuits.add(0, circuit(number, "greedy"))
    assert len(circuits) == OF_ONE_MAX
    for number in range(10_000, 10_000 + CIRCUITS_MAX):
        circuits.add(0, circuit(number, str(number)))
    assert len(circuits) == CIRCUITS_MAX


def test_a_circuit_that_serves_somebody_gives_way_to_none_of_others_that_serve_nobody() -> None:
    circuits = Circuits(lambda: 1, lambda circuit: None)
    serving = [circuit(number, str(number)) for number in range(CIRCUITS_MAX - 1)]
    for each in serving:
        each.proved = True
        assert circuits.add(0, each)
    for number in range(CIRCUITS_MAX, CIRCUITS_MAX + 10):
        assert circuits.add(0, circuit(number, "made up"))
    circuits.all()[-1].proved = True
    assert not circuits.add(0, circuit(9_000, "made up")), "there is no room"
    assert circuits.add(0, circuit(9_001, None)), "but for this node itself"
    assert len(circuits) == CIRCUITS_MAX
    assert {*serving[1:]} <= {*circuits.all()}


def test_what_is_used_stays_and_what_idles_goes() -> None:
    circuits = Circuits(lambda: 1, lambda circuit: None)
    used, idle = circuit(1, "a"), circuit(2, "b")
    circuits.add(0, used)
    circuits.add(0, idle)
    circuits.use(IDLE_MS, used)
    circuits.add(IDLE_MS + 1, circuit(3, "c"))
    assert used in circuits.all()
    assert idle not in circuits.all()


def test_a_neighbour_is_where_it_was_heard_lately() -> None:
    neighbours = Neighbours()
    neighbours.on_heard(0, b"aaaa", path("1"))
    assert neighbours.path(1, b"aa") == path("1")
    assert neighbours.is_near(1, b"aaaa")
    assert not neighbours.is_near(1, b"aabb"), "another one whose name begins so"
    assert neighbours.path(NEIGHBOUR_MS + 1, b"aa") is None
    neighbours.lost(b"aa", path("1"))
    assert len(neighbours) == 0


def test_two_who_share_a_hop_are_told_apart_by_their_names() -> None:
    neighbours = Neighbours()
    neighbours.on_heard(0, b"aa", path("1"))
    assert neighbours.path(1, b"aaaa") == path("1"), "perhaps, for it has not said its name"
    neighbours.on_heard(0, b"aaaa", path("1"))
    neighbours.on_heard(0, b"aabb", path("2"))
    assert neighbours.path(1, b"aaaa") == path("1")
    assert neighbours.path(1, b"aabb") == path("2")
    neighbours.lost(b"aabb", path("2"))
    assert neighbours.is_near(1, b"aaaa")
    assert not neighbours.is_near(1, b"aabb")


def test_where_a_neighbour_has_proved_to_be_nothing_else_that_is_said_of_it_counts() -> None:
    neighbours = Neighbours()
    neighbours.on_heard(0, b"aaaa", path("proved"), NEIGHBOUR_MS)
    neighbours.on_heard(1, b"aaaa", path("said"))
    assert neighbours.path(2, b"aa") == neighbours.path(2, b"aaaa") == path("proved")
    neighbours.on_heard(3, b"aaaa", path("moved"), NEIGHBOUR_MS)
    assert neighbours.path(4, b"aa") == path("moved")
    neighbours.on_again(5, b"aa", path("nowhere"))
    assert neighbours.path(NEIGHBOUR_MS + 4, b"aa") is None, "what anybody may say makes no place"


def test_of_neighbours_and_their_places_no_more_are_kept_than_may_be() -> None:
    neighbours = Neighbours()
    for number in range(2 * NEIGHBOURS_MAX):
        neighbours.on_heard(number, number.to_bytes(2), path("x"))
    assert len(neighbours) == NEIGHBOURS_MAX
    for number in range(2 * PLACES_MAX):
        neighbours.on_heard(0, b"aa", path(str(number)))
    for number in range(PLACES_MAX, 2 * PLACES_MAX):
        neighbours.lost(b"aa", path(str(number)))
    assert neighbours.path(1, b"aa") is None, "those before were forgotten"


def test_who_has_proved_where_it_is_gives_way_to_no_made_up_ones() -> None:
    neighbours = Neighbours()
    for number in range(NEIGHBOURS_MAX - 1):
        neighbours.on_heard(0, number.to_bytes(4)[::-1], path("x"), NEIGHBOUR_MS)
    for number in range(60_000, 61_000):
        neighbours.on_heard(1, number.to_bytes(2), path("y"))
    assert all(neighbours.is_near(2, number.to_bytes(4)[::-1]) for number in range(NEIGHBOURS_MAX - 1))
    for number in range(NEIGHBOURS_MAX, NEIGHBOURS_MAX + 2):
        neighbours.on_heard(2, number.to_bytes(4)[::-1], path("z"), NEIGHBOUR_MS)
        assert neighbours.is_near(3, number.to_bytes(4)[::-1]), "who proves it finds room"
    assert len(neighbours) == NEIGHBOURS_MAX


def test_a_way_that_was_proved_gives_way_to_no_made_up_ones() -> None:
    routes = Routes()
    for number in range(ROUTES_MAX):
        routes.prove(0, number.to_bytes(4), (b"aa",), 1)
    for number in range(1_000, 2_000):
        routes.learn(1, number.to_bytes(4), (), 1)
    assert all(routes.get(2, number.to_bytes(4)) is not None for number in range(ROUTES_MAX))


def test_a_cheaper_way_takes_the_place_of_another_or_else_a_shorter_one_and_old_ones_go() -> None:
    routes = Routes()
    routes.learn(0, b"targ", (b"aa", b"bb"), 1)
    routes.learn(0, b"targ", (b"aa", b"bb", b"cc"), 1)
    routes.learn(0, b"targ", (b"ee",), 2)
    route = routes.get(1, b"targ")
    assert route is not None
    assert route.hops == (b"aa", b"bb")
    assert routes.get(ROUTE_MS + 1, b"targ") is None
    routes.forget_over(b"aa")
    assert len(routes) == 0
    for number in range(2 * ROUTES_MAX):
        routes.learn(0, number.to_bytes(4), (), 1)
    assert len(routes) == ROUTES_MAX
