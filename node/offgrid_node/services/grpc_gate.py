"""Who is calling on one listener, and whether there is room: asked before a byte of the request is read."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, Protocol
from weakref import WeakValueDictionary

import grpc

from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, PermissionDenied
from offgrid_node.services.budget import Budget, Limits, Visit
from offgrid_node.services.caller import ADMIN, ANONYMOUS, Caller, Kind
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.tls import caller_fingerprint


class Connection(Protocol):
    """Where a caller is and what it shows, in gRPC's terms, whatever carries it."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]: ...

    def peer(self) -> str: ...


class Context(Connection, Protocol):
    """What is used of grpc.aio's servicer context. Messages are bytes, unless a handler has a serializer."""

    async def read(self) -> object: ...

    async def write(self, message: bytes) -> None: ...

    async def abort_with_status(self, status: grpc.Status) -> NoReturn: ...

    def add_done_callback(self, callback: Callable[[object], None]) -> None: ...


Who = Callable[[], Caller]  # asked anew at each call: who has been removed is refused at once, by PermissionDenied
Identify = Callable[[Connection], Who]  # what a connection proves is read once, when a call or a lane begins on it
ResolveCaller = Callable[[str], Caller | None]

READS_AT_ONCE = 4  # per peer: what is being read is not in the byte budget yet, so this times a message bounds it
READ_TIMEOUT_S = 60.0
STREAMS_MAX = 256  # open at once per caller: half of its calls, so that they never keep out the rest


def by_place(_: Connection) -> Who:
    """Whoever can open the socket of mode 0600 is this node's owner."""
    return lambda: ADMIN


def by_nothing(_: Connection) -> Who:
    return lambda: ANONYMOUS


def by_token(token: str) -> Identify:
    """Whoever can read the token file of mode 0600 is this node's owner; for systems without unix sockets."""
    wanted = f"Bearer {token}".encode()

    def identify(context: Connection) -> Who:
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("authorization", "")
        if not hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), wanted):
            raise PermissionDenied(
                "the call carries no valid token: send metadata 'authorization: Bearer <content of the token file>'",
                reason="Unauthenticated",
            )
        return lambda: ADMIN

    return identify


def by_certificate(resolve: ResolveCaller) -> Identify:
    """A member by the identity behind its TLS leaf, looked up at each call."""

    def identify(context: Connection) -> Who:
        fingerprint = caller_fingerprint(context.auth_context())
        if fingerprint is None:
            raise PermissionDenied("the connection proves no identity", reason="Unauthenticated")

        def who() -> Caller:
            caller = resolve(fingerprint)
            if caller is None:
                raise PermissionDenied(
                    f"{fingerprint} is not a member of this mesh",
                    reason="NotAMember",
                    metadata={"fingerprint": fingerprint},
                )
            return caller

        return who

    return identify


class Gate:
    """One listener's way in: identity, budget, and a bounded read of the request."""

    def __init__(
        self,
        identify: Identify,
        limits: Limits,
        *,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._identify = identify
        self._budget = Budget(limits)
        self._message_bytes_max = message_bytes_max
        self._read_timeout_s = read_timeout_s
        self._reading: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def identify(self, context: Connection) -> Who:
        """Who is at the other end; to be asked, and admitted, at each call. Raises PermissionDenied."""
        return self._identify(context)

    def enter(self, context: Context) -> tuple[Caller, Visit]:
        """Admits the call until it has ended. Raises PermissionDenied or Exhausted."""
        caller = self._identify(context)()
        visit = self._visit(caller, context)
        context.add_done_callback(lambda _: visit.leave())
        return caller, visit

    def admit(self, caller: Caller, context: Connection, size_bytes: int) -> Visit:
        """Admits one call among several on a stream, with its request; `leave` is owed. Raises Exhausted."""
        visit = self._visit(caller, context)
        try:
            visit.take(size_bytes)
        except Exhausted:
            visit.leave()
            raise
        return visit

    def _visit(self, caller: Caller, context: Connection) -> Visit:
        now_ms = time.monotonic_ns() // 1_000_000
        return self._budget.enter(_peer_of(caller, context), now_ms, rated=caller.kind is not Kind.ADMIN)

    async def read(self, caller: Caller, visit: Visit, context: Context) -> bytes:
        """The request's bytes, counted against the caller's budget."""
        name = _peer_of(caller, context)
        reading = self._reading.get(name)
        if reading is None:
            self._reading[name] = reading = asyncio.Semaphore(READS_AT_ONCE)
        try:
            async with reading, asyncio.timeout(self._read_timeout_s):
                request = await context.read()
        except TimeoutError as error:
            raise Exhausted(
                f"the request did not arrive within {self._read_timeout_s:g} s", reason="SlowWriter"
            ) from error
        if not isinstance(request, bytes):
            raise InvalidRequest("the call carries no request", reason="MalformedRequest")
        if len(request) > self._message_bytes_max:
            raise Exhausted(
                f"the request has {len(request)} bytes, a message at most {self._message_bytes_max}",
                reason="RequestTooLarge",
            )
        visit.take(len(request))
        return request


def _peer_of(caller: Caller, context: Connection) -> str:
    """What a budget is kept for: the member, the owner, or a stranger's address without its port."""
    return context.peer().rpartition(":")[0] if caller.kind is Kind.ANONYMOUS else str(caller)


class Running:
    """The streams that are open now, by caller, so that they can be ended when the caller may no longer have them."""

    def __init__(self) -> None:
        self._ends: dict[str, set[Callable[[Fault], None]]] = {}

    def __len__(self) -> int:
        return sum(len(ends) for ends in self._ends.values())

    @contextmanager
    def stream(self, caller: Caller, end: Callable[[Fault], None]) -> Iterator[None]:
        """While inside, `end` is what finishes this stream. Raises Exhausted when the caller has too many open."""
        name = str(caller)
        ends = self._ends.setdefault(name, set())
        if len(ends) >= STREAMS_MAX:
            raise Exhausted(f"{name} has {len(ends)} streams open, no more are allowed", reason="TooManyStreams")
        ends.add(end)
        try:
            yield
        finally:
            ends.discard(end)
            if not ends:
                self._ends.pop(name, None)

    def end(self, node_id: str, fault: Fault) -> None:
        for end in tuple(self._ends.get(node_id, ())):
            end(fault)

    def end_all(self, fault: Fault) -> None:
        for name in tuple(self._ends):
            self.end(name, fault)
