"""The calling side of a lane: small calls to one member, many of them on one gRPC stream (lane.proto).

A call of its own costs gRPC's Python half a millisecond of processor time on both sides together, a message on an open
stream a third of it. What gathers within one tick of the loop shares a message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
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
LANE_CALLS_MAX = 256  # under way; the other side admits twice as many of a peer
MESSAGE_BYTES = 256 * 1024  # of calls, or answers, that share a message
ITEMS_MAX = 1_024  # calls or answers in one message
LATE_MAX = 3  # calls in a row without an answer, and with nothing else heard, after which the lane is given up
RETRY_MS = 500

_log = logging.getLogger(__name__)

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
        self._number = self._answers = self._messages = 0
        self._late_in_a_row = 0
        self._give_up: Callable[[], object] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: dict[int, lane_pb2.LaneCall] = {}
        self._some = asyncio.Event()
        self.is_open = False

    def __len__(self) -> int:
        """How many calls are under way."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        return self.is_open and len(self._waiting) < LANE_CALLS_MAX

    def call(self, method: Method, data: bytes, timeout_s: float, done: Done) -> None:
        """As Road has it, while the lane `has_room`; `data` is the request, LANE_CALL_BYTES_MAX at most."""
        self._number = number = self._number + 1
        timer = self._loop.call_later(timeout_s, self._late, number)
        self._waiting[number] = _Waiting(method, done, timer)
        self._unsent[number] = lane_pb2.LaneCall(number=number, method=METHOD_NUMBERS[method.name], request=data)
        self._some.set()

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Opens the stream and carries calls until it ends, for whatever reason; ends each call then."""
        stream: Call[bytes, bytes] | None = None
        writing: asyncio.Task[None] | None = None
        try:
            stream = channel.stream_stream(CARRY)()
            self._give_up = stream.cancel
            while (raw := await stream.read()) is not grpc.aio.EOF:
                if writing is None:
                    self.is_open = True
                    writing = asyncio.ensure_future(self._write(stream))
                self._on_message(raw)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            pass  # what the peer says of single calls comes as answers; this is the end of the road
        except (DecodeError, PeerFault) as error:
            _log.warning("%s has lost its place on a lane: %s", self._node, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # else it was the stream that was cancelled: given up, or its channel closed
        finally:
            self.is_open = False
            if writing is not None:
                writing.cancel()
            if stream is not None:
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
                    call = self._unsent.pop(next(iter(self._unsent)))
                    room -= len(call.request)
                    message.calls.append(call)
                try:
                    await stream.write(message.SerializeToString())
                except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                    return  # the reader sees the same end

    def _on_message(self, raw: object) -> None:
        """Raises DecodeError, and PeerFault for answers to what was never asked."""
        answers = lane_pb2.CarryResponse.FromString(raw).answers if isinstance(raw, bytes) else ()
        self._answers += len(answers)
        if len(answers) > ITEMS_MAX or self._answers > self._number:
            raise PeerFault(f"{self._answers} answers to {self._number} calls, {len(answers)} of them in one message")
        if not answers and self._messages:
            raise PeerFault("a message without answers")
        self._messages, self._late_in_a_row = self._messages + 1, 0
        for answer in answers:
            if not 0 < answer.number <= self._number:
                raise PeerFault(f"an answer to call {answer.number}, and the last one was {self._number}")
            waiting = self._waiting.get(answer.number)
            if waiting is not None:
                self._end(answer.number, _outcome(waiting.method, answer))

    def _late(self, number: int) -> None:
        """What has not left yet leaves no more. A lane that says nothing at all is given up: calls go singly then."""
        fault: Fault
        if self._unsent.pop(number, None) is not None:
            fault = Unavailable(f"{self._node} reads too slowly", reason="NotSent", retry_ms=RETRY_MS)
        else:
            self._late_in_a_row += 1
            fault = OutcomeUnknown(f"{self._node} did not answer in time", reason="DeadlineExceeded")
        self._end(number, fault)
        if self._late_in_a_row >= LATE_MAX:
            self._give_up()

    def _end_all(self) -> None:
        """What never left was surely not carried out; the outcome of all else is unknown."""
        unsent, self._unsent = self._unsent, {}
        text = f"the connection to {self._node} was closed"
        for number in list(self._waiting):
            fault: Fault = OutcomeUnknown(text, reason="ConnectionLost")
            if number in unsent:
                fault = Unavailable(text, reason="NotConnected", retry_ms=RETRY_MS)
            self._end(number, fault)

    def _end(self, number: int, outcome: Message | Fault) -> None:
        """Once for each call. What a caller makes of its end is no business of the others'."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return
        waiting.timer.cancel()
        try:
            waiting.done(outcome)
        except Exception:  # noqa: BLE001 - a defect of one caller must not keep the others' ends from them
            _log.exception("the end of %s to %s failed", waiting.method.name, self._node)


def _outcome(method: Method, answer: lane_pb2.LaneAnswer) -> Message | Fault:
    if answer.status:
        return fault_from_bytes(answer.status)
    try:
        return method.response.FromString(answer.response)
    except DecodeError:
        what = method.response.DESCRIPTOR.full_name
        return PeerFault(f"{method.name}: the answer is no {what}", reason="MalformedResponse")
