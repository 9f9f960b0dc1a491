"""Verifies a node's rows that begin at a checkpoint."""

from __future__ import annotations

from random import Random

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.pruned_start import start_of
from offgrid_node.protocol.ledger.tables import ACCOUNTS, CHECKPOINTS, LOG, TXS, number_of
from offgrid_node.protocol.ledger.verification import Verification
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT, holds


def verified(store: MemoryStore, signed: common_pb2.Signed) -> Verification:
    """A store that has pruned."""
    scratch = MemoryStore()
    found = Verification(scratch, signed, SALT, holds, Random(0))
    scratch.commit(Batch(writes=found.take_writes()))
    start = start_of(store)
    assert start is not None
    for writes in found.begin_at(start):
        scratch.commit(Batch(writes=writes))
    if not found.first:
        return found
    for key, raw in store.scan(LOG):
        found.take(ledger_pb2.Block.FromString(raw), number_of(key))
        scratch.commit(Batch(writes=found.take_writes()))
    totals = Surveys(store).totals
    found.compare_totals(totals.fees_micro, totals.supply_micro)
    rows = ((key, Account.decode(row)) for key, row in store.scan(ACCOUNTS))
    found.compare_accounts((key, row.balance_micro, row.next_seq, row.head) for key, row in rows)
    told = ((number_of(key), ledger_pb2.CheckpointRow.FromString(row).body) for key, row in store.scan(CHECKPOINTS))
    found.compare_epochs(told)
    txs = ((key, ledger_pb2.TxRow.FromString(row)) for key, row in store.scan(TXS))
    found.compare_states((key, row.state, row.signed.body, row.epoch) for key, row in txs)
    found.end()
    return found
