"""One connection of the framed carrier, the serving side: lane.proto's messages from a caller, its answers and streams.

Driven by the loop itself: no task waits for a message, and what gathers within a tick is one write. The gate, the
router and the bounds are those of gRPC's lanes; streams are carried as well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack

from offgrid.frames import Frames, FrameTooLong, Outgoing, frame
from offgrid.lanes import Call
from offgrid.v1 import lane_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, PermissionDenied
from offgrid_node.services.budget import Visit
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_gate import Gate, Running
from offgrid_node.services.lane_serving import (
    ANSWERS_MAX,
    CALLS_IN_A_ROW,
    FRAMED_MESSAGE_BYTES_MAX,
    Answer,
    Answers,
    LaneServing,
    next_message,
    request_in,
)
from offgrid_node.services.router import Router
from offgrid_node.services.stream import Stream

WRITE_BUFFER_BYTES = 128 * 1024  # beyond it a caller that does not read is sent nothing more
TURN_S = 0.005  # of the loop's time, at most one call more: then others have their turn
TOKEN_TIMEOUT_S = 2.0  # from the connection to the message with the token

_log = logging.getLogger(__name__)

OneOf = Callable[[Caller], AbstractContextManager[None]]  # raises Exhausted when the caller has too many connections


class Connection(asyncio.BufferedProtocol):
    """Made by the listener for each connection; `end` is its orderly end from this side."""

    def __init__(
        self,
        gate: Gate,
        router: Router,
        running: Running,
        one_of: OneOf,
        on_refused: Callable[[Fault], None] | None,
        open_ones: dict[Connection, None],
        *,
        leaf_of: Callable[[asyncio.BaseTransport], bytes] = lambda transport: b"",
        awaits_token: bool = False,
    ) -> None:
        """`open_ones` holds it while it is open. `leaf_of` is the certificate (PEM) that TLS has verified; empty closes
        a connection that must prove one. With `awaits_token` the caller is let in by its first message."""
        self._gate, self._router, self._running, self._one_of = gate, router, running, one_of
        self._on_refused, self._open_ones, self._leaf_of = on_refused, open_ones, leaf_of
        self._awaits_token = awaits_token
        self._token, self._leaf, self._peer = "", b"", ""
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(FRAMED_MESSAGE_BYTES_MAX)
        self._calls: deque[Call] = deque()
        self._answers: Answers = deque()
        self._outgoing = Outgoing()
        self._leaving: list[Answer] = []  # what was written and is not gone yet
        self._streams: dict[int, tuple[Stream, ExitStack]] = {}
        self._ready: dict[int, None] = {}  # streams with something to say
        self._owed = ExitStack()
        self._unanswered = 0
        self._held = self._paused = self._reading_off = self._flush_due = self._pump_due = False
        self._fault: Fault | None = None
        self._closed = False
        self._serving: LaneServing | None = None

    # ---- what a gate asks of a connection

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return (("authorization", f"Bearer {self._token}"),)

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {"transport_security_type": [b"ssl"], "x509_pem_cert": [self._leaf]} if self._leaf else {}

    def peer(self) -> str:
        return self._peer

    # ---- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones[self] = None
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._peer, self._leaf = str(transport.get_extra_info("peername")), self._leaf_of(transport)
        if self._awaits_token:
            timer = self._loop.call_later(TOKEN_TIMEOUT_S, self.abort)
            self._owed.callback(timer.cancel)
        else:
            self._let_in()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frames.room

    def buffer_updated(self, nbytes: int) -> None:
        if self._frames.came(nbytes):
            self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if not self._outgoing:
            self._all_gone()
        self._flush_soon()

    def eof_received(self) -> None:
        """Whoever calls and stops listening has gone: returning nothing closes the connection."""

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        self._all_gone()
        for answer in self._answers:
            answer.left()
        self._answers.clear()
        self._calls.clear()
        for number in list(self._streams):
            self._forget(number)
        self._owed.close()
        self._open_ones.pop(self, None)

    # ---- the end

    def end(self, fault: Fault) -> None:
        """From now on no calls are read. Those under way are answered first, unless the caller was thrown out."""
        self._fault = fault
        if isinstance(fault, PermissionDenied) or self._serving is None:
            self.abort()
            return
        self._calls.clear()
        for stream, _ in list(self._streams.values()):
            stream.end(fault)
        self._set_reading()
        self._flush_soon()

    def abort(self) -> None:
        """At once: what was not written is lost."""
        if not self._closed:
            self._transport.abort()

    # ---- inside

    def _let_in(self) -> None:
        """Nobody is answered a word who is not a caller: the gRPC listener beside this one says why."""
        try:
            who = self._gate.identify(self)
            caller = who()
            visit = self._gate.admit(caller, self, 0)  # the connection itself is a call, as long as it is open
            self._owed.callback(visit.leave)
            self._owed.enter_context(self._one_of(caller))
            if caller.node_id:
                self._owed.enter_context(self._running.stream(caller, self.end))
        except Fault as fault:
            if self._on_refused is not None:
                self._on_refused(fault)
            self.abort()
            return
        self._serving = LaneServing(
            self._gate, self._router, who, self, self._on_answer, self._on_refused, self._on_stream
        )
        self._transport.write(frame(b""))  # a message without answers: the caller is let in

    def _pump(self) -> None:
        """Serves some of what has come, and the rest when others in the loop have had their turn."""
        self._pump_due, until_s = False, time.thread_time() + TURN_S
        for _ in range(CALLS_IN_A_ROW):
            if time.thread_time() > until_s:
                self._pump_soon()
                break
            if not (self._may_serve() and (self._calls or self._next_message())):
                break
            if self._calls and self._serving is not None:
                self._unanswered += 1
                self._hold(self._serving.serve(*self._calls.popleft()))
        else:
            self._pump_soon()
        self._set_reading()

    def _may_serve(self) -> bool:
        return not (self._closed or self._held or self._fault) and len(self._answers) <= ANSWERS_MAX

    def _next_message(self) -> bool:
        """Whether there was one. Whoever writes what is none has lost its place, and the connection."""
        try:
            raw = self._frames.next()
            if raw is None:
                return False
            request, calls = request_in(raw)
            if not calls and not request.cancels and not request.token:
                raise InvalidRequest.field("calls", "a message without any")
        except (FrameTooLong, InvalidRequest) as error:
            _log.info("a peer has lost its place", extra=fields("lane_lost", peer=str(self._peer), why=error))
            self.abort()
            return False
        if self._serving is None:
            self._token = request.token
            self._let_in()
            if self._serving is None:
                return False
        if calls:
            self._calls.extend(calls)
        else:
            self._hold(self._serving.rate())
        for number in request.cancels:
            if number in self._streams:
                self._unanswered -= 1
                self._forget(number)
        return True

    def _hold(self, pause_ms: int) -> None:
        """Nobody is refused faster than it may come back."""
        if pause_ms:
            self._held = True
            self._loop.call_later(pause_ms / 1000, self._release)

    def _release(self) -> None:
        self._held = False
        self._pump()

    def _pump_soon(self) -> None:
        if not self._pump_due and not self._closed:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _set_reading(self) -> None:
        """The network is read only while all that came is served."""
        off = bool(self._calls or self._pump_due or not self._may_serve())
        if off != self._reading_off and not self._closed:
            self._reading_off = off
            if off:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # ---- answers

    def _on_answer(self, answer: Answer) -> None:
        if self._closed:
            answer.left()
            return
        self._answers.append(answer)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_due and not self._closed:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._closed:
            return
        while not self._paused and (self._outgoing or self._answers or self._take_streams()):
            if not self._outgoing:
                self._put_next()
            self._transport.write(self._outgoing.take())
            if not self._paused and not self._outgoing:
                self._all_gone()
        if self._fault is not None and not self._unanswered and not self._answers and not self._outgoing:
            if not self._transport.is_closing():  # closed twice, asyncio's TLS cannot be aborted any more
                self._transport.close()
        elif self._reading_off:
            self._pump_soon()

    def _put_next(self) -> None:
        parts, taken = next_message(self._answers)
        self._unanswered -= sum(not answer.head.more for answer in taken)
        self._leaving += taken
        self._outgoing.put(parts)

    def _all_gone(self) -> None:
        for answer in self._leaving:
            answer.left()
        self._leaving.clear()

    # ---- streams

    def _on_stream(self, number: int, method: str, caller: Caller, stream: Stream, visit: Visit) -> None:
        if number in self._streams:
            raise Exhausted(f"the stream {number} is open already", reason="NumberTaken")
        with ExitStack() as owed:
            owed.enter_context(self._running.stream(caller, stream.end))
            owed.callback(visit.leave)
            owed.callback(stream.cancel)
            self._streams[number] = (stream, owed.pop_all())

        def ready() -> None:
            self._ready[number] = None
            self._flush_soon()

        stream.when_ready(ready)

    def _take_streams(self) -> bool:
        """Whether any had something to say."""
        ready, self._ready = self._ready, {}
        for number in ready:
            if number in self._streams:
                self._take(number, self._streams[number][0])
        return bool(self._answers)

    def _take(self, number: int, stream: Stream) -> None:
        assert self._serving is not None
        for message in stream.take():
            if not self._serving.answer(number, message, None, more=True):
                self._forget(number)  # it has ended with a message that is too large
                return
        if stream.ended:
            end = stream.fault
            if end is not None:
                self._serving.answer(number, end, None)
            else:
                self._on_answer(Answer(lane_pb2.LaneAnswer(number=number)))
            self._forget(number)

    def _forget(self, number: int) -> None:
        """The stream is over, from whichever side."""
        self._ready.pop(number, None)
        found = self._streams.pop(number, None)
        if found is not None:
            found[1].close()
