"""That a node of a folder is about to answer, for whoever asks while it does not yet.

`offgrid.starting` beside `offgrid.toml` is locked by a node's process from its first moment until its owner is
answered. So the lines `offgrid-node run &` and `offgrid status` may follow each other at once.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from offgrid.file_lock import lock

MARK_NAME = "offgrid.starting"
TRIES, TRY_S = 10, 0.01  # a look at the mark has its lock for a moment
OPENED = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""As the node's own files are opened: nobody's link is followed, line ends stay as they are, no child has it."""


class Starting:
    """The mark of this process, until `over` or its end. A folder that takes no mark has none: nothing depends on it
    but how long others wait."""

    def __init__(self, folder: Path) -> None:
        self._path, self._descriptor = folder / MARK_NAME, -1
        with suppress(OSError):
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | OPENED, 0o600)
        if self._descriptor >= 0 and not self._locked():
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Starting:
        return self

    def __exit__(self, *_: object) -> None:
        self.over()

    def over(self) -> None:
        """The node answers, or never will. Safe to repeat."""
        if self._descriptor >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1

    def _locked(self) -> bool:
        for _ in range(TRIES):
            try:
                lock(self._descriptor)
            except BlockingIOError:
                time.sleep(TRY_S)
            except OSError:  # a file system without locks
                return False
            else:
                return True
        return False


def is_starting(folder: Path) -> bool:
    """Whether a process is at starting the node of this folder. A folder that may not be read tells of none."""
    try:
        descriptor = os.open(folder / MARK_NAME, os.O_RDWR | OPENED)
    except OSError:
        return False
    try:
        lock(descriptor)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
