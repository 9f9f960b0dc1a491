"""A download that is broken off, by whatever, goes on where it was: what came of it lies beside its target.

Beside the bytes lies a digest of each block. What is there is believed as far as the digests go and no further: a
power cut may have kept a file's length and not its bytes. An object never changes, so what was right of it still is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from offgrid.client.targets import MODE_BITS, NEW_MODE, NEW_PART, OPENED, Target, naming, replaced, status
from offgrid.file_lock import lock

BLOCK_BYTES = 1 << 20
DIGEST_BYTES = 16
FOLLOWED_BY_NOBODY = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | OPENED


class Partial:
    """What is here of a download, and where it goes on. Close it."""

    def __init__(self, part: Path, sums: Path, key: bytes, mode: int) -> None:
        """Raises OSError: BlockingIOError where another download of the same is under way. `mode`: of a new part."""
        self._key = key
        self._part, self._sums = _opened(part, mode), _opened(sums, 0o600)
        try:
            lock(self._part.fileno())
            if not os.path.samestat(os.fstat(self._part.fileno()), part.stat()):
                raise BlockingIOError(f"{part} was another's, who has done with it")
            self.blocks = self._verified()
            self._part.truncate(self.blocks * BLOCK_BYTES)
            self._sums.truncate(self.blocks * DIGEST_BYTES)
        except BaseException:
            self.close()
            raise
        self._part.seek(0, os.SEEK_END)
        self._sums.seek(0, os.SEEK_END)
        self._block, self._held = self._digest(self.blocks), 0

    @property
    def size_bytes(self) -> int:
        """Of what is here and right, when it is opened."""
        return self.blocks * BLOCK_BYTES

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:
            piece = rest[: BLOCK_BYTES - self._held]
            self._part.write(piece)
            self._block.update(piece)
            self._held, rest = self._held + len(piece), rest[len(piece) :]
            if self._held == BLOCK_BYTES:
                self._end_block()
        return len(data)

    def sync(self) -> None:
        self._part.flush()
        os.fsync(self._part.fileno())

    def close(self) -> None:
        self._part.close()
        self._sums.close()

    def _end_block(self) -> None:
        """Its digest follows the bytes."""
        self._part.flush()
        self._sums.write(self._block.digest())
        self._sums.flush()
        self.blocks += 1
        self._block, self._held = self._digest(self.blocks), 0

    def _verified(self) -> int:
        """How many blocks are what their digests say."""
        count = 0
        while len(said := self._sums.read(DIGEST_BYTES)) == DIGEST_BYTES:
            data, digest = self._part.read(BLOCK_BYTES), self._digest(count)
            digest.update(data)
            if len(data) < BLOCK_BYTES or digest.digest() != said:
                break
            count += 1
        return count

    def _digest(self, number: int) -> hashlib.blake2b:
        return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=DIGEST_BYTES, key=self._key)


@contextmanager
def resumed(target: Target, object_id: str, offset: int, end: int) -> Iterator[tuple[BinaryIO | Partial, int]]:
    """As `replaced`, with how much of the range is here already: the block goes on behind it. A block that does not
    end well leaves what came, if that is worth it; what is no regular file, or already being fetched, begins anew."""
    path = Path(os.path.realpath(target))
    key = hashlib.blake2b(f"{object_id} {offset} {end} {path}".encode("utf-8", "surrogateescape"), digest_size=16)
    part, sums = (path.with_name(f".offgrid-{key.hexdigest()}.{kind}") for kind in ("part", "sums"))
    with naming(target):
        old = status(target)
        partial = None
        if end - offset > BLOCK_BYTES and (old is None or stat.S_ISREG(old.st_mode)):
            with suppress(BlockingIOError):
                partial = Partial(part, sums, key.digest(), NEW_MODE if old is None else 0o600)
        if partial is None:
            with replaced(target) as file:
                yield file, 0
            return
        try:
            yield partial, partial.size_bytes
            partial.sync()
            if old is not None:
                part.chmod(old.st_mode & MODE_BITS)
            if sys.platform == "win32":
                partial.close()  # what is open cannot be renamed there
            part.replace(path)
            sums.unlink()
        finally:
            partial.close()
            if not partial.blocks:
                part.unlink(missing_ok=True)
                sums.unlink(missing_ok=True)


def _opened(path: Path, mode: int) -> BinaryIO:
    """This user's own, whoever planted what there."""
    for _ in range(2):
        with suppress(FileNotFoundError):
            file = os.fdopen(os.open(path, FOLLOWED_BY_NOBODY), "r+b")
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and (sys.platform == "win32" or found.st_uid == os.geteuid()):
                return file
            file.close()
            path.unlink()
        with suppress(FileExistsError):
            os.close(os.open(path, NEW_PART, mode))
    raise PermissionError(f"{path} is not ours")
