"""What relays keep of ways, neighbours and labels: soft, bounded, and the best of it first."""

from __future__ import annotations

import itertools

from still_link import StillLink

from offgrid_transports.path import Path
from offgrid_transports.relay.circuits import CIRCUITS_MAX, IDLE_MS, OF_ONE_MAX, Circuit, Circuits
from offgrid_transports.relay.metric import Metric
from offgrid_transports.relay.routes import (
    NEIGHBOUR_MS,
    NEIGHBOURS_MAX,
    PATHS_MAX,
    ROUTE_MS,
    ROUTES_MAX,
    Neighbours,
    Routes,
)

METRIC = Metric(0, 0, 0, 1200, False)
LINK = StillLink(shared=False, frame_bytes=1200)


def path(address: str) -> Path:
    return Path(LINK, address)


def circuit(number: int, before: Path | None) -> Circuit:
    made = Circuit(number.to_bytes(4), b"targ", (b"ow",), 1, 0, METRIC)
    made.forth.before = before
    return made


def test_labels_lead_to_a_circuit_and_a_direction_until_it_is_dropped() -> None:
    numbers, dropped = itertools.count(1), list[Circuit]()
    circuits = Circuits(lambda: next(numbers), dropped.append)
    one = circuit(1, path("a"))
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
        circuits.add(0, circuit(number, path("greedy")))
    assert len(circuits) == OF_ONE_MAX
    for number in range(10_000, 10_000 + CIRCUITS_MAX):
        circuits.add(0, circuit(number, path(str(number))))
    assert len(circuits) == CIRCUITS_MAX


def test_what_is_used_stays_and_what_idles_goes() -> None:
    circuits = Circuits(lambda: 1, lambda circuit: None)
    used, idle = circuit(1, path("a")), circuit(2, path("b"))
    circuits.add(0, used)
    circuits.add(0, idle)
    circuits.use(IDLE_MS, used)
    circuits.add(IDLE_MS + 1, circuit(3, path("c")))
    assert used in circuits.all()
    assert idle not in circuits.all()


def test_a_neighbour_is_where_it_was_heard_lately() -> None:
    neighbours = Neighbours()
    neighbours.on_heard(0, b"aa", path("1"), b"aaaa")
    assert neighbours.path(1, b"aa") == path("1")
    assert neighbours.is_near(1, b"aaaa")
    assert not neighbours.is_near(1, b"aabb"), "another one whose name begins so"
    assert neighbours.path(NEIGHBOUR_MS + 1, b"aa") is None
    neighbours.lost(b"aa", path("1"))
    assert len(neighbours) == 0


def test_of_neighbours_and_their_places_no_more_are_kept_than_may_be() -> None:
    neighbours = Neighbours()
    for number in range(2 * NEIGHBOURS_MAX):
        neighbours.on_heard(number, number.to_bytes(2), path("x"))
    assert len(neighbours) == NEIGHBOURS_MAX
    for number in range(2 * PATHS_MAX):
        neighbours.on_heard(0, b"aa", path(str(number)))
    for number in range(PATHS_MAX, 2 * PATHS_MAX):
        neighbours.lost(b"aa", path(str(number)))
    assert neighbours.path(1, b"aa") is None, "those before were forgotten"


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
