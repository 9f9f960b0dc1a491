"""How this node and each other member see each other: asked of the members themselves, at the moment.

A member that answers may all the same not reach this node: a firewall lets answers in, and no calls. So it is asked
what came of its own calls here, whether it has heard this node by mDNS, and what its clock shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from offgrid.v1 import links_pb2
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.client import Client
from offgrid_node.services.roads.book import RoadBook

LOOK_BACK = "offgrid.v1.LinkService/LookBack"
LATELY_MS = 60_000
TIMEOUT_MS, TIMEOUT_MS_MAX = 1_000, 60_000
PEERS_MAX = 32  # asked at once

HeardBy = Callable[[], "frozenset[str] | None"]
"""Node ids that mDNS tells of now; None where nobody listens."""


class PeerChecks:
    """`roads` are the names of the carriers that a member has taken to reach another one."""

    def __init__(
        self,
        self_id: str,
        directory: Callable[[], Directory],
        book: RoadBook,
        client: Client,
        roads: Sequence[str],
        clock: Clock,
        heard: HeardBy,
    ) -> None:
        self._self_id, self._directory, self._book, self._client = self_id, directory, book, client
        self._roads, self._clock, self._heard = tuple(roads), clock, heard

    def look_back(self, caller: Caller) -> links_pb2.LookBackResponse:
        """What this node sees of a member."""
        heard = self._heard()
        return links_pb2.LookBackResponse(
            clock_us=self._clock.now().utc_us,
            reaches=self._reaches(caller.node_id),
            hears=None if heard is None else caller.node_id in heard,
        )

    def check(self, request: links_pb2.CheckPeersRequest) -> Ticket:
        """All are asked at once; whoever is slow is waited for no longer than the request says."""
        if request.timeout_ms > TIMEOUT_MS_MAX:
            raise InvalidRequest.field("timeout_ms", f"{request.timeout_ms}; 1 to {TIMEOUT_MS_MAX} are allowed")
        ticket, peers = Ticket(), [node for node in self._directory().live() if node != self._self_id][:PEERS_MAX]
        found = {node: self._begun(node) for node in peers}
        left = set(peers)

        def ended(node: str, began_ms: int, outcome: Message | Fault) -> None:
            self._note(found[node], began_ms, outcome)
            left.discard(node)
            if not left:
                ticket.resolve(links_pb2.CheckPeersResponse(peers=found.values()))

        if not peers:
            ticket.resolve(links_pb2.CheckPeersResponse())
        for node in peers:
            began_ms = self._clock.now().mono_ms
            self._client.request(
                node,
                LOOK_BACK,
                links_pb2.LookBackRequest(),
                request.timeout_ms or TIMEOUT_MS,
                lambda outcome, node=node, began_ms=began_ms: ended(node, began_ms, outcome),  # type: ignore[misc]
            )
        return ticket

    # ---- inside

    def _reaches(self, node: str) -> bool | None:
        """What came of this node's own calls there; None where none was made lately."""
        seen = [self._book.seen(node, road) for road in self._roads]
        now_ms = self._book.now_ms()
        if any(not s.late and s.answered_ms is not None and now_ms - s.answered_ms <= LATELY_MS for s in seen):
            return True
        return False if any(s.failing for s in seen) else None

    def _begun(self, node: str) -> links_pb2.PeerCheck:
        member, heard = self._directory().member(node), self._heard()
        return links_pb2.PeerCheck(
            node_id=node,
            name=member.name if member is not None else "",
            heard=None if heard is None else node in heard,
        )

    def _note(self, check: links_pb2.PeerCheck, began_ms: int, outcome: Message | Fault) -> None:
        now = self._clock.now()
        if isinstance(outcome, Fault):
            check.trouble = outcome.message
            return
        assert isinstance(outcome, links_pb2.LookBackResponse)
        check.rtt_ms = max(0, now.mono_ms - began_ms)
        check.clock_ahead_us = outcome.clock_us - now.utc_us + 500 * int(check.rtt_ms)
        if outcome.HasField("reaches"):
            check.reaches_us = outcome.reaches
        if outcome.HasField("hears"):
            check.hears_us = outcome.hears
