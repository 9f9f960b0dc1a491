"""What a call has used, as seen from outside of the process that made it: what that says is a stranger's word.

A control group has the kernel's own count, of everything that the call started, to the microsecond. Without one, /proc
has whole clock ticks: the process's own, finer figure is taken as far as it agrees with them.
"""

from __future__ import annotations

from collections.abc import Mapping

from offgrid_node.executors import confine
from offgrid_node.executors.cgroups import Group
from offgrid_node.executors.executor import Usage
from offgrid_node.executors.watch import TICK_US, Watch

TICKS_LOST = 4  # of each process's user and system time, one at the beginning and one at the end


class Outside:
    """Of one call; to be made before it begins."""

    def __init__(self, watch: Watch, pid: int, group: Group | None, memory_bytes_max: int) -> None:
        """`pid` as `Watch.begin` has it; 0: not known."""
        self._watch, self._pid, self._group, self._memory_bytes_max = watch, pid, group, memory_bytes_max
        self._began_us = self._cpu_us()

    def usage(self, said: Mapping[str, object]) -> Usage:
        """To be asked when it has ended, before its processes are killed."""
        seen_us = self._cpu_us() - self._began_us
        said_us, said_bytes = _number(said.get("cpu_us")), _number(said.get("memory_peak_bytes"))
        if self._group is None:
            seen_us = _agreed_us(said_us, seen_us) if self._can_see else said_us
        return Usage(seen_us, max(self._watch.memory_peak_bytes, min(said_bytes, self._memory_bytes_max)))

    @property
    def _can_see(self) -> bool:
        return confine.LINUX and self._pid > 0

    def _cpu_us(self) -> int:
        if self._can_see:
            self._watch.measure(self._pid)
        return self._group.cpu_us() if self._group is not None else self._watch.cpu_us


def _agreed_us(said_us: int, seen_us: int) -> int:
    slack_us = TICKS_LOST * TICK_US
    return min(max(said_us, seen_us - slack_us, 0), seen_us + slack_us)


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**63 else 0
