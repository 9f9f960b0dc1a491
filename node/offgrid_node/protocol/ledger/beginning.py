"""What a node's rows are once it begins at a checkpoint: see bootstrap.py. All of it is one batch, whose size grows
with accounts; what was said of the epochs before is forgotten, and the machine is loaded from these rows."""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.accounts import Account, Accounts
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.checkpoints import Checkpoint
from offgrid_node.protocol.ledger.pruning import begun_at
from offgrid_node.protocol.ledger.slots import Slots
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    AHEAD_KEY,
    ASIDE,
    BEFORE,
    BOOT,
    BOOT_KEY,
    CHECKPOINTS,
    CUTS,
    DISPUTES,
    EPOCH_KEY,
    IN_FLIGHT,
    META,
    NAMED,
    ORDERS,
    SLOTS,
    TALLIES,
    TOTALS_KEY,
    UNTOLD,
    number_key,
)
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.witness import Witness

OPEN = (SLOTS, TALLIES, DISPUTES, ASIDE, CUTS, ORDERS, NAMED, UNTOLD, BEFORE)


def begin_at(
    row: ledger_pb2.CheckpointRow, draft: Draft, chains: Chains, accounts: Accounts, slots: Slots,
    transactions: Transactions, witness: Witness, now: Now,
) -> None:  # fmt: skip
    """The accounts are in BOOT, and have the checkpoint's root."""
    body, totals = Checkpoint.decode(row.body), accounts.totals
    begun = dict(draft.committed(BOOT, b""))

    def held(account: bytes) -> Account:
        return Account.decode(begun[account]) if account in begun else Account(0, 0, accounts.genesis_digest)

    for account, digest in draft.committed(IN_FLIGHT, b""):
        known = transactions.get(digest)
        if known is not None and known.item.tx.seq < held(account).next_seq:
            slots.name(slots.make(account, known.item.tx.seq), digest)  # its slot knows it, though it never left
            draft.delete(IN_FLIGHT, account)
    witness.endings.begin_at(held, body.epoch, now)
    for table in OPEN:
        for key, _ in draft.committed(table, b""):
            draft.delete(table, key)
    witness.flush()
    slots.flush()
    transactions.flush()
    for key, _ in draft.committed(ACCOUNTS, b""):
        if key not in begun:
            draft.delete(ACCOUNTS, key)
    for key, value in begun.items():
        draft.put_bytes(ACCOUNTS, key, value)
        draft.delete(BOOT, key)
    draft.put(CHECKPOINTS, number_key(body.epoch), row)
    draft.put(META, EPOCH_KEY, ledger_pb2.EpochRow(number=body.epoch + 1, entered_us=now.utc_us))
    paid_out = sum(Account.decode(value).balance_micro for value in begun.values())
    totals.fees_micro, totals.supply_micro = body.supply_micro - paid_out, body.supply_micro
    draft.put_bytes(META, TOTALS_KEY, totals.encode())
    draft.put_bytes(META, AHEAD_KEY, number_key(chains.end))
    draft.delete(META, BOOT_KEY)
    chains.begin_at(row.heads)
    begun_at(draft, body.epoch, chains.end, totals, now)
