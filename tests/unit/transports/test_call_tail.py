"""Many small calls at once over a lossy link: each carried out once, and none that waits for long."""

from __future__ import annotations

import pytest
from virtual_link import Node, VirtualTime, network

from offgrid_transports.calls import End, Reply
from offgrid_transports.memory import Faults

RTT_MS = 20
CALLS = 1_000


@pytest.mark.parametrize("in_flight", [1, 16])
def test_a_fifth_of_all_frames_lost_99_of_100_calls_take_eight_round_trips_at_most(in_flight: int) -> None:
    world = VirtualTime()
    net = network(world, faults=Faults(loss=0.2, delay_ms=RTT_MS // 2))
    client = Node(world, net.attach("client"), "client")
    server = Node(world, net.attach("server"), "server", handle=lambda request: request.body)
    client.knows("server")
    waits_ms: list[int] = []
    left = CALLS

    def call() -> None:
        nonlocal left
        if left:
            left -= 1
            began_ms, body = world.now_ms, left.to_bytes(4)

            def done(reply: Reply) -> None:
                assert (reply.end, reply.body) == (End.OK, body)
                waits_ms.append(world.now_ms - began_ms)
                call()

            client.endpoint.call("server", 1, body, 60_000, done)

    for _ in range(in_flight):
        call()
    while len(waits_ms) < CALLS:
        world.run(world.now_ms + 100)
    assert len(server.requests) == len({request.body for request in server.requests}) == CALLS
    assert sorted(waits_ms)[CALLS * 99 // 100] <= 8 * RTT_MS
