"""Processes that go on without whoever started them, told apart from any that came after with the same number.

A number alone is no proof: systems give it to the next process. `birth_of` says when a process began, in words of the
system's own, and a number and a birth together are one process's alone, until the machine starts anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

BOOT_ID, PROC = Path("/proc/sys/kernel/random/boot_id"), Path("/proc")
AFTER_NAME_START = 19  # fields of /proc/PID/stat between the command's name and the start (proc(5), 22)
POLL_S = 0.03
ENDING = (signal.SIGINT, signal.SIGTERM)
TERMINATED = 143  # 128 + SIGTERM, as shells have it
PS_TIMEOUT_S = 10.0


def birth_of(pid: int) -> str:
    """When the process began, as this system says it; "" when there is none, or only what is left of an ended one."""
    if sys.platform == "win32":
        return _birth_on_windows(pid)
    return _birth_in_proc(pid) if sys.platform == "linux" else _birth_by_ps(pid)


def ask_to_end(pid: int) -> bool:
    """SIGTERM. False on Windows, where only who shares its console could. One that has gone is no error."""
    if sys.platform == "win32":
        return False
    with suppress(OSError):
        os.kill(pid, signal.SIGTERM)
    return True


def kill(pid: int) -> None:
    """At once, without a farewell."""
    with suppress(OSError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)  # TerminateProcess, as for every number but those of Ctrl-C and Ctrl-Break
        else:
            os.kill(pid, signal.SIGKILL)


def wait_gone(pid: int, birth: str, timeout_s: float) -> bool:
    """Whether the process has ended, within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while birth_of(pid) == birth:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Has Ctrl-C and SIGTERM wait until the block has ended."""
    came = list[int]()
    with _handled(ENDING, lambda number, _: came.append(number)):
        yield
    for number in came:
        signal.raise_signal(number)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM leaves the block as Ctrl-C would, by a SystemExit, so that it is tidied up behind it."""

    def end(number: int, _: object) -> None:
        sys.exit(TERMINATED)

    with _handled((signal.SIGTERM,), end):
        yield


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where no signals arrive
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _birth_in_proc(pid: int) -> str:
    try:
        state, *fields = (PROC / str(pid) / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
        return "" if state in "ZX" else f"{BOOT_ID.read_text().strip()}/{fields[AFTER_NAME_START - 1]}"
    except OSError:
        return ""


def _birth_by_ps(pid: int) -> str:
    said = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True, text=True, timeout=PS_TIMEOUT_S, check=False, env={"LC_ALL": "C"},
    ).stdout.split(None, 1)  # fmt: skip
    return said[1].strip() if len(said) == 2 and not said[0].startswith("Z") else ""


def _birth_on_windows(pid: int) -> str:
    if sys.platform != "win32":
        return ""
    import ctypes
    from ctypes import wintypes

    query, still_active = 0x1000, 259  # PROCESS_QUERY_LIMITED_INFORMATION; what GetExitCodeProcess says of the living
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.OpenProcess.restype = wintypes.HANDLE
    handle = kernel32.OpenProcess(query, False, pid)
    if not handle:
        return ""
    try:
        code, times = wintypes.DWORD(), [wintypes.FILETIME() for _ in range(4)]
        handle = wintypes.HANDLE(handle)
        if not kernel32.GetExitCodeProcess(handle, ctypes.byref(code)) or code.value != still_active:
            return ""
        if not kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)):
            return ""
        return f"{times[0].dwHighDateTime << 32 | times[0].dwLowDateTime}"
    finally:
        kernel32.CloseHandle(handle)
