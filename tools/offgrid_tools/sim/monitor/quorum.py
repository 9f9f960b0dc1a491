"""Rules of quorums: what a member vouches for.

- fence: no member signs an ack of a lower epoch than it signed before, nor two acks for one epoch that differ, and each
  is durable before it leaves;
- enough: what counts as acked was signed by members of the epoch, each counted once;
- lies: no ack counts that a liar made up, of bytes that it does not have or of something else; but where its
  owner had not the bytes as it left, and so could not check before it audits.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2, quorum_pb2
from offgrid_node.protocol.objects.tables import OBJECTS, object_of
from offgrid_node.protocol.quorum.records import Ack, Epoch
from offgrid_node.protocol.quorum.tables import FENCES, QUORUMS, quorum_key
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules, Written


class QuorumRules(Rules):
    """Of acks, whatever they are for."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._highest: dict[tuple[str, str, str], int] = {}  # (member, owner, quorum) → epoch
        self._acks: set[bytes] = set()  # every body that anybody signed
        self._lies: set[bytes] = set()  # every body that a liar made up
        self._unchecked: set[bytes] = set()  # of those, what left while its owner had not the bytes
        self._weight: dict[tuple[str, str], int] = {}

    def replies(self) -> Mapping[type[Message], Passed]:
        return {quorum_pb2.SignAckResponse: lambda source, _, reply: self._signed(source, reply.ack)}

    def lies(self) -> Mapping[type[Message], Passed]:
        kinds = objects_pb2.CommitReplicaResponse, objects_pb2.PutReplicaResponse
        return dict.fromkeys(kinds, lambda source, _, reply: self._on_lie(reply.ack))

    def _signed(self, node: str, signed: common_pb2.Signed) -> None:
        ack = Ack.decode(signed.body)
        row = self._evidence.row(node, FENCES, quorum_key(ack.owner, ack.quorum_id))
        if row is None or quorum_pb2.QuorumFence.FromString(row).epoch < ack.epoch:
            raise Violation(f"{self._evidence.name_of(node)} acks {ack.quorum_id} before its fence is durable")
        self.on_ack(node, signed)

    def on_ack(self, node: str, signed: common_pb2.Signed) -> None:
        """An honest member's ack leaves it; whoever calls has seen that it is durable. One that was restored from a
        backup has forgotten its fences, and nothing tells it."""
        ack = Ack.decode(signed.body)
        if ack.node != node:
            raise Violation(f"{self._evidence.name_of(node)} lets go of an ack of {self._evidence.name_of(ack.node)}")
        self._evidence.sign("ack", node, f"{ack.owner}/{ack.quorum_id}", ack.epoch, signed.body)
        key = node, ack.owner, ack.quorum_id
        if ack.epoch < self._highest.get(key, 0) and node not in self._evidence.dishonest:
            raise Violation(f"{self._evidence.name_of(node)} acks epoch {ack.epoch} after {self._highest[key]}")
        self._highest[key] = ack.epoch
        self._acks.add(signed.body)

    def _on_lie(self, signed: common_pb2.Signed) -> None:
        self._lies.add(signed.body)
        ack = Ack.decode(signed.body)
        if not self._may_check(ack.owner, ack.owner, ack.quorum_id):
            self._unchecked.add(signed.body)

    def rows(self) -> Mapping[str, Written]:
        return {QUORUMS: self._on_row}

    def _on_row(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            return
        row = quorum_pb2.QuorumRow.FromString(value)
        epoch = Epoch.decode(row.epoch.body)
        if epoch.owner == node:
            self._evidence.sign("epoch", node, epoch.quorum_id, epoch.epoch, row.epoch.body)
        counted: dict[str, set[int]] = {}
        for signed in row.acks:
            ack = Ack.decode(signed.body)
            if ack.node == epoch.owner == node:  # its own, for a quorum of its own
                self.on_ack(node, signed)
            made_up = signed.body in self._lies
            lied = made_up and signed.body not in self._unchecked
            if lied and self._may_check(node, epoch.owner, epoch.quorum_id):
                raise Violation(f"{self._evidence.name_of(node)} counts a lie about {ack.quorum_id}")
            if not made_up and signed.body not in self._acks:
                raise Violation(f"{self._evidence.name_of(node)} counts an ack of {ack.quorum_id} that nobody signed")
            if ack.node in counted or not (shards := _vouched(ack, epoch)):
                raise Violation(f"{self._evidence.name_of(node)} counts what does not count for {ack.quorum_id}")
            counted[ack.node] = shards
        self._weight[node, epoch.quorum_id] = least_loss(counted, epoch.weights, epoch.needed)

    def on_comeback(self, node: str) -> None:
        """What these rows count was looked at when they were written; its own acks in them are those of then."""
        self._highest = {key: epoch for key, epoch in self._highest.items() if key[0] != node}
        for _, value in self._evidence.stores[node].scan(QUORUMS):
            row = quorum_pb2.QuorumRow.FromString(value)
            epoch, acks = Epoch.decode(row.epoch.body), (Ack.decode(signed.body) for signed in row.acks)
            counted = {ack.node: _vouched(ack, epoch) for ack in acks}
            self._weight[node, epoch.quorum_id] = least_loss(counted, epoch.weights, epoch.needed)

    def _may_check(self, node: str, owner: str, quorum_id: str) -> bool:
        """An owner that has the bytes. Others take its word for whom it counts."""
        object_id = object_of(quorum_id)
        if object_id and node != owner:
            return False
        value = self._evidence.row(owner, OBJECTS, object_id.encode())
        return value is None or objects_pb2.ObjectRow.FromString(value).object.local

    def acked_milli(self, owner: str, quorum_id: str) -> int:
        """What really was signed for the quorum's present epoch, by the owner's disk."""
        return self._weight.get((owner, quorum_id), 0)

    # ---- what users were told

    def on_reached(self, owner: str, quorum: quorum_pb2.Quorum) -> None:
        """A user was told that a quorum is reached."""
        weight = self.acked_milli(owner, quorum.quorum_id)
        if weight < quorum.required_milli:
            raise Violation(f"{quorum.quorum_id} was shown as reached with {weight} of {quorum.required_milli}")


def _vouched(ack: Ack, epoch: Epoch) -> set[int]:
    """What it says of the epoch's shards at its node, 0 of a copy: nothing of those that it got later."""
    mine = ack.owner, ack.quorum_id, ack.subject, ack.size_bytes
    if mine != (epoch.owner, epoch.quorum_id, epoch.subject, epoch.size_bytes) or ack.epoch > epoch.epoch:
        return set()
    asked = [(0, member.since) for member in epoch.members if member.node_id == ack.node]
    if epoch.layout:
        asked = [(shard, epoch.sinces[shard]) for shard in epoch.shards.get(ack.node, ())]
    return {shard for shard, since in asked if (since or epoch.epoch) <= ack.epoch}


def least_loss(counted: Mapping[str, set[int]], weights: Mapping[str, int], needed: int) -> int:
    """The least weight of hosts without which fewer than the shards needed are left, by trying all sets of them."""
    least = []
    for lost in itertools.chain.from_iterable(itertools.combinations(counted, n) for n in range(len(counted) + 1)):
        if sum(len(shards) for node, shards in counted.items() if node not in lost) < needed:
            least.append(sum(weights[node] for node in lost))
    return min(least)
