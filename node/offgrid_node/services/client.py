"""Calls out: over the best road to another node, or straight to this node's own router.

A road knows how to bring one request to one node; the client tries those that reach it, in order of preference. A
node that asks for itself (a core that is its own broker) takes no road at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import links_pb2
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import (
    CONNECTION_REFUSED,
    NO_ROAD,
    Exhausted,
    Fault,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.mesh.commands import RoadRefused
from offgrid_node.protocol.mesh.liveness import PING
from offgrid_node.protocol.mesh.quiet import is_quick
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.roads.book import OF_ROADS, RoadBook
from offgrid_node.services.roads.choice import LATELY_MS, share_ms, too_slow
from offgrid_node.services.router import Router
from offgrid_node.services.stream import Stream

Done = Callable[[Message | Fault], None]

ECHO = "offgrid.v1.LinkService/Echo"
ECHO_MS = 5_000


class Road(Protocol):
    """One way to other nodes: gRPC over TCP, packets, ….

    `call` never raises and calls `done` exactly once, in the runtime's thread: with the response, or with a Fault
    (OutcomeUnknown when the request may have been carried out, Unavailable when it surely was not).
    """

    @property
    def name(self) -> str:
        """As people call it: "grpc"."""
        ...

    @property
    def kin(self) -> str:
        """Those of one kin fail together, as all that goes over IP."""
        ...

    def reaches(self, node: str) -> bool: ...

    def ready(self, node: str) -> bool:
        """There is a connection or session already, as far as is known."""
        ...

    def pace(self, node: str) -> Pace:
        """What calls there take of it; FREE where it does not reach that node."""
        ...

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None: ...


class Membership(Protocol):
    """What the client asks of the directory."""

    def is_member(self, node_id: str) -> bool: ...

    def roles_in_force(self, node_id: str) -> frozenset[int]: ...


class Client:
    """Brings `Call` effects to their node and the ends back into the runtime."""

    def __init__(
        self,
        self_id: str,
        roads: Sequence[Road],
        members: Callable[[], Membership],
        book: RoadBook,
        check: Callable[[str, Message], object] = lambda node, answer: answer,
        on_called: Callable[[Call, Fault | None], None] | None = None,
    ) -> None:
        """`members` is asked at each call: a node that calls itself has its own roles in force, as its router checks
        them. `book` says which road comes first. `check` makes of a node's answer what the machine sees, and raises
        a Fault for one that none should see. `on_called` is told of the end of each Call effect."""
        self._self_id = self_id
        self._roads = tuple(roads)
        self._members = members
        self._book = book
        self._check = check
        self._on_called = on_called
        self._router: Router | None = None
        self._runtime: Runtime | None = None

    def bind(self, runtime: Runtime, router: Router) -> None:
        """The composition root closes the circle: handlers need the runtime, the runtime its outlet."""
        self._runtime, self._router = runtime, router

    def call(self, call: Call) -> None:
        """Carries out a Call effect; its end enters the runtime as Answered."""

        def done(outcome: Message | Fault) -> None:
            assert self._runtime is not None
            checked = self._checked(call, outcome)
            reply, fault = (None, checked) if isinstance(checked, Fault) else (checked, None)
            if self._on_called is not None:
                self._on_called(call, fault)
            self._runtime.deliver(call.domain, Answered(call.tag, call.node, reply, fault))

        self.request(call.node, call.method, call.request, call.timeout_ms, done)

    def request(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """One call by the best road that reaches `node`; when it brings no answer and there is time left, by the next:
        calls between nodes may be repeated, and no road gets all of the time where others may be tried after it.

        Ends with Unavailable (RoadTooSlow) where there are only roads that it would occupy for too long, with NotFound
        (NotAMember) for a node that was removed and that nothing reaches any more, with Unavailable (Reloading) while
        this node has no machines to look it up in.
        """
        if node == self._self_id:
            self._call_self(method, request, done)
            return
        try:
            roads = self._roads_to(node)
        except Fault as fault:  # this node is loading what it knows
            done(fault)
            return

        fitting, refused = self._fitting(roads, node, method, request, timeout_ms)
        if fitting:
            told = done if refused is None else _told_with(refused, done)
            self._attempt(fitting, node, method, request, timeout_ms, told)
        else:
            assert refused is not None
            done(refused)
        if len(roads) > 1:
            for road in self._book.to_try(node, roads):
                self.echo(road, node, ECHO_MS)

    def echo(self, road: Road, node: str, timeout_ms: int, done: Done = lambda outcome: None) -> None:
        """Asks whether that road leads there, and notes how long it takes."""
        began_ms = self._book.now_ms()

        def ended(outcome: Message | Fault) -> None:
            self._book.tried(node, road.name, outcome, self._book.now_ms() - began_ms)
            done(outcome)

        road.call(node, ECHO, links_pb2.EchoRequest(), timeout_ms, ended)

    def pace(self, node: str) -> Pace:
        """Of the road that a call would take now; asked often."""
        if all(road.pace(node).free for road in self._roads):
            return FREE
        roads = [road for road in self._roads if road.reaches(node)]
        return self._book.order(node, roads)[0].pace(node) if roads else FREE

    def asks_quickly(self, node: str) -> bool:
        """There is a connection or session there, by which questions cost next to nothing."""
        roads = [road for road in self._roads if road.reaches(node)]
        first = self._book.order(node, roads)[0] if roads else None
        return first is not None and first.ready(node) and is_quick(first.pace(node))

    def _roads_to(self, node: str) -> list[Road]:
        """At least one. Raises NotFound (NotAMember), Unavailable (NoRoad, Reloading)."""
        roads = [road for road in self._roads if road.reaches(node)]
        if not roads and not self._members().is_member(node):
            raise NotFound(f"{node} is no member of this mesh", reason="NotAMember")
        if not roads:
            raise Unavailable(f"no road to {node}: no address is known", reason=NO_ROAD, retry_ms=1000)
        return self._book.order(node, roads)

    def _fitting(
        self, roads: Sequence[Road], node: str, method: str, request: Message, timeout_ms: int
    ) -> tuple[Sequence[Road], Fault | None]:
        """Those that such a call may take, and why not the others."""
        paces = {road.name: pace for road in roads if not (pace := road.pace(node)).free}
        if not paces:
            return roads, None
        fast = (road.name for road in self._roads if road.name not in paces)
        hasty = any(self._book.answered_lately(node, name, LATELY_MS) for name in fast)
        refused = {
            name: fault
            for name, pace in paces.items()
            if (fault := too_slow(name, pace, node, method, request, timeout_ms, hasty=hasty)) is not None
        }
        return [road for road in roads if road.name not in refused], next(iter(refused.values()), None)

    def _attempt(
        self,
        roads: Sequence[Road],
        node: str,
        method: str,
        request: Message,
        timeout_ms: int,
        done: Done,
        before: Fault | None = None,
    ) -> None:
        """No closure that knows itself: what it held, a piece of a large object perhaps, would stay in memory until the
        collector of cycles looks. `before` is how the roads before these ended."""
        road, others, began_ms = roads[0], roads[1:], self._book.now_ms()
        behind = [
            each.pace(node) for each in others if each.kin != road.kin and not self._book.seen(node, each.name).failing
        ]
        mine_ms = share_ms(timeout_ms, ready=road.ready(node), others=behind) if behind else timeout_ms
        is_probe = method == PING and road.ready(node)  # it is short, and needs no connection first

        def ended(outcome: Message | Fault) -> None:
            self._book.ended(node, road.name, outcome)
            took_ms = self._book.now_ms() - began_ms
            if is_probe and not isinstance(outcome, Fault):
                self._book.timed(node, road.name, took_ms)
            left_ms = timeout_ms - took_ms
            if not isinstance(outcome, Unavailable | OutcomeUnknown) or outcome.reason not in OF_ROADS:
                undone = isinstance(outcome, Unavailable | Exhausted)
                done(before if undone and isinstance(before, OutcomeUnknown) else outcome)
            elif others and left_ms > 0:
                if outcome.reason == CONNECTION_REFUSED:
                    self._tell_refused(node)
                self._attempt(others, node, method, request, left_ms, done, _graver(before, outcome))
            else:
                done(_graver(before, outcome))

        road.call(node, method, request, mine_ms, ended)

    def _tell_refused(self, node: str) -> None:
        """While the next road is asked, which may be a slow one."""
        if self._runtime is not None:
            self._runtime.deliver("mesh", RoadRefused(node))

    def _checked(self, call: Call, outcome: Message | Fault) -> object | Fault:
        if isinstance(outcome, Fault):
            return outcome
        try:
            return self._check(call.node, outcome)
        except InvalidRequest as fault:
            return PeerFault(f"{call.node} answered {call.method} wrongly: {fault.message}", reason="MalformedAnswer")
        except Fault as fault:  # this node is reloading and cannot judge: not the peer's fault, the call is repeated
            return fault

    def _call_self(self, method: str, request: Message, done: Done) -> None:
        assert self._router is not None
        try:
            caller = Caller(Kind.MEMBER, self._self_id, self._members().roles_in_force(self._self_id))
            outcome = self._router.dispatch(caller, method, request)
        except Fault as fault:
            done(fault)
            return
        if isinstance(outcome, Ticket):
            outcome.when_done(done)
        elif isinstance(outcome, Stream):
            outcome.cancel()
            done(Internal(f"{method} is a stream; nodes do not stream to themselves"))
        else:
            done(outcome)


def _told_with(refused: Fault, done: Done) -> Done:
    """Where the roads that were tried brought no word, why the others were not."""

    def ended(outcome: Message | Fault) -> None:
        if isinstance(outcome, Unavailable | OutcomeUnknown) and outcome.reason in OF_ROADS:
            said = f"{outcome.message}; {refused.message}"
            outcome = type(outcome)(said, reason=outcome.reason, retry_ms=outcome.retry_ms)
        done(outcome)

    return ended


def _graver(before: Fault | None, fault: Fault) -> Fault:
    """Of two ends of one call: unknown is graver than surely not carried out; else the first one's says more. That
    nobody listens there is said in any case."""
    if before is None:
        return fault
    graver, refused = fault if isinstance(fault, OutcomeUnknown) else before, CONNECTION_REFUSED
    unknown = isinstance(graver, OutcomeUnknown) and refused in (before.reason, fault.reason)
    return OutcomeUnknown(graver.message, reason=refused) if unknown else graver
