"""Calls over several hops: found, carried, repaired and moved to another way, sealed end to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest

from offgrid_tools.emulators.channel import USUAL_DBM, Channel
from offgrid_tools.emulators.relay_mesh import SF7, MemoryMesh, Mesh, RadioMesh, RelayNode
from offgrid_tools.emulators.rnode import Firmware, RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_tools.soak.relays import Trial
from offgrid_transports.calls import End
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.memory import Faults
from offgrid_transports.relay.ends import RELAYED_MAX
from offgrid_transports.relay.frames import Kind
from offgrid_transports.relay.ground import name_of
from offgrid_transports.relay.switch import BACKLOG_MAX
from offgrid_transports.session import ASKS
from offgrid_transports.transport import BROADCAST

RANDOM = Random(1).randbytes(32)  # what cannot be said in fewer bytes


def asked(mesh: Mesh, node: RelayNode, peer: str, body: bytes, seconds: float = 120) -> bytes:
    reply = mesh.asked(node, peer, body, seconds * 1000)
    assert reply.end is End.OK, reply
    return reply.body


@pytest.mark.parametrize("kind", [MemoryMesh, RadioMesh])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_node_that_nobody_hears_directly_is_found_and_called(kind: type[MemoryMesh | RadioMesh], count: int) -> None:
    mesh = kind(count)
    mesh.beacons()
    first, last = mesh.nodes[0], mesh.nodes[-1]
    assert asked(mesh, first, last.name, b"hello") == b"re:hello"
    assert asked(mesh, last, first.name, b"back") == b"re:back", "the other way round"
    assert first.relay.hops_to(last.public) is not None
    assert mesh.total("searches") <= 1, "and whoever was found knows the way back"


def test_a_call_of_32_bytes_over_two_hops_takes_twice_the_air_of_one() -> None:
    mesh = RadioMesh(3)
    for node in mesh.nodes:
        node.handle = lambda request: request.body
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n2", RANDOM)
    mesh.run(60)
    before = mesh.air_ms
    asked(mesh, mesh.nodes[0], "n2", RANDOM)
    mesh.run(60)
    assert mesh.air_ms - before <= 460, "four frames, none of them a byte longer"


def test_calls_over_three_relays_that_lose_13_percent_on_each_hop_all_come_through() -> None:
    mesh, calls = RadioMesh(5), 100
    for node in mesh.nodes:
        node.handle = lambda request: request.body
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n4", RANDOM)
    mesh.run(60)
    before = mesh.air_ms
    asked(mesh, mesh.nodes[0], "n4", RANDOM)
    mesh.run(60)
    lossless_ms = mesh.air_ms - before
    mesh.channel.loss, before = 0.13, mesh.air_ms
    for number in range(calls):
        body = Random(number).randbytes(32)
        assert asked(mesh, mesh.nodes[0], "n4", body) == body
        mesh.run(1)
    assert (mesh.air_ms - before) / calls <= 1.7 * lossless_ms, "1.6 over thousands"
    assert len(mesh.nodes[4].requests) == calls + 2, "each was carried out once"


@pytest.mark.parametrize(("count", "loss", "least"), [(3, 0.0, 0.28), (3, 0.1, 0.15)])
def test_ten_kilobytes_over_two_hops_take_their_share_of_the_channel(count: int, loss: float, least: float) -> None:
    mesh, body = RadioMesh(count), Random(1).randbytes(10_000)
    mesh.nodes[-1].handle = lambda request: request.body[-10:]
    mesh.beacons()
    asked(mesh, mesh.nodes[0], f"n{count - 1}", b"")
    mesh.channel.loss, began_ms = loss, mesh.now_ms()
    assert asked(mesh, mesh.nodes[0], f"n{count - 1}", body, 3_600) == body[-10:]
    assert 8 * len(body) / (mesh.now_ms() - began_ms) * 1000 >= least * 5_469


def test_where_one_way_breaks_another_is_found_and_the_session_goes_on() -> None:
    """n0 to n4 over n1 and n2, or over n3 and n2."""
    mesh = MemoryMesh(5, faults=Faults(delay_ms=5))
    edges = {(0, 1), (1, 2), (0, 3), (3, 2), (2, 4)}
    mesh.hears = lambda a, b: (min(a, b), max(a, b)) in edges or (a, b) in edges or (b, a) in edges
    mesh.beacons()
    first, last = mesh.nodes[0], mesh.nodes[4]
    assert asked(mesh, first, "n4", b"1") == b"re:1"
    session = first.endpoint.session_of("n4")
    by = first.relay.hops_to(last.public)
    assert by is not None
    taken = 1 if by[0] == name_of(mesh.nodes[1].public)[:2] else 3
    edges = {(a, b) for a, b in edges if taken not in (a, b)}
    assert asked(mesh, first, "n4", b"2") == b"re:2"
    assert first.endpoint.session_of("n4") is session
    assert [request.body for request in last.requests] == [b"1", b"2"]


def test_a_long_way_is_not_taken_for_a_broken_one() -> None:
    mesh = MemoryMesh(4, faults=Faults(delay_ms=100))
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n3", bytes(100_000))
    for _ in range(20):  # many leave before there can be word of the first
        mesh.nodes[0].call("n3", b"x")
        mesh.run(0.05)
    mesh.run(10)
    assert [reply.end for reply in mesh.nodes[0].replies] == [End.OK] * 20
    assert mesh.total("circuits_silent") == 0


def test_who_does_not_relay_hands_nothing_on() -> None:
    mesh = MemoryMesh(3, hands_on=False)
    mesh.beacons()
    mesh.nodes[0].call("n2", b"x", 30_000)
    mesh.run(60)
    assert len(mesh.nodes[0].replies) == 1
    assert mesh.nodes[0].replies[0].end is not End.OK
    assert mesh.nodes[2].requests == []


def test_nobody_is_looked_for_again_and_again() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    for _ in range(60):
        mesh.nodes[0].call("nobody", b"x", 5_000)
        mesh.run(10)
    assert mesh.total("searches") <= 8
    assert not mesh.nodes[0].relay.may_reach(mesh.meet("nobody"))


def test_a_relay_that_began_anew_is_told_that_it_knows_no_label() -> None:
    mesh = MemoryMesh(3, faults=Faults(delay_ms=5))
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n2", b"1")
    middle = mesh.nodes[1]
    for link in middle.links:
        link.close()
    middle.relay.close()
    mesh.nodes[1] = RelayNode(mesh, "n1", [mesh.network.attach("n1")], hands_on=True)
    mesh.beacons()
    assert asked(mesh, mesh.nodes[0], "n2", b"2") == b"re:2"
    assert len(mesh.nodes[2].requests) == 2


Harm = Callable[[Random, bytes], list[bytes]]
HARMS: dict[str, Harm] = {
    "drops": lambda rng, frame: [] if rng.random() < 0.3 else [frame],
    "doubles": lambda rng, frame: [frame, frame],
    "alters": lambda rng, frame: [_altered(rng, frame) if rng.random() < 0.15 else frame],
    "relabels": lambda rng, frame: [frame, frame[:1] + rng.randbytes(2) + frame[3:]],
}


def _altered(rng: Random, frame: bytes) -> bytes:
    at = rng.randrange(len(frame))
    return frame[:at] + bytes((frame[at] ^ 1 + rng.randrange(255),)) + frame[at + 1 :]


@pytest.mark.parametrize("harm", HARMS)
def test_a_relay_that_does_harm_costs_time_and_nothing_else(harm: str) -> None:
    mesh, rng = MemoryMesh(3, faults=Faults(delay_ms=5)), Random(harm)
    link = mesh.nodes[1].links[0]
    send = link.send

    def harmful(address: str, frame: bytes, *priority: object) -> bool:
        return all([send(address, each) for each in HARMS[harm](rng, frame)] or [True])

    mesh.beacons()
    link.send = harmful  # type: ignore[method-assign, assignment]
    for number in range(20):
        body = b"%d" % number
        assert asked(mesh, mesh.nodes[0], "n2", body, 600) == b"re:" + body
    assert len(mesh.nodes[2].requests) == 20


def test_garbage_on_all_labels_harms_nobody() -> None:
    mesh, rng = MemoryMesh(3), Random(3)
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n2", b"1")
    for _ in range(2_000):
        kind = rng.choice([0x00, 0x01, 0x02, 0x10, 0x20, *Kind])
        mesh.network.carry("n0", "n1", bytes((kind,)) + rng.randbytes(rng.randrange(80)))
        mesh.network.carry("n2", BROADCAST, bytes((kind,)) + rng.randbytes(rng.randrange(80)))
    mesh.run(10)
    assert asked(mesh, mesh.nodes[0], "n2", b"2") == b"re:2"


def test_rnodes_relay_as_well() -> None:
    """The real adapter and the emulated modem between: three in a row, of which the ends do not hear each other."""
    mesh = Mesh(1)
    channel = Channel(
        mesh.clock, Random(1), reach=lambda a, b: USUAL_DBM if abs(int(a[1:]) - int(b[1:])) == 1 else None
    )
    for at in range(3):
        line = VirtualLine(mesh.clock)
        line.plug(RNodeEmulator(f"n{at}", channel, lambda data: None, Firmware()))
        link = RadioLink(f"n{at}", line, RNode(SF7), Band(0, 10**10, 99, ()), virtual_host(mesh.clock, Random(at)))
        mesh.nodes.append(RelayNode(mesh, f"n{at}", [link]))
    mesh.run(10)
    mesh.beacons()
    for number in range(5):
        body = b"%d" % number
        assert asked(mesh, mesh.nodes[0], "n2", body) == b"re:" + body
    assert len(mesh.nodes[2].requests) == 5


@pytest.mark.parametrize("seed", [*range(8), 10])
def test_a_trial_of_soak_breaks_no_promise(seed: int) -> None:
    assert Trial(seed).run() == []


@pytest.mark.parametrize("seed", [1, 5])  # over a network, and over a channel
def test_a_trial_with_a_relay_that_hands_on_nothing_breaks_none_either(seed: int) -> None:
    assert Trial(seed).run_hole() == []


def test_no_more_nodes_are_links_over_others_than_may_be_and_idle_ones_make_room() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    node = mesh.nodes[0]
    asked(mesh, node, "n2", b"x")
    used = node.relay.path_to(mesh.nodes[2].public)
    for number in range(RELAYED_MAX + 10):
        node.relay.path_to(mesh.meet(f"guest {number}"))
    assert node.relay.path_to(mesh.nodes[2].public) == used, "who is talked to stays"
    assert asked(mesh, node, "n2", b"y") == b"re:y"


def test_an_end_that_was_refused_goes_on_when_an_answer_brings_word_of_its_frames() -> None:
    mesh = RadioMesh(4)
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n3", b"x")
    asked(mesh, mesh.nodes[3], "n0", b"x")
    mesh.run(60)
    circuit = mesh.nodes[0].relay._ends._bindings.newest(name_of(mesh.nodes[3].public))
    assert circuit is not None
    for number in range(BACKLOG_MAX):  # that left long ago, and of which word may still come
        frame = bytes((ASKS, 0, 0, 1, number)) + bytes(8)
        circuit.forth.custody.hold(mesh.now_ms(), frame, asks=True, sent_ms=-1_000_000, wait_ms=1_200_000)
    mesh.nodes[0].call("n3", b"y", 60_000)
    mesh.run(1)
    assert len(mesh.nodes[3].requests) == 1, "it waits"
    mesh.nodes[3].call("n0", b"z")
    mesh.run(30)
    assert [reply.end for reply in mesh.nodes[0].replies] == [End.OK]


def test_what_was_refused_for_a_circuit_that_broke_leaves_over_the_next_one() -> None:
    mesh = RadioMesh(4)
    mesh.beacons()
    asked(mesh, mesh.nodes[0], "n3", b"x")
    first = mesh.nodes[0].relay
    circuit = first._ends._bindings.newest(name_of(mesh.nodes[3].public))
    assert circuit is not None
    circuit.quiet_ms = math.inf
    mesh.nodes[0].call("n3", b"y", 60_000)
    mesh.run(1)
    first._circuits.drop(circuit)
    first._arm()
    mesh.run(30)
    assert [reply.end for reply in mesh.nodes[0].replies] == [End.OK]
