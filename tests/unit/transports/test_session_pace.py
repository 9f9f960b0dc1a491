"""Sessions on links with addresses: as fast as the path, whatever is lost, and frames as long as it takes by now."""

from __future__ import annotations

import pytest
from virtual_link import Node, VirtualTime, network

from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.pacing import WINDOW_FRAMES_MIN

ROUND_TRIP_MS = 20


def pair(loss: float = 0.0) -> tuple[VirtualTime, MemoryNetwork, Node]:
    """A node that has a session with another one, which answers each request with its length."""
    world = VirtualTime()
    net = network(world, 3, faults=Faults(loss=loss, delay_ms=ROUND_TRIP_MS // 2))
    one = Node(world, net.attach("one"), "one")
    other = Node(world, net.attach("other"), "other", handle=lambda request: str(len(request.body)).encode())
    one.knows("other")
    other.knows("one")
    one.call("other", b"first")
    while not one.replies:
        world.run(world.now_ms + 100)
    return world, net, one


def rate(world: VirtualTime, one: Node, size: int) -> float:
    """Bytes a millisecond of one large request, from when it is handed over until it is answered."""
    began_ms = world.now_ms
    one.call("other", bytes(size))
    while len(one.replies) < 2:
        world.run(world.now_ms + 5)
    assert one.replies[-1].body == str(size).encode()
    return size / (world.now_ms - began_ms)


@pytest.mark.parametrize(("loss", "least"), [(0.0, 5000), (0.05, 3000), (0.2, 1000)])
def test_loss_alone_does_not_slow_a_session(loss: float, least: float) -> None:
    world, _, one = pair(loss)
    assert rate(world, one, 1_500_000) > least


def test_frames_become_longer_when_the_path_takes_longer_ones() -> None:
    world, net, one = pair()
    net.mtu_bytes = 9000
    sent = net.frames_sent
    assert rate(world, one, 1_500_000) > 5000
    assert net.frames_sent - sent < 250
    session = one.endpoint.session_of("other")
    assert session is not None
    assert session._course._controller is not None
    assert session._course._controller.window_bytes >= WINDOW_FRAMES_MIN * 9000
