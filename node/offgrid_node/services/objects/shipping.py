"""Carries out Ship: an object's shards brought to one host, piece by piece, until the host's ack of them is here.

They are cut and worked out of this node's sealed copy as they go (`source.py`). A few pieces are under way at once; the
host says how far it has come, and whatever got lost goes again from there. What a broken connection left at the host is
not sent twice, now or at the next Ship.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import DropBlob, Ship, Shipped, Verifier
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, PeerFault
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS, transfer_ms
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import hash_shards, possession_of, stripe_span, wrong_shards
from offgrid_node.protocol.quorum.records import ACK_KIND, Ack, Epoch
from offgrid_node.protocol.signing import digest_of
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, run, together
from offgrid_node.services.objects.holders import Carrier, call
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX, Members
from offgrid_node.services.objects.source import ShardSource

WINDOW = 3  # pieces of one Ship under way: enough for a far host
PIECES_PER_HOST_MAX = 8  # of all Ships, but one for each: what a host's budget for one peer has room for
STUMBLES_MAX = 4  # answers in a row that brought a Ship no further
BEGINNINGS_MAX = 3  # of one Ship: after a host's restart, or when what lay there was damaged
BEGIN_AGAIN = frozenset({"NotOpened", "ReplicaIncomplete", "ReplicaDamaged", "WrongRoot"})
POSSESSION_LANE = "possession"  # no object's name
COMMIT_BYTES_PER_S = 20_000_000  # the slowest disk and hash that a host's commit is given time for

M = TypeVar("M", bound=Message)


@dataclass(slots=True)
class _Shipment:
    """One Ship under way; a newer one for the same host takes its place before the commit."""

    work: Ship
    manifest: Manifest
    epoch: Epoch
    sent_bytes: int = 0
    took_ms: int = 0
    source_bad: bool = False

    @property
    def shards(self) -> tuple[int, ...]:
        """Of this object, what the host is to hold."""
        return self.epoch.shards[self.work.node]


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
    ) -> None:
        self._runtime, self._carrier, self._members, self._verify = runtime, carrier, members, verify
        self._source, self._bulk, self._keeping = source, bulk, keeping
        self._shipments: dict[tuple[str, str], _Shipment] = {}
        self._flying: Counter[str] = Counter()  # pieces under way, by host

    @property
    def under_way(self) -> int:
        """The objects machine bounds it."""
        return len(self._shipments)

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
            self._runtime.deliver("objects", end)

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
                began_ms = self._now_ms()
                yield from self._fill(shipment)
                shipment.took_ms += self._now_ms() - began_ms
                return (yield from self._commit(shipment))
            except FailedPrecondition as fault:
                if fault.reason not in BEGIN_AGAIN or begun == BEGINNINGS_MAX:
                    shipment.source_bad = fault.reason == "WrongRoot" and (yield self._is_bad(shipment))
                    raise
            except Corrupt:
                shipment.source_bad = yield self._is_bad(shipment)
                raise

    def _is_bad(self, shipment: _Shipment) -> Step[bool]:
        """Whether what lies here is not what the manifest says: no host is believed in that."""
        manifest, shards, members = shipment.manifest, shipment.shards, self._members()

        def rows(index: int) -> list[bytes]:
            self._bulk.check_going()
            return self._source.rows(manifest, index, shards)

        def check() -> bool:
            try:
                roots, _ = hash_shards(manifest, shards, rows, members.salt, shipment.work.node, 0)
            except Corrupt:
                return True
            return bool(wrong_shards(manifest, shards, roots))

        return self._bulk.run(check, key=POSSESSION_LANE)

    def _fill(self, shipment: _Shipment) -> Flow[None]:
        """Until the host has all bytes of its shards."""
        work, total, shards = shipment.work, shipment.manifest.shard_bytes, shipment.shards
        request = objects_pb2.OpenReplicaRequest(manifest=work.manifest, epoch=work.epoch)
        opened = yield call(
            self._carrier,
            work.node,
            "OpenReplica",
            request,
            objects_pb2.OpenReplicaResponse,
            timeout_ms=CALL_TIMEOUT_MS,
        )
        reached, stumbles = {told.shard: told.offset for told in opened.shards}, 0
        if tuple(reached) != shards:
            raise PeerFault(f"{work.node} wants other shards than it is to have", reason="WrongShards")
        piece = min(opened.piece_bytes_max or PIECE_BYTES_MAX, PIECE_BYTES_MAX)
        while True:
            _check_offsets(work.node, reached, total)
            room = max(1, min(WINDOW, PIECES_PER_HOST_MAX - self._flying[work.node]))
            spans = list(islice(_pieces(reached, total, piece), room))
            if not spans:
                return
            self._flying[work.node] += len(spans)
            answers = yield together([self._piece(shipment, *span) for span in spans])
            self._flying[work.node] -= len(spans)
            before, further = reached, _reached([span[0] for span in spans], answers)
            reached = before | further
            shipment.sent_bytes += max(0, sum(reached.values()) - sum(before.values()))
            came = any(reached[shard] > before[shard] for shard in further)
            stumbles = 0 if came else stumbles + 1
            fault = next((answer for answer in answers if isinstance(answer, Fault)), None)
            if stumbles > STUMBLES_MAX or (fault is not None and not came):
                raise fault or PeerFault(f"{work.node} takes nothing beyond {before}", reason="NoProgress")

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms

    def _piece(
        self, shipment: _Shipment, shard: int, offset: int, length: int
    ) -> Step[objects_pb2.WriteReplicaResponse]:
        def send() -> Flow[objects_pb2.WriteReplicaResponse]:
            manifest, work = shipment.manifest, shipment.work
            data = yield self._bulk.run(
                lambda: self._source.read(manifest, shard, offset, length), size_bytes=self._held(manifest, length)
            )
            request = objects_pb2.WriteReplicaRequest(object_id=work.object_id, shard=shard, offset=offset, data=data)
            timeout_ms = CALL_TIMEOUT_MS + WINDOW * transfer_ms(length)  # they share the link
            answer: objects_pb2.WriteReplicaResponse = yield call(
                self._carrier,
                work.node,
                "WriteReplica",
                request,
                objects_pb2.WriteReplicaResponse,
                timeout_ms=timeout_ms,
            )
            return answer

        return lambda done: run(send(), done)

    def _held(self, manifest: Manifest, length: int) -> int:
        """What a piece takes in memory while it is made: of parity also the stripe that its rows come from."""
        return length if manifest.codec == COPY else 2 * length + 2 * stripe_span(manifest, 0)[1]

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
        manifest, shards, salt = shipment.manifest, shipment.shards, self._members().salt
        node, epoch = shipment.work.node, shipment.epoch.epoch

        def rows(index: int) -> list[bytes]:
            self._bulk.check_going()
            return self._source.rows(manifest, index, shards)

        # One lane for all: however large the objects, other work finds a thread.
        return self._bulk.run(lambda: possession_of(manifest, rows, salt, node, epoch), key=POSSESSION_LANE)

    def _check(self, work: Ship, epoch: Epoch, possession: bytes, signed: common_pb2.Signed) -> None:
        members, ack = self._members(), Ack.decode(signed.body)
        digest = digest_of(ACK_KIND, members.salt, signed.body)
        if not self._verify(members.current_key(work.node) or b"", digest, signed.signature):
            raise PeerFault(f"the ack of {work.object_id} is not signed by {work.node}", reason="BadSignature")
        if ack.node != work.node or not ack.is_for(epoch):
            raise PeerFault(f"{work.node} acked something else than {work.object_id}", reason="WrongAck")
        if ack.possession != possession:
            text = f"{work.node} acked other bytes than those of {work.object_id} that lie here"
            raise PeerFault(text, reason="WrongPossession")


def _pieces(reached: Mapping[int, int], total: int, piece: int) -> Iterator[tuple[int, int, int]]:
    """What is to go, shard by shard: shard, offset and length."""
    for shard, offset in reached.items():
        for start in range(offset, total, piece):
            yield shard, start, min(piece, total - start)


def _reached(shards: Sequence[int], answers: Sequence[objects_pb2.WriteReplicaResponse | Fault]) -> dict[int, int]:
    """How far each shard has come, as far as there are answers; it may be less far than before."""
    further: dict[int, int] = {}
    for shard, answer in zip(shards, answers, strict=True):
        if not isinstance(answer, Fault):
            further[shard] = max(further.get(shard, 0), answer.offset)
    return further


def _check_offsets(node: str, reached: Mapping[int, int], total: int) -> None:
    for shard, offset in reached.items():
        if offset > total:
            raise PeerFault(f"{node} says that it has {offset} bytes of {total} of shard {shard}", reason="WrongOffset")
