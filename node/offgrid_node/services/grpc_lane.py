"""The calling side of a lane: small calls to one member, many of them on one gRPC stream (lane.proto).

A call of its own costs gRPC's Python half a millisecond of processor time on both sides together, a message on an open
stream a third of it. What gathers within one tick of the loop shares a message.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError, Message

from offgrid.v1 import lane_pb2
from offgrid_node.protocol.errors import Fault, OutcomeUnknown, PeerFault, Unavailable
from offgrid_node.services.client import Done
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.router import Method

CARRY = "/offgrid.v1.LaneService/Carry"
LANE_CALL_BYTES_MAX = 128 * 1024  # a larger request goes by itself, lest what comes after it has to wait
MESSAGE_BYTES = 256 * 1024  # of calls that share a message
RETRY_MS = 500

Call = grpc.aio.StreamStreamCall  # of bytes and bytes


@dataclass(slots=True)
class _Waiting:
    """A call without an answer."""

    method: Method
    done: Done
    timer: asyncio.TimerHandle


class Lane:
    """One stream to one member. Make it and use it in the loop's thread; `run` is its life."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: deque[lane_pb2.LaneCall] = deque()
        self._some = asyncio.Event()
        self.is_open = False

    def __len__(self) -> int:
        """How many calls are under way."""
        return len(self._waiting)

    def call(self, method: Method, data: bytes, timeout_s: float, done: Done) -> None:
        """As Road has it, while the lane `is_open`; `data` is the request, LANE_CALL_BYTES_MAX at most."""
        number = next(self._numbers)
        timer = self._loop.call_later(timeout_s, self._late, number)
        self._waiting[number] = _Waiting(method, done, timer)
        self._unsent.append(lane_pb2.LaneCall(number=number, method=METHOD_NUMBERS[method.name], request=data))
        self._some.set()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Opens the stream and carries calls until it ends, for whatever reason; ends each call then."""
        stream: Call[bytes, bytes] = channel.stream_stream(CARRY)()
        writing: asyncio.Task[None] | None = None
        try:
            while (raw := await stream.read()) is not grpc.aio.EOF:
                if writing is None:
                    self.is_open = True
                    writing = asyncio.ensure_future(self._write(stream))
                self._on_message(raw)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, DecodeError):
            pass  # what the peer says of single calls comes as answers; this is the end of the road
        finally:
            self.is_open = False
            if writing is not None:
                writing.cancel()
            stream.cancel()
            self._end_all()

    # ---- inside

    async def _write(self, stream: Call[bytes, bytes]) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._unsent:
                message, room = lane_pb2.CarryRequest(), MESSAGE_BYTES
                while self._unsent and room > 0:
                    call = self._unsent.popleft()
                    room -= len(call.request)
                    message.calls.append(call)
                try:
                    await stream.write(message.SerializeToString())
                except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                    return  # the reader sees the same end

    def _on_message(self, raw: object) -> None:
        """Raises DecodeError."""
        answers = lane_pb2.CarryResponse.FromString(raw).answers if isinstance(raw, bytes) else ()
        for answer in answers:
            waiting = self._waiting.pop(answer.number, None)
            if waiting is not None:
                waiting.timer.cancel()
                waiting.done(_outcome(waiting.method, answer))

    def _late(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            text = f"{waiting.method.name}: {self._node} did not answer in time"
            waiting.done(OutcomeUnknown(text, reason="DeadlineExceeded"))

    def _end_all(self) -> None:
        """What never left was surely not carried out; the outcome of all else is unknown."""
        unsent = {call.number for call in self._unsent}
        waiting, self._waiting = self._waiting, {}
        self._unsent.clear()
        for number, call in waiting.items():
            call.timer.cancel()
            text = f"the connection to {self._node} was closed"
            fault: Fault = OutcomeUnknown(text, reason="ConnectionLost")
            if number in unsent:
                fault = Unavailable(text, reason="NotConnected", retry_ms=RETRY_MS)
            call.done(fault)


def _outcome(method: Method, answer: lane_pb2.LaneAnswer) -> Message | Fault:
    if answer.status:
        return fault_from_bytes(answer.status)
    try:
        return method.response.FromString(answer.response)
    except DecodeError:
        what = method.response.DESCRIPTOR.full_name
        return PeerFault(f"{method.name}: the answer is no {what}", reason="MalformedResponse")
