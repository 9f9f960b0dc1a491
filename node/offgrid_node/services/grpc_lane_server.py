"""The serving side of lanes: each call on the stream passes the same gate and the same router as a call of its own."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.message import DecodeError, Message

from offgrid.v1 import lane_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, InvalidRequest, NotFound, PermissionDenied
from offgrid_node.runtime import Ticket
from offgrid_node.services.access import check_access
from offgrid_node.services.budget import Visit
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_calls import Handlers, answer_faults
from offgrid_node.services.grpc_gate import Context, Gate, Running
from offgrid_node.services.grpc_lane import CARRY, ITEMS_MAX, LANE_CALL_BYTES_MAX, MESSAGE_BYTES
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.packet_methods import METHOD_NAMES
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_node.services.router import METHODS, Outcome, Router
from offgrid_node.services.stream import Stream

LANES_MAX = 4  # of one caller: it needs one, and for a moment two when its connection changes
LANE_MESSAGE_BYTES_MAX = 2 * (MESSAGE_BYTES + LANE_CALL_BYTES_MAX)  # twice what our own side ever sends
CALLS_IN_A_ROW = 16  # before others in the loop have their turn
ANSWERS_MAX = 1_024  # that wait to be written; with more, no further calls are read
FRAME_BYTES = 1_024  # what a message has beside its one large answer, at most

_log = logging.getLogger(__name__)


def lane_handlers(
    gate: Gate, router: Router, running: Running, on_refused: Callable[[Fault], None] | None = None
) -> Handlers:
    """By path; `on_refused` as `Calls` has it."""
    open_lanes: Counter[str] = Counter()

    async def carry(_: object, context: Context) -> None:
        async def serve() -> None:
            try:
                caller, _ = gate.enter(context)  # the lane itself is a call, for as long as it is open
            except Fault as fault:
                if on_refused is not None:
                    on_refused(fault)
                raise
            lane = _Lane(gate, router, context, on_refused)
            with running.stream(caller, lane.end), _one_of(open_lanes, str(caller)):
                await lane.run()

        await answer_faults(CARRY, context, serve())

    return {CARRY: grpc.stream_stream_rpc_method_handler(carry)}


class _Lane:
    """One stream of a member that calls."""

    def __init__(
        self, gate: Gate, router: Router, context: Context, on_refused: Callable[[Fault], None] | None
    ) -> None:
        self._gate, self._router, self._context, self._on_refused = gate, router, context, on_refused
        self._who = gate.identify(context)
        self._answers: deque[tuple[lane_pb2.LaneAnswer, Visit | None]] = deque()
        self._some, self._room, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._unanswered = 0
        self._all_answered = asyncio.Event()
        self._fault: Fault | None = None
        self._closed = False

    def end(self, fault: Fault) -> None:
        """From now on no calls are read. Those under way are answered first, unless the caller was thrown out."""
        self._fault = fault
        self._ended.set()

    async def run(self) -> None:
        """Raises the fault with which it was ended, and InvalidRequest for what is no message of calls."""
        await self._context.write(b"")
        reading, writing = asyncio.ensure_future(self._read()), asyncio.ensure_future(self._write())
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((reading, writing, ending), return_when=asyncio.FIRST_COMPLETED)
            if self._fault is not None:
                reading.cancel()
                if not isinstance(self._fault, PermissionDenied):
                    await self._drain(writing)
                raise self._fault
            if reading.done():
                reading.result()
        finally:
            self._closed = True
            for task in (reading, writing, ending):
                task.cancel()
            for _, visit in self._answers:
                _leave(visit)
            self._answers.clear()

    # ---- inside

    async def _read(self) -> None:
        while (raw := await self._context.read()) is not grpc.aio.EOF:
            await self._on_message(raw)
            while len(self._answers) > ANSWERS_MAX:
                self._room.clear()
                await self._room.wait()

    async def _on_message(self, raw: object) -> None:
        """Raises InvalidRequest for what is no message of calls: whoever writes such has lost its place."""
        pause_ms = 0
        for index, call in enumerate(_calls_in(raw), 1):
            if index % CALLS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            pause_ms = max(pause_ms, self._serve(call))
        if pause_ms:  # nobody is refused faster than it may come back
            await asyncio.sleep(pause_ms / 1000)

    def _serve(self, call: lane_pb2.LaneCall) -> int:
        """Milliseconds for which the caller is to be left alone: it was refused for asking too much."""
        self._unanswered += 1
        try:
            caller = self._who()
            visit = self._gate.admit(caller, self._context, len(call.request))
        except Fault as fault:
            self._refused(fault)
            self._answer(call.number, fault, None)
            return fault.retry_ms or 0
        outcome: Outcome | Fault
        try:
            outcome = self._dispatch(caller, call)
        except Fault as fault:
            outcome = fault
        except Exception:  # noqa: BLE001 - at the edge: whatever it was, the caller gets an answer
            _log.exception("method %#06x failed", call.method)
            outcome = Internal("the call met a defect of this node; its log says more", reason="HandlerFailed")
        if isinstance(outcome, Stream):
            outcome.cancel()
            outcome = Internal("a unary method answered with a stream", reason="HandlerFailed")
        if isinstance(outcome, Ticket):
            outcome.when_done(lambda end: self._answer(call.number, end, visit))
        else:
            self._answer(call.number, outcome, visit)
        return 0

    def _dispatch(self, caller: Caller, call: lane_pb2.LaneCall) -> Outcome:
        name = METHOD_NAMES.get(call.method)
        if name is None:
            raise NotFound(f"no method has the number {call.method:#06x}", reason="UnknownMethod")
        try:
            check_access(name, caller)
        except Fault as fault:
            self._refused(fault)
            raise
        if METHODS[name].streaming:
            raise InvalidRequest(f"{name} is a stream, which lanes do not carry", reason="NoStreams")
        if len(call.request) > LANE_CALL_BYTES_MAX:
            text = f"{name}: {len(call.request)} bytes; on a lane a request has at most {LANE_CALL_BYTES_MAX}"
            raise Exhausted(text, reason="RequestTooLarge")
        return self._router.dispatch(caller, name, call.request)

    def _refused(self, fault: Fault) -> None:
        if self._on_refused is not None:
            self._on_refused(fault)

    def _answer(self, number: int, outcome: Message | Fault, visit: Visit | None) -> None:
        if self._closed:
            _leave(visit)
            return
        answer = _answer_of(number, outcome)
        if visit is not None:
            visit.owe(len(answer.response))
        self._answers.append((answer, visit))
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
                    if len(visits) == ITEMS_MAX:
                        break
                try:
                    await self._context.write(message.SerializeToString())
                finally:
                    for visit in visits:
                        _leave(visit)
                self._room.set()
                self._unanswered -= len(visits)
            if not self._unanswered:
                self._all_answered.set()

    async def _drain(self, writing: asyncio.Task[None]) -> None:
        """Until all that was asked is answered; the server's own grace bounds it."""
        waiting = asyncio.ensure_future(self._all_answered.wait())
        self._all_answered.clear()
        self._some.set()
        try:
            await asyncio.wait((waiting, writing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()


@contextmanager
def _one_of(open_lanes: Counter[str], caller: str) -> Iterator[None]:
    """Raises Exhausted when the caller has as many as it may."""
    if open_lanes[caller] >= LANES_MAX:
        raise Exhausted(f"{caller} has {LANES_MAX} lanes open, no more are allowed", reason="TooManyLanes")
    open_lanes[caller] += 1
    try:
        yield
    finally:
        open_lanes[caller] -= 1
        if not open_lanes[caller]:
            del open_lanes[caller]


def _calls_in(raw: object) -> list[lane_pb2.LaneCall]:
    """At least one. Raises InvalidRequest; what is too large is not even taken apart."""
    if not isinstance(raw, bytes) or len(raw) > LANE_MESSAGE_BYTES_MAX:
        text = f"a message of calls has at most {LANE_MESSAGE_BYTES_MAX} bytes"
        raise InvalidRequest(text, reason="MessageTooLarge")
    try:
        calls = list(lane_pb2.CarryRequest.FromString(raw).calls)
    except DecodeError as error:
        raise InvalidRequest("not a message of calls", reason="MalformedRequest") from error
    if not 0 < len(calls) <= ITEMS_MAX:
        raise InvalidRequest.field("calls", f"{len(calls)} entries; 1 to {ITEMS_MAX} are allowed in one message")
    return calls


def _answer_of(number: int, outcome: Message | Fault) -> lane_pb2.LaneAnswer:
    if not isinstance(outcome, Fault):
        data = outcome.SerializeToString()
        if len(data) + FRAME_BYTES <= MESSAGE_BYTES_MAX:
            return lane_pb2.LaneAnswer(number=number, response=data)
        text = f"the answer has {len(data)} bytes, a message at most {MESSAGE_BYTES_MAX}; ask for a smaller page"
        outcome = Exhausted(text, reason="ResponseTooLarge")
    return lane_pb2.LaneAnswer(number=number, status=fault_to_bytes(outcome))


def _leave(visit: Visit | None) -> None:
    if visit is not None:
        visit.leave()
