"""What the simulator's monitor demands of transactions that a node calls void."""

from __future__ import annotations

import pytest

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.ledger.records import Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import TXS
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.ledger import LedgerRules

OWNER, PAYEE = bytes([1]) * 20, bytes([2]) * 20


def test_what_is_void_while_nothing_else_has_its_slot_is_seen() -> None:
    rules, tx = LedgerRules(Evidence(str)), Tx(NodeSource(OWNER), 0, bytes(32), 1_000, ((PAYEE, 5),))
    row = ledger_pb2.TxRow(signed=common_pb2.Signed(body=tx.encode()), state=ledger_pb2.TX_STATE_VOID)
    rules.rows()[TXS]("a", bytes([3]) * 32, row.SerializeToString())
    with pytest.raises(Violation, match="no other one is final in slot"):
        rules.on_batch("a")
