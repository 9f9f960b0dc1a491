"""Accounts: what each one has by final transactions alone, which slot is its next, and the digest that the transaction
there must name.

A balance may dip below zero for a while on one node: it is a signed integer, as FastPay's `i128`. Witnesses have
checked the funds before a transaction became final, so a credit that is final as well must be on its way here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx
from offgrid_node.protocol.ledger.tables import ACCOUNTS, BEFORE, META, TOTALS_KEY, number_key

HELD_MAX = 65_536  # accounts in memory; all are in their rows
BALANCE_AND_SEQ = 16  # bytes of a row
_UNTOUCHED = bytes(BALANCE_AND_SEQ)


class Account(msgspec.Struct):
    balance_micro: int
    next_seq: int
    head: bytes

    FORM: ClassVar[struct.Struct] = struct.Struct(">qQ32s")

    @property
    def untouched(self) -> bool:
        """It has had no money yet, so nobody honest speaks of its slots."""
        return self.balance_micro == 0 and self.next_seq == 0

    def encode(self) -> bytes:
        return self.FORM.pack(self.balance_micro, self.next_seq, self.head)

    @classmethod
    def decode(cls, row: bytes) -> Account:
        return cls(*cls.FORM.unpack(row))


class Totals(msgspec.Struct):
    """Fees that nobody has got yet, all the money that there is, how many steps have brought anything into lists of
    transactions, and how many transactions there were in all."""

    fees_micro: int = 0
    supply_micro: int = 0
    lists: int = 0
    txs: int = 0

    FORM: ClassVar[struct.Struct] = struct.Struct(">QQQQ")

    def encode(self) -> bytes:
        return self.FORM.pack(self.fees_micro, self.supply_micro, self.lists, self.txs)

    @classmethod
    def decode(cls, row: bytes) -> Totals:
        return cls(*cls.FORM.unpack(row))


class Accounts:
    """Rows read when they are asked for, written once a step."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._held: dict[bytes, Account] = {}
        self._changed: dict[bytes, Account] = {}
        self._genesis_digest = b""
        self._epoch = 0
        self._saved: set[bytes] = set()  # accounts of which it is kept what they had when the epoch began
        self.totals = Totals()
        self.totals_changed = False
        self.changes = 0  # how often anything has changed since the start

    def load(self, genesis_digest: bytes) -> None:
        self._genesis_digest = genesis_digest
        row = self._draft.get(META, TOTALS_KEY)
        self.totals = Totals.decode(row) if row is not None else Totals()

    @property
    def genesis_digest(self) -> bytes:
        """What the first transaction of each account names."""
        return self._genesis_digest

    def open(self, genesis: LedgerGenesis, genesis_digest: bytes) -> None:
        """The first balances."""
        self._genesis_digest = genesis_digest
        self.totals, self.totals_changed = Totals(supply_micro=genesis.supply_micro), True
        for node, amount in genesis.balances:
            account = node_id_bytes(node)
            self._held[account] = self._changed[account] = Account(amount, 0, genesis_digest)

    def get(self, account: bytes) -> Account:
        """As it stands; an account that nobody has named yet is empty. Change it by `apply` alone."""
        held = self._held.get(account)
        if held is None:
            row = self._draft.get(ACCOUNTS, account)
            held = Account.decode(row) if row is not None else Account(0, 0, self._genesis_digest)
            self._held[account] = held
        return held

    def apply(self, tx: Tx, digest: bytes) -> None:
        """Moves the money of the final transaction in its account's next slot, once: the slot is behind it then."""
        src = self.get(tx.src)
        assert (tx.seq, tx.prev) == (src.next_seq, src.head), "slots are applied in their order"
        src.balance_micro -= tx.total_micro
        src.next_seq, src.head = tx.seq + 1, digest
        self._changed[tx.src] = src
        for account, amount in tx.outputs:
            dst = self.get(account)
            dst.balance_micro += amount
            self._changed[account] = dst
        self.totals.fees_micro += tx.fee_micro
        self.totals_changed = True
        self.changes += 1

    def credit(self, account: bytes, amount_micro: int) -> None:
        """Out of the fees."""
        held = self.get(account)
        held.balance_micro += amount_micro
        self._changed[account] = held
        self.totals.fees_micro -= amount_micro
        self.totals_changed = True
        self.changes += 1

    def rows(self, changed: Mapping[bytes, Account]) -> dict[bytes, bytes]:
        """The rows of all accounts that have had money, as they stand but for these: this reads all that there are."""
        found = dict(self._draft.committed(ACCOUNTS, b""))
        found.update((account, held.encode()) for account, held in (self._held | dict(changed)).items())
        return {account: row for account, row in found.items() if row[:BALANCE_AND_SEQ] != _UNTOUCHED}

    def skip(self, account: bytes, seq: int, digest: bytes) -> None:
        """The account's next slot ends with the no-op of this digest: nothing moves."""
        held = self.get(account)
        assert seq == held.next_seq, "slots are applied in their order"
        held.next_seq, held.head = seq + 1, digest
        self._changed[account] = held
        self.changes += 1

    def begin_epoch(self, number: int) -> None:
        """What accounts have by now is what the epoch begins with."""
        self.flush()
        self._epoch = number
        self._saved.clear()

    def flush(self) -> None:
        """The end of a step: what has changed becomes rows."""
        for account, held in self._changed.items():
            if self._epoch and account not in self._saved:
                self._save(account)
            self._draft.put_bytes(ACCOUNTS, account, held.encode())
        self._changed.clear()
        if self.totals_changed:
            self._draft.put_bytes(META, TOTALS_KEY, self.totals.encode())
            self.totals_changed = False

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        if len(self._held) > HELD_MAX:
            self._held.clear()
        if len(self._saved) > HELD_MAX:
            self._saved.clear()

    def _save(self, account: bytes) -> None:
        """See snapshots.py."""
        key = number_key(self._epoch) + account
        if self._draft.get(BEFORE, key) is None:
            self._draft.put_bytes(BEFORE, key, self._draft.get(ACCOUNTS, account) or b"")
        self._saved.add(account)
