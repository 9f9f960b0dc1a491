"""Lanes on gRPC, the serving side: one stream of a member that calls, and how it ends."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from offgrid.v1 import lane_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, PermissionDenied
from offgrid_node.services.grpc_calls import Handlers, answer_faults
from offgrid_node.services.grpc_gate import Context, Gate, Running
from offgrid_node.services.grpc_lane import CARRY
from offgrid_node.services.lane_serving import (
    ANSWERS_MAX,
    CALLS_IN_A_ROW,
    LANES_MAX,
    Answer,
    Answers,
    LaneServing,
    OnAnswer,
    calls_in,
    next_message,
)
from offgrid_node.services.router import Router


def lane_handlers(
    gate: Gate,
    router: Router,
    running: Running,
    on_refused: Callable[[Fault], None] | None = None,
    framed_port: Callable[[], int] = lambda: 0,
) -> Handlers:
    """By path; `on_refused` as `Calls` has it. `framed_port` is told to whoever opens a lane."""
    open_lanes: Counter[str] = Counter()

    async def carry(_: object, context: Context) -> None:
        async def serve() -> None:
            try:
                caller, _ = gate.enter(context)  # the lane itself is a call, for as long as it is open
            except Fault as fault:
                if on_refused is not None:
                    on_refused(fault)
                raise
            who = gate.identify(context)
            lane = _Lane(
                lambda answer: LaneServing(gate, router, who, context, answer, on_refused), context, framed_port()
            )
            with running.stream(caller, lane.end), _one_of(open_lanes, str(caller)):
                await lane.run()

        await answer_faults(CARRY, context, serve())

    return {CARRY: grpc.stream_stream_rpc_method_handler(carry)}


class _Lane:
    """One stream of a member that calls."""

    def __init__(self, serving: Callable[[OnAnswer], LaneServing], context: Context, framed_port: int) -> None:
        self._serving = serving(self._answer)
        self._context, self._framed_port = context, framed_port
        self._answers: Answers = deque()
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
        await self._context.write(lane_pb2.CarryResponse(framed_port=self._framed_port).SerializeToString())
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
            for answer in self._answers:
                answer.left()
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
        for index, (call, request) in enumerate(calls_in(raw), 1):
            if index % CALLS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            self._unanswered += 1
            pause_ms = max(pause_ms, self._serving.serve(call, request))
        if pause_ms:  # nobody is refused faster than it may come back
            await asyncio.sleep(pause_ms / 1000)

    def _answer(self, answer: Answer) -> None:
        if self._closed:
            answer.left()
            return
        self._answers.append(answer)
        self._some.set()

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            while self._answers:
                parts, taken = next_message(self._answers)
                try:
                    await self._context.write(b"".join(parts))
                finally:
                    for answer in taken:
                        answer.left()
                self._room.set()
                self._unanswered -= len(taken)
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
