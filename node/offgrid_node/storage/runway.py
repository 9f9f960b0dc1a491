"""Zeros written behind the data file's used end, so that a commit overwrites blocks instead of making the file longer.

A file that grows makes every fdatasync a transaction of the file system as well (its size and extents change), which
is a quarter of the time of a small commit on ext4. LMDB reads nothing behind its last page, so what lies there is
free to be anything; with room ahead it only changes blocks that exist (the preallocated logs of PostgreSQL and etcd).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

RUNWAY_BYTES = 256 * 1024  # some sixty small commits, and no more than a millisecond to write
RUNWAY_BYTES_LEFT = 64 * 1024  # with less than this ahead, the next stretch is written


class Runway:
    """The stretch of zeros of one data file. It is a help only: a disk that refuses it refuses nothing else."""

    def __init__(self, path: Path) -> None:
        """`path` must exist; raises OSError when it cannot be opened."""
        self._fd = os.open(path, os.O_WRONLY) if sys.platform != "win32" else -1  # there LMDB makes the file whole
        self._end = os.fstat(self._fd).st_size if self._fd >= 0 else 0

    def keep(self, used_bytes: int, limit_bytes: int) -> None:
        """Called by the writer after each commit: room behind `used_bytes`, and none behind `limit_bytes`.

        What was ever in use is never written over, even when less is in use now: the snapshot before this one may
        still be read, and is what the store falls back to when the newest is torn.
        """
        if sys.platform == "win32" or self._fd < 0 or self._end - used_bytes >= RUNWAY_BYTES_LEFT:
            return
        self._end = max(self._end, used_bytes)
        room = min(used_bytes + RUNWAY_BYTES, limit_bytes) - self._end
        if room <= 0:
            return
        try:
            self._end += os.pwrite(self._fd, bytes(room), self._end)
        except OSError:  # full, or a file this long is not allowed: LMDB will say so once it needs the room itself
            self.close()

    def close(self) -> None:
        """No more zeros; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
