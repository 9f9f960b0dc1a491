"""The serving side of a lane, whatever carries it: each call passes the same gate and router as one of its own.

Messages are those of lane.proto. A carrier reads and writes them, and slows down a caller whose answers pile up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
from google.protobuf.message import DecodeError, Message

from offgrid.lanes import PIECE_CALL_BYTES_MAX, Call, answer_parts, read_calls
from offgrid.pieces import BULK, Buffer, Parts, parts_of
from offgrid.v1 import lane_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, InvalidRequest, NotFound
from offgrid_node.runtime import Ticket
from offgrid_node.services.access import check_access
from offgrid_node.services.budget import Visit
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_gate import Connection, Gate, Who
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.lane_calls import ITEMS_MAX, LANE_CALL_BYTES_MAX, MESSAGE_BYTES
from offgrid_node.services.packet_methods import METHOD_NAMES
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_node.services.router import METHODS, Outcome, Router
from offgrid_node.services.stream import Stream

LANES_MAX = 4  # of one member: it needs one, and for a moment two when its connection changes
LANE_MESSAGE_BYTES_MAX = 2 * (MESSAGE_BYTES + LANE_CALL_BYTES_MAX)  # twice what our own side ever sends on gRPC
CALLS_IN_A_ROW = 16  # before others in the loop have their turn
ANSWERS_MAX = 1_024  # that wait to be written; with more, no further calls are read
FRAME_BYTES = 1_024  # what a message has beside its one large answer, at most
FRAMED_MESSAGE_BYTES_MAX = PIECE_CALL_BYTES_MAX + FRAME_BYTES  # nothing that our own side sends is longer
PACKAGE = "offgrid.v1."

_log = logging.getLogger(__name__)


class Answer(msgspec.Struct):
    """On its way, with what is owed when it has left; `response` is not in `head` yet."""

    head: lane_pb2.LaneAnswer
    response: Parts = (b"", b"")
    visit: Visit | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.response[0]) + len(self.response[1])

    def left(self) -> None:
        """Or given up."""
        if self.visit is not None:
            self.visit.leave()


Answers = deque[Answer]
OnAnswer = Callable[[Answer], object]


class OnStream(Protocol):
    """Takes over the stream of a call and its place in the budget; raises Fault when there are too many."""

    def __call__(self, number: int, method: str, caller: Caller, stream: Stream, visit: Visit) -> None: ...


class LaneServing:
    """What becomes of the calls on one lane. `answer` is told each answer once, with what is owed when it has left."""

    def __init__(
        self,
        gate: Gate,
        router: Router,
        who: Who,
        place: Connection,
        answer: OnAnswer,
        on_refused: Callable[[Fault], None] | None,
        on_stream: OnStream | None = None,
    ) -> None:
        """`place` is where the caller is, for the budgets of strangers. Without `on_stream` calls to streams are
        refused."""
        self._gate, self._router, self._who, self._place = gate, router, who, place
        self._on_answer, self._on_refused, self._on_stream = answer, on_refused, on_stream

    def serve(self, call: lane_pb2.LaneCall, request: Buffer) -> int:
        """Milliseconds for which the caller is to be left alone: it was refused for asking too much."""
        try:
            caller = self._who()
            visit = self._gate.admit(caller, self._place, len(request))
        except Fault as fault:
            self._refused(fault)
            self.answer(call.number, fault, None)
            return fault.retry_ms or 0
        outcome: Outcome | Fault
        name = METHOD_NAMES.get(call.method, "") if call.method else f"{PACKAGE}{call.name}"
        try:
            outcome = self._dispatch(caller, name, call, request)
            if isinstance(outcome, Stream):
                self._begin_stream(call.number, name, caller, outcome, visit)
                return 0
        except Fault as fault:
            outcome = fault.bare()
        except Exception:  # noqa: BLE001 - at the edge: whatever it was, the caller gets an answer
            _log.exception("an RPC failed", extra=fields("rpc_failed", method=name))
            outcome = Internal("the call met a defect of this node; its log says more", reason="HandlerFailed")

        def ended(end: Message | Fault) -> None:
            self.answer(call.number, end, visit)

        if isinstance(outcome, Ticket):
            outcome.when_done(ended)
        else:
            ended(outcome)
        return 0

    def rate(self) -> int:
        """The same of a message that asks for nothing: it is read all the same, so it counts as a call."""
        try:
            self._gate.admit(self._who(), self._place, 0).leave()
        except Fault as fault:
            self._refused(fault)
            return fault.retry_ms or 0
        return 0

    def answer(self, number: int, outcome: Message | Fault, visit: Visit | None, *, more: bool = False) -> bool:
        """One answer on its way; `visit` ends when it has left. Whether others may follow, as `more` wishes."""
        found = _answer_of(number, outcome, more=more)
        if visit is not None:
            visit.owe(found.size_bytes)
        found.visit = visit
        self._on_answer(found)
        return found.head.more

    # ---- inside

    def _dispatch(self, caller: Caller, name: str, call: lane_pb2.LaneCall, request: Buffer) -> Outcome:
        method = METHODS.get(name)
        if method is None:
            what = f"the number {call.method:#06x}" if call.method else f"the name {call.name!r}"
            raise NotFound(f"no method has {what}", reason="UnknownMethod")
        try:
            check_access(name, caller)
        except Fault as fault:
            self._refused(fault)
            raise
        if method.streaming and self._on_stream is None:
            raise InvalidRequest(f"{name} is a stream, which lanes between members do not carry", reason="NoStreams")
        most = PIECE_CALL_BYTES_MAX if method.request in BULK else LANE_CALL_BYTES_MAX
        if len(request) > most:
            text = f"{name}: {len(request)} bytes; on a lane a request has at most {most}"
            raise Exhausted(text, reason="RequestTooLarge")
        return self._router.dispatch(caller, name, request)

    def _begin_stream(self, number: int, name: str, caller: Caller, stream: Stream, visit: Visit) -> None:
        try:
            if self._on_stream is None or not METHODS[name].streaming:
                raise TypeError(f"{name} answered with a stream")
            self._on_stream(number, name, caller, stream, visit)
        except BaseException:
            stream.cancel()
            raise

    def _refused(self, fault: Fault) -> None:
        if self._on_refused is not None:
            self._on_refused(fault)


def calls_in(raw: object) -> list[Call]:
    """At least one. Raises InvalidRequest; what is too large is not even taken apart."""
    if not isinstance(raw, bytes) or len(raw) > LANE_MESSAGE_BYTES_MAX:
        text = f"a message of calls has at most {LANE_MESSAGE_BYTES_MAX} bytes"
        raise InvalidRequest(text, reason="MessageTooLarge")
    _, calls = request_in(raw)
    if not calls:
        raise InvalidRequest.field("calls", f"0 entries; 1 to {ITEMS_MAX} are allowed in one message")
    return calls


def request_in(raw: Buffer) -> tuple[lane_pb2.CarryRequest, list[Call]]:
    """As `calls_in`, for a carrier on which a message may be there for something else, and has its length checked."""
    try:
        request, calls = read_calls(raw)
    except DecodeError as error:
        raise InvalidRequest("not a message of calls", reason="MalformedRequest") from error
    if len(calls) > ITEMS_MAX or len(request.cancels) > ITEMS_MAX:
        text = f"{len(calls)} and {len(request.cancels)} entries; at most {ITEMS_MAX} are allowed of each"
        raise InvalidRequest.field("calls, cancels", text)
    return request, calls


def next_message(answers: Answers) -> tuple[Parts, list[Answer]]:
    """Takes as many answers as share a message, at least one where there are any. One with a piece has one for
    itself."""
    message, taken, room = lane_pb2.CarryResponse(), list[Answer](), MESSAGE_BYTES
    while answers and len(taken) < ITEMS_MAX and (not taken or answers[0].size_bytes <= room):
        if answers[0].response[1]:
            if taken:
                break
            answer = answers.popleft()
            return answer_parts(answer.head, answer.response), [answer]
        answer = answers.popleft()
        room -= answer.size_bytes
        answer.head.response = answer.response[0]
        message.answers.append(answer.head)
        taken.append(answer)
    return (message.SerializeToString(), b""), taken


def _answer_of(number: int, outcome: Message | Fault, *, more: bool) -> Answer:
    if not isinstance(outcome, Fault):
        response = parts_of(outcome)
        size = len(response[0]) + len(response[1])
        if size + FRAME_BYTES <= MESSAGE_BYTES_MAX:
            return Answer(lane_pb2.LaneAnswer(number=number, more=more), response)
        text = f"the answer has {size} bytes, a message at most {MESSAGE_BYTES_MAX}; ask for a smaller page"
        outcome = Exhausted(text, reason="ResponseTooLarge")
    return Answer(lane_pb2.LaneAnswer(number=number, status=fault_to_bytes(outcome)))
