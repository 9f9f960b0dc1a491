"""A store's LMDB environment while a process has it: after a failure it is opened anew, and checked, before anything is
served (the lesson of "Can Applications Recover from fsync Failures?", Rebello et al. 2020).

`gate` is held for each short read and for whatever replaces the map, never across an fsync.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import lmdb

from offgrid_node.protocol.errors import Corrupt, Fault, Unavailable
from offgrid_node.storage.disk import FolderOwner
from offgrid_node.storage.lmdb_env import DATA_FILE, LOCK_FILE, Opened, fault_of, open_environment


class HeldEnvironment:
    """`tail`, `floor_seq` and `synced_txn` are those of the last commit; whoever commits says so."""

    def __init__(self, path: Path, owner: FolderOwner, opened: Opened, map_bytes: int) -> None:
        self._path, self._owner, self._map_bytes = path, owner, map_bytes
        self._opened: Opened | None = opened
        self._closed = False
        self.gate = threading.RLock()
        self.tail = opened.tail
        self.floor_seq = opened.floor.seq  # at the latest; a drop says it before it is one, see `events_up`
        self.synced_txn = opened.synced_txn

    def usable(self) -> Opened:
        """The environment, opened again if a failure closed it. The gate must be held."""
        if self._opened is None:
            if self._closed:
                raise Unavailable(f"the store in {self._path} is closed", reason="StoreClosed")
            self._opened = open_environment(self._path, self._map_bytes, self.synced_txn)
            self.synced_txn = self._opened.synced_txn
            self.tail, self.floor_seq = self._opened.tail, self._opened.floor.seq
        return self._opened

    def now(self) -> Opened:
        """As `usable`, with the gate taken for that alone: what commits keeps others from replacing the map."""
        with self.gate:
            return self.usable()

    def shut(self) -> None:
        """Until it is wanted again. The gate must be held."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def lay_map(self, opened: Opened) -> None:
        """Writer and gate must be held. A map that cannot be laid is made with the next look at the store."""
        if self._opened is not opened:  # closed, or another one after a failure
            return
        try:
            opened.lay_map()
        except (lmdb.Error, OSError):
            self.shut()

    def recover(self, number: int, cause: Exception) -> None:
        """Reopens after a failed write. Returns only if transaction `number` is on the disk after all."""
        fault = fault_of(cause, f"the disk under {self._path} refused a write", self._path)
        with self.gate:
            self.shut()
            try:
                opened = self.usable()
            except Corrupt as worse:
                raise worse from cause
            except Fault as again:
                raise Unavailable(
                    f"{fault.message}; {again.message}", reason=fault.reason, retry_ms=fault.retry_ms
                ) from cause
            if not number or opened.synced_txn < number:
                raise fault from cause

    def take_over(self, data: Path) -> None:
        """As `LmdbStore.take_over`."""
        with self.gate:
            self.usable()
            self.shut()
            try:
                (self._path / LOCK_FILE).unlink(missing_ok=True)  # it knows the numbers of the old file's transactions
                os.replace(data, self._path / DATA_FILE)
            except OSError as error:
                raise fault_of(error, f"{data} cannot take the place of the store's file", self._path) from error
            else:
                self.synced_txn = -1
            finally:
                self.usable()

    def close(self) -> None:
        """For good; gives the folder back."""
        with self.gate:
            self._closed = True
            self.shut()
            self._owner.release()
