"""A member that floods a framed connection with messages that ask for nothing: it is read as slowly as it may call."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from carrier_world import ALICE, BOB, POSIX, run, until, world_in
from lane_world import FramedStream

from offgrid.v1 import lane_pb2
from offgrid_node.services.budget import Limits
from offgrid_node.services.framed_connection import Connection

pytestmark = POSIX

LIMITS = Limits(calls_per_s=50, burst_calls=20)
MESSAGES = 200_000  # far more than the sockets between hold, some of which hold 32 MB
CANCELS = lane_pb2.CarryRequest(cancels=range(1, 1_001)).SerializeToString()
TOKEN = lane_pb2.CarryRequest(token="x" * 3_000).SerializeToString()
CHUNKS_BYTES = 1 << 20  # what asyncio hands over at a time, and what TLS holds beside it, with room to spare


def unread_bytes(connection: Connection) -> int:
    return len(connection._frames._data)


@pytest.mark.parametrize("message", [CANCELS, TOKEN], ids=["cancels", "tokens"])
def test_messages_without_calls_are_rated_and_held_nowhere(tmp_path: Path, message: bytes) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path, LIMITS) as world:
            bob = await FramedStream.open(world, BOB)

            async def flood() -> None:
                for _ in range(MESSAGES):
                    await bob.write(message)

            flooding = asyncio.ensure_future(flood())
            await until(lambda: sum(fault.reason == "RateLimited" for fault in world.refused) >= 3)
            [connection] = world.framed._connections
            assert unread_bytes(connection) < CHUNKS_BYTES, "nothing more is read meanwhile"
            await world.member(ALICE).call("MeshService/Ping")  # whose budget is its own
            assert not flooding.done()
            flooding.cancel()
            bob.cancel()

    run(scenario())
