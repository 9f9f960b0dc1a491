"""Rules of objects.

- acked: what a user was told is kept stays in the owner's rows, and its bytes are somewhere: with the owner until
  enough honest hosts hold them;
- held: a host acks only bytes that are durable with it, whole, under a row that is durable too;
- one transaction: an outbox row and its journal event are durable together;
- kept: what a host has acked stays with it, whole, until its owner deletes it;
- promised: what an owner says may be lost before an object is, is what acks of its present epoch say;
- enough: an entry is completed, an object durable, by the required weight of different members and nothing less, and an
  object that was durable once stays so.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2, state_pb2
from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.shards import blob_name, row_span, rows_of, stripe_span
from offgrid_node.protocol.objects.tables import (
    DROPPED,
    MOVED,
    OBJECTS,
    OUTBOX,
    OUTBOX_OPEN,
    REPLICAS,
    number_of,
    outbox_key,
    replica_key,
)
from offgrid_node.protocol.quorum.records import Ack
from offgrid_tools.sim.monitor.deletions import DeletionRules
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.quorum import QuorumRules
from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules, Written

COMPLETED, DURABLE = objects_pb2.OUTBOX_STATUS_COMPLETED, objects_pb2.OBJECT_STATE_DURABLE
MADE = ("accepted", "enqueued", "taken back")  # what the journal says of an entry's beginning


class ObjectRules(Rules):
    """Of owners' rows and of hosts' replicas."""

    def __init__(self, evidence: Evidence, quorum: QuorumRules, deletions: DeletionRules) -> None:
        self._evidence, self._quorum, self._deletions = evidence, quorum, deletions
        self._coder = Fallback()
        self._acked: dict[str, dict[str, int]] = {}  # owner → object → required weight
        self._durable: dict[str, set[str]] = {}
        self._vouchers: dict[tuple[str, str], set[int]] = {}  # (object, host) → epochs for which it vouched, honestly
        self._entries: dict[tuple[str, bytes], str] = {}
        self._segments: set[str] = set()  # of journals: of these no journal says anything
        self._replacing: set[tuple[str, str]] = set()  # by owner, what is to replace something, and may yet be given up

    def replies(self) -> Mapping[type[Message], Passed]:
        return {
            objects_pb2.CommitReplicaResponse: lambda source, _, reply: self._vouched(source, reply.ack),
            objects_pb2.PutReplicaResponse: lambda source, _, reply: self._vouched(source, reply.ack),
        }

    def events(self) -> Mapping[str, Journaled]:
        return {"object": self._on_event}

    def rows(self) -> Mapping[str, Written]:
        return {OBJECTS: self._on_object, OUTBOX: self._on_entry}

    # ---- hosts

    def _vouched(self, host: str, signed: common_pb2.Signed) -> None:
        ack = Ack.decode(signed.body)
        object_id = ack.quorum_id.partition(":")[2]
        value = self._evidence.row(host, REPLICAS, replica_key(object_id, ack.owner))
        if self._evidence.row(host, DROPPED, replica_key(object_id, ack.owner)) is not None:
            return  # it said so once before, while it had it; its owner wants it no more
        if number_of(self._evidence.row(host, MOVED, replica_key(object_id, ack.owner)) or b"") > ack.epoch:
            return  # likewise; others have it now
        row = objects_pb2.ReplicaRow.FromString(value or b"")
        if value is None or Ack.decode(row.ack.body).epoch < ack.epoch:
            raise Violation(f"{self._evidence.name_of(host)} acks {object_id}, and its disk has no row of that")
        sure = ack.epoch in self._vouchers.setdefault((object_id, host), set()) or host in self._evidence.rotten
        if not sure and not self._holds_shards(host, row):
            raise Violation(f"{self._evidence.name_of(host)} acks {object_id}, and its bytes are not on its disk")
        self._vouchers[object_id, host].add(ack.epoch)
        self._quorum.on_ack(host, signed)

    def _holds_shards(self, host: str, row: objects_pb2.ReplicaRow) -> bool:
        """Whether all that it vouched for is whole."""
        return self.whole_shards(host, row) == {*shards_of(row)}

    def whole_shards(self, host: str, row: objects_pb2.ReplicaRow) -> frozenset[int]:
        """Of what it vouched for, those whose very bytes are on that disk, durable and whole."""
        body = Manifest.decode(row.manifest.signed.body)
        return frozenset(shard for shard in shards_of(row) if self._is_whole(host, body, shard))

    def _is_whole(self, host: str, body: Manifest, shard: int) -> bool:
        held, salt = self._evidence.kept(host, blob_name(body, shard), body.owner), self._evidence.salt
        if held is None or len(held) != body.shard_bytes:
            return False
        spans = (row_span(body, index) for index in range(body.stripes))
        return shard_root([stripe_digest(salt, held[at : at + length]) for at, length in spans]) == body.roots[shard]

    def _holds_sealed(self, owner: str, manifest: objects_pb2.Manifest) -> bool:
        """Whether an owner's sealed copy is, from which every shard can be made."""
        body, salt = Manifest.decode(manifest.signed.body), self._evidence.salt
        held = self._evidence.kept(owner, body.object_id, owner)
        if held is None or len(held) != body.sealed_bytes:
            return False
        spans = (stripe_span(body, index) for index in range(body.stripes))
        stripes = [held[at : at + length] for at, length in spans]
        rows = (self._coder.encode(body.k, body.n, rows_of(stripe, body.k), range(body.n)) for stripe in stripes)
        shards = zip(*([stripe_digest(salt, row) for row in of_stripe] for of_stripe in rows), strict=True)
        return body.roots == tuple(shard_root(digests) for digests in shards)

    # ---- owners

    def _on_event(self, node: str, event: state_pb2.Event) -> None:
        number, outcome = event.object.outbox_id, event.object.outcome
        if outcome in MADE:
            self._evidence.durable(outcome, node, event.object.object_id, number)
            if self._evidence.row(node, OUTBOX, outbox_key(number)) is None:
                raise Violation(f"outbox entry {number} has an event and no row")

    def _on_entry(self, node: str, key: bytes, value: bytes | None) -> None:
        known = self._entries.get((node, key))
        if value is None:
            if known not in self._segments:
                raise Violation(f"{self._evidence.name_of(node)} forgets an outbox entry")
            return
        entry = objects_pb2.OutboxEntry.FromString(value)
        if known is None:
            if entry.object_id not in self._segments and not any(
                self._evidence.is_durable(what, node, entry.object_id, number_of(key)) for what in MADE
            ):
                raise Violation(f"outbox entry {number_of(key)} is durable without its event")
            self._entries[node, key] = entry.object_id
        elif node in self._evidence.dishonest:
            self._entries[node, key] = entry.object_id
        elif known != entry.object_id:
            raise Violation(f"outbox entry {number_of(key)} was {known} and is {entry.object_id}")
        if entry.status == COMPLETED:
            self._check_enough(node, entry.object_id, entry.required_milli)

    def _on_object(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            spare = key.decode() in self._segments or (node, key.decode()) in self._replacing
            if not spare and not self._deletions.may_be_gone(node, key.decode()):
                raise Violation(f"{self._evidence.name_of(node)} forgets object {key.decode()}")
            return
        row = objects_pb2.ObjectRow.FromString(value)
        if is_segment(row.object.manifest):
            self._segments.add(row.object.object_id)
        if row.replaces:
            self._replacing.add((node, key.decode()))
        else:
            self._replacing.discard((node, key.decode()))
        self._deletions.on_made(node, row.object)
        signed_milli = self._quorum.acked_milli(node, f"object:{key.decode()}")
        if row.object.acked_milli > signed_milli:
            said = f"so much may be lost before it is: {row.object.acked_milli}; by what was signed, {signed_milli}"
            raise Violation(f"{self._evidence.name_of(node)} says of {key.decode()} that {said}")
        if row.object.state == DURABLE:
            self._check_enough(node, row.object.object_id, row.object.required_milli)
        elif row.object.object_id in self._durable.get(node, set()):
            raise Violation(f"{row.object.object_id} was durable, and is so no more")

    def _check_enough(self, owner: str, object_id: str, required_milli: int) -> None:
        if object_id in self._durable.setdefault(owner, set()):
            return
        weight = self._quorum.acked_milli(owner, f"object:{object_id}")
        if weight < required_milli:
            raise Violation(f"{object_id} is called durable with acks of {weight}, {required_milli} are required")
        self._durable[owner].add(object_id)

    def on_replaced(self, owner: str, old_id: str, new_id: str) -> None:
        """It was sealed anew: what must not get lost is the new one."""
        acked = self._acked.get(owner, {})
        if old_id in acked:
            acked[new_id] = acked[old_id]

    def on_deleted(self, node: str, object_id: str) -> None:
        """A node deletes bytes of its own accord."""
        if self._deletions.may_be_gone(node, object_id):
            return
        if object_id in self._acked.get(node, {}) and object_id not in self._durable.get(node, set()):
            raise Violation(f"{self._evidence.name_of(node)} drops {object_id} before others hold it")

    def on_comeback(self, node: str) -> None:
        """What was not durable elsewhere went with the disk that its owner had."""
        self._durable[node] = set()
        for key, value in self._evidence.stores[node].scan(OBJECTS):
            if objects_pb2.ObjectRow.FromString(value).object.state == DURABLE:
                self._durable[node].add(key.decode())
        acked = self._acked.get(node, {})
        self._acked[node] = {object_id: milli for object_id, milli in acked.items() if self._is_there(node, object_id)}

    def is_acked(self, owner: str, object_id: str) -> bool:
        """Whether it must not get lost."""
        return object_id in self._acked.get(owner, ())

    # ---- what users were told

    def on_acked(self, owner: str, object_id: str, required_milli: int) -> None:
        """A user holds this answer: from now on the object must not get lost."""
        self._acked.setdefault(owner, {})[object_id] = required_milli
        self._check_acked(owner, object_id)

    def on_durable(self, owner: str, object_id: str) -> None:
        """A user was told that the quorum has acked."""
        if object_id not in self._durable.get(owner, set()):
            raise Violation(f"{object_id} was shown as durable; the owner's disk does not say so")

    def check_store(self, node: str) -> None:
        for object_id in self._acked.get(node, {}):
            self._check_acked(node, object_id)
        if node not in self._evidence.rotten:
            self._check_kept(node)

    def _check_kept(self, host: str) -> None:
        for key, value in self._evidence.stores[host].scan(REPLICAS):
            row = objects_pb2.ReplicaRow.FromString(value)
            if row.HasField("ack") and not self._holds_shards(host, row):
                raise Violation(f"{self._evidence.name_of(host)} has acked {key.decode()}, and has its bytes no more")

    def _check_acked(self, owner: str, object_id: str) -> None:
        if self._deletions.may_be_gone(owner, object_id):
            return
        if self._evidence.row(owner, OBJECTS, object_id.encode()) is None:
            raise Violation(f"{object_id} was acked and is not in the store")
        if not self._is_there(owner, object_id):
            raise Violation(f"{object_id} was acked, is not durable elsewhere, and its owner's bytes are gone")

    def _is_there(self, owner: str, object_id: str) -> bool:
        """Durable elsewhere, or with its owner."""
        value = self._evidence.row(owner, OBJECTS, object_id.encode())
        made = objects_pb2.ObjectRow.FromString(value or b"").object
        return value is not None and (made.state == DURABLE or self._holds_sealed(owner, made.manifest))

    # ---- the end

    def stuck(self, node: str) -> str:
        """An outbox entry that is still open; empty when none is."""
        for key, object_id in self._evidence.stores[node].scan(OUTBOX_OPEN):
            return f"outbox entry {number_of(key)} of {self._evidence.name_of(node)} ({object_id.decode()}) is open"
        return ""

    def unbacked(self, owner: str, hosts: Container[str]) -> str:
        """An ack of one of these hosts that counts at its owner and is not backed by bytes; empty without any."""
        for key, value in self._evidence.stores[owner].scan(OBJECTS):
            for ack in objects_pb2.ObjectRow.FromString(value).object.acks:
                row = self._evidence.row(ack.node_id, REPLICAS, replica_key(key.decode(), owner))
                kept = row is not None and self._holds_shards(ack.node_id, objects_pb2.ReplicaRow.FromString(row))
                if ack.node_id in hosts and not kept:
                    return f"{key.decode()} counts on {self._evidence.name_of(ack.node_id)}, which does not keep it"
        return ""
