"""Transactions as this node knows them: a row each, written when one comes in and when its fate is known.

Payees find one in their list once it is final: whoever signs what never will be does not fill other accounts' lists.
What an owner with money may sign for the slots in reach (witness.py) is bounded by nothing but rates, to come.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.records import NO_REQUEST, Tx
from offgrid_node.protocol.ledger.slots import NOTHING, Tally
from offgrid_node.protocol.ledger.sources import LANE_BYTES, LaneSource
from offgrid_node.protocol.ledger.tables import (
    EVERYBODY,
    LANES_SEEN,
    REQUESTS,
    TRANSFERS,
    TX_INDEX,
    TXS,
    newest_first,
)

HELD_MAX = 16_384  # transactions in memory; all are in their rows


class Known(msgspec.Struct):
    item: TxItem
    row: ledger_pb2.TxRow


class Transactions:
    """By digest. What is final or void stays in its row only."""

    def __init__(self, draft: Draft, accounts: Accounts) -> None:
        self._draft, self._accounts = draft, accounts
        self._held: dict[bytes, Known] = {}
        self._listed: dict[bytes, list[bytes]] = {}  # account → digests that this step brings into its list

    def get(self, digest: bytes) -> Known | None:
        known = self._held.get(digest)
        if known is None and (row := self._draft.row(TXS, digest, ledger_pb2.TxRow)) is not None:
            body, signature = row.signed.body, row.signed.signature
            known = self._held[digest] = Known(TxItem(Tx.decode(body), body, signature, digest), row)
        return known

    def of_slot(self, account: bytes, seq: int, digest: bytes) -> Known | None:
        """The transaction, if it is here and of this slot. A liar speaks in one slot of what belongs to another."""
        known = self.get(digest) if digest != NOTHING else None
        return known if known is not None and (known.item.tx.src, known.item.tx.seq) == (account, seq) else None

    def add(self, item: TxItem, now: Now, *, transfer_id: str = "") -> Known:
        """One that is not known yet."""
        self._accounts.totals.txs += 1
        row = ledger_pb2.TxRow(
            signed=common_pb2.Signed(body=item.body, signature=item.signature),
            state=ledger_pb2.TX_STATE_SIGNED,
            created_us=now.utc_us,
            transfer_id=transfer_id,
        )
        known = self._held[item.digest] = Known(item, row)
        self._draft.put(TXS, item.digest, row)
        for account in (EVERYBODY, item.tx.src):
            self._listed.setdefault(account, []).append(item.digest)
        source = item.tx.source
        if isinstance(source, LaneSource) and item.tx.seq == 0:
            self._draft.put_bytes(LANES_SEEN, source.account, source.owner + source.lane.to_bytes(LANE_BYTES, "big"))
        return known

    def explain(self, known: Known, *, transfer_id: str) -> None:
        """What an own one was for."""
        known.row.transfer_id = transfer_id
        self._draft.put(TXS, known.item.digest, known.row)

    def end(self, known: Known, state: ledger_pb2.TxState.ValueType, tally: Tally, now: Now, *, epoch: int = 0) -> None:
        """Final or void, for ever."""
        row = known.row
        row.state, row.voted, row.confirmed, row.epoch = state, tally.voted, tally.confirmed, epoch
        if state == ledger_pb2.TX_STATE_FINAL:
            row.final_us = now.utc_us
            tx = known.item.tx
            for account in dict.fromkeys(account for account, _ in tx.outputs):
                if account not in (tx.src, EVERYBODY):
                    self._listed.setdefault(account, []).append(known.item.digest)
        self._draft.put(TXS, known.item.digest, row)
        self._held.pop(known.item.digest, None)

    def forget(self, digest: bytes, row: ledger_pb2.TxRow) -> None:
        """An old one that is final or void: see packing.py."""
        self._held.pop(digest, None)
        self._draft.delete(TXS, digest)
        if row.transfer_id:
            key = row.transfer_id.encode()
            made = self._draft.row(TRANSFERS, key, ledger_pb2.TransferRow)
            self._draft.delete(TRANSFERS, key)
            if made is not None and made.request != NO_REQUEST:
                self._draft.delete(REQUESTS, made.request)

    def flush(self) -> None:
        """The end of a step: what has come into an account's list is one row, the newest first."""
        if not self._listed:
            return
        totals = self._accounts.totals
        totals.lists += 1
        self._accounts.totals_changed = True
        place = newest_first(totals.lists)
        for account, digests in self._listed.items():
            self._draft.put_bytes(TX_INDEX, account + place, b"".join(reversed(digests)))
        self._listed.clear()

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        if len(self._held) > HELD_MAX:
            self._held.clear()
