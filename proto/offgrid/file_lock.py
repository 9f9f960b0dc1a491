"""A lock on an open file: the system gives it back when the process ends, however it ends."""

from __future__ import annotations

import sys


def lock(descriptor: int) -> None:
    """Until it is closed. Raises BlockingIOError where another open file of it has the lock."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(str(error)) from error
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
