"""The calling side of a lane, whatever carries it: which calls are under way, what is still to be sent, how each ends.

Messages are those of lane.proto. What gathers within one tick of the loop shares a message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from google.protobuf.message import DecodeError, Message

from offgrid.lanes import call_parts, read_answers
from offgrid.pieces import Buffer, Parts, read_known
from offgrid.v1 import lane_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault, OutcomeUnknown, PeerFault, Unavailable
from offgrid_node.services.client import Done
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.router import Method

LANE_CALL_BYTES_MAX = 128 * 1024  # a larger request goes by itself, lest what comes after it has to wait
LANE_CALLS_MAX = 256  # under way; the other side admits twice as many of a peer
MESSAGE_BYTES = 256 * 1024  # of calls, or answers, that share a message
ITEMS_MAX = 1_024  # calls or answers in one message
LATE_MAX = 3  # calls in a row without an answer, and with nothing else heard, after which the lane is given up
RETRY_MS = 500

_log = logging.getLogger(__name__)


class _Waiting(msgspec.Struct):
    """A call without an answer."""

    method: Method
    done: Done
    timer: asyncio.TimerHandle


class LaneCalls:
    """The calls on one lane to one member. Make it and use it in the loop's thread.

    A carrier sets `on_unsent`, which is called when there is something to `take`, and `give_up`, which is to end the
    lane. It says `is_open` and then `on_open`, brings what it hears to `on_message`, and says `end_all` at the end.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._number = self._answers = self._messages = 0
        self._late_in_a_row = 0
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: dict[int, tuple[lane_pb2.LaneCall, Parts]] = {}  # and the request
        self.give_up: Callable[[], object] = lambda: None
        self.on_unsent: Callable[[], object] = lambda: None
        self.on_open: Callable[[], object] = lambda: None
        self.is_open = False
        self.framed_port = 0
        """What the peer says of itself in its first message."""

    def __len__(self) -> int:
        """How many calls are under way."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        return self.is_open and len(self._waiting) < LANE_CALLS_MAX

    def call(self, method: Method, request: Parts, timeout_s: float, done: Done) -> None:
        """As Road has it, while the lane `has_room`; what the request may have, the carrier knows."""
        self._number = number = self._number + 1
        timer = self._loop.call_later(timeout_s, self._late, number)
        self._waiting[number] = _Waiting(method, done, timer)
        self._unsent[number] = lane_pb2.LaneCall(number=number, method=METHOD_NUMBERS[method.name]), request
        if len(self._unsent) == 1:
            self.on_unsent()

    def take(self) -> Parts | None:
        """The next message to send; None when there is none. A call with a piece has one for itself."""
        message, room = lane_pb2.CarryRequest(), MESSAGE_BYTES
        while self._unsent and room > 0 and len(message.calls) < ITEMS_MAX:
            call, request = next(iter(self._unsent.values()))
            if request[1]:
                if message.calls:
                    break
                del self._unsent[call.number]
                return call_parts(call, request)
            del self._unsent[call.number]
            call.request = request[0]
            room -= len(request[0])
            message.calls.append(call)
        return (message.SerializeToString(), b"") if message.calls else None

    def on_message(self, raw: Buffer) -> None:
        """Raises DecodeError, and PeerFault for answers to what was never asked."""
        message, answers = read_answers(raw)
        self._answers += len(answers)
        if len(answers) > ITEMS_MAX or self._answers > self._number:
            raise PeerFault(f"{self._answers} answers to {self._number} calls, {len(answers)} of them in one message")
        if not answers and self._messages:
            raise PeerFault("a message without answers")
        if not self._messages:
            self.framed_port = message.framed_port
        self._messages, self._late_in_a_row = self._messages + 1, 0
        for answer, response in answers:
            if not 0 < answer.number <= self._number:
                raise PeerFault(f"an answer to call {answer.number}, and the last one was {self._number}")
            waiting = self._waiting.get(answer.number)
            if waiting is not None:
                self._end(answer.number, _outcome(waiting.method, answer, response))

    def end_all(self) -> None:
        """What never left was surely not carried out; the outcome of all else is unknown."""
        self.is_open = False
        unsent, self._unsent = self._unsent, {}
        text = f"the connection to {self._node} was closed"
        for number in list(self._waiting):
            fault: Fault = OutcomeUnknown(text, reason="ConnectionLost")
            if number in unsent:
                fault = Unavailable(text, reason="NotConnected", retry_ms=RETRY_MS)
            self._end(number, fault)

    # ---- inside

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
            self.give_up()

    def _end(self, number: int, outcome: Message | Fault) -> None:
        """Once for each call. What a caller makes of its end is no business of the others'."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return
        waiting.timer.cancel()
        try:
            waiting.done(outcome)
        except Exception:  # noqa: BLE001 - a defect of one caller must not keep the others' ends from them
            said = fields("call_end_failed", method=waiting.method.name, peer=self._node)
            _log.exception("the end of a call to a peer failed", extra=said)


def _outcome(method: Method, answer: lane_pb2.LaneAnswer, response: Buffer) -> Message | Fault:
    if answer.status:
        return fault_from_bytes(answer.status)
    try:
        return read_known(method.response, response)
    except DecodeError:
        what = method.response.DESCRIPTOR.full_name
        return PeerFault(f"{method.name}: the answer is no {what}", reason="MalformedResponse")
