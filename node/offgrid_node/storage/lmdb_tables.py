"""The row changes of one LMDB transaction: handles and sums that count only once it has committed."""

from __future__ import annotations

import lmdb

from offgrid_node.protocol.errors import Internal
from offgrid_node.storage.lmdb_env import OWN_DATABASES, TABLE, Opened
from offgrid_node.storage.rows import CHECKSUM_BYTES, TABLES_MAX, RowSeal, TableSum, check_table


class TableWrites:
    """`made` are the tables that it makes, `sums` those of all that it changes."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.made: dict[str, lmdb._Database] = {}
        self.sums: dict[str, TableSum] = {}

    def write(
        self,
        txn: lmdb.Transaction[memoryview],
        table: str,
        rows: list[tuple[bytes, bytes | None]],
        seal: RowSeal,
    ) -> None:
        db = self._database(txn, table)
        before = self._opened.sums.get(table, TableSum())
        count, total = before.rows, before.total
        for key, value in rows:
            old = txn.get(key, db=db)
            if old is not None:
                count -= 1
                total -= int.from_bytes(old[:CHECKSUM_BYTES], "big")
            if value is not None:
                stored = seal.wrap(key, value)
                txn.put(key, stored, db=db)
                count += 1
                total += int.from_bytes(stored[:CHECKSUM_BYTES], "big")
            elif old is not None:
                txn.delete(key, db=db)
        self.sums[table] = TableSum(count, total % 2**64)

    def _database(self, txn: lmdb.Transaction[memoryview], table: str) -> lmdb._Database:
        name = TABLE + table
        db = self._opened.dbs.get(name)
        if db is None:
            check_table(table)
            if len(self._opened.dbs) + len(self.made) >= TABLES_MAX + OWN_DATABASES:
                raise Internal(f"{table}: a store has at most {TABLES_MAX} tables", reason="TooManyTables")
            db = self.made[name] = self._opened.env.open_db(name.encode("ascii"), txn=txn)
        return db
