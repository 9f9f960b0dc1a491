"""Rules of audits: what their owner is told of a host is so.

- shown: nobody is said to have shown bytes that were not on its disk, neither when it was asked nor afterwards;
- blamed: of a host that has all the time what it vouched for nobody says that it has not, as long as those that lie or
  lose things are fewer than the answers beyond those that an object is made of;
- owed: what is to be audited soon stays so until all who count have shown what they have.
"""

from __future__ import annotations

from collections.abc import Mapping

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, UNPROVED, replica_key
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.objects import ObjectRules
from offgrid_tools.sim.monitor.rules import Rules, Written

Outcome = objects_pb2.AuditOutcome
WHOLE, LOST = Outcome.AUDIT_OUTCOME_WHOLE, (Outcome.AUDIT_OUTCOME_WRONG, Outcome.AUDIT_OUTCOME_MISSING)
TELLING = (WHOLE, Outcome.AUDIT_OUTCOME_WRONG, Outcome.AUDIT_OUTCOME_UNDECIDED)

Whole = Mapping[str, frozenset[int]]
"""By host, which shards of an object were on its disk."""


class AuditRules(Rules):
    """Of what a user was answered, and of what an owner still wants to know."""

    def __init__(self, evidence: Evidence, objects: ObjectRules) -> None:
        self._evidence, self._objects = evidence, objects
        self._owed: set[tuple[str, bytes]] = set()  # by owner and object

    def rows(self) -> Mapping[str, Written]:
        return {UNPROVED: self._on_unproved}

    def _on_unproved(self, owner: str, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self._owed.add((owner, key))
            return
        row, owed = self._evidence.row(owner, OBJECTS, key), (owner, key) in self._owed
        self._owed.discard((owner, key))
        if owed and row is not None and not objects_pb2.ObjectRow.FromString(row).object.verified_us:
            raise Violation(f"{self._evidence.name_of(owner)} forgets to audit {key.decode()}")

    def on_comeback(self, node: str) -> None:
        self._owed = {(owner, key) for owner, key in self._owed if owner != node}

    def whole(self, owner: str, object_id: str) -> Whole:
        """Now."""
        found = dict[str, frozenset[int]]()
        for host in self._evidence.stores:
            row = self._evidence.row(host, REPLICAS, replica_key(object_id, owner))
            if row is not None:
                found[host] = self._objects.whole_shards(host, objects_pb2.ReplicaRow.FromString(row))
        return found

    def on_audited(self, owner: str, before: Whole, told: objects_pb2.AuditObjectResponse) -> None:
        """A user was told; `before` is what was whole when it asked."""
        made, now = told.object, self.whole(owner, told.object.object_id)
        fair = self._is_fair(told)
        for host in told.hosts:
            shards, name = {*host.shards} or {0}, self._evidence.name_of(host.node_id)
            kept, had = now.get(host.node_id, frozenset()), before.get(host.node_id, frozenset())
            if host.outcome == WHOLE and not shards <= had | kept:
                raise Violation(f"{name} has shown shards {shards} of {made.object_id}, it is said, and has them not")
            counted_on = host.node_id not in self._evidence.bad | self._evidence.rotten | self._evidence.dishonest
            if host.outcome in LOST and fair and counted_on and shards <= had & kept:
                raise Violation(f"{name} has shards {shards} of {made.object_id}, and is said not to: {host.reason}")

    def _is_fair(self, told: objects_pb2.AuditObjectResponse) -> bool:
        """Whether the answers of those that may be wrong are few enough to be told apart."""
        answers = {host.node_id: len(host.shards) or 1 for host in told.hosts if host.outcome in TELLING}
        wrong = sum(count for node, count in answers.items() if node in self._evidence.bad | self._evidence.rotten)
        return wrong < sum(answers.values()) - max(1, told.object.shards_needed)
