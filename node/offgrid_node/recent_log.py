"""The last lines of a node's log in its data folder, for who looks after the fact (`offgrid debug bundle`).

A log goes where its owner sends it: to a terminal, where it scrolls away, to journald, or to a file. What journald or
the node's folder keeps anyway is not kept twice.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from offgrid.starting import OPENED

RECENT_NAME, BEFORE_NAME = "recent.log", "recent.log.1"  # this one is filled, the other one is full
HALF_BYTES = 128 * 1024
LOG_NAMES = ("node.log", "offgrid-node.log")  # a log of its own, in the node's folder


class RecentLog(logging.Handler):
    """Twice HALF_BYTES at most, readable by the owner alone. What cannot be written is left out: this must not be
    what stops a node."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__()
        self._path, self._before = data_dir / RECENT_NAME, data_dir / BEFORE_NAME

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{self.format(record)}\n".encode(errors="replace")
        if len(line) > HALF_BYTES:  # in part it could end in half a secret, which nobody would know again
            return
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | OPENED, 0o600)
            try:
                full = os.fstat(fd).st_size + len(line) > HALF_BYTES
                if not full:
                    os.write(fd, line)
            finally:
                os.close(fd)
            if full:
                self._path.replace(self._before)
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | OPENED, 0o600)
                try:
                    os.write(fd, line)
                finally:
                    os.close(fd)


def recent(data_dir: Path) -> bytes:
    """What is kept there, the oldest first; nothing where nothing is."""
    kept = b""
    for name in (BEFORE_NAME, RECENT_NAME):
        with suppress(OSError):
            kept += (data_dir / name).read_bytes()
    return kept


def is_kept(fd: int, folder: Path) -> bool:
    """Whether what is written to this descriptor goes into a log of the node's folder."""
    with suppress(OSError):
        ours = os.fstat(fd)
        return any(
            (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)
            for name in LOG_NAMES
            if (found := _status(folder / name)) is not None
        )
    return False


def _status(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return path.stat()
    return None
