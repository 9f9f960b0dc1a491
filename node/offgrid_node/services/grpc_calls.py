"""One call from the wire through the router and back.

Handlers are registered as taking a stream of requests although every RPC takes one: on the wire the two are the same,
and this way the caller is known, and refused, before its request is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, NotFound
from offgrid_node.runtime import Ticket
from offgrid_node.services.access import check_access
from offgrid_node.services.budget import Visit
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_gate import Context, Gate, Running
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.router import METHODS, Method, Router
from offgrid_node.services.status import to_rpc_status
from offgrid_node.services.stream import Stream

_log = logging.getLogger(__name__)

T = TypeVar("T")
RpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Handlers: TypeAlias = "dict[str, RpcHandler]"


async def answer_faults(method: str, context: Context, work: Awaitable[T]) -> T:
    """Awaits the work; a fault becomes the call's status, and a defect INTERNAL, told to the log and not the caller."""
    try:
        return await work
    except Fault as fault:
        await context.abort_with_status(to_rpc_status(fault.bare()))
    except (grpc.aio.AbortError, grpc.aio.InternalError):
        raise  # the status is on its way already, or the caller has gone and nothing reaches it any more
    except Exception:  # noqa: BLE001 - at the edge: whatever it was, the caller gets an answer and the node goes on
        _log.exception("an RPC failed", extra=fields("rpc_failed", method=method))
        defect = Internal(f"{method} failed: a defect of this node, its log says more", reason="HandlerFailed")
        await context.abort_with_status(to_rpc_status(defect))


class Calls:
    """Makes gRPC handlers of the router's methods, for any gate."""

    def __init__(self, router: Router, running: Running, on_refused: Callable[[Fault], None] | None = None) -> None:
        """`on_refused` is told of each call that gets no further than the gate."""
        self._router = router
        self._running = running
        self._on_refused = on_refused

    def handlers(self, gate: Gate) -> Handlers:
        """By path, "/offgrid.v1.Service/Method"."""
        return {f"/{name}": self._handler(method, gate) for name, method in METHODS.items()}

    def _handler(self, method: Method, gate: Gate) -> RpcHandler:
        if method.streaming:

            async def stream(_: object, context: Context) -> None:
                await answer_faults(method.name, context, self._stream(method, gate, context))

            return grpc.stream_stream_rpc_method_handler(stream)

        async def unary(_: object, context: Context) -> bytes:
            return await answer_faults(method.name, context, self._unary(method, gate, context))

        return grpc.stream_unary_rpc_method_handler(unary)

    async def _unary(self, method: Method, gate: Gate, context: Context) -> bytes:
        caller, visit, request = await self._receive(method, gate, context)
        outcome = self._router.dispatch(caller, method.name, request)
        if isinstance(outcome, Ticket):
            outcome = await _settled(outcome)
        if isinstance(outcome, Stream):
            outcome.cancel()
            raise TypeError(f"{method.name} answered with a stream")
        return _encode(method.name, outcome, visit)

    async def _stream(self, method: Method, gate: Gate, context: Context) -> None:
        caller, _, request = await self._receive(method, gate, context)
        outcome = self._router.dispatch(caller, method.name, request)
        if not isinstance(outcome, Stream):
            raise TypeError(f"{method.name} answered without a stream")
        try:
            with self._running.stream(caller, outcome.end):
                await _pump(method.name, outcome, context)
        finally:
            outcome.cancel()

    async def _receive(self, method: Method, gate: Gate, context: Context) -> tuple[Caller, Visit, bytes]:
        try:
            caller, visit = gate.enter(context)
            check_access(method.name, caller)
            return caller, visit, await gate.read(caller, visit, context)
        except Fault as fault:
            if self._on_refused is not None:
                self._on_refused(fault)
            raise


async def _pump(name: str, stream: Stream, context: Context) -> None:
    ready = asyncio.Event()
    stream.when_ready(ready.set)
    while True:
        ready.clear()
        messages = stream.take()
        for message in messages:
            await context.write(_encode(name, message, None))
        if messages:
            continue
        if stream.ended:
            if stream.fault is not None:
                raise stream.fault
            return
        await asyncio.sleep(0)  # a stream that is always ready must not keep the loop to itself
        await ready.wait()


async def _settled(ticket: Ticket) -> Message:
    """The ticket's outcome. Should the caller go meanwhile, what it asked for is carried out all the same."""
    future: asyncio.Future[Message | Fault] = asyncio.get_running_loop().create_future()
    ticket.when_done(lambda outcome: None if future.done() else future.set_result(outcome))
    outcome = await future
    if isinstance(outcome, Fault):
        raise outcome
    return outcome


def _encode(name: str, message: Message, visit: Visit | None) -> bytes:
    data = message.SerializeToString()
    if len(data) > MESSAGE_BYTES_MAX:
        raise Exhausted(
            f"{name}: the answer has {len(data)} bytes, a message at most {MESSAGE_BYTES_MAX}; ask for a smaller page",
            reason="ResponseTooLarge",
        )
    if visit is not None:
        visit.owe(len(data))
    return data


class Paths(grpc.GenericRpcHandler):
    """What one listener serves, by path; anything else is answered with UNIMPLEMENTED and details."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler:
        path = handler_call_details.method
        return self._handlers.get(path) or _unknown(path)


def _unknown(path: str) -> RpcHandler:
    async def refuse(_: object, context: Context) -> None:
        fault = NotFound(f"no such method here: {path}", reason="UnknownMethod", metadata={"method": path})
        await context.abort_with_status(to_rpc_status(fault))

    return grpc.stream_stream_rpc_method_handler(refuse)


async def until_ended(running: Running, caller: Caller, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a borrowed stream handler as a stream of ours: it ends with the fault when `running` says so."""
    ended: list[Fault] = []

    def end(fault: Fault) -> None:
        ended.append(fault)
        task.cancel()

    with running.stream(caller, end):
        task = asyncio.ensure_future(work())
        try:
            await task
        except asyncio.CancelledError:
            if ended:
                raise ended[0] from None
            raise


__all__ = ["Calls", "Handlers", "Paths", "answer_faults", "until_ended"]
