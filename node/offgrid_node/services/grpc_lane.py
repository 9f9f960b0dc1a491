"""The calling side of a lane on gRPC: small calls to one member, many of them on one stream (lane.proto).

A call of its own costs gRPC's Python half a millisecond of processor time on both sides together, a message on an open
stream a third of it.
"""

from __future__ import annotations

import asyncio
import logging

import grpc
from google.protobuf.message import DecodeError

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.services.lane_calls import LaneCalls

CARRY = "/offgrid.v1.LaneService/Carry"

_log = logging.getLogger(__name__)

Call = grpc.aio.StreamStreamCall  # of bytes and bytes


class Lane(LaneCalls):
    """One stream to one member; `run` is its life."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self._some = asyncio.Event()
        self.on_unsent = self._some.set

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Opens the stream and carries calls until it ends, for whatever reason; ends each call then."""
        stream: Call[bytes, bytes] | None = None
        writing: asyncio.Task[None] | None = None
        try:
            stream = channel.stream_stream(CARRY)()
            self.give_up = stream.cancel
            while (raw := await stream.read()) is not grpc.aio.EOF:
                self.on_message(raw if isinstance(raw, bytes) else b"")
                if writing is None:
                    self.is_open = True
                    self.on_open()
                    writing = asyncio.ensure_future(self._write(stream))
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            pass  # what the peer says of single calls comes as answers; this is the end of the road
        except (DecodeError, PeerFault) as error:
            _log.warning("a lane has lost its place", extra=fields("lane_broken", peer=self._node, why=error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # else it was the stream that was cancelled: given up, or its channel closed
        finally:
            if writing is not None:
                writing.cancel()
            if stream is not None:
                stream.cancel()
            self.end_all()

    # ---- inside

    async def _write(self, stream: Call[bytes, bytes]) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while parts := self.take():
                try:
                    await stream.write(b"".join(parts))
                except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                    return  # the reader sees the same end
