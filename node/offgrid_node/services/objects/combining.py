"""CombineRows: a node's part of a sum of rows, with what those behind it make of theirs.

Whoever makes a shard anew asks the first in a row of those who keep others, each asks the next, and adds: one shard's
worth comes into each of them (`protocol/objects/sources.py`). Any member may ask, as it may read the shards themselves,
and learns less. Nobody asks on for what he has no part of himself, each node stands in a row once, and each gets less
time than the one who asks it: so no request goes round or outlives who asked for it. Whoever does not give his part is
named on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.pieces import Piece
from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Buffer, Coder
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, NotFound, PeerFault, Unavailable
from offgrid_node.protocol.objects.manifest import OBJECT_ID, SHARDS_MAX
from offgrid_node.protocol.objects.shards import shard_name
from offgrid_node.runtime import Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Step, settled, ticket_of
from offgrid_node.services.objects.holders import Carrier, call
from offgrid_node.services.objects.repair_pace import RepairPace
from offgrid_node.services.turns import Turns
from offgrid_node.storage.blobs import ReadableBlobs

SUM_BYTES_MAX = 512 << 10  # of one call: small enough that many nodes in a row are at work at the same time
SUMS_PER_CALLER_MAX = 24  # waiting or running; their answers stay within what one peer may have in flight
HOP_MS, HOP_BYTES_PER_S = 500, 1_000_000  # what each has for its disk and its part of the road
FIRST_MS = 2_000  # beside that, for all of them
ASKED_MS_MAX = FIRST_MS + SHARDS_MAX * 2 * HOP_MS
UNFIT = "unfit"  # in the metadata of a fault: who did not give its part

Parts = Sequence[objects_pb2.SumPart]


class Combining:
    """The handler of CombineRows, and the asking for it."""

    def __init__(
        self, self_id: str, carrier: Carrier, blobs: ReadableBlobs, coder: Coder, bulk: Bulk, pace: RepairPace
    ) -> None:
        self._self_id, self._carrier, self._blobs = self_id, carrier, blobs
        self._coder, self._bulk, self._pace = coder, bulk, pace
        self._turns = Turns("sums of rows", SUMS_PER_CALLER_MAX)

    def combine(self, caller: Caller, request: objects_pb2.CombineRowsRequest) -> Ticket:
        _check(request)
        check_parts("parts", request.parts)
        if request.parts[0].node_id != self._self_id:
            raise InvalidRequest.field("parts", f"the first is that of {request.parts[0].node_id}, not this node's")
        return ticket_of(self._answer(caller.node_id, request))

    def _answer(self, caller: str, request: objects_pb2.CombineRowsRequest) -> Flow[Message]:
        data = yield self._turns.take(caller, settled(self._give(request)))
        return Piece(objects_pb2.CombineRowsResponse(), data)

    def _give(self, request: objects_pb2.CombineRowsRequest) -> Flow[Buffer]:
        left_ms = min(request.timeout_ms, ASKED_MS_MAX) - _hop_ms(request.length)
        yield from self._pace.give(request.length, max(0, left_ms // 2))
        return (yield from self.sum_of(request.object_id, request.offset, request.length, request.parts, left_ms))

    def sum_of(self, object_id: str, offset: int, length: int, parts: Parts, left_ms: int) -> Flow[Buffer]:
        """Of all parts, of which the first may be this node's own. Raises what a part fails with, and Unavailable with
        who is UNFIT where another node does not give his."""
        if parts[0].node_id != self._self_id:
            return (yield from self._ask(object_id, offset, length, parts, left_ms))
        own, rest, size = parts[0], parts[1:], length * (len(parts[0].coefficients) + 1)

        def read() -> list[Buffer]:
            return self._rows(object_id, own, offset, length)

        if not rest:
            return (yield self._bulk.run(lambda: self._add(own, read()), size_bytes=size))  # type: ignore[no-any-return]
        rows: list[Buffer] = yield self._bulk.run(read, size_bytes=size)
        rows.append((yield from self._ask(object_id, offset, length, rest, left_ms)))
        return (yield self._bulk.run(lambda: self._add(own, rows), size_bytes=size))  # type: ignore[no-any-return]

    def _rows(self, object_id: str, own: objects_pb2.SumPart, offset: int, length: int) -> list[Buffer]:
        """In a thread. Raises NotFound (reason ReplicaNotFound), InvalidRequest."""
        names = [shard_name(object_id, shard) for shard in own.shards] or [object_id]
        rows: list[Buffer] = []
        for name in names:
            size = self._blobs.size(name)
            if size is None:
                raise NotFound(f"no replica of {name} is here", reason="ReplicaNotFound")
            if offset + length > size:
                raise InvalidRequest.field("offset", f"{length} bytes at {offset}; the replica has {size}")
            rows.append(self._blobs.read(name, offset, length))
        return rows

    def _add(self, own: objects_pb2.SumPart, rows: Sequence[Buffer]) -> bytes:
        """In a thread: this node's rows times their coefficients, and as it is what came from behind."""
        return self._coder.combine([own.coefficients.ljust(len(rows), b"\1")], rows)[0]

    def _ask(self, object_id: str, offset: int, length: int, parts: Parts, left_ms: int) -> Flow[Buffer]:
        node = parts[0].node_id
        if left_ms <= 0:
            raise Unavailable("the caller has waited for too long already", reason="NoTimeLeft")
        request = objects_pb2.CombineRowsRequest(
            object_id=object_id, offset=offset, length=length, parts=parts, timeout_ms=left_ms
        )
        step: Step[objects_pb2.CombineRowsResponse] = call(
            self._carrier, node, "CombineRows", request, objects_pb2.CombineRowsResponse, timeout_ms=left_ms
        )
        try:
            answer = yield step
            data: Buffer = answer.data
            if len(data) != length:
                raise PeerFault(f"{node} gave {len(data)} bytes of {length}", reason="WrongLength")
        except Fault as fault:
            raise _named(fault, node) from fault
        return data


