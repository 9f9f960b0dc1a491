"""Blobs in memory: the twin of `blobs.py` for the simulator and for tests.

It outlives its process, as a disk does. What was appended and not made durable by `finish` is at the mercy of `crash`:
gone, cut short, or of the right length and wrong content, as file systems leave it after a power cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import msgspec

from offgrid.pieces import Buffer
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.storage.blobs import KEPT, STAGED, Staged, blob_missing, blob_short, check_name, disk_full, fresh_part

LIMIT_BYTES = 1 << 40
FOLDERS = (KEPT, STAGED)


class _Blob(msgspec.Struct):
    """`durable`: its bytes and its name would survive a power cut."""

    data: bytearray = msgspec.field(default_factory=bytearray)
    durable: bool = False


class MemoryBlobs:
    """A `BlobStore`. `limit_bytes` bounds all blobs together."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._staged: dict[str, _Blob] = {}
        self._kept: dict[str, _Blob] = {}
        self._limit = limit_bytes
        self._refusal: Fault | None = None
        self._syncs_left: int | None = None  # until one fails

    # ---- the BlobStore protocol

    def append(self, staged: str, offset: int, data: Buffer) -> int:
        self._check(staged)
        blob = self._staged.get(staged)
        size = len(blob.data) if blob else 0
        fresh = fresh_part(staged, size, offset, data)
        if self.free_bytes() < len(fresh):
            raise disk_full("memory", len(fresh))
        if fresh or not (offset or data):
            self._staged.setdefault(staged, _Blob()).data.extend(fresh)
        return size + len(fresh)

    def staged_bytes(self, staged: str) -> int:
        self._check(staged)
        return len(self._staged[staged].data) if staged in self._staged else 0

    def read_staged(self, staged: str, offset: int, length: int) -> bytes:
        self._check(staged)
        return _read(self._staged, staged, offset, length)

    def finish(self, staged: str, name: str) -> None:
        self.finish_all({staged: name})

    def finish_all(self, names: Mapping[str, str]) -> None:
        self._check(*names, *names.values())
        for staged in names:
            if staged not in self._staged:
                raise blob_missing(staged)
        visible = [(self._staged, staged) for staged in names]
        try:
            for _ in names:
                self._sync_one()
            for place, (staged, name) in enumerate(names.items()):
                self._kept[name] = self._staged.pop(staged)
                visible[place] = self._kept, name
            for _ in FOLDERS:
                self._sync_one()
        except Fault:
            for pool, name in visible:
                del pool[name]
            raise
        for name in names.values():
            self._sync(self._kept[name])

    def sync(self, name: str) -> None:
        self._check(name)
        if name not in self._kept:
            raise blob_missing(name)
        for _ in ("file", "folder"):
            self._sync_one()
        self._sync(self._kept[name])

    def discard(self, staged: str) -> None:
        self._check(staged)
        self._staged.pop(staged, None)

    def all_staged(self) -> list[Staged]:
        return [Staged(name, len(blob.data), 0.0) for name, blob in sorted(self._staged.items())]

    def size(self, name: str) -> int | None:
        self._check(name)
        return len(self._kept[name].data) if name in self._kept else None

    def read(self, name: str, offset: int, length: int) -> bytes:
        self._check(name)
        return _read(self._kept, name, offset, length)

    def names(self) -> Iterator[str]:
        return iter(sorted(self._kept))

    def delete(self, name: str) -> None:
        self._check(name)
        self._kept.pop(name, None)

    def free_bytes(self) -> int:
        used = sum(len(blob.data) for pool in (self._staged, self._kept) for blob in pool.values())
        return max(0, self._limit - used)

    def _check(self, *names: str) -> None:
        for name in names:
            check_name(name)
        if self._refusal is not None:
            raise self._refusal

    def _sync(self, blob: _Blob) -> None:
        """What the fsyncs of a file and its folders bring about; planted bugs leave it out."""
        blob.durable = True

    def _sync_one(self) -> None:
        if self._syncs_left is None:
            return
        self._syncs_left -= 1
        if self._syncs_left < 0:
            self._syncs_left = None
            raise Unavailable("an fsync failed", reason="DiskError")

    # ---- what only a simulator can do

    def refuse(self, fault: Fault | None) -> None:
        """From now on every call raises `fault`, as of a disk that is gone; with None no longer."""
        self._refusal = fault

    def fail_sync(self, nth: int) -> None:
        """The nth fsync from now on fails, counted from 0: `finish` has one of the file, then one of each folder."""
        self._syncs_left = nth

    def is_durable(self, name: str) -> bool:
        """Whether it is kept and would survive a power cut."""
        return name in self._kept and self._kept[name].durable

    def fill(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Another limit from now on; one below what is there stands for a disk that something else has filled."""
        self._limit = limit_bytes

    def mend(self) -> None:
        """No fault that was planned for this disk comes any more, and it has room."""
        self._refusal = self._syncs_left = None
        self.fill()

    def contents(self) -> Iterator[bytes]:
        """Of everything that is here, staged or kept."""
        for pool in (self._staged, self._kept):
            yield from (bytes(blob.data) for blob in pool.values())

    def backup(self) -> dict[str, bytes]:
        """What is kept and durable, as a copy of the disk has it."""
        return {name: bytes(blob.data) for name, blob in self._kept.items() if blob.durable}

    def restore(self, kept: Mapping[str, bytes]) -> None:
        """An older copy of the disk is put in its place."""
        self._staged.clear()
        self._kept = {name: _Blob(bytearray(data), durable=True) for name, data in kept.items()}

    def lose(self, name: str) -> None:
        """A kept blob is gone, as after a repair of the file system."""
        del self._kept[name]

    def cut(self, name: str, size: int) -> None:
        """A kept blob ends early."""
        del self._kept[name].data[size:]

    def flip(self, name: str, at: int) -> None:
        """A bit of a kept blob rots."""
        self._kept[name].data[at] ^= 1

    def crash(self, rng: Random) -> None:
        """The power fails: each blob that is not durable is lost, cut short, or garbled from somewhere on."""
        self._refusal = None
        for pool in (self._staged, self._kept):
            for name in sorted(pool):
                if not pool[name].durable:
                    _befall(pool, name, rng)


def _befall(pool: dict[str, _Blob], name: str, rng: Random) -> None:
    fate, data = rng.random(), pool[name].data
    cut = rng.randrange(0, len(data) + 1)
    if fate < 0.4:
        del pool[name]
    elif fate < 0.7:
        del data[cut:]
    elif fate < 0.9:
        data[cut:] = bytes(len(data) - cut)


def _read(pool: dict[str, _Blob], name: str, offset: int, length: int) -> bytes:
    blob = pool.get(name)
    if blob is None:
        raise blob_missing(name)
    data = bytes(blob.data[offset : offset + length])
    if len(data) != length:
        raise blob_short(name, offset + len(data), offset + length)
    return data
