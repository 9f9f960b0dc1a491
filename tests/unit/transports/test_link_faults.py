"""Bad input and faults of links, one test each. Elsewhere: what reads frames (tests/fuzz), fragment bombs and floods of
pieces (test_link_gathering), members that lie (test_hostile_peer), reboots in mid-frame and garbage on the line
(test_lora_rnode, test_lora_serial).
"""

from __future__ import annotations

from random import Random

import pytest
from lora_world import FAST, World
from virtual_link import Node, VirtualTime, network

from offgrid_tools.soak.unplugs import Unplugging
from offgrid_transports.calls import End
from offgrid_transports.handshake import HELLO, WELCOME
from offgrid_transports.lora.kiss import KissDecoder, encode
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.transport import BROADCAST

NEAR = Faults(delay_ms=10)


class Between(MemoryNetwork):
    """Tells what passes; whoever is between may then say it again, in anybody's name."""

    def __init__(self, world: VirtualTime) -> None:
        super().__init__(Random(1), world.schedule, faults=NEAR)
        self.passed: list[tuple[str, str, bytes]] = []

    def carry(self, source: str, target: str, frame: bytes) -> None:
        self.passed.append((source, target, frame))
        super().carry(source, target, frame)

    def say(self, source: str, target: str, frame: bytes) -> None:
        super().carry(source, target, frame)


def pair(net: MemoryNetwork, world: VirtualTime) -> tuple[Node, Node]:
    a, b = (Node(world, net.attach(name), name, handle=lambda request: b"re:" + request.body) for name in "ab")
    a.knows("b")
    b.knows("a")
    return a, b


def answered(world: VirtualTime, node: Node, peer: str, body: bytes) -> bool:
    """Soon, on a network that is near."""
    node.call(peer, body)
    world.run(world.now_ms + 200)
    return bool(node.replies) and (node.replies[-1].end, node.replies[-1].body) == (End.OK, b"re:" + body)


def test_replayed_and_reflected_handshakes_make_no_session_and_disturb_none() -> None:
    world = VirtualTime()
    net = Between(world)
    a, b = pair(net, world)
    assert answered(world, a, "b", b"one")
    shaken = [frame for _, _, frame in net.passed if frame[0] & 0xF0 in (HELLO, WELCOME)]
    sessions = [node.endpoint.session_of(peer) for node, peer in ((a, "b"), (b, "a"))]
    for frame in shaken * 3:
        for source, target in (("a", "b"), ("b", "a"), ("elsewhere", "a"), ("elsewhere", "b")):
            net.say(source, target, frame)
    world.run(world.now_ms + 1_000)
    assert [node.endpoint.session_of(peer) for node, peer in ((a, "b"), (b, "a"))] == sessions
    assert answered(world, a, "b", b"two")
    assert answered(world, b, "a", b"three")
    assert [len(a.requests), len(b.requests)] == [1, 2]


def test_frames_from_a_forged_address_lead_no_session_astray() -> None:
    world = VirtualTime()
    net = Between(world)
    a, b = pair(net, world)
    assert answered(world, a, "b", b"one")
    net.cut = lambda source, target: (source, target) == ("a", "b")
    a.call("b", b"two")
    world.run(world.now_ms + 1)
    source, target, frame = net.passed[-1]
    assert (source, target) == ("a", "b")
    net.cut = lambda source, target: False
    net.say("elsewhere", "b", frame)  # sound, newest, and from where nobody is
    world.run(world.now_ms + 2_000)
    assert [reply.body for reply in a.replies] == [b"re:one", b"re:two"]
    assert answered(world, b, "a", b"three")


@pytest.mark.parametrize("end", range(1, 9))
def test_a_truncated_kiss_frame_costs_itself_and_no_other(end: int) -> None:
    whole = encode(0, b"\xc0\xdb123")
    decoder = KissDecoder()
    frames = decoder.feed(whole[:end]) + decoder.feed(encode(7, b"next") + whole)
    assert frames[-2:] == [(7, b"next"), (0, b"\xc0\xdb123")]
    assert len(frames) <= 3


class Counting(Random):
    """Draws 1, 2, 3, … as the numbers of sessions."""

    drawn = 0

    def getrandbits(self, k: int, /) -> int:
        self.drawn += 1
        return self.drawn


def test_sessions_whose_numbers_are_the_same_are_not_mixed_up() -> None:
    """All hear all, so every frame is opened by whoever has a session of that number."""
    world = VirtualTime()
    net = network(world, faults=NEAR)
    nodes = {name: Node(world, net.attach(name), name, handle=lambda request: b"re:" + request.body) for name in "abc"}
    for node in nodes.values():
        node.endpoint._rng = Counting(1)
        node.knows(*(other for other in nodes if other != node.name), address=BROADCAST)
    for number in range(3):
        for one in "abc":
            for other in "abc".replace(one, ""):
                assert answered(world, nodes[one], other, b"%d of %s" % (number, one.encode()))
    sessions = [nodes[one].endpoint.session_of(other) for one in "abc" for other in "abc" if one != other]
    assert len({session.ours for session in sessions if session is not None}) < len(sessions), "they were to be alike"
    assert all(len(node.requests) == 6 for node in nodes.values())


@pytest.mark.parametrize("jump_ms", [-86_400_000, 86_400_000])
def test_a_clock_that_jumps_costs_no_call(jump_ms: int) -> None:
    """The stamp of hellos may: a node starts anew, and its clock says yesterday, or tomorrow."""
    world = VirtualTime()
    net = network(world, faults=NEAR)
    stamp_ms = [1_700_000_000_000]
    a, b = pair(net, world)
    a.endpoint._peers._stamp = lambda: stamp_ms[0]
    assert answered(world, a, "b", b"one")
    for body in (b"two", b"three"):
        a.endpoint.close()
        stamp_ms[0] += jump_ms
        a = Node(world, net.attach("a"), "a", handle=lambda request: b"re:" + request.body)
        a.endpoint._peers._stamp = lambda: stamp_ms[0]
        a.knows("b")
        assert answered(world, a, "b", body)
    assert [request.body for request in b.requests] == [b"one", b"two", b"three"]
    assert answered(world, b, "a", b"back")


def test_two_modems_with_different_settings_do_not_hear_each_other_and_say_what_they_are_set_to() -> None:
    world = World()
    a, b = world.rnode("a", FAST), world.rnode("b", Modulation(869_525_000, 125_000, 9))
    world.run(2)
    assert a.up
    assert b.up
    a.send(BROADCAST, b"hello")
    b.send(BROADCAST, b"hello")
    world.run(5)
    assert world.heard == {"a": [], "b": []}
    assert a.figures()["settings"] != b.figures()["settings"]


@pytest.mark.parametrize("seed", [1, 2])
def test_20_unplugs_are_over_within_two_seconds_each_and_lose_nothing_that_was_answered(seed: int) -> None:
    """A thousand: `soak unplugs`. One seed is an RNode, the other a MeshCore modem."""
    world = Unplugging(seed)
    assert world.run(20) == []
    assert world.answered > 5
