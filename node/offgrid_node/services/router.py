"""From a method's name to its handler, through the access table. Every carrier enters here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Protocol

import msgspec
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from offgrid.api import entry_of
from offgrid.pieces import Buffer, Piece, read, read_known
from offgrid.v1 import jobs_pb2, ledger_pb2, links_pb2, mail_pb2, mesh_pb2, objects_pb2, quorum_pb2, state_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound
from offgrid_node.runtime import Ticket
from offgrid_node.services.access import ALL_ROLES, check_access, check_own_role
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.stream import Stream

Outcome = Message | Ticket | Stream
Handler = Callable[[Caller, Message], Outcome]

NESTING_MAX = 8  # no request of ours nests deeper

SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    module.DESCRIPTOR.services_by_name[name]
    for module in (mesh_pb2, links_pb2, jobs_pb2, objects_pb2, quorum_pb2, ledger_pb2, state_pb2, mail_pb2)
    for name in sorted(module.DESCRIPTOR.services_by_name)
)


class Method(msgspec.Struct, frozen=True):
    """One RPC: `name` is "offgrid.v1.Service/Method"."""

    name: str
    request: type[Message]
    response: type[Message]
    streaming: bool


def _methods() -> dict[str, Method]:
    found = {}
    for service in SERVICES:
        for method in service.methods:
            name = f"{service.full_name}/{method.name}"
            request = message_factory.GetMessageClass(method.input_type)
            response = message_factory.GetMessageClass(method.output_type)
            found[name] = Method(name, request, response, method.server_streaming)
    return found


METHODS: Mapping[str, Method] = _methods()


class RpcMeter(Protocol):
    """Told of each call that was answered: method, kind of caller, how long it took, and the fault if it was one."""

    def __call__(self, method: str, caller: str, took_s: float, fault: Fault | None) -> None: ...


def snake(name: str) -> str:
    """CreateJob → create_job."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Router:
    """Binds handler objects, one per service, to the methods of that service by name."""

    def __init__(
        self,
        handlers: Mapping[str, object],
        own_roles: Callable[[], Set[int]] = lambda: ALL_ROLES,
        meter: RpcMeter | None = None,
    ) -> None:
        """`handlers` maps a full service name to an object with one method per RPC, named in snake_case; `own_roles`
        tells the roles that this node has in force (values of offgrid.v1.Role), at each call. No clock is looked at
        without a `meter`.

        Raises ValueError when one is missing, so that a node never starts with half a service.
        """
        self._own_roles = own_roles
        self._meter = meter
        self._handlers: dict[str, Handler] = {}
        for name in METHODS:
            service, _, method = name.partition("/")
            handler = getattr(handlers.get(service), snake(method), None)
            if handler is None:
                raise ValueError(f"no handler for {name}")
            self._handlers[name] = handler

    def dispatch(self, caller: Caller, method: str, request: Message | Buffer) -> Outcome:
        """Checks access, decodes and calls. Raises Fault; the outcome of a Ticket may be one too."""
        known = METHODS.get(method)
        if known is None:
            raise NotFound(f"no such method: {method}", reason="UnknownMethod", metadata={"method": method})
        if self._meter is None:
            return self._handle(caller, known, request)
        return self._metered(self._meter, caller, known, request)

    def _metered(self, meter: RpcMeter, caller: Caller, method: Method, request: Message | Buffer) -> Outcome:
        began, kind = time.perf_counter(), str(caller.kind)
        try:
            outcome = self._handle(caller, method, request)
        except Fault as fault:
            meter(method.name, kind, time.perf_counter() - began, fault)
            raise
        if isinstance(outcome, Ticket):
            outcome.when_done(
                lambda end: meter(
                    method.name, kind, time.perf_counter() - began, end if isinstance(end, Fault) else None
                )
            )
        else:
            meter(method.name, kind, time.perf_counter() - began, None)
        return outcome

    def _handle(self, caller: Caller, known: Method, request: Message | Buffer) -> Outcome:
        method = known.name
        check_access(method, caller)
        check_own_role(method, self._own_roles())
        if not isinstance(request, Message):
            try:
                request = (read_known if caller.kind is Kind.MEMBER else read)(known.request, request)
            except DecodeError as error:
                raise InvalidRequest(
                    f"{method}: the request is no {known.request.DESCRIPTOR.full_name}",
                    reason="MalformedRequest",
                ) from error
        if caller.kind is not Kind.MEMBER:
            # Members of another version may know fields that we do not, and go without; a person has mistyped.
            refuse_unknown_fields(request.head if isinstance(request, Piece) else request)
        return self._handlers[method](caller, request)


def refuse_unknown_fields(message: Message) -> None:
    """Raises InvalidRequest when the request, or a message within it, carries a field that its type does not have."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() == message.ByteSize():
        return  # nothing was discarded; looking for it part by part costs more than all else that a small job needs
    for path, part in _parts(message, "", NESTING_MAX):
        unknown = UnknownFieldSet(part)
        if len(unknown):
            numbers = sorted(unknown[index].field_number for index in range(len(unknown)))
            allowed = ", ".join(f"{f.name} = {f.number}" for f in part.DESCRIPTOR.fields) or "none"
            raise InvalidRequest.field(
                path or part.DESCRIPTOR.name, f"unknown field number {numbers[0]}; allowed: {allowed}"
            )


def _parts(message: Message, path: str, depth: int) -> Iterator[tuple[str, Message]]:
    """The message and every message that is set within it, down to `depth`, with their paths."""
    yield path, message
    if depth == 0:
        return
    for field, value in message.ListFields():
        if field.message_type is None or entry_of(field):
            continue
        below = f"{path}.{field.name}" if path else field.name
        if field.is_repeated:
            for index, item in enumerate(value):
                yield from _parts(item, f"{below}[{index}]", depth - 1)
        else:
            yield from _parts(value, below, depth - 1)


__all__ = ["METHODS", "SERVICES", "Fault", "Handler", "Method", "Outcome", "Router", "refuse_unknown_fields"]
