"""The memory that a process's threads share."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

THREADS = 3
TOLD_BY = ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")  # of the person who runs this
ARENAS = f"""
import ctypes, sys, threading
from offgrid_node import arena

if sys.argv[1] == "shared":
    assert arena.share_one()
together = threading.Barrier({THREADS})

def work():
    held = bytearray(100_000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range({THREADS})]
for each in threads: each.start()
for each in threads: each.join()
c = ctypes.CDLL(None)
c.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(c.fdopen(1, b"w"))
c.malloc_info(0, out)
c.fflush(out)
"""


def arenas(how: str) -> int:
    """Of a process whose threads all hold memory at once."""
    environment = {name: value for name, value in os.environ.items() if name not in TOLD_BY}
    command = [sys.executable, "-c", ARENAS, how]
    told = subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
    return told.count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library cannot be told")
def test_threads_share_one_arena() -> None:
    assert arenas("shared") == 1
    assert arenas("own") > 1
