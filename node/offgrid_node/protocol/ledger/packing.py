"""Lists of transactions, made shorter behind the end of an epoch: what is too old goes, what stays takes fewer rows.

A step brings a row into each list that it concerns (transactions.py), so a row mostly names one transaction, and takes
three times the room of its name. A sweep goes through all lists once, ROWS_MAX rows in a step: it drops transactions
that ended before a time, with all that is known of them, and joins the names of up to PACK_MAX in one row, at the place
of the oldest of them. Whoever reads a list page by page meanwhile may be shown some of them a second time, and none is
left out. What is open stays, however old it is.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import NODE_ID_BYTES
from offgrid_node.protocol.ledger.records import DIGEST_BYTES
from offgrid_node.protocol.ledger.tables import EVERYBODY, LISTS_KEY, META, NUMBER_BYTES, TX_INDEX, TXS, newest_first
from offgrid_node.protocol.ledger.transactions import Transactions

ROWS_MAX = 256  # read in one step
PACK_MAX = 40  # names in a row: three such rows fill a page of 4 kB
KEY_BYTES = NODE_ID_BYTES + NUMBER_BYTES
_ENDS = (ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_VOID, ledger_pb2.TX_STATE_UNKNOWN)


class _Pack(msgspec.Struct):
    """Rows of one list, one after the other, that are to be one. `told`: as the rows have it; `kept`: without what is
    dropped."""

    keys: list[bytes] = msgspec.field(default_factory=list)
    told: int = 0
    kept: list[bytes] = msgspec.field(default_factory=list)


class Packing:
    """One sweep at a time; how far it has come is a row, so a crash costs nothing."""

    def __init__(self, draft: Draft, transactions: Transactions) -> None:
        self._draft, self._transactions = draft, transactions
        self._upto = 0  # the newest number of lists that a sweep looks at
        self._before_us = 0
        self._cursor: bytes | None = None  # the key from which it goes on; None: it is done

    def load(self) -> None:
        row = self._draft.get(META, LISTS_KEY)
        if row is not None:
            self._upto, self._before_us = (int.from_bytes(row[at : at + 8], "big") for at in (0, 8))
            self._cursor = row[16:]

    @property
    def busy(self) -> bool:
        return self._cursor is not None

    def begin(self, upto: int, before_us: int) -> None:
        """From the beginning: lists up to that number of theirs; what ended before then is too old."""
        self._upto, self._before_us, self._cursor = upto, before_us, b""
        self._keep()

    def step(self) -> None:
        """The next rows."""
        if self._cursor is None:
            return
        pack, rows = _Pack(), 0
        place = self._cursor
        for key, names in islice(self._draft.committed(TX_INDEX, self._cursor), ROWS_MAX):
            rows += 1
            account = key[:NODE_ID_BYTES]
            first = account + newest_first(self._upto)
            if pack.keys and (pack.keys[0][:NODE_ID_BYTES] != account or pack.told >= PACK_MAX):
                self._write(pack)
                pack = _Pack()
            if key >= first:
                self._add(pack, key, names)
            place = key + b"\0"
        if rows < ROWS_MAX:
            self._cursor = None
        else:  # what might be joined with rows that come is looked at again with them
            whole = not pack.keys or pack.told >= PACK_MAX or len(pack.keys) >= rows
            self._cursor = place if whole else pack.keys[0]
            if not whole:
                pack = _Pack()
        self._write(pack)
        self._keep()

    # ---- inside

    def _add(self, pack: _Pack, key: bytes, names: bytes) -> None:
        digests = [names[at : at + DIGEST_BYTES] for at in range(0, len(names), DIGEST_BYTES)]
        pack.keys.append(key)
        pack.told += len(digests)
        pack.kept += [digest for digest in digests if self._is_kept(digest, everybody=key.startswith(EVERYBODY))]

    def _is_kept(self, digest: bytes, *, everybody: bool) -> bool:
        value = self._draft.get(TXS, digest)
        if value is None:
            return False
        if everybody:
            row = ledger_pb2.TxRow.FromString(value)
            if row.state in _ENDS and (row.final_us or row.created_us) <= self._before_us:
                self._transactions.forget(digest, row)
                return False
        return True

    def _write(self, pack: _Pack) -> None:
        if len(pack.kept) == pack.told and len(pack.keys) < 2:
            return
        for key in pack.keys[: -1 if pack.kept else None]:
            self._draft.delete(TX_INDEX, key)
        if pack.kept:
            self._draft.put_bytes(TX_INDEX, pack.keys[-1], b"".join(pack.kept))

    def _keep(self) -> None:
        if self._cursor is None:
            self._draft.delete(META, LISTS_KEY)
        else:
            row = self._upto.to_bytes(8, "big") + self._before_us.to_bytes(8, "big") + self._cursor
            self._draft.put_bytes(META, LISTS_KEY, row)
