"""Effects of one step, with calls to the same node put together: one RPC carries what a whole batch has to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.effects import Call, Delete, Effect, Execute, Put, Record, Reply
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.orders import AttemptKey

CALL_ITEMS_MAX = 256
CALL_BYTES_MAX = 3_000_000  # under gRPC's 4 MB default, with room for framing
CALL_TIMEOUT_MS, CALL_TIMEOUT_MAX_MS = 5_000, 90_000
LINK_BYTES_PER_S = 50_000  # the slowest link that a call of CALL_BYTES_MAX still gets over in its time

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Tag:
    """What a coalesced call was about, so that its end finds the way back."""

    what: str
    node: str
    keys: tuple[AttemptKey, ...]


class Post:
    """Collects a step's effects; `take` closes the step."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._items: dict[tuple[str, str], list[tuple[AttemptKey, Message]]] = {}

    def record(self, etype: EventType, subject: str, **data: Any) -> None:
        """One journal event; `data` names the case of Event's oneof."""
        self._effects.append(Record(state_pb2.Event(etype=etype, subject=subject, **data)))

    def put(self, table: str, key: bytes, row: Message) -> None:
        self._effects.append(Put(table, key, row.SerializeToString()))

    def put_bytes(self, table: str, key: bytes, value: bytes) -> None:
        self._effects.append(Put(table, key, value))

    def delete(self, table: str, key: bytes) -> None:
        self._effects.append(Delete(table, key))

    def reply(self, ticket: int, outcome: Message | Fault) -> None:
        self._effects.append(Reply(ticket, outcome))

    def execute(self, work: Execute) -> None:
        self._effects.append(work)

    def call(self, node: str, method: str, request: Message, tag: Tag) -> None:
        timeout_ms = min(CALL_TIMEOUT_MAX_MS, CALL_TIMEOUT_MS + transfer_ms(request.ByteSize()))
        self._effects.append(Call("jobs", node, f"offgrid.v1.MarketService/{method}", request, tag, timeout_ms))

    def add(self, method: str, node: str, key: AttemptKey, item: Message) -> None:
        """Queues one item for the coalesced call of `method` to `node`."""
        self._items.setdefault((method, node), []).append((key, item))

    def take(self) -> list[Effect]:
        """Everything so far, the coalesced calls last."""
        for (method, node), items in self._items.items():
            for part in _parts(items):
                keys = tuple(key for key, _ in part)
                self.call(node, method, REQUESTS[method]([item for _, item in part]), Tag(method, node, keys))
        effects, self._effects, self._items = self._effects, [], {}
        return effects


def transfer_ms(size_bytes: int) -> int:
    """How long so much may be under way on a modest link."""
    return size_bytes * 1_000 // LINK_BYTES_PER_S


def _parts(items: Sequence[tuple[AttemptKey, Message]]) -> list[list[tuple[AttemptKey, Message]]]:
    parts: list[list[tuple[AttemptKey, Message]]] = [[]]
    room = CALL_BYTES_MAX
    for key, item in items:
        size = item.ByteSize()
        if parts[-1] and (len(parts[-1]) >= CALL_ITEMS_MAX or size > room):
            parts.append([])
            room = CALL_BYTES_MAX
        parts[-1].append((key, item))
        room -= size
    return parts


REQUESTS: dict[str, Callable[[list[Any]], Message]] = {
    "SubmitJobs": lambda items: jobs_pb2.SubmitJobsRequest(orders=items),
    "DeliverAwards": lambda items: jobs_pb2.DeliverAwardsRequest(awards=items),
    "StartJobs": lambda items: jobs_pb2.StartJobsRequest(starts=items),
    "ReportResults": lambda items: jobs_pb2.ReportResultsRequest(reports=items),
    "CloseLeases": lambda items: jobs_pb2.CloseLeasesRequest(leases=items),
}
