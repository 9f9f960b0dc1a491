"""A disk under a folder of files that keeps only what was synced, for a store and the files beside it: what a power cut
may leave of it, at each moment in which something is, or was, written.

Of a file any mix of sectors of what it was since its last fsync may be there; of a name whatever it stood for since the
folder's last fsync. A transaction of LMDB, which syncs by itself, is there whole or not at all: what a torn one leaves
`tests/unit/storage/test_store_crashes.py` tries page by page. So is what goes to the store's log by write-through, once
it is written; while it is, any of its sectors. Files are held open while they are replaced, which Windows does not let
anybody do.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec

from offgrid_node.storage import disk, lmdb_held, redo_log
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.lmdb_env import DATA_FILE
from offgrid_node.storage.lmdb_held import HeldEnvironment

SECTOR_BYTES = 512
PASSING = ("lock.mdb", "owner.lock", "owner.pid")  # of a process, and of no use to the next one


class Inode(msgspec.Struct):
    """A file, held open so that its number stays its own; `versions` are its contents since it was durable last."""

    fd: int
    is_lmdb: bool
    versions: list[bytes] = msgspec.field(default_factory=lambda: [b""])

    def read(self) -> bytes:
        os.lseek(self.fd, 0, os.SEEK_SET)
        return os.read(self.fd, os.fstat(self.fd).st_size)

    def left(self, rng: Random) -> bytes:
        """What a power cut leaves of it."""
        if self.is_lmdb:
            return rng.choice(self.versions)
        size = len(rng.choice(self.versions))
        sectors = [
            rng.choice(self.versions)[at : at + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
            for at in range(0, size, SECTOR_BYTES)
        ]
        return b"".join(sectors)[:size]


class CutDisk:
    """Stands between what is written under `live` and its files. `on_moment` runs before and after each change."""

    def __init__(self, live: Path, rng: Random) -> None:
        self.live, self._rng = live, rng
        self.on_moment: Callable[[], None] = lambda: None
        self._inodes: dict[int, Inode] = {}
        self._names: dict[Path, list[int]] = {}  # the inodes that each has meant since it was durable, 0 for nothing
        self._looking = False

    @contextmanager
    def connected(self) -> Iterator[None]:
        """What is there by now is durable."""
        with ExitStack() as stack:
            for owner, name, instead in self._instead():
                stack.enter_context(patch.object(owner, name, instead))
            self._note()
            for inode in self._inodes.values():
                inode.versions = inode.versions[-1:]
            for meant in self._names.values():
                del meant[:-1]
            yield
        for inode in self._inodes.values():
            os.close(inode.fd)

    def look(self, image: Path, work: Callable[[], None]) -> None:
        """Makes a folder as a power cut in this moment may leave it, for `work`, which this disk does not see."""
        self._looking = True
        try:
            self._leave(image)
            work()
        finally:
            self._looking = False
            shutil.rmtree(image)

    # ---- between

    def _instead(self) -> Iterator[tuple[Any, str, Any]]:
        for name, noted in (("sync_file", self._on_file_synced), ("sync_folder", self._on_folder_synced)):
            real = getattr(disk, name)
            synced = self._synced(real, noted)
            for module in [*sys.modules.values()]:
                if getattr(module, name, None) is real:
                    yield module, name, synced
        for module in (redo_log, lmdb_held, disk):
            yield module, "os", _Os(self)
        for name in ("replace", "rename", "unlink", "mkdir"):
            yield Path, name, self.changed(getattr(Path, name))
        for name in ("commit", "move_on", "leave_log"):
            yield LmdbStore, name, self._transacted(getattr(LmdbStore, name))
        yield HeldEnvironment, "usable", self._transacted(HeldEnvironment.usable)

    def changed(self, real: Callable[..., Any], *, through: bool = False) -> Callable[..., Any]:
        """`through`: what it writes is durable when it is done."""

        @functools.wraps(real)
        def call(target: Any, *rest: Any, **named: Any) -> Any:
            if self._looking or (isinstance(target, Path) and not target.is_relative_to(self.live)):
                return real(target, *rest, **named)
            self.on_moment()
            outcome = real(target, *rest, **named)
            self._note()
            self.on_moment()
            if through and (inode := self._inodes.get(os.fstat(target).st_ino)) is not None:
                inode.versions = inode.versions[-1:]
                self.on_moment()
            return outcome

        return call

    def _synced(self, real: Callable[[Any], None], noted: Callable[[Any], None]) -> Callable[[Any], None]:
        def call(target: Any) -> None:
            if self._looking or (isinstance(target, Path) and not target.is_relative_to(self.live)):
                real(target)
                return
            self._note()
            self.on_moment()
            real(target)
            noted(target)
            self.on_moment()

        return call

    def _transacted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(store: LmdbStore | HeldEnvironment, *rest: Any, **named: Any) -> Any:
            path = Path(store._path)
            if self._looking or not path.is_relative_to(self.live):
                return real(store, *rest, **named)
            self.on_moment()
            outcome = real(store, *rest, **named)
            number = (path / DATA_FILE).stat().st_ino
            if (inode := self._inodes.get(number)) is not None and len(inode.versions) == 1:
                inode.versions = [inode.read()]
            self._note()
            self.on_moment()
            return outcome

        return call

    # ---- what it knows

    def _note(self) -> None:
        """What is there now is one more thing that may be there after a cut."""
        there = dict(self._walk(self.live))
        for path, number in there.items():
            if number not in self._inodes:
                self._inodes[number] = Inode(os.open(path, os.O_RDONLY), path.name == DATA_FILE)
                if path.name == DATA_FILE:
                    self._inodes[number].versions.append(self._inodes[number].read())
        for inode in self._inodes.values():
            if not inode.is_lmdb and os.fstat(inode.fd).st_mode & 0o040000 == 0:
                content = inode.read()
                if content != inode.versions[-1]:
                    inode.versions.append(content)
        for path in {**self._names, **there}:
            meant = self._names.setdefault(path, [0])
            if meant[-1] != there.get(path, 0):
                meant.append(there.get(path, 0))
        self._forget()

    def _forget(self) -> None:
        """Names that stand for nothing, and files that no name stands for."""
        for path in [path for path, meant in self._names.items() if meant == [0]]:
            del self._names[path]
        named = {number for meant in self._names.values() for number in meant}
        for number in [number for number in self._inodes if number not in named]:
            os.close(self._inodes.pop(number).fd)

    def _walk(self, folder: Path) -> Iterator[tuple[Path, int]]:
        for entry in os.scandir(folder):
            if entry.name not in PASSING:
                yield Path(entry.path), entry.inode()
                if entry.is_dir():
                    yield from self._walk(Path(entry.path))

    def _on_file_synced(self, fd: int) -> None:
        inode = self._inodes.get(os.fstat(fd).st_ino)
        if inode is not None:
            inode.versions = [inode.read()]

    def _on_folder_synced(self, folder: Path) -> None:
        for path, meant in self._names.items():
            if path.parent == folder:
                del meant[:-1]

    def _leave(self, image: Path) -> None:
        image.mkdir()
        for path in sorted(self._names, key=lambda path: len(path.parts)):
            number, target = self._rng.choice(self._names[path]), image / path.relative_to(self.live)
            if not number or not target.parent.is_dir():
                continue
            inode = self._inodes[number]
            if os.fstat(inode.fd).st_mode & 0o040000:
                target.mkdir()
            else:
                target.write_bytes(inode.left(self._rng))


class _Os:
    """The module `os` of those who write."""

    def __init__(self, disk: CutDisk) -> None:
        written_through = bool(redo_log._WRITTEN_THROUGH)
        self.pwrite = disk.changed(getattr(os, "pwrite", os.write), through=written_through)
        self.replace = disk.changed(os.replace)
        self.open = disk.changed(os.open)

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)
