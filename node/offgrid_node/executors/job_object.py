"""Windows job objects: all that a job runs as one, with bounds of its own, ended by the kernel when its handle goes.

The handle is this process's alone, so that a host that is killed takes its jobs' programs along
(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE). A program is made suspended and goes on once it is inside: nothing that it starts
gets away. After Microsoft's "Job Objects" and winnt.h. What is laid out and in which order it is asked for is tested
everywhere; Windows itself has never been asked, for want of one.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from offgrid_node.executors.cgroups import Bounds

CREATE_SUSPENDED = 0x4
LIMIT_ACTIVE_PROCESS, LIMIT_JOB_MEMORY = 0x8, 0x200
LIMIT_DIE_ON_UNHANDLED, LIMIT_KILL_ON_CLOSE = 0x400, 0x2000
BASIC_ACCOUNTING, EXTENDED_LIMITS = 1, 9  # JOBOBJECTINFOCLASS
KILLED_EXIT_CODE = 1
TICKS_PER_US = 10  # its times are in 100 ns


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION"""

    _fields_ = (
        ("per_process_time", c_int64),
        ("per_job_time", c_int64),
        ("flags", c_uint32),
        ("working_set_min", c_size_t),
        ("working_set_max", c_size_t),
        ("active_processes", c_uint32),
        ("affinity", c_size_t),
        ("priority_class", c_uint32),
        ("scheduling_class", c_uint32),
    )


class IoCounters(ctypes.Structure):
    """IO_COUNTERS"""

    _fields_ = tuple((name, c_uint64) for name in ("reads", "writes", "others", "read", "written", "other"))


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION"""

    _fields_ = (
        ("basic", BasicLimits),
        ("io", IoCounters),
        ("process_memory", c_size_t),
        ("job_memory", c_size_t),
        ("process_memory_peak", c_size_t),
        ("job_memory_peak", c_size_t),
    )


class Accounting(ctypes.Structure):
    """JOBOBJECT_BASIC_ACCOUNTING_INFORMATION"""

    _fields_ = (
        ("user_time", c_int64),
        ("kernel_time", c_int64),
        ("period_user_time", c_int64),
        ("period_kernel_time", c_int64),
        ("page_faults", c_uint32),
        ("processes", c_uint32),
        ("active_processes", c_uint32),
        ("terminated_processes", c_uint32),
    )


def limits_for(bounds: Bounds) -> ExtendedLimits:
    limits = ExtendedLimits()
    limits.basic.flags = LIMIT_KILL_ON_CLOSE | LIMIT_DIE_ON_UNHANDLED | LIMIT_JOB_MEMORY | LIMIT_ACTIVE_PROCESS
    limits.basic.active_processes = bounds.processes
    limits.job_memory = bounds.memory_bytes
    return limits


def cpu_us_of(accounting: Accounting) -> int:
    return (int(accounting.user_time) + int(accounting.kernel_time)) // TICKS_PER_US


class JobObject:
    """One, with its bounds set. All but `kill` and `close` raise OSError."""

    def __init__(self, bounds: Bounds, kernel: Any = None, ntdll: Any = None) -> None:
        """`kernel` and `ntdll` are Windows' libraries of these names, or their twins."""
        if kernel is None:
            kernel, ntdll = _libraries()
        self._kernel, self._ntdll = kernel, ntdll
        self._handle: int | None = self._checked(kernel.CreateJobObjectW(None, None))
        try:
            limits = limits_for(bounds)
            size = ctypes.sizeof(limits)
            self._checked(kernel.SetInformationJobObject(self._handle, EXTENDED_LIMITS, ctypes.byref(limits), size))
        except OSError:
            self.close()
            raise

    def take_in(self, process: int) -> None:
        """A process that was made with CREATE_SUSPENDED, by its handle; then it begins."""
        self._checked(self._kernel.AssignProcessToJobObject(self._handle, process))
        if status := self._ntdll.NtResumeProcess(process):
            raise OSError(f"the program could not be let go on: NTSTATUS {status & 0xFFFFFFFF:#x}")

    def used(self) -> tuple[int, int]:
        """Processor time in µs and largest memory in bytes, of all that ever ran in it."""
        accounting, limits = Accounting(), ExtendedLimits()
        for kind, about in ((BASIC_ACCOUNTING, accounting), (EXTENDED_LIMITS, limits)):
            size = ctypes.sizeof(about)
            self._checked(self._kernel.QueryInformationJobObject(self._handle, kind, ctypes.byref(about), size, None))
        return cpu_us_of(accounting), int(limits.job_memory_peak)

    def kill(self) -> None:
        """All that is in it."""
        if self._handle:
            self._kernel.TerminateJobObject(self._handle, KILLED_EXIT_CODE)

    def close(self) -> None:
        """Ends what is still in it. Twice is harmless."""
        handle, self._handle = self._handle, None
        if handle:
            self._kernel.CloseHandle(handle)

    def _checked(self, done: int) -> int:
        if not done:
            raise OSError(f"Windows refused a job object: error {self._kernel.GetLastError()}")
        return done


def _libraries() -> tuple[Any, Any]:
    if sys.platform != "win32":
        raise OSError("job objects are for Windows only")
    kernel, ntdll = ctypes.WinDLL("kernel32"), ctypes.WinDLL("ntdll")
    kernel.CreateJobObjectW.restype = c_void_p
    kernel.CreateJobObjectW.argtypes = [c_void_p, c_void_p]
    kernel.SetInformationJobObject.argtypes = [c_void_p, c_int, c_void_p, c_uint32]
    kernel.QueryInformationJobObject.argtypes = [c_void_p, c_int, c_void_p, c_uint32, c_void_p]
    kernel.AssignProcessToJobObject.argtypes = [c_void_p, c_void_p]
    kernel.TerminateJobObject.argtypes = [c_void_p, c_uint32]
    kernel.CloseHandle.argtypes = [c_void_p]
    ntdll.NtResumeProcess.argtypes = [c_void_p]
    return kernel, ntdll
