"""Ways and neighbours that are gone before anything was opened there are given up in time, and others are taken."""

from __future__ import annotations

import pytest

from offgrid_tools.emulators.relay_mesh import MemoryMesh, RadioMesh, RelayNode
from offgrid_transports.calls import End
from offgrid_transports.memory import Faults
from offgrid_transports.relay.frames import Kind, hop_of
from offgrid_transports.relay.ground import name_of
from offgrid_transports.relay.pending import WAYS_MAX
from offgrid_transports.transport import Priority

Made = type[MemoryMesh | RadioMesh]
TIMEOUT_S = {MemoryMesh: 20, RadioMesh: 60}  # of each half is enough


def over(mesh: MemoryMesh | RadioMesh, *edges: tuple[int, int]) -> None:
    """Who hears whom, from now on."""
    mesh.hears = lambda a, b: (a, b) in edges or (b, a) in edges
    if isinstance(mesh, RadioMesh):
        mesh.channel.forget_reach()


@pytest.mark.parametrize("kind", [MemoryMesh, RadioMesh])
def test_a_neighbour_that_moved_before_it_was_called_is_found_where_it_is_now(kind: Made) -> None:
    mesh = kind(3)
    over(mesh, (0, 1), (0, 2), (1, 2))
    mesh.beacons()
    over(mesh, (0, 1), (1, 2))
    reply = mesh.asked(mesh.nodes[0], "n2", b"x", TIMEOUT_S[kind] * 1000)
    assert reply.end is End.OK, reply
    assert mesh.now_ms() < 3_000 + TIMEOUT_S[kind] * 500, "well before its time was up"


@pytest.mark.parametrize("kind", [MemoryMesh, RadioMesh])
@pytest.mark.parametrize("gone", ["first", "second"])
def test_a_way_that_broke_before_it_was_used_is_given_up_for_another(kind: Made, gone: str) -> None:
    """n5 has n4 found over n0, which so knows the way; it leads over one of n1 and n3, and n2 or n6 behind."""
    mesh = kind(7)
    edges = ((5, 0), (0, 1), (0, 3), (1, 2), (3, 2), (1, 6), (3, 6), (2, 4), (6, 4))
    over(mesh, *edges)
    mesh.beacons()
    assert mesh.asked(mesh.nodes[5], "n4", b"1").end is End.OK
    hops = mesh.nodes[0].relay.hops_to(mesh.nodes[4].public)
    assert hops is not None
    hop = hops[0 if gone == "first" else 1]
    taken = next(at for at, node in enumerate(mesh.nodes) if name_of(node.public)[:2] == hop)
    over(mesh, *(edge for edge in edges if taken not in edge))
    began_ms = mesh.now_ms()
    reply = mesh.asked(mesh.nodes[0], "n4", b"2", TIMEOUT_S[kind] * 1000)
    assert reply.end is End.OK, reply
    assert mesh.now_ms() - began_ms < TIMEOUT_S[kind] * 500


def test_opens_to_somebody_who_is_nowhere_end_and_the_caller_learns_of_it() -> None:
    mesh = RadioMesh(3)
    over(mesh, (0, 1), (0, 2), (1, 2))
    mesh.beacons()
    over(mesh, (0, 1))
    mesh.nodes[0].call("n2", b"x", 3_600_000)
    mesh.run(1_800)
    assert [reply.end for reply in mesh.nodes[0].replies] == [End.UNKNOWN], "it left with the hello"
    before = mesh.channel.counts.frames  # the last search is in vain, and over
    mesh.run(3_000)
    assert mesh.channel.counts.frames == before


@pytest.mark.parametrize("kind", [MemoryMesh, RadioMesh])
def test_who_is_switched_off_is_looked_for_ever_more_seldom_and_nobody_else_is_blamed(kind: Made) -> None:
    """n0 and n5 have called n4 at the end of the row; n1 to n3 know the way, and hand all on."""
    mesh = kind(6)
    edges = ((0, 1), (1, 2), (2, 3), (3, 4), (2, 5))
    over(mesh, *edges)
    mesh.beacons()
    for caller in (mesh.nodes[0], mesh.nodes[5]):
        assert mesh.asked(caller, "n4", b"x").end is End.OK
    over(mesh, *(edge for edge in edges if edge != (3, 4)))
    first, target = mesh.nodes[0], mesh.nodes[4].public
    while mesh.now_ms() < 3_600_000:
        if first.relay.may_reach(target):
            mesh.asked(first, "n4", b"z", 20_000)
        mesh.run(20)
    assert first.relay.counts["searches_failed"] <= 8, "30 s, 60 s, up to an hour"
    assert first.relay.counts["searches"] <= 9
    assert first.relay.kept["shunned"] == 0
    over(mesh, *edges)
    mesh.run(3_600)
    mesh.beacons()
    assert mesh.asked(first, "n4", b"y").end is End.OK


def test_a_lossy_way_is_not_given_up_while_it_opens_at_all() -> None:
    """Each hop loses a quarter both ways: an OPEN that is repeated from hop to hop arrives."""
    mesh = MemoryMesh(6, faults=Faults(loss=0.25, delay_ms=20))
    for _ in range(5):
        mesh.beacons()
    reply = mesh.asked(mesh.nodes[0], "n5", b"x", 60_000)
    assert reply.end is End.OK, reply


def swallow_opens(node: RelayNode) -> None:
    """It says that it has them, hands none on, and says nothing of that."""
    link = node.links[0]
    send = link.send

    def some(address: str, frame: bytes, *priority: Priority) -> bool:
        return frame[0] == Kind.OPEN or send(address, frame, *priority)

    link.send = some  # type: ignore[method-assign, assignment]
    node.relay._opening._give_up = lambda circuit, way: None


def test_a_way_whose_relay_keeps_the_opens_for_itself_is_given_up_by_its_end() -> None:
    """n0 to n3, over n1, or over n2."""
    mesh = MemoryMesh(4)
    over(mesh, (0, 1), (1, 3), (0, 2), (2, 3))
    mesh.beacons()
    for node in mesh.nodes[1:3]:
        mesh.nodes[0].relay._ground.learn(name_of(mesh.nodes[3].public), (hop_of(name_of(node.public)),), 1)
    hops = mesh.nodes[0].relay.hops_to(mesh.nodes[3].public)
    taken = next(node for node in mesh.nodes if (hop_of(name_of(node.public)),) == hops)
    swallow_opens(taken)
    reply = mesh.asked(mesh.nodes[0], "n3", b"x", 30_000)
    assert reply.end is End.OK, reply
    assert mesh.nodes[0].relay.counts["ways_given_up"] == 1
    assert mesh.now_ms() < 15_000


def test_where_no_way_opens_all_is_given_up_in_the_end() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    swallow_opens(mesh.nodes[1])
    mesh.nodes[0].call("n2", b"x", 3_600_000)
    mesh.run(7_200)
    assert mesh.nodes[0].relay.counts["ways_all_failed"] >= 1
    assert len(mesh.nodes[0].replies) == 1
    assert mesh.nodes[0].relay.counts["searches"] <= 2 * WAYS_MAX
    assert mesh.nodes[0].relay.kept["waiting"] == 0