def asked_ms(length: int, parts: Parts) -> int:
    """How long so many in a row get, so that each has its part of it."""
    return FIRST_MS + len(parts) * _hop_ms(length)


def check_parts(field: str, parts: Parts) -> None:
    """Raises InvalidRequest."""
    if not 0 < len(parts) <= SHARDS_MAX:
        raise InvalidRequest.field(field, f"{len(parts)} of them; 1 to {SHARDS_MAX} are allowed")
    if len({part.node_id for part in parts}) < len(parts):
        raise InvalidRequest.field(field, "a node stands in it twice")
    shards = [shard for part in parts for shard in part.shards]
    if len({*shards}) < len(shards):
        raise InvalidRequest.field(field, "a shard stands in it twice")
    for part in parts:
        if len(part.coefficients) != max(1, len(part.shards)):
            said = f"{len(part.coefficients)} coefficients for {len(part.shards)} shards of {part.node_id[:64]}"
            raise InvalidRequest.field(field, said)


def _check(request: objects_pb2.CombineRowsRequest) -> None:
    if not OBJECT_ID.match(request.object_id):
        raise InvalidRequest.field("object_id", f"{request.object_id[:64]!r} is no object id")
    if not 0 < request.length <= SUM_BYTES_MAX:
        raise InvalidRequest.field("length", f"{request.length} bytes; 1 to {SUM_BYTES_MAX} are allowed")


def _hop_ms(length: int) -> int:
    return HOP_MS + length * 1_000 // HOP_BYTES_PER_S


def _named(fault: Fault, node: str) -> Fault:
    """With who did not give his part: the first one of whom it is said."""
    unfit = {UNFIT: fault.metadata.get(UNFIT, node)}
    if isinstance(fault, Exhausted):
        return Exhausted(fault.message, reason=fault.reason, retry_ms=fault.retry_ms, metadata=unfit)
    return Unavailable(f"{unfit[UNFIT]} did not give its part: {fault.message}", reason="PartMissing", metadata=unfit)
