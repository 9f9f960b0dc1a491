"""What the simulator's monitor lets an owner off that could not know better, and what not."""

from __future__ import annotations

import pytest

from offgrid.v1 import common_pb2, objects_pb2, quorum_pb2
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.objects.tables import META, OBJECTS, REPLICAS, replica_key
from offgrid_node.protocol.quorum.records import Ack, Epoch, Member
from offgrid_node.protocol.quorum.tables import LIFE, QUORUMS, quorum_key
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.monitor.comebacks import ComebackRules
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.quorum import QuorumRules

OWNER, HOST = (node_id_from(bytes([number]) * 20) for number in (1, 2))
OBJECT_ID, NOTHING = "o-" + "a2" * 16, bytes(32)


@pytest.fixture
def evidence() -> Evidence:
    evidence = Evidence(str)
    evidence.stores |= {OWNER: MemoryStore(), HOST: MemoryStore()}
    return evidence


class TestAnAckThatALiarMadeUp:
    QUORUM = f"object:{OBJECT_ID}"

    def write(self, evidence: Evidence, *, local: bool) -> None:
        row = objects_pb2.ObjectRow(object=objects_pb2.Object(object_id=OBJECT_ID, local=local))
        evidence.stores[OWNER].commit(Batch(writes={(OBJECTS, OBJECT_ID.encode()): row.SerializeToString()}))

    def count(self, rules: QuorumRules) -> None:
        epoch = Epoch(OWNER, self.QUORUM, 1, NOTHING, 10, 1_000, (Member(HOST, 1_000),))
        row = quorum_pb2.QuorumRow(epoch=common_pb2.Signed(body=epoch.encode()), acks=[self.lie()])
        rules.rows()[QUORUMS](OWNER, quorum_key(OWNER, self.QUORUM), row.SerializeToString())

    def lie(self) -> common_pb2.Signed:
        return common_pb2.Signed(body=Ack(HOST, OWNER, self.QUORUM, 1, NOTHING, 10, NOTHING).encode())

    def told(self, rules: QuorumRules) -> None:
        reply = objects_pb2.CommitReplicaResponse(ack=self.lie())
        rules.lies()[objects_pb2.CommitReplicaResponse](HOST, OWNER, reply)

    def test_does_not_count_where_its_owner_has_the_bytes(self, evidence: Evidence) -> None:
        rules = QuorumRules(evidence)
        self.write(evidence, local=True)
        self.told(rules)
        with pytest.raises(Violation, match="counts a lie"):
            self.count(rules)

    def test_still_counts_where_these_come_later(self, evidence: Evidence) -> None:
        rules = QuorumRules(evidence)
        self.write(evidence, local=False)
        self.told(rules)
        self.count(rules)
        self.write(evidence, local=True)
        self.count(rules)


class TestAReplicaThatComesFromBeforeAnOldDisk:
    def bring(self, rules: ComebackRules) -> None:
        rules.rows()[REPLICAS](HOST, replica_key(OBJECT_ID, OWNER), b"row")

    def test_is_known_at_once_to_an_owner_whose_disk_nobody_replaced(self, evidence: Evidence) -> None:
        self.bring(ComebackRules(evidence))
        assert evidence.late == set()

    def test_is_late_until_its_owner_is_shown_that_it_is_one(self, evidence: Evidence) -> None:
        rules = ComebackRules(evidence)
        rules.on_comeback(OWNER)
        self.bring(rules)
        rules.on_start(OWNER)
        assert evidence.late == {(HOST, OBJECT_ID)}
        evidence.stores[OWNER].commit(Batch(writes={(META, LIFE): b"\2"}))
        rules.on_start(OWNER)
        assert evidence.late == set(), "it asks what came until then"
        self.bring(rules)
        assert evidence.late == {(HOST, OBJECT_ID)}, "and later only in an hour"
