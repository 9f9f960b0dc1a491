"""Keys pressed while a live view is shown, each at once and unseen: on POSIX terminals; elsewhere there are none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIT = b"qQ"


@contextmanager
def until_quit() -> Iterator[Callable[[float], bool]]:
    """A pause of so many seconds, which ends with True at once when q is pressed. The terminal is as it was
    afterwards."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield _pause
        return
    import os
    import select
    import termios
    import tty

    fd = sys.stdin.fileno()

    def pause(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([fd], [], [], left)[0]:
                return False
            pressed = os.read(fd, 64)
            if not pressed:  # the terminal is gone
                return True
            if any(key in QUIT for key in pressed):
                return True
        return False

    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)  # Ctrl-C goes on to be what it is
    try:
        yield pause
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _pause(seconds: float) -> bool:
    time.sleep(seconds)
    return False
