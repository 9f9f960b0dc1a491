"""Hops on ways that failed are passed over for a while; what was seen of a way counts more than what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.channel import USUAL_DBM, Channel
from offgrid_tools.emulators.relay_mesh import SF7, MemoryMesh, Mesh, RadioMesh, RelayNode
from offgrid_tools.soak.chance import chance
from offgrid_transports.calls import End
from offgrid_transports.handshake import HELLO, WELCOME
from offgrid_transports.memory import MemoryNetwork
from offgrid_transports.relay.frames import Kind
from offgrid_transports.relay.ground import name_of
from offgrid_transports.relay.routes import Routes
from offgrid_transports.relay.shunned import AVOIDED_MAX, MEMORY, SHUN_MS_MAX, SHUN_MS_MIN, SHUNNED_MAX, Shunned
from offgrid_transports.session import FRAME_TYPE

A, B, C = (bytes([65 + at] * 2) for at in range(3))
MESHES: dict[str, Callable[[int], MemoryMesh | RadioMesh]] = {"memory": MemoryMesh, "radio": RadioMesh}


class TestShunned:
    def test_who_failed_is_passed_over_for_twice_as_long_each_time_up_to_a_bound(self) -> None:
        shunned, now_ms, spans = Shunned(), 0.0, list[float]()
        for _ in range(12):
            shunned.failed(now_ms, (A,))
            began_ms = now_ms
            while shunned.has(now_ms, A):
                now_ms += SHUN_MS_MIN
            spans.append(now_ms - began_ms)
        assert spans[:3] == [SHUN_MS_MIN, 2 * SHUN_MS_MIN, 4 * SHUN_MS_MIN]
        assert spans[-1] == SHUN_MS_MAX

    def test_ways_that_fail_together_count_once(self) -> None:
        shunned = Shunned()
        for _ in range(10):
            shunned.failed(0, (A,))
        assert shunned.has(SHUN_MS_MIN - 1, A)
        assert not shunned.has(SHUN_MS_MIN, A)

    def test_in_time_all_is_forgotten(self) -> None:
        shunned = Shunned()
        for at in (0.0, SHUN_MS_MIN, (MEMORY + 4) * 2 * SHUN_MS_MIN):
            shunned.failed(at, (A,))
        assert not shunned.has((MEMORY + 4) * 2 * SHUN_MS_MIN + SHUN_MS_MIN, A), "as the first time"

    def test_word_over_a_hop_clears_it_and_half_of_what_was_held_against_it(self) -> None:
        shunned = Shunned()
        for at in (0.0, SHUN_MS_MIN):
            shunned.failed(at, (A, B))
        shunned.proved(SHUN_MS_MIN + 1, (A,))
        assert shunned.all(SHUN_MS_MIN + 1) == {B}
        shunned.failed(SHUN_MS_MIN + 2, (A,))
        assert shunned.has(3 * SHUN_MS_MIN, A), "twice as long still"

    def test_what_failed_for_one_who_is_away_is_held_against_nobody_and_the_rest_is(self) -> None:
        shunned = Shunned()
        shunned.failed(0, (A,))
        for at in range(3):
            shunned.failed(at * SHUN_MS_MIN, (A, B), b"away")
        shunned.failed(1, (C,), b"there")
        shunned.absolve(b"away")
        assert shunned.all(SHUN_MS_MIN - 1) == {A, C}
        assert not shunned.has(SHUN_MS_MIN, A), "as before"

    def test_a_question_names_the_worst_and_no_more_are_kept_than_may_be(self) -> None:
        shunned = Shunned()
        shunned.failed(0, (A,))
        shunned.failed(SHUN_MS_MIN, (A,))
        shunned.failed(SHUN_MS_MIN + 1, tuple(number.to_bytes(2) for number in range(100, 100 + 2 * AVOIDED_MAX)))
        assert shunned.worst(SHUN_MS_MIN + 2)[0] == A
        assert len(shunned.worst(SHUN_MS_MIN + 2)) == AVOIDED_MAX
        shunned.failed(SHUN_MS_MIN + 1, tuple(number.to_bytes(2) for number in range(2 * SHUNNED_MAX)))
        assert len(shunned) == SHUNNED_MAX


def test_what_is_said_of_a_way_takes_no_place_of_what_was_seen() -> None:
    routes = Routes()
    routes.learn(0, b"targ", (A, B), 500)
    routes.prove(1, b"targ", (A, B), 500)
    routes.learn(2, b"targ", (C,), 1)
    route = routes.get(3, b"targ")
    assert route is not None
    assert route.hops == (A, B)
    routes.distrust(b"targ")
    routes.learn(4, b"targ", (C,), 1)
    route = routes.get(5, b"targ")
    assert route is not None
    assert route.hops == (C,)


def test_ways_over_whom_failed_that_were_only_told_are_forgotten_and_others_may_be_told() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    ground = mesh.nodes[0].relay._ground
    near = mesh.nodes[1].relay._ground.hop
    ground.learn(b"told", (near, B), 5)
    ground.learn(b"seen", (near, B), 5)
    ground.prove(b"seen", (near, B), 5)
    ground.shun((B,))
    assert (ground.hops_to(b"told"), ground.hops_to(b"seen")) == (None, (near, B))
    ground.learn(b"told", (near, B), 5)
    assert ground.hops_to(b"told") is None, "which nobody has asked for"
    ground.learn(b"told", (near, B), 5, asked=True)
    assert ground.hops_to(b"told") == (near, B), "though it costs no less than the one before"


def test_a_way_whose_first_hop_is_heard_no_more_is_in_nobodys_place() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    ground, near = mesh.nodes[0].relay._ground, mesh.nodes[1].relay._ground.hop
    ground.learn(b"goal", (B,), 1)
    ground.learn(b"goal", (near, C), 500, asked=True)
    assert ground.hops_to(b"goal") == (near, C)


def test_an_answer_that_tells_of_no_way_is_not_asked_for_again_at_once() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    first = mesh.nodes[0]
    first.relay._ground.learn = lambda *told, **how: None  # type: ignore[method-assign]
    first.call("n2", b"x", 600_000)
    mesh.run(600)
    assert first.relay.counts["searches"] <= 8


def test_a_relay_learns_no_way_from_what_tells_the_cost_of_the_whole_of_it() -> None:
    mesh = RadioMesh(4)
    mesh.beacons()
    assert mesh.asked(mesh.nodes[0], "n3", b"x").end is End.OK
    target, near = name_of(mesh.nodes[3].public), mesh.nodes[1].relay._ground
    near.routes.forget(target)
    for circuit in mesh.nodes[0].relay._circuits.all():
        mesh.nodes[0].relay._circuits.drop(circuit)
    assert mesh.asked(mesh.nodes[0], "n3", b"y").end is End.OK
    assert near.route_to(target) is None, "OPENED came by"


def swallows(node: RelayNode, what: Callable[[bytes], bool]) -> None:
    """It hands on no such frame of others."""
    link = node.links[0]
    send = link.send

    def some(address: str, frame: bytes, *priority: object) -> bool:
        return True if what(frame) else send(address, frame, *priority)  # type: ignore[arg-type]

    link.send = some  # type: ignore[method-assign, assignment]


def is_labelled(frame: bytes) -> bool:
    return frame[0] & 0xF0 in (FRAME_TYPE, HELLO, WELCOME)


def is_open(frame: bytes) -> bool:
    return frame[0] in (Kind.OPEN, Kind.OPENED)


def crossroads(kind: str) -> MemoryMesh | RadioMesh:
    """n0 to n4: over n1 and n2, a way in three, or over n1, n3 and n5, one longer. n2 will do harm."""
    mesh = MESHES[kind](6)
    edges = {(0, 1), (1, 2), (2, 4), (1, 3), (3, 5), (5, 4)}
    mesh.hears = lambda a, b: (a, b) in edges or (b, a) in edges
    mesh.beacons()
    return mesh


@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("what", [is_labelled, is_open])
def test_a_relay_that_drops_what_it_should_hand_on_is_gone_round(kind: str, what: Callable[[bytes], bool]) -> None:
    mesh = crossroads(kind)
    swallows(mesh.nodes[2], what)
    limit_s = 60 if kind == "memory" else 300
    first = mesh.asked(mesh.nodes[0], "n4", b"1", 1_000 * limit_s)
    if first.end is not End.OK:  # it left with a hello, which nobody answered
        first = mesh.asked(mesh.nodes[0], "n4", b"1", 1_000 * limit_s)
    assert first.end is End.OK, first
    assert mesh.now_ms() < 1_000 * limit_s
    began_ms = mesh.now_ms()
    for number in range(10):
        body = b"%d" % number
        assert mesh.asked(mesh.nodes[0], "n4", body).body == b"re:" + body
        mesh.run(1)
        hops = mesh.nodes[0].relay.hops_to(mesh.nodes[4].public)
        assert hops is not None
        assert mesh.nodes[2].relay._ground.hop not in hops, "and is not gone back to"
    assert mesh.now_ms() - began_ms <= 10_000 * (1.5 if kind == "memory" else 8)


def test_a_relay_that_lies_about_its_cost_is_believed_no_longer_than_it_hands_on() -> None:
    """n0 to n3, over n1, which says that it takes nothing, or over n2, which takes what it takes."""
    mesh = RadioMesh(4)
    edges = {(0, 1), (1, 3), (0, 2), (2, 3)}
    mesh.hears = lambda a, b: (a, b) in edges or (b, a) in edges
    mesh.beacons()
    liar = mesh.nodes[1]
    ground = liar.relay._ground
    truly = ground.flood
    ground.flood = lambda link, said: truly(link, said._replace(cost_ms=0))  # type: ignore[method-assign, union-attr, call-arg]
    swallows(liar, is_labelled)
    for number in range(3):
        mesh.asked(mesh.nodes[0], "n3", b"%d" % number, 300_000)
    assert mesh.nodes[0].relay.hops_to(mesh.nodes[3].public) == (mesh.nodes[2].relay._ground.hop,)
    for at in range(20):  # every four minutes, for more than an hour: what was seen stays, then it is looked for anew
        reply = mesh.asked(mesh.nodes[0], "n3", b"later %d" % at, 120_000)
        assert reply.end is End.OK, reply
        mesh.run(240)


def test_the_only_way_there_is_taken_though_it_failed() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    ground = mesh.nodes[0].relay._ground
    ground.shunned.failed(mesh.now_ms(), (mesh.nodes[1].relay._ground.hop,))
    assert mesh.asked(mesh.nodes[0], "n2", b"x").end is End.OK
    assert ground.shunned.all(mesh.now_ms()) == frozenset(), "and is trusted again"


def test_an_answer_inside_opened_clears_no_hop_that_drops_all_that_follows() -> None:
    mesh = MemoryMesh(3)
    mesh.beacons()
    swallows(mesh.nodes[1], is_labelled)
    ground = mesh.nodes[0].relay._ground
    for number in range(3):
        assert mesh.asked(mesh.nodes[0], "n2", b"%d" % number).end is End.OK
        assert ground.shunned.all(mesh.now_ms()) == {mesh.nodes[1].relay._ground.hop}


def test_of_two_ways_the_one_that_costs_less_is_taken_though_it_is_longer() -> None:
    """Over n1 by radio in one hop between, or over n2 and n3 by cable."""
    mesh = Mesh(1)
    network = MemoryNetwork(chance("cable"), mesh.schedule)
    cable, air = {"02", "23", "34"}, {"01", "14"}
    network.cut = lambda one, other: "".join(sorted(one[1:] + other[1:])) not in cable

    def reach(one: str, other: str) -> float | None:
        return USUAL_DBM if "".join(sorted(one[1:] + other[1:])) in air else None

    channel = Channel(mesh.clock, chance("air"), reach=reach)
    for name in ("n0", "n1", "n2", "n3", "n4"):
        cabled = [network.attach(name)] if name != "n1" else []
        mesh.nodes.append(RelayNode(mesh, name, cabled + [AirLink(name, channel, SF7)] * (name in ("n0", "n1", "n4"))))
    mesh.beacons()
    assert mesh.asked(mesh.nodes[0], "n4", b"x").end is End.OK
    hops = mesh.nodes[0].relay.hops_to(mesh.nodes[4].public)
    assert hops is not None
    assert len(hops) == 2
