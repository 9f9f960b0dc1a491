"""What processes have used so far, as the system counts it, and how they are kept from using any more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import psutil

MIB = 1024 * 1024


class Meter:
    """The processor time of several processes since the meter was made. It hardly depends on what else is running."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._began = self._seconds()

    def read(self) -> dict[str, float]:
        """Seconds by name, of user and system together."""
        return {name: now - self._began[name] for name, now in self._seconds().items()}

    def _seconds(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: spent.user + spent.system for name, spent in times.items()}


@contextmanager
def at_rest(pids: Iterable[int]) -> Iterator[None]:
    """They are stopped in the midst of whatever they do (SIGSTOP; on Windows all their threads), and go on in the
    end: idle daemons, too, take processor time from whoever is measured."""
    stopped = list[psutil.Process]()
    try:
        for pid in pids:
            process = psutil.Process(pid)
            process.suspend()
            stopped.append(process)
        yield
    finally:
        for process in stopped:
            process.resume()


def resident_mib(pid: int) -> float:
    """The memory that a process has in use."""
    return float(psutil.Process(pid).memory_info().rss) / MIB


def own_pid() -> int:
    """This process: the client of what is measured."""
    return os.getpid()
