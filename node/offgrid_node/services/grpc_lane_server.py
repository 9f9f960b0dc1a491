"""The serving side of lanes: each call on the stream passes the same gate and the same router as a call of its own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import grpc
from google.protobuf.message import DecodeError, Message

from offgrid.v1 import lane_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, InvalidRequest, NotFound
from offgrid_node.runtime import Ticket
from offgrid_node.services.access import check_access
from offgrid_node.services.budget import Visit
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_calls import Handlers, answer_faults, until_ended
from offgrid_node.services.grpc_gate import Context, Gate, Running
from offgrid_node.services.grpc_lane import CARRY, LANE_CALL_BYTES_MAX, MESSAGE_BYTES
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.packet_methods import METHOD_NAMES
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_node.services.router import METHODS, Outcome, Router
from offgrid_node.services.stream import Stream

CALLS_PER_MESSAGE_MAX = 1_024
CALLS_IN_A_ROW = 16  # before others in the loop have their turn
ANSWERS_MAX = 1_024  # that wait to be written; with more, no further calls are read
FRAME_BYTES = 1_024  # what a message has beside its one large answer, at most

_log = logging.getLogger(__name__)


def lane_handlers(gate: Gate, router: Router, running: Running) -> Handlers:
    """By path."""

    async def carry(_: object, context: Context) -> None:
        async def serve() -> None:
            lane = _Lane(gate, router, context)
            await until_ended(running, lane.who(), lane.run)

        await answer_faults(CARRY, context, serve())

    return {CARRY: grpc.stream_stream_rpc_method_handler(carry)}


class _Lane:
    """One stream of a member that calls."""

    def __init__(self, gate: Gate, router: Router, context: Context) -> None:
        self._gate, self._router, self._context = gate, router, context
        self.who = gate.identify(context)
        self._answers: deque[tuple[lane_pb2.LaneAnswer, Visit | None]] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    async def run(self) -> None:
        await self._context.write(b"")
        writing = asyncio.ensure_future(self._write())
        try:
            while (raw := await self._context.read()) is not grpc.aio.EOF:
                if writing.done():
                    return
                await self._on_message(raw)
                while len(self._answers) > ANSWERS_MAX and not writing.done():
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._closed = True
            writing.cancel()
            for _, visit in self._answers:
                _leave(visit)
            self._answers.clear()

    async def _on_message(self, raw: object) -> None:
        """Raises InvalidRequest for what is no message of calls: whoever writes such has lost its place."""
        try:
            calls = lane_pb2.CarryRequest.FromString(raw if isinstance(raw, bytes) else b"\0").calls
        except DecodeError as error:
            raise InvalidRequest("not a message of calls", reason="MalformedRequest") from error
        if len(calls) > CALLS_PER_MESSAGE_MAX:
            text = f"{len(calls)} entries; at most {CALLS_PER_MESSAGE_MAX} are allowed in one message"
            raise InvalidRequest.field("calls", text)
        pause_ms = 0
        for index, call in enumerate(calls, 1):
            if index % CALLS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            visit: Visit | None = None
            outcome: Outcome | Fault
            try:
                caller = self.who()
                visit = self._gate.admit(caller, self._context, len(call.request))
                outcome = self._dispatch(caller, call)
            except Fault as fault:
                outcome = fault
                if visit is None:
                    pause_ms = max(pause_ms, fault.retry_ms or 0)
            except Exception:  # noqa: BLE001 - at the edge: whatever it was, the caller gets an answer
                _log.exception("method %#06x failed", call.method)
                outcome = Internal("the call met a defect of this node; its log says more", reason="HandlerFailed")
            self._answer_when_done(call.number, outcome, visit)
        if pause_ms:  # nobody is refused faster than it may come back
            await asyncio.sleep(pause_ms / 1000)

    def _dispatch(self, caller: Caller, call: lane_pb2.LaneCall) -> Outcome:
        name = METHOD_NAMES.get(call.method)
        if name is None:
            raise NotFound(f"no method has the number {call.method:#06x}", reason="UnknownMethod")
        check_access(name, caller)
        if METHODS[name].streaming:
            raise InvalidRequest(f"{name} is a stream, which lanes do not carry", reason="NoStreams")
        if len(call.request) > LANE_CALL_BYTES_MAX:
            text = f"{name}: {len(call.request)} bytes; on a lane a request has at most {LANE_CALL_BYTES_MAX}"
            raise Exhausted(text, reason="RequestTooLarge")
        return self._router.dispatch(caller, name, call.request)

    def _answer_when_done(self, number: int, outcome: Outcome | Fault, visit: Visit | None) -> None:
        if isinstance(outcome, Ticket):
            outcome.when_done(lambda end: self._answer(number, end, visit))
        elif isinstance(outcome, Stream):
            outcome.cancel()
            self._answer(number, Internal("a unary method answered with a stream", reason="HandlerFailed"), visit)
        else:
            self._answer(number, outcome, visit)

    def _answer(self, number: int, outcome: Message | Fault, visit: Visit | None) -> None:
        if self._closed:
            _leave(visit)
            return
        if not isinstance(outcome, Fault):
            data = outcome.SerializeToString()
            if len(data) + FRAME_BYTES <= MESSAGE_BYTES_MAX:
                if visit is not None:
                    visit.owe(len(data))
                self._answers.append((lane_pb2.LaneAnswer(number=number, response=data), visit))
                self._some.set()
                return
            text = f"the answer has {len(data)} bytes, a message at most {MESSAGE_BYTES_MAX}; ask for a smaller page"
            outcome = Exhausted(text, reason="ResponseTooLarge")
        self._answers.append((lane_pb2.LaneAnswer(number=number, status=fault_to_bytes(outcome)), visit))
        self._some.set()

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._answers:
                message, visits, room = lane_pb2.CarryResponse(), list[Visit | None](), MESSAGE_BYTES
                while self._answers and (not visits or len(self._answers[0][0].response) <= room):
                    answer, visit = self._answers.popleft()
                    room -= len(answer.response)
                    message.answers.append(answer)
                    visits.append(visit)
                try:
                    await self._context.write(message.SerializeToString())
                finally:
                    self._room.set()
                    for visit in visits:
                        _leave(visit)


def _leave(visit: Visit | None) -> None:
    if visit is not None:
        visit.leave()
