"""What relays and ends of ways keep is bounded, and who was talked to long ago makes room for others."""

from __future__ import annotations

import gc
import itertools

import pytest
from still_link import StillLink

from offgrid_tools.emulators.relay_mesh import MemoryMesh, RadioMesh
from offgrid_transports.answers import Request
from offgrid_transports.calls import End
from offgrid_transports.path import Path
from offgrid_transports.relay import ends
from offgrid_transports.relay.circuits import CIRCUITS_MAX, Circuit, Circuits
from offgrid_transports.relay.frames import Answer, Ask
from offgrid_transports.relay.ground import FLOODS_MAX
from offgrid_transports.relay.metric import Metric
from offgrid_transports.relay.routes import ROUTES_MAX, Routes
from offgrid_transports.relay.seeking import PASSED_MAX, _Passed

FEW = 4


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> MemoryMesh:
    """All hear n1, and nobody else."""
    monkeypatch.setattr(ends, "RELAYED_MAX", FEW)
    mesh = MemoryMesh(3 * FEW)
    mesh.hears = lambda a, b: 1 in (a, b)
    mesh.beacons()
    return mesh


def links_of(mesh: MemoryMesh) -> int:
    return len(mesh.nodes[0].endpoint._dispatch.transports)


def test_more_nodes_than_may_be_at_once_are_called_over_others_one_after_the_other(hub: MemoryMesh) -> None:
    for turn, at in itertools.product(range(2), range(2, 3 * FEW)):
        assert hub.asked(hub.nodes[0], f"n{at}", b"%d" % turn).end is End.OK
        assert links_of(hub) <= FEW + 1
    assert len(hub.nodes[2].requests) == 2


def test_who_made_room_is_called_and_calls_over_the_session_that_there_was(hub: MemoryMesh) -> None:
    assert hub.asked(hub.nodes[0], "n2", b"1").end is End.OK
    session = hub.nodes[0].endpoint.session_of("n2")
    for at in range(3, 3 * FEW):
        assert hub.asked(hub.nodes[0], f"n{at}", b"x").end is End.OK
    gc.collect()
    assert hub.asked(hub.nodes[2], "n0", b"2").end is End.OK
    assert hub.asked(hub.nodes[0], "n2", b"3").end is End.OK
    assert hub.nodes[0].endpoint.session_of("n2") is session


def test_a_call_under_way_makes_no_room_and_one_too_many_is_dropped(hub: MemoryMesh) -> None:
    first = hub.nodes[0]
    open_requests: list[tuple[int, Request]] = []
    for at in range(2, 2 + FEW):
        hub.nodes[at].endpoint.on_request = lambda request, at=at: open_requests.append((at, request))
        first.call(f"n{at}", b"slow", 600_000)
        hub.run(1)
    assert len(open_requests) == FEW
    with pytest.raises(ends.TransportError, match="talked to over others"):
        first.call(f"n{2 + FEW}", b"x", 5_000)
    for at, request in open_requests:
        hub.nodes[at].endpoint.respond(request, b"late")
    hub.run(10)
    assert [reply.body for reply in first.replies] == [b"late"] * FEW
    assert hub.asked(first, f"n{2 + FEW}", b"x").end is End.OK, "there is room now"


def test_a_circuit_in_the_place_of_another_leaves_none_of_its_labels() -> None:
    numbers = itertools.count(1)
    circuits = Circuits(lambda: next(numbers), lambda circuit: None)
    for _ in range(2 * CIRCUITS_MAX):
        circuit = Circuit(b"from", b"goal", (), 1, 0, Metric(0, 0, 0, 1200, False))
        circuit.forth.before = Path(StillLink(shared=False, frame_bytes=1200), "x")
        circuits.add(0, circuit)
        last = circuits.label(circuit, circuit.forth), circuits.label(circuit, circuit.back)
    assert [label for label in range(1, next(numbers)) if circuits.has(label)] == [*last]


def test_of_those_whose_ways_are_distrusted_no_more_are_kept_than_of_ways() -> None:
    routes = Routes()
    for number in range(2 * ROUTES_MAX):
        routes.distrust(number.to_bytes(4))
    kept = [number for number in range(2 * ROUTES_MAX) if routes.is_distrusted(number.to_bytes(4))]
    assert kept == [*range(ROUTES_MAX, 2 * ROUTES_MAX)]


def test_of_answers_that_were_passed_on_no_more_are_kept_than_may_be() -> None:
    mesh = MemoryMesh(1)
    seeking, link = mesh.nodes[0].relay._seeking, StillLink(shared=True, frame_bytes=254)
    mesh.nodes[0].relay.attach(link)
    mesh.nodes[0].relay._ground.neighbours.on_heard(0, b"aaaa", Path(link, "x"))
    for number in range(2 * PASSED_MAX):
        answer = Answer(1, 1, number.to_bytes(4), b"sour", (b"aa", b"bb"))
        seeking._pass(_Passed(answer, b"aa", 0))
    assert len(seeking._passed) == PASSED_MAX


def test_of_questions_that_wait_for_their_share_of_a_link_no_more_are_kept_than_may_be() -> None:
    mesh = RadioMesh(1)
    ground = mesh.nodes[0].relay._ground
    for number in range(10 * FLOODS_MAX):
        ground.flood(ground.links[0], Ask(number, 1, False, b"targ", b"sour", ()))
    assert mesh.nodes[0].relay.kept["floods"] == FLOODS_MAX
    mesh.nodes[0].relay._arm()
    mesh.run(3_600)
    assert mesh.nodes[0].relay.kept["floods"] == 0
