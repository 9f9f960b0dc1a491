"""What recordings, forgeries and namesakes can do to ways over several hops: cost a bounded part of the air."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count

import pytest

from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.relay_mesh import PSK, SF7, MemoryMesh, Mesh, RadioMesh, RelayNode
from offgrid_transports.beacons import BEACON, Beacon, write_beacon
from offgrid_transports.calls import End
from offgrid_transports.memory import Faults
from offgrid_transports.relay.circuits import Circuit
from offgrid_transports.relay.custody import TRIES_MAX, Custody
from offgrid_transports.relay.frames import TURNS, Ask, Kind, Open, hop_of, read, write
from offgrid_transports.relay.ground import name_of
from offgrid_transports.relay.link import CARRIED, OPENS, REPLIES
from offgrid_transports.relay.neighbours import NEIGHBOURS_MAX
from offgrid_transports.session import ASKS
from offgrid_transports.transport import BROADCAST

ONE, OTHER = "n415", "n842"  # whose names begin with the same two bytes
SLOW = Faults(delay_ms=5)


Edges = set[tuple[int, int]]


def on_network(*names: str, edges: Edges | None = None) -> MemoryMesh:
    """In a row unless `edges` say who hears whom, each at the address of its place."""
    mesh = MemoryMesh(0, faults=SLOW)
    _place(mesh, edges)
    for at, name in enumerate(names):
        mesh.nodes.append(RelayNode(mesh, name, [mesh.network.attach(f"n{at}")]))
    mesh.beacons()
    return mesh


def on_air(*names: str, edges: Edges | None = None) -> RadioMesh:
    mesh = RadioMesh(0)
    _place(mesh, edges)
    for at, name in enumerate(names):
        mesh.nodes.append(RelayNode(mesh, name, [AirLink(f"n{at}", mesh.channel, SF7)]))
    mesh.beacons()
    return mesh


def _place(mesh: Mesh, edges: Edges | None) -> None:
    if edges is not None:
        mesh.hears = lambda one, other: (min(one, other), max(one, other)) in edges


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
        mesh = kind("a", "b", ONE, OTHER, "d", "e", edges={(0, 1), (1, 2), (1, 3), (2, 4), (3, 5)})
        for number, name in enumerate(("d", "e", ONE, OTHER, "d", "e")):
            assert_answered(mesh, mesh.nodes[0], name, b"%d" % number, seconds=60)
        assert mesh.total("renamed") <= 2


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
        for node, place in ((mesh.nodes[1], 1), (mesh.nodes[0], 0)):
            for other in {0, 2} if place else {1}:
                path = node.relay._ground.next_path(name_of(mesh.nodes[other].public))
                assert path is not None
                assert path.address == f"n{other}"
        assert_answered(mesh, mesh.nodes[0], "c", seconds=10)

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

    def test_a_recorded_open_turns_nothing_back(self) -> None:
        mesh = on_network("a", "b", "c")
        heard = recorded(mesh, Kind.OPEN)
        assert_answered(mesh, mesh.nodes[0], "c")
        _, _, frame = heard[0]
        said = read(PSK, frame, shared=False)
        assert isinstance(said, Open)
        before = said._replace(turn=(said.turn - 1) % TURNS, label=1)
        mesh.network.carry("n0", "n1", write(PSK, before, shared=False))
        mesh.run(1)
        assert mesh.nodes[1].relay.counts["opens_stale"] == 1
        assert circuit_at(mesh, 1).back.out == said.label
        assert_answered(mesh, mesh.nodes[0], "c", b"y", seconds=5)

    def test_the_last_open_said_again_from_elsewhere_turns_nothing_there(self) -> None:
        """Whoever forges where a datagram comes from would have the target's answers sent to anybody."""
        mesh = on_network("a", "b", "c")
        heard = recorded(mesh, Kind.OPEN)
        assert_answered(mesh, mesh.nodes[0], "c")
        frame = next(frame for _, target, frame in reversed(heard) if target == "n2")
        stranger, got = mesh.network.attach("n7"), list[bytes]()
        stranger.on_frame = lambda address, frame: got.append(frame)
        mesh.hears = lambda one, other: abs(one - other) == 1 or 7 in (one, other)
        for number in range(5):
            mesh.network.carry("n7", "n2", frame)
            assert_answered(mesh, mesh.nodes[0], "c", b"%d" % number * 500, seconds=1)
        assert got == []
        assert mesh.nodes[2].relay.counts["opens_stale"] == 5

    def test_recorded_opens_take_a_share_of_the_air_and_no_more(self) -> None:
        mesh = on_air("a", "b", "c")
        links = [node.links[0] for node in mesh.nodes]
        heard = list[bytes]()
        take = links[1].on_frame

        def listen(address: str, frame: bytes) -> None:
            heard.append(frame)
            take(address, frame)

        links[1].on_frame = listen
        assert_answered(mesh, mesh.nodes[0], "c")
        opens = [frame for frame in heard if frame[0] == Kind.OPEN]
        mesh.run(4 * 3_600)
        mesh.beacons()
        began_ms, before_ms = mesh.now_ms(), sent_ms(mesh, 1)
        for number in range(1_500):
            said = read(PSK, opens[0], shared=True)
            assert isinstance(said, Open)
            take(BROADCAST, write(PSK, said._replace(ours=number + 1), shared=True))
            mesh.run(0.2)
        took_ms = mesh.now_ms() - began_ms
        assert mesh.nodes[1].relay.counts["opens_refused"] > 500
        assert sent_ms(mesh, 1) - before_ms < (OPENS[0] * 5 + REPLIES[1]) * took_ms, "each is repeated four times"


