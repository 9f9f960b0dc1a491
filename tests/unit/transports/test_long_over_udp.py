"""A shard over real sockets and a network that loses, though its session is lost in the middle."""

from __future__ import annotations

import asyncio
import time
from random import Random

from test_long_messages import METHOD, SHARD, Answering
from virtual_link import PSK, key_of, public_of

from offgrid_tools.emulators.udp_proxy import Conditions, UdpProxy
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.long_messages import READ
from offgrid_transports.path import Path
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import LinkHost, Priority, Transport

LOSSY = Conditions(loss=0.05, delay_ms=10)


def node_on(name: str) -> tuple[Endpoint, Transport]:
    loop = asyncio.get_running_loop()
    host = LinkHost(
        Random(name),
        lambda delay_ms, fn: loop.call_later(delay_ms / 1000, fn),
        lambda: time.monotonic_ns() // 1_000_000,
    )
    link = TransportRegistry.installed().open("udp:127.0.0.1:0", host)
    names = {public_of(each): each for each in "ab"}
    endpoint = Endpoint(Own(key_of(name), PSK), names.get, host.now_ms, host.schedule, host.rng, host.now_ms)
    endpoint.attach(link)
    return endpoint, link


def end_session(endpoint: Endpoint, peer: str) -> None:
    session = endpoint.session_of(peer)
    assert session is not None
    bound = endpoint._sessions.get(session.ours)
    assert bound is not None
    endpoint._sessions.end(endpoint.now_ms(), bound, "killed")


def test_5_mb_over_udp_at_5_percent_loss() -> None:
    async def scenario() -> None:
        (asking, link), (answering_end, far) = node_on("a"), node_on("b")
        proxy = UdpProxy("127.0.0.1:0", str(far.figures()["listens"]), LOSSY)
        answering = Answering(answering_end, lambda body: SHARD)
        asking.introduce("b", public_of("b"), Path(link, proxy.address))
        replies = asyncio.Queue[Reply]()
        LongCalls(asking).call("b", METHOD, b"the shard", 120_000, replies.put_nowait, priority=Priority.BULK)
        while not answering.arrived[READ]:  # noqa: ASYNC110 - nothing here sets an event
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        end_session(asking, "b")
        end_session(answering_end, "a")
        reply = await replies.get()
        assert (reply.end, reply.body == SHARD) == (End.OK, True)
        assert len(answering.asked) == 1
        for each in (asking, answering_end):
            each.close()
        proxy.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
