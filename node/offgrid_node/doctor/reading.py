"""A stopped node's rows, read as they lie in the store, without taking it or changing a byte."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.lmdb_env import DATABASES_MAX, TABLE
from offgrid_node.storage.rows import KeyRange, RowSeal

_ONE_AT_A_TIME = threading.Lock()  # LMDB opens a file once in a process


class StoredRows:
    """`Rows` of protocol.effects. Use `open`."""

    def __init__(self, env: lmdb.Environment) -> None:
        self._env = env

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[StoredRows]:
        """Raises Corrupt where the file is no store. Nothing may write to it meanwhile."""
        try:
            with (
                _ONE_AT_A_TIME,
                lmdb.open(str(path), max_dbs=DATABASES_MAX, readonly=True, lock=False, create=False) as env,
            ):
                yield cls(env)
        except lmdb.Error as error:
            raise Corrupt(f"{path} cannot be read: {error}", reason="StoreDamaged") from error

    def get(self, table: str, key: bytes) -> bytes | None:
        return next((value for found, value in self.scan(table, key) if found == key), None)

    def scan(
        self, table: str, start: bytes = b"", *, prefix: bytes = b"", end: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        assert not reverse
        span, seal = KeyRange.of(table, start, prefix, end), RowSeal(table)
        try:
            db = self._env.open_db(f"{TABLE}{table}".encode(), create=False)
        except lmdb.NotFoundError:
            return
        with self._env.begin(db=db) as txn, txn.cursor() as cursor:
            if not cursor.set_range(span.low):
                return
            for key, stored in cursor:
                if span.end is not None and bytes(key) >= span.end:
                    return
                yield bytes(key), seal.unwrap(bytes(key), bytes(stored))

    def used_bytes(self) -> int:
        """Of the file, without its free pages."""
        with self._env.begin() as txn:
            names = [bytes(key) for key, _ in txn.cursor()]
            stats = [self._env.stat()]
            stats += [txn.stat(self._env.open_db(name, txn=txn, create=False)) for name in names]
        pages = sum(each["branch_pages"] + each["leaf_pages"] + each["overflow_pages"] for each in stats)
        return int(pages) * int(stats[0]["psize"])
