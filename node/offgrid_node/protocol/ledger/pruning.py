"""What a node forgets behind a checkpoint, so that a small device holds a month: blocks, and transactions that ended.

Blocks at or below the heads of a checkpoint go once EPOCHS_KEPT epochs have ended after it, and so do those of its
epochs beside their author's chain: a checkpoint fixes all that they say. What stays of an author is its base, the head
that the checkpoint names (chains.py). Transactions, and what this node's owner called them, stay for `keep_ms` after
they ended, unless there are more than `keep_txs`; both are looked at when an epoch ends (packing.py). Evidence stays.

It is done by bites, PAUSE_MS apart, each a small part of its batch; how far it has come is a row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import ClassVar

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.ledger.accounts import Accounts, Totals
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.packing import ROWS_MAX, Packing
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.tables import (
    BEFORE,
    CHECKPOINTS,
    ENDED,
    LOG,
    META,
    NUMBER_BYTES,
    PRUNED_KEY,
    newest_first,
    number_from_newest,
    number_key,
    number_of,
)
from offgrid_node.protocol.ledger.transactions import Transactions

EPOCHS_KEPT = 1  # that have ended, and whose blocks are here still: for those who are a little behind
BLOCKS_MAX = 128  # looked at in one bite
PAUSE_MS = 50
ENDED_MAX = 512  # epochs of which it is known when they ended
_DONE = struct.Struct(">QQQ")


class Ended(msgspec.Struct, frozen=True):
    """Where this node stood when an epoch was over: the newest position of a block, the newest list of transactions,
    how many of these there were, and what its clock said."""

    place: int
    lists: int
    txs: int
    at_us: int

    FORM: ClassVar[struct.Struct] = struct.Struct(">QQQq")

    def encode(self) -> bytes:
        return self.FORM.pack(self.place, self.lists, self.txs, self.at_us)

    @classmethod
    def decode(cls, row: bytes) -> Ended:
        return cls(*cls.FORM.unpack(row))


def pruned_epoch(rows: Rows) -> int | None:
    """The epoch behind whose checkpoint blocks are pruned; None where all are here."""
    row = rows.get(META, PRUNED_KEY)
    return int(_DONE.unpack(row)[0]) if row is not None else None


def oldest_epoch(rows: Rows) -> int:
    """The first whose blocks are all here."""
    epoch = pruned_epoch(rows)
    return 0 if epoch is None else epoch + 1


def pruned_behind(rows: Rows) -> Sequence[ledger_pb2.BaseRow]:
    """The heads of that checkpoint."""
    epoch = pruned_epoch(rows)
    row = rows.get(CHECKPOINTS, number_key(epoch)) if epoch is not None else None
    return ledger_pb2.CheckpointRow.FromString(row).heads if row is not None else ()


def begun_at(draft: Draft, epoch: int, place: int, totals: Totals, now: Now) -> None:
    """This node begins at the checkpoint of that epoch: whatever it has behind it may go."""
    ended = Ended(place, totals.lists, totals.txs, now.utc_us)
    draft.put_bytes(ENDED, newest_first(epoch), ended.encode())
    draft.put_bytes(META, PRUNED_KEY, _DONE.pack(epoch, 0, place))


class Pruning:
    """After `load`, told of each epoch that ends."""

    def __init__(
        self, settings: LedgerSettings, draft: Draft, accounts: Accounts, transactions: Transactions, chains: Chains
    ) -> None:
        self._settings, self._draft, self._accounts, self._chains = settings, draft, accounts, chains
        self._packing = Packing(draft, transactions)
        self._oldest = 0
        self._epoch = 0  # whose checkpoint blocks are pruned behind
        self._place = 0  # up to which position that is done
        self._last = 0  # and up to which it is to be
        self._due_ms: int | None = None

    def load(self) -> None:
        self._packing.load()
        last = next(self._known(), None)
        if last is not None:
            self._accounts.begin_epoch(last[0] + 1)
            self._chains.begin_epoch(last[0] + 1, self._heads(last[0]))
        row = self._draft.get(META, PRUNED_KEY)
        if row is not None:
            self._epoch, self._place, self._last = _DONE.unpack(row)
            self._oldest = self._epoch + 1
            self._chains.raise_floor(self._heads(self._epoch))
        self._due_ms = 0 if self.busy else None

    # ---- questions

    @property
    def oldest(self) -> int:
        """The first epoch whose blocks are all here."""
        return self._oldest

    @property
    def busy(self) -> bool:
        return self._place < self._last or self._packing.busy

    def deadline_ms(self) -> int | None:
        return self._due_ms

    # ---- inputs

    def on_entered(self, epoch: int, now: Now) -> None:
        """That epoch is over here, and all that its checkpoint fixes is held."""
        totals = self._accounts.totals
        ended = Ended(self._chains.end, totals.lists, totals.txs, now.utc_us)
        self._draft.put_bytes(ENDED, newest_first(epoch), ended.encode())
        self._accounts.begin_epoch(epoch + 1)
        self._chains.begin_epoch(epoch + 1, self._heads(epoch))
        known = [(epoch, ended), *self._known()]
        old = next((told for _, told in known if self._is_old(told, ended)), None)
        self._packing.begin(ended.lists, old.at_us if old is not None else 0)
        for gone, _ in known[ENDED_MAX:]:
            self._draft.delete(ENDED, newest_first(gone))
        behind = next(((number, told) for number, told in known if number <= epoch - EPOCHS_KEPT), None)
        if behind is not None:
            self._epoch, self._place, self._last = behind[0], 0, behind[1].place
            self._oldest = self._epoch + 1
            self._chains.raise_floor(self._heads(self._epoch))
            self._keep()
        self._due_ms = now.mono_ms + PAUSE_MS

    def on_time(self, now: Now) -> None:
        """A bite, if it is time for one."""
        if self._due_ms is None or self._due_ms > now.mono_ms:
            return
        if self._place < self._last:
            self._prune_blocks()
            self._keep()
        elif not self._prune_snapshots():
            self._packing.step()
        self._due_ms = now.mono_ms + PAUSE_MS if self.busy else None

    # ---- inside

    def _heads(self, epoch: int) -> Sequence[ledger_pb2.BaseRow]:
        row = self._draft.row(CHECKPOINTS, number_key(epoch), ledger_pb2.CheckpointRow)
        assert row is not None, "an epoch ends with a checkpoint"
        return row.heads

    def _known(self) -> Iterator[tuple[int, Ended]]:
        """Epochs that ended before, the newest first."""
        for key, row in self._draft.committed(ENDED, b""):
            yield number_from_newest(key), Ended.decode(row)

    def _is_old(self, then: Ended, now: Ended) -> bool:
        return then.at_us <= now.at_us - self._settings.keep_ms * 1_000 or now.txs - then.txs >= self._settings.keep_txs

    def _prune_snapshots(self) -> bool:
        """Whether there was any that goes."""
        rows = islice(self._draft.committed(BEFORE, b""), ROWS_MAX)
        old = [key for key, _ in rows if number_of(key[:NUMBER_BYTES]) <= self._epoch]
        for key in old:
            self._draft.delete(BEFORE, key)
        return bool(old)

    def _prune_blocks(self) -> None:
        rows = 0
        for key, raw in islice(self._draft.committed(LOG, number_key(self._place + 1)), BLOCKS_MAX):
            rows, place = rows + 1, number_of(key)
            if place > self._last:
                self._place = self._last
                return
            self._chains.prune(place, raw, self._epoch)
            self._place = place
        if rows < BLOCKS_MAX:
            self._place = self._last

    def _keep(self) -> None:
        self._draft.put_bytes(META, PRUNED_KEY, _DONE.pack(self._epoch, self._place, self._last))
