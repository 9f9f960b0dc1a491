"""What recordings, forgeries and namesakes can do to ways over several hops: cost a bounded part of the air."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.relay_mesh import SF7, MemoryMesh, Mesh, RadioMesh, RelayNode
from offgrid_transports.beacons import BEACON
from offgrid_transports.calls import End
from offgrid_transports.memory import Faults
from offgrid_transports.relay.frames import Kind, hop_of
from offgrid_transports.relay.ground import name_of
from offgrid_transports.transport import BROADCAST

ONE, OTHER = "n415", "n842"  # whose names begin with the same two bytes
SLOW = Faults(delay_ms=5)


def on_network(*names: str) -> MemoryMesh:
    """In a row, each at the address of its place."""
    mesh = MemoryMesh(0, faults=SLOW)
    for at, name in enumerate(names):
        mesh.nodes.append(RelayNode(mesh, name, [mesh.network.attach(f"n{at}")]))
    mesh.beacons()
    return mesh


def on_air(*names: str) -> RadioMesh:
    mesh = RadioMesh(0)
    for at, name in enumerate(names):
        mesh.nodes.append(RelayNode(mesh, name, [AirLink(f"n{at}", mesh.channel, SF7)]))
    mesh.beacons()
    return mesh


def recorded(mesh: MemoryMesh, kind: int) -> list[tuple[str, str, bytes]]:
    """From now on: what was sent of that kind, from where to where."""
    heard, carry = list[tuple[str, str, bytes]](), mesh.network.carry

    def listen(source: str, target: str, frame: bytes) -> None:
        if frame[0] & (0xFF if kind > BEACON else 0xF0) == kind:
            heard.append((source, target, frame))
        carry(source, target, frame)

    mesh.network.carry = listen  # type: ignore[method-assign]
    return heard


def assert_answered(mesh: Mesh, node: RelayNode, peer: str, body: bytes = b"x", seconds: float = 120) -> None:
    reply = mesh.asked(node, peer, body, seconds * 1000)
    assert reply.end is End.OK, reply
    assert reply.body == b"re:" + body


class TestNamesakes:
    """Some two in 26 % of meshes of 200 nodes have names that begin alike."""

    def test_there_are_some(self) -> None:
        mesh = Mesh(1)
        assert hop_of(name_of(mesh.meet(ONE))) == hop_of(name_of(mesh.meet(OTHER)))

    @pytest.mark.parametrize("kind", [on_network, on_air])
    @pytest.mark.parametrize(
        "names", [(ONE, "b", OTHER), (ONE, OTHER, "c"), ("a", ONE, "c", OTHER), (ONE, "b", OTHER, "d")]
    )
    def test_they_reach_each_other_and_others_over_others(
        self, kind: Callable[..., Mesh], names: tuple[str, ...]
    ) -> None:
        mesh = kind(*names)
        assert_answered(mesh, mesh.nodes[0], names[-1], b"there")
        assert_answered(mesh, mesh.nodes[-1], names[0], b"back")

    @pytest.mark.parametrize("kind", [on_network, on_air])
    def test_two_that_are_heard_by_one_are_told_apart(self, kind: Callable[..., Mesh]) -> None:
        """a to d over b, which hears both, of which each leads to another one."""
        mesh = kind("a", "b", ONE, OTHER, "d", "e")
        edges = {(0, 1), (1, 2), (1, 3), (2, 4), (3, 5)}
        mesh.hears = lambda one, other: (min(one, other), max(one, other)) in edges
        if isinstance(mesh, RadioMesh):
            mesh.channel.forget_reach()
        mesh.beacons()
        assert_answered(mesh, mesh.nodes[0], ONE, b"1")
        assert_answered(mesh, mesh.nodes[0], OTHER, b"2")
        assert_answered(mesh, mesh.nodes[0], "d", b"3")
        assert_answered(mesh, mesh.nodes[0], "e", b"4")


class TestRecordings:
    def test_a_recorded_beacon_moves_nobody(self) -> None:
        mesh = on_network("a", "b", "c")
        heard = recorded(mesh, BEACON)
        mesh.beacons()
        mesh.network.attach("n7")
        mesh.hears = lambda one, other: abs(one - other) == 1 or 7 in (one, other)
        mesh.run(7_200)
        mesh.beacons()
        for _, _, frame in heard[:3]:
            mesh.network.carry("n7", BROADCAST, frame)
        mesh.run(1)
        assert_answered(mesh, mesh.nodes[0], "b", seconds=5)
        assert_answered(mesh, mesh.nodes[0], "c", seconds=5)

    def test_a_recorded_answer_makes_no_way(self) -> None:
        mesh = on_network("a", "b", "c")
        heard = recorded(mesh, Kind.ANSWER)
        assert_answered(mesh, mesh.nodes[0], "c")
        mesh.run(8_000)
        mesh.beacons()
        a, c = mesh.nodes[0], mesh.nodes[2].public
        mesh.hears = lambda one, other: (one, other) in {(0, 1), (1, 0)}
        assert heard
        assert a.relay.hops_to(c) is None, "that was long ago"
        for source, target, frame in [*heard]:
            mesh.network.carry(source, target, frame)
        mesh.run(1)
        assert a.relay.hops_to(c) is None
        assert mesh.total("answers_stale") > 0
