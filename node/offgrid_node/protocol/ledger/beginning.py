"""What a node's rows are once it begins at a checkpoint: see bootstrap.py. All of it is one batch, whose size grows
with accounts; whatever was open is forgotten, and the machine is loaded from these rows."""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.checkpoints import Checkpoint
from offgrid_node.protocol.ledger.pruning import begun_at
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, Tx
from offgrid_node.protocol.ledger.slots import Slot
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
    GIVEN_OPEN,
    IN_FLIGHT,
    META,
    NAMED,
    ORDERS,
    SLOTS,
    TAKEN_OPEN,
    TALLIES,
    TOTALS_KEY,
    TX_INDEX,
    TXS,
    UNTOLD,
    number_key,
)

OPEN = (SLOTS, TALLIES, DISPUTES, ASIDE, CUTS, ORDERS, NAMED, UNTOLD, BEFORE)


def begin_at(row: ledger_pb2.CheckpointRow, draft: Draft, chains: Chains, totals: Totals, own: bytes, now: Now) -> None:
    """The accounts are in BOOT, and have the checkpoint's root."""
    body = Checkpoint.decode(row.body)
    accounts = dict(draft.committed(BOOT, b""))
    for key, _ in draft.committed(ACCOUNTS, b""):
        if key not in accounts:
            draft.delete(ACCOUNTS, key)
    for key, value in accounts.items():
        draft.put_bytes(ACCOUNTS, key, value)
        draft.delete(BOOT, key)
    for table in OPEN:
        for key, _ in draft.committed(table, b""):
            draft.delete(table, key)
    draft.put(CHECKPOINTS, number_key(body.epoch), row)
    draft.put(META, EPOCH_KEY, ledger_pb2.EpochRow(number=body.epoch + 1, entered_us=now.utc_us))
    paid_out = sum(Account.decode(value).balance_micro for value in accounts.values())
    totals.fees_micro, totals.supply_micro = body.supply_micro - paid_out, body.supply_micro
    draft.put_bytes(META, TOTALS_KEY, totals.encode())
    draft.put_bytes(META, AHEAD_KEY, number_key(chains.end))
    draft.delete(META, BOOT_KEY)
    chains.begin_at(row.heads)
    begun_at(draft, body.epoch, chains.end, totals, now)
    open_here = list(draft.committed(IN_FLIGHT, b""))
    for hold, _ in (*draft.committed(GIVEN_OPEN, b""), *draft.committed(TAKEN_OPEN, b"")):
        open_here += [(hold, digest) for digest in _own_ends(draft, hold, own)]
    for account, digest in open_here:
        held = Account.decode(accounts[account]) if account in accounts else None
        if held is not None:
            _end(draft, account, digest, held, body.epoch, now)


def _own_ends(draft: Draft, hold: bytes, own: bytes) -> Iterator[bytes]:
    """What this node has signed to end that hold, as far as it is kept, by digest."""
    for _, listed in draft.committed(TX_INDEX, hold):
        for at in range(0, len(listed), DIGEST_BYTES):
            digest = listed[at : at + DIGEST_BYTES]
            row = draft.row(TXS, digest, ledger_pb2.TxRow)
            if row is not None and (tx := Tx.decode(row.signed.body)).src == hold and tx.source.signer == own:
                yield digest


def _end(draft: Draft, account: bytes, digest: bytes, held: Account, epoch: int, now: Now) -> None:
    """What was in flight here has ended if its slot has, by what stands there; else it has its slot still."""
    row = draft.row(TXS, digest, ledger_pb2.TxRow)
    if row is None:
        return
    seq = Tx.decode(row.signed.body).seq
    if seq >= held.next_seq:
        slot = Slot(account, seq, first=digest)
        draft.put_bytes(SLOTS, slot.key, slot.encode())
        return
    row.state = ledger_pb2.TX_STATE_FINAL if held.head == digest else ledger_pb2.TX_STATE_VOID
    row.epoch = epoch
    if row.state == ledger_pb2.TX_STATE_FINAL:
        row.final_us = now.utc_us
    draft.put(TXS, digest, row)
    draft.delete(IN_FLIGHT, account)
