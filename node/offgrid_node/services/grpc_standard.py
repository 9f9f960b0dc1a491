"""The services that every gRPC client expects: health (grpc.health.v1) and reflection (grpc.reflection.v1alpha).

The servicers are grpcio's own; here they stand behind the same gate as everything else. Any member or admin may ask.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_calls import Handlers, answer_faults, until_ended
from offgrid_node.services.grpc_gate import Gate, Running
from offgrid_node.services.router import SERVICES

_HEALTH = "grpc.health.v1.Health"
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
_NAMES = tuple(service.full_name for service in SERVICES)
_Context = Any  # its write takes what the handler's serializer takes, which the servicers' own types do not say


class StandardServices:
    """Health of each service, and the list of them."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._health = health.aio.HealthServicer()
        self._reflection = reflection.aio.ReflectionServicer((*_NAMES, _HEALTH, _REFLECTION))

    async def serving(self) -> None:
        """Every service is there."""
        for name in _NAMES:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """For good: the node is going."""
        await self._health.enter_graceful_shutdown()

    def handlers(self, gate: Gate) -> Handlers:
        """By path."""

        async def check(_: object, context: _Context) -> bytes:
            return await answer_faults(f"{_HEALTH}/Check", context, self._check(gate, context))

        async def watch(_: object, context: _Context) -> None:
            await answer_faults(f"{_HEALTH}/Watch", context, self._watch(gate, context))

        async def reflect(_: object, context: _Context) -> None:
            await answer_faults(f"{_REFLECTION}/ServerReflectionInfo", context, self._reflect(gate, context))

        return {
            f"/{_HEALTH}/Check": grpc.stream_unary_rpc_method_handler(check),
            f"/{_HEALTH}/Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=_encode),
            f"/{_REFLECTION}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                reflect, response_serializer=_encode
            ),
        }

    async def _check(self, gate: Gate, context: _Context) -> bytes:
        _, request = await _asked(gate, context)
        if request.service not in ("", *_NAMES):
            raise NotFound(f"no service {request.service!r}; there are {', '.join(_NAMES)}", reason="UnknownService")
        return _encode(await self._health.Check(request, context))

    async def _watch(self, gate: Gate, context: _Context) -> None:
        caller, request = await _asked(gate, context)
        await until_ended(self._running, caller, lambda: self._health.Watch(request, context))

    async def _reflect(self, gate: Gate, context: _Context) -> None:
        caller, _ = gate.enter(context)

        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            while (raw := await context.read()) is not grpc.aio.EOF:
                try:
                    yield reflection_pb2.ServerReflectionRequest.FromString(raw)
                except DecodeError as error:
                    raise InvalidRequest("not a reflection request", reason="MalformedRequest") from error

        async def answer() -> None:
            # Its stubs call it a coroutine; it is an async generator.
            responses: Any = self._reflection.ServerReflectionInfo(requests(), context)
            async for response in responses:
                await context.write(response)

        await until_ended(self._running, caller, answer)


async def _asked(gate: Gate, context: _Context) -> tuple[Caller, health_pb2.HealthCheckRequest]:
    caller, visit = gate.enter(context)
    raw = await gate.read(caller, visit, context)
    try:
        return caller, health_pb2.HealthCheckRequest.FromString(raw)
    except DecodeError as error:
        raise InvalidRequest("not a health check request", reason="MalformedRequest") from error


def _encode(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
