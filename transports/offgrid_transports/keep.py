"""What a link remembers over a restart: a few hundred bytes by name, whole or not at all.

`FolderKeep` writes a temporary file, fsyncs it, renames it over the old one and fsyncs the folder, in a thread, one
writing after another. Killed at any line, the file is the old one or the new one: the temporary one has another name
and is overwritten by the next writing. Only after the last fsync is `done` called.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

KEPT_BYTES_MAX = 1 << 16
UNSAFE = re.compile(r"[^A-Za-z0-9._-]")

Done = Callable[[OSError | None], None]


class Keep(Protocol):
    """Remembers."""

    def load(self, name: str) -> bytes | None:
        """What was saved last; None when nothing was. Raises OSError."""
        ...

    def save(self, name: str, data: bytes, done: Done) -> None:
        """Calls `done` when `data` will outlive the process and a power cut, or with what went wrong. May call it at
        once."""
        ...


class MemoryKeep:
    """Forgets with the process: for tests, and where nothing has to be remembered."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def load(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def save(self, name: str, data: bytes, done: Done) -> None:
        self.kept[name] = data
        done(None)


class FolderKeep:
    """Files of a folder that is made when it is first needed. Used from one running asyncio loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread = ThreadPoolExecutor(1, "keep")

    def load(self, name: str) -> bytes | None:
        try:
            with self._path(name).open("rb") as file:
                return file.read(KEPT_BYTES_MAX)
        except FileNotFoundError:
            return None

    def save(self, name: str, data: bytes, done: Done) -> None:
        def tell(error: OSError | None) -> None:
            if not loop.is_closed():
                done(error)

        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._write, self._path(name), data)
        future.add_done_callback(lambda future: None if future.cancelled() else tell(future.result()))

    def close(self) -> None:
        """Waits for what is being written."""
        self._thread.shutdown()

    def _path(self, name: str) -> Path:
        return self.folder / UNSAFE.sub("_", name)

    def _write(self, path: Path, data: bytes) -> OSError | None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".new")
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            if os.name == "posix":
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except OSError as error:
            return error
        return None