class TestGarbage:
    def test_it_is_no_word_of_the_other_end(self) -> None:
        mesh = on_network("a", "b", "c")
        assert_answered(mesh, mesh.nodes[0], "c")
        label = circuit_at(mesh, 0).back.label
        assert label is not None
        mesh.hears = lambda one, other: {one, other} == {0, 1}
        ended = list[End]()
        mesh.nodes[0].call("c", b"x", 120_000, lambda reply: ended.append(reply.end))
        for number in count():
            if ended:
                break
            garbage = b"\0" + label.to_bytes(2) + (1_000 + number & 0xFFFF).to_bytes(2) + bytes(20)
            mesh.network.carry("n1", "n0", garbage)
            mesh.run(0.2)
        assert mesh.total("circuits_silent") >= 1, "though something came all the time"

    def test_under_a_label_it_takes_a_share_of_the_air_and_no_more(self) -> None:
        """However fast it comes: its sender may have a faster radio."""
        mesh = on_air("a", "b", "c")
        assert_answered(mesh, mesh.nodes[0], "c")
        label = circuit_at(mesh, 1).forth.label
        assert label is not None
        began_ms, before_ms = mesh.now_ms(), sent_ms(mesh, 1)
        for number in range(3_000):
            head = bytes((ASKS,)) + label.to_bytes(2) + (1_000 + number & 0xFFFF).to_bytes(2)
            mesh.nodes[1].links[0].on_frame(BROADCAST, head + number.to_bytes(200))
            mesh.run(0.2)
        took_ms = mesh.now_ms() - began_ms
        assert mesh.nodes[1].relay.counts["relay_refused"] > 0
        assert sent_ms(mesh, 1) - before_ms < (CARRIED[0] + REPLIES[1] + 0.2) * took_ms
        mesh.run(600)
        assert_answered(mesh, mesh.nodes[0], "c", b"y", seconds=600)

    def test_who_sends_it_keeps_nobody_else_from_hearing_that_a_label_is_unknown(self) -> None:
        mesh = on_network("a", "b", "c")
        mesh.network.attach("n7")
        mesh.hears = lambda one, other: abs(one - other) == 1 or 7 in (one, other)
        said = recorded(mesh, Kind.UNKNOWN)
        for number in range(3_000):
            mesh.network.carry("n7", "n1", b"\0" + number.to_bytes(2) + bytes(30))
            mesh.run(0.01)
        assert len(said) < 30 * 20 + 100, "a share"
        for number in range(100):
            mesh.network.carry("n7", "n1", b"\0" + number.to_bytes(2) + bytes(30))
        mesh.run(0.02)
        said.clear()
        mesh.network.carry("n0", "n1", b"\0\7\7" + bytes(30))
        mesh.run(0.1)
        assert [target for _, target, _ in said] == ["n0"]

    def test_a_frame_that_is_asked_for_again_and_again_is_sent_no_more_often_than_others(self) -> None:
        custody = Custody()
        for mark in (b"aa", b"bb"):
            custody.hold(0, b"\0LL" + mark, asks=False, sent_ms=1, wait_ms=math.inf)
        assert sum(len(custody.last(2)) for _ in range(100)) == 2 * (TRIES_MAX - 1)


class TestMadeUp:
    def test_beacons_of_nobody_place_nobody(self) -> None:
        mesh = on_network("a", "b", "c")
        for number in range(2 * NEIGHBOURS_MAX):
            mesh.network.carry("n0", "n1", write_beacon(PSK, Beacon(number.to_bytes(8, "little"), 2**40, 60)))
        mesh.run(1)
        assert mesh.nodes[1].relay.kept["neighbours"] == 2

    def test_neighbours_that_nobody_knows_share_what_one_may_ask(self) -> None:
        mesh = on_network("a", "b", "c")
        b = mesh.nodes[1]
        for number in range(500):
            hop = (40_000 + number).to_bytes(2)
            ask = Ask(number, 8, False, b"none", b"from", (hop,), 1, ())
            mesh.network.carry("n0", "n1", write(PSK, ask, shared=False))
        mesh.run(0.01)
        refused = b.relay.counts["asks_refused"]
        assert refused > 450
        ask = Ask(1, 8, False, b"none", name_of(mesh.nodes[0].public), (), 1, ())
        mesh.network.carry("n0", "n1", write(PSK, ask, shared=False))
        mesh.run(0.01)
        assert b.relay.counts["asks_refused"] == refused, "who is known has a share of its own"


def circuit_at(mesh: Mesh, place: int) -> Circuit:
    return mesh.nodes[place].relay._circuits.all()[-1]


def sent_ms(mesh: RadioMesh, place: int) -> float:
    link = mesh.nodes[place].links[0]
    assert isinstance(link, AirLink)
    return link.sent_us / 1000
