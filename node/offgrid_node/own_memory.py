"""How much memory this process has, as the system counts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

STATM = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """None where the system does not say: neither Linux nor Windows."""
    if sys.platform == "win32":
        return _working_set()
    try:
        return int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")  # proc(5)
    except (OSError, IndexError, ValueError):
        return None


def _working_set() -> int | None:
    """K32GetProcessMemoryInfo: PROCESS_MEMORY_COUNTERS begins with two 32-bit numbers, then sizes: the working set's
    peak and the working set."""
    if sys.platform != "win32":
        return None
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32),
            ("faults", ctypes.c_uint32),
            ("sizes", ctypes.c_size_t * 8),
        )

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = ctypes.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    if not kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size):
        return None
    return int(counters.sizes[1])
