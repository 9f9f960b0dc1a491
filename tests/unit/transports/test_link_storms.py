"""Whatever the link does, each call ends once and is carried out once at most; who waits long enough gets an answer."""

from __future__ import annotations

import pytest
from virtual_link import Node, VirtualTime, network

from offgrid_tools.soak.links import Storm
from offgrid_transports.calls import End
from offgrid_transports.memory import Faults


@pytest.mark.parametrize("seed", [*range(1, 7), 11])
def test_a_storm_of_soak_breaks_no_promise(seed: int) -> None:
    assert Storm(seed).run() == []


@pytest.mark.parametrize("seed", range(4))
def test_on_a_bad_network_nobody_is_taken_for_one_that_began_anew(seed: int) -> None:
    """Both begin at once, so there are two sessions, and each side may use another one."""
    world = VirtualTime()
    net = network(world, seed, mtu_bytes=200, faults=Faults(loss=0.4, delay_ms=200))
    nodes = [Node(world, net.attach(name), name, handle=lambda request: request.body[:4]) for name in ("one", "other")]
    nodes[0].knows("other")
    nodes[1].knows("one")
    for number in range(15):
        for node, peer in zip(nodes, ("other", "one"), strict=True):
            node.call(peer, number.to_bytes(4) + bytes(number * 40), timeout_ms=600_000)
        world.run(world.now_ms + 700)
    world.run(world.now_ms + 600_000)
    for node in nodes:
        assert {reply.end for reply in node.replies} == {End.OK}, node.replies
        assert len(node.replies) == len(node.requests) == 15
