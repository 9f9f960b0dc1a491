"""A disk under a folder of files that keeps only what was synced: what a power cut may leave of it, moment by moment.

Of each file's content any mix of sectors since its last fsync may be there, of any size that it had; of each name in a
folder whatever it stood for since the folder's last fsync. An fsync that fails leaves all that in doubt for ever: the
next one finds nothing to write and succeeds (fsyncgate, PostgreSQL 2018).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from offgrid_node.storage import blobs as blobs_module
from offgrid_node.storage import disk as disk_module

SECTOR_BYTES = 512


@dataclass(slots=True)
class Inode:
    """A file, held open so that its number stays its own; `versions` are its contents since it was durable last."""

    fd: int
    versions: list[bytes] = field(default_factory=lambda: [b""])
    in_doubt: bool = False

    @property
    def data(self) -> bytes:
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)

    def left(self, rng: Random) -> bytes:
        """What a power cut leaves of it."""
        size = len(rng.choice(self.versions))
        sectors = []
        for at in range(0, size, SECTOR_BYTES):
            sectors.append(rng.choice(self.versions)[at : at + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0"))
        return b"".join(sectors)[:size]


@dataclass(slots=True)
class Name:
    """What stands in a folder: the numbers of inodes, 0 for nothing, that it has meant since it was durable last."""

    meant: list[int] = field(default_factory=lambda: [0])
    in_doubt: bool = False


class ForgetfulDisk:
    """Stands between `FileBlobs` under `live` and their files. `on_moment` runs before and after each change."""

    def __init__(self, base: Path, rng: Random, patched: pytest.MonkeyPatch) -> None:
        self.live, self._images, self._rng = base / "live", base / "images", rng
        self.live.mkdir(parents=True)
        self.on_moment: Callable[[], None] = lambda: None
        self.failure: tuple[int, int] | None = None  # so many calls from now, with this errno
        self.failed = False
        self._inodes: dict[int, Inode] = {}
        self._names: dict[Path, Name] = {}
        self._image = itertools.count()
        for module in (blobs_module, disk_module):
            for sync, noted in (("sync_file", self._on_file_synced), ("sync_folder", self._on_folder_synced)):
                patched.setattr(module, sync, self._synced(getattr(disk_module, sync), noted))
        patched.setattr(blobs_module, "os", self)
        for method in ("replace", "unlink", "mkdir"):
            patched.setattr(Path, method, self._changed(getattr(Path, method)))

    # ---- the calls that change something

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int) -> int:
        return int(self._changed(os.open)(path, flags, mode))

    def write(self, fd: int, data: memoryview) -> int:
        """Now and then less than was asked for."""
        part = data[: len(data) // 2] if len(data) > 1 and self._rng.random() < 0.3 else data
        return int(self._changed(os.write)(fd, part))

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)  # that makes a file shorter: no disk was seen that refuses it
        self._note()

    def _changed(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *rest: Any, **named: Any) -> Any:
            if isinstance(target, Path) and not target.is_relative_to(self.live):
                return real(target, *rest, **named)
            self._moment()
            outcome = real(target, *rest, **named)
            self._note()
            return outcome

        return call

    def _synced(self, real: Callable[[Any], None], noted: Callable[[Any, bool], None]) -> Callable[[Any], None]:
        def call(target: Any) -> None:
            if isinstance(target, Path) and not target.is_relative_to(self.live):
                real(target)
                return
            try:
                self._moment()
            except OSError:
                noted(target, False)
                raise
            noted(target, True)
            self.on_moment()

        return call

    def _moment(self) -> None:
        """Before a call; raises what it fails with."""
        self.on_moment()
        if self.failure is not None:
            left, code = self.failure
            self.failure = (left - 1, code) if left else None
            if not left:
                self.failed = True
                raise OSError(code, os.strerror(code))

    # ---- what it knows

    def _note(self) -> None:
        """After a change: what is there now is one more thing that may be there after a cut."""
        there = dict(self._walk(self.live))
        for path, number in there.items():
            if number not in self._inodes:
                self._inodes[number] = Inode(os.open(path, os.O_RDONLY))
        for inode in self._inodes.values():
            if os.fstat(inode.fd).st_mode & 0o040000 == 0 and inode.data != inode.versions[-1]:
                inode.versions.append(inode.data)
        for path in {**self._names, **there}:
            name = self._names.setdefault(path, Name())
            if name.meant[-1] != there.get(path, 0):
                name.meant.append(there.get(path, 0))
                name.in_doubt = False
        self.on_moment()

    def _walk(self, folder: Path) -> Iterator[tuple[Path, int]]:
        for entry in os.scandir(folder):
            yield Path(entry.path), entry.inode()
            if entry.is_dir():
                yield from self._walk(Path(entry.path))

    def _on_file_synced(self, fd: int, done: bool) -> None:
        inode = self._inodes[os.fstat(fd).st_ino]
        inode.in_doubt |= not done
        if not inode.in_doubt:
            inode.versions = inode.versions[-1:]

    def _on_folder_synced(self, folder: Path, done: bool) -> None:
        for path, name in self._names.items():
            if path.parent == folder:
                name.in_doubt |= not done and len(name.meant) > 1
                if not name.in_doubt:
                    name.meant = name.meant[-1:]

    # ---- the cut

    def image(self) -> Path:
        """A folder as a power cut in this moment may leave it. The one before is gone."""
        shutil.rmtree(self._images, ignore_errors=True)
        image = self._images / str(next(self._image))
        os.makedirs(image)
        for path in sorted(self._names, key=lambda path: len(path.parts)):
            number, target = self._rng.choice(self._names[path].meant), image / path.relative_to(self.live)
            if not number or not os.path.isdir(target.parent):
                continue
            inode = self._inodes[number]
            if os.fstat(inode.fd).st_mode & 0o040000:
                os.makedirs(target)
            else:
                target.write_bytes(inode.left(self._rng))
        return image

    def let_go(self) -> None:
        for inode in self._inodes.values():
            os.close(inode.fd)
