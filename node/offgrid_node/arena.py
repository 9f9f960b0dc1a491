"""How the C library hands out memory to this process, where it can be told (glibc: mallopt(3)).

By itself it gives every thread an arena of its own, and what one of them has freed no other can use: a node that
carries objects in a few threads keeps the most that each of them ever had. Sharing one costs little, as nearly all ask
for memory under the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX = -8  # malloc.h


def share_one() -> bool:
    """One arena for all threads that begin from now on; whether the C library can."""
    if sys.platform != "linux":
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return tell is not None and bool(tell(M_ARENA_MAX, 1))
