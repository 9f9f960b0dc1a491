"""Carries out Ship: an object's shards brought to one host, piece by piece, until the host's ack of them is here.

They are cut and worked out of this node's sealed copy as they go (`cutting.py`). A few pieces are under way at once;
the host says how far it has come, and whatever got lost goes again from there. What a broken connection left at the
host is not sent twice, now or at the next Ship.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from offgrid.pieces import Piece
from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import DropBlob, Verifier
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, PeerFault
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS, transfer_ms
from offgrid_node.protocol.objects.errands import Ship, Shipped
from offgrid_node.protocol.objects.hashing import Possession, possession_of, wrong_shards
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.protocol.quorum.records import Ack, Epoch, verify_ack
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, run, settled, together
from offgrid_node.services.objects.cutting import Cutting, Drawing
from offgrid_node.services.objects.holders import Carrier, call, opening
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.patience import Patience
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX, Members
from offgrid_node.services.objects.small_shipping import SmallShipping
from offgrid_node.services.objects.source import ShardSource, stripes_together

WINDOW = 3  # pieces of one Ship under way: enough for a far host
PIECES_PER_PASS = 64  # then it is looked again how many may be under way
PIECES_PER_HOST_MAX = 8  # of all Ships, but one for each: what a host's budget for one peer has room for
STUMBLES_MAX = 4  # answers in a row that brought a Ship no further
BEGINNINGS_MAX = 3  # of one Ship: after a host's restart, or when what lay there was damaged
BEGIN_AGAIN = frozenset({"NotOpened", "ReplicaIncomplete", "ReplicaDamaged", "WrongRoot"})
WRONG_POSSESSION = "WrongPossession"
POSSESSION_LANE = "possession"  # no object's name
COMMIT_BYTES_PER_S = 20_000_000  # the slowest disk and hash that a host's commit is given time for

M = TypeVar("M", bound=Message)


class _Shipment(msgspec.Struct):
    """One Ship under way; a newer one for the same host takes its place before the commit."""

    work: Ship
    manifest: Manifest
    epoch: Epoch
    sent_bytes: int = 0
    took_ms: int = 0
    source_bad: bool = False
    reached: dict[int, int] = msgspec.field(default_factory=dict)  # what the host has of each shard
    drawing: Drawing | None = None
    drawn_in: int = 0  # the epoch that its possession is for

    @property
    def shards(self) -> tuple[int, ...]:
        """Of this object, what the host is to hold."""
        return self.epoch.shards[self.work.node]


class _Piece(msgspec.Struct, frozen=True):
    """Of a shard, up to `end`; of the cut that begins with stripe `first`."""

    first: int
    shard: int
    offset: int
    end: int


class Shipping:
    """Ships that are under way, one for each object and host."""

    def __init__(
        self,
        runtime: Runtime,
        carrier: Carrier,
        members: Callable[[], Members],
        verify: Verifier,
        source: ShardSource,
        bulk: Bulk,
        keeping: Keeping,
        small: SmallShipping,
        patience: Patience,
    ) -> None:
        self._runtime, self._carrier, self._members, self._verify = runtime, carrier, members, verify
        self._source, self._bulk, self._keeping, self._small = source, bulk, keeping, small
        self._patience = patience
        self._cutting = Cutting(source, bulk)
        self._shipments: dict[tuple[str, str], _Shipment] = {}
        self._flying: Counter[str] = Counter()  # pieces under way, by host
        self.on_sent: Callable[[str], None] = lambda object_id: None  # more of an object has come to a host

    @property
    def under_way(self) -> int:
        """The objects machine bounds it."""
        return len(self._shipments)

    def sending(self, object_id: str) -> tuple[int, int]:
        """Bytes that hosts have of the shards which they are sent now, and of how many."""
        going = [each for (known, _), each in self._shipments.items() if known == object_id and each.reached]
        have = sum(sum(each.reached.values()) for each in going)
        return have, sum(len(each.reached) * each.manifest.shard_bytes for each in going)

    def ship(self, work: Ship) -> None:
        """Its end enters the runtime as Shipped. Machines that were loaded anew say it again: it goes on as it is."""
        key = work.object_id, work.node
        shipment = _Shipment(work, Manifest.decode(work.manifest.signed.body), Epoch.decode(work.epoch.body))
        known = self._shipments.get(key)
        if known is not None:
            known.work, known.manifest, known.epoch = shipment.work, shipment.manifest, shipment.epoch
            return
        self._shipments[key] = shipment

        def ended(outcome: common_pb2.Signed | Fault) -> None:
            del self._shipments[key]
            ack, fault = (None, outcome) if isinstance(outcome, Fault) else (outcome, None)
            sent_bytes, took_ms = shipment.sent_bytes, shipment.took_ms
            end = Shipped(work.object_id, work.node, ack, fault, sent_bytes, took_ms, shipment.source_bad)
            self._patience.deliver(end, [node for object_id, node in self._shipments if object_id == work.object_id])

        run(self._carry(shipment), ended)

    def drop_blob(self, work: DropBlob) -> None:
        """Deletes this node's own copy, unless a row still wants these bytes, its own or another owner's."""
        self._keeping.drop(work.name)

    # ---- one of them

    def _carry(self, shipment: _Shipment) -> Flow[common_pb2.Signed]:
        begun = 0
        while True:
            begun += 1
            try:
                if self._small.takes(shipment.manifest, shipment.epoch, shipment.work.node):
                    return (yield from self._put(shipment))
                began_ms = self._now_ms()
                yield from self._fill(shipment)
                shipment.took_ms += self._now_ms() - began_ms
                return (yield from self._commit(shipment))
            except FailedPrecondition as fault:
                if fault.reason not in BEGIN_AGAIN or begun == BEGINNINGS_MAX:
                    shipment.source_bad = fault.reason == "WrongRoot" and (yield self._is_bad(shipment))
                    raise
            except (Corrupt, PeerFault) as fault:
                if isinstance(fault, Corrupt) or fault.reason == WRONG_POSSESSION:
                    shipment.source_bad = yield self._is_bad(shipment)
                raise

    def _put(self, shipment: _Shipment) -> Flow[common_pb2.Signed]:
        """All of it in one call."""
        while True:
            work, epoch = shipment.work, shipment.epoch
            possession, ack = yield from self._small.put(work, shipment.manifest, epoch, self._members().salt)
            shipment.sent_bytes = len(epoch.shards[work.node]) * shipment.manifest.shard_bytes
            if shipment.work is work:  # else a newer epoch is wanted by now
                self._check(work, epoch, possession, ack)
                return ack

    def _is_bad(self, shipment: _Shipment) -> Step[bool]:
        """Whether what lies here is not what the manifest says: no host is believed in that."""
        manifest, shards, salt = shipment.manifest, shipment.shards, self._members().salt

        def check() -> bool:
            try:
                return bool(wrong_shards(manifest, shards, self._pieces(manifest, shards), salt))
            except Corrupt:
                return True

        return self._bulk.run(check, key=POSSESSION_LANE)

    def _fill(self, shipment: _Shipment) -> Flow[None]:
        """Until the host has all bytes of its shards."""
        manifest, shards, salt = shipment.manifest, shipment.shards, self._members().salt
        possession = Possession(manifest, shards, salt, shipment.work.node, shipment.epoch.epoch)
        shipment.drawing, shipment.drawn_in = Drawing(manifest, shards, possession), shipment.epoch.epoch
        self._cutting.join(drawing := shipment.drawing)
        try:
            yield from self._send(shipment, drawing)
        finally:
            self._cutting.leave(drawing)

    def _send(self, shipment: _Shipment, drawing: Drawing) -> Flow[None]:
        work, manifest, shards = shipment.work, drawing.manifest, drawing.shards
        opened = yield opening(self._carrier, work)
        reached, stumbles = {told.shard: told.offset for told in opened.shards}, 0
        furthest, shipment.reached = dict(reached), dict(reached)
        if tuple(reached) != tuple(shards):
            raise PeerFault(f"{work.node} wants other shards than it is to have", reason="WrongShards")
        piece = min(opened.piece_bytes_max or PIECE_BYTES_MAX, PIECE_BYTES_MAX)
        while True:
            _check_offsets(work.node, reached, manifest.shard_bytes)
            left = islice(_pieces(manifest, reached, piece), PIECES_PER_PASS)
            before, further, whole = reached, dict[int, int](), dict[int, int]()
            ends = yield from self._pass(shipment, drawing, left, further, whole)
            faults = [end for end in ends if end is not None]
            if not further and not faults:
                return
            reached = before | further
            shipment.sent_bytes += max(0, sum(reached.values()) - sum(before.values()))
            came = any(offset > furthest[shard] for shard, offset in whole.items())
            furthest |= {shard: max(offset, furthest[shard]) for shard, offset in whole.items()}
            stumbles = 0 if came else stumbles + 1
            if stumbles > STUMBLES_MAX or (faults and (not came or len(faults) == len(ends))):
                raise next(iter(faults), PeerFault(f"{work.node} takes nothing beyond {before}", reason="NoProgress"))

    def _pass(
        self,
        shipment: _Shipment,
        drawing: Drawing,
        left: Iterator[_Piece],
        further: dict[int, int],
        whole: dict[int, int],
    ) -> Flow[Sequence[Fault | None]]:
        """As many pieces as go without a stumble; `further` is how far each shard has come, as far as there are
        answers: it may be less far than before. `whole` is the same of pieces that were taken to their ends: whoever
        takes a byte of each comes on, and never to an end. How each of those that went side by side ended."""
        node = shipment.work.node
        going = True

        def one_by_one() -> Flow[None]:
            nonlocal going
            while going and (piece := next(left, None)) is not None:
                self._flying[node] += 1
                try:
                    offset = yield from self._piece(shipment, drawing, piece)
                except Fault:
                    going = False
                    raise
                finally:
                    self._flying[node] -= 1
                further[piece.shard] = max(further.get(piece.shard, 0), offset)
                shipment.reached[piece.shard] = offset
                self.on_sent(shipment.work.object_id)
                if offset >= piece.end:
                    whole[piece.shard] = max(whole.get(piece.shard, 0), offset)
                going = going and offset >= piece.end

        room = max(1, min(WINDOW, PIECES_PER_HOST_MAX - self._flying[node]))
        ends: Sequence[Fault | None] = yield together([settled(one_by_one()) for _ in range(room)])
        return ends

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms

    def _piece(self, shipment: _Shipment, drawing: Drawing, piece: _Piece) -> Flow[int]:
        """How far the host has come with the shard."""
        rows = yield self._cutting.rows(drawing, piece.first)
        begin = row_span(drawing.manifest, piece.first)[0]
        data = rows[piece.shard][piece.offset - begin : piece.end - begin]
        head = objects_pb2.WriteReplicaRequest(
            object_id=shipment.work.object_id, shard=piece.shard, offset=piece.offset
        )
        request = Piece(head, data)
        timeout_ms = CALL_TIMEOUT_MS + WINDOW * transfer_ms(len(data))  # they share the link
        answer: objects_pb2.WriteReplicaResponse = yield call(
            self._carrier,
            shipment.work.node,
            "WriteReplica",
            request,
            objects_pb2.WriteReplicaResponse,
            timeout_ms=timeout_ms,
        )
        return answer.offset

    def _commit(self, shipment: _Shipment) -> Flow[common_pb2.Signed]:
        """The host's ack, which is checked: it is the host's, of this epoch, of no other thing, and of one who has read
        every byte of it. While the host reads them, so does this node, where they lie."""
        while True:
            work, epoch = shipment.work, shipment.epoch
            size_bytes = len(shipment.shards) * shipment.manifest.shard_bytes
            request = objects_pb2.CommitReplicaRequest(
                object_id=work.object_id, manifest=work.manifest, epoch=work.epoch
            )
            timeout_ms = CALL_TIMEOUT_MS + size_bytes * 1_000 // COMMIT_BYTES_PER_S
            steps: list[Step[Any]] = [
                call(
                    self._carrier,
                    work.node,
                    "CommitReplica",
                    request,
                    objects_pb2.CommitReplicaResponse,
                    timeout_ms=timeout_ms,
                ),
                self._possession(shipment),
            ]
            answer, possession = yield together(steps)
            if isinstance(answer, Fault):
                raise answer
            if isinstance(possession, Fault):
                raise possession
            if shipment.work is work:  # else a newer epoch is wanted by now
                self._check(work, epoch, possession, answer.ack)
                return answer.ack  # type: ignore[no-any-return]

    def _possession(self, shipment: _Shipment) -> Step[bytes]:
        """Worked out as the pieces were cut, unless some of them had gone before or an epoch has come since."""
        manifest, shards, salt = shipment.manifest, shipment.shards, self._members().salt
        node, epoch, drawing = shipment.work.node, shipment.epoch.epoch, shipment.drawing
        if drawing is not None and shipment.drawn_in == epoch and drawing.possession.is_whole:
            digest = drawing.possession.digest()
            return lambda done: done(digest)

        def work() -> bytes:
            return possession_of(manifest, shards, self._pieces(manifest, shards), salt, node, epoch)

        # One lane for all: however large the objects, other work finds a thread.
        return self._bulk.run(work, key=POSSESSION_LANE)

    def _pieces(self, manifest: Manifest, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for piece in self._source.pieces(manifest, shards):
            self._bulk.check_going()
            yield piece

    def _check(self, work: Ship, epoch: Epoch, possession: bytes, signed: common_pb2.Signed) -> None:
        ack = checked_ack(signed, work.node, epoch, self._members(), self._verify)
        if ack.possession != possession:
            text = f"{work.node} acked other bytes than those of {work.object_id} that lie here"
            raise PeerFault(text, reason=WRONG_POSSESSION)


def checked_ack(signed: common_pb2.Signed, node: str, epoch: Epoch, members: Members, verify: Verifier) -> Ack:
    """The node's ack of just what the epoch asks; its possession is for the caller to judge. By any of its keys: it
    gives the same ack again, though its key was replaced since. Raises PeerFault."""
    ack = verify_ack(signed, members.keys(node), verify, members.salt)
    if ack.node != node or not ack.is_for(epoch):
        raise PeerFault(f"{node} acked something else than {epoch.quorum_id}", reason="WrongAck")
    return ack


def _pieces(manifest: Manifest, reached: Mapping[int, int], piece_bytes: int) -> Iterator[_Piece]:
    """What is to go, cut by cut, so that all who draw from one want it at about the same time."""
    together = stripes_together(manifest)
    for first in range(0, manifest.stripes, together):
        begin = row_span(manifest, first)[0]
        offset, length = row_span(manifest, min(first + together, manifest.stripes) - 1)
        for shard, at in reached.items():
            for start in range(max(at, begin), offset + length, piece_bytes):
                yield _Piece(first, shard, start, min(start + piece_bytes, offset + length))


def _check_offsets(node: str, reached: Mapping[int, int], total: int) -> None:
    for shard, offset in reached.items():
        if offset > total:
            raise PeerFault(f"{node} says that it has {offset} bytes of {total} of shard {shard}", reason="WrongOffset")
