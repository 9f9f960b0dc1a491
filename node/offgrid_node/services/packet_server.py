"""The packet carrier's serving side: the same router, and so the same handlers, as behind gRPC.

Who a peer is, its session has proved; `identify` says what that node may. Everyone else is ANONYMOUS and may call what
strangers may.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from google.protobuf.message import Message

from offgrid_node.logs import fields
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, NotFound
from offgrid_node.runtime import Ticket
from offgrid_node.services.access import check_access
from offgrid_node.services.budget import Budget, Limits, Visit
from offgrid_node.services.caller import ANONYMOUS, Caller
from offgrid_node.services.packet_methods import METHOD_NAMES, priority_of
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_node.services.packet_streams import NEXT_BATCH, PacketStreams
from offgrid_node.services.router import METHODS, Outcome, Router
from offgrid_node.services.stream import Stream
from offgrid_transports.answers import Request
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.long_answers import LongAnswers
from offgrid_transports.transport import Priority

Identify = Callable[[str], Caller | None]

_log = logging.getLogger(__name__)


class PacketServer:
    """Serves the requests that arrive at an endpoint, from construction on."""

    def __init__(
        self, endpoint: Endpoint, router: Router, identify: Identify, clock: Clock, *, limits: Limits | None = None
    ) -> None:
        """`identify` maps the peer that has proved to be that node to who it is here, or None; `limits` are per
        caller."""
        self._answers = LongAnswers(endpoint)
        self._streams = PacketStreams(endpoint.now_ms, endpoint.later)
        self._router = router
        self._identify = identify
        self._clock = clock
        self._budget = Budget(limits or Limits())
        endpoint.on_request = self._serve

    def _serve(self, arrived: Request) -> None:
        visit: Visit | None = None
        outcome: Outcome | Fault
        request = arrived
        try:
            caller = self._identify(request.peer) or ANONYMOUS
            visit = self._budget.enter(caller.node_id or request.peer, self._clock.now().mono_ms)
            visit.take(len(arrived.body))
            asked = self._answers.on_request(arrived)
            if asked is None:  # a block of a long message
                visit.leave()
                return
            request = asked
            outcome = self._dispatch(caller, request)
        except Fault as fault:
            outcome = fault
        except Exception:  # noqa: BLE001 - at the edge: whatever it was, the caller gets an answer and the node goes on
            _log.exception("an RPC failed", extra=fields("rpc_failed", method=f"{request.method:#06x}"))
            outcome = Internal("the request met a defect of this node; its log says more", reason="HandlerFailed")
        if isinstance(outcome, Ticket):
            outcome.when_done(lambda end: self._answer(request, end, visit))
        else:
            self._answer(request, outcome, visit)

    def _dispatch(self, caller: Caller, request: Request) -> Outcome:
        if request.method == NEXT_BATCH:
            return self._streams.next(
                request.peer, request.body, request.deadline_ms, lambda name: check_access(name, caller)
            )
        name = METHOD_NAMES.get(request.method)
        if name is None:
            raise NotFound(f"no method has the number {request.method:#06x}", reason="UnknownMethod")
        outcome = self._router.dispatch(caller, name, request.body)
        if isinstance(outcome, Stream) and METHODS[name].streaming:
            return self._streams.begin(request.peer, name, outcome, request.deadline_ms)
        return outcome

    def _answer(self, request: Request, outcome: Message | Fault | Stream, visit: Visit | None) -> None:
        if visit is not None:
            visit.leave()
        if isinstance(outcome, Stream):
            outcome.cancel()
            outcome = Internal("a unary method answered with a stream", reason="HandlerFailed")
        if not isinstance(outcome, Fault):
            body, most = outcome.SerializeToString(), self._answers.most(request)
            if len(body) <= most:
                self._answers.respond(request, body, priority=_priority(request))
                return
            outcome = Exhausted(
                f"the answer has {len(body)} bytes, packet links take {most}; ask for a smaller page",
                reason="ResponseTooLarge",
            )
        self._answers.respond(request, fault_to_bytes(outcome), error=True, priority=_priority(request))


def _priority(request: Request) -> Priority:
    """The answer's, as the request's."""
    if request.method == NEXT_BATCH:
        return Priority.JOB
    name = METHOD_NAMES.get(request.method)
    return Priority.CONTROL if name is None else priority_of(name)
