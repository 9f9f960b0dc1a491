"""Windows job objects as far as they can be looked at elsewhere: what is laid out where, and what is asked in which
order. Windows itself is not asked."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest

from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.job_object import (
    BASIC_ACCOUNTING,
    EXTENDED_LIMITS,
    Accounting,
    BasicLimits,
    ExtendedLimits,
    IoCounters,
    JobObject,
    cpu_us_of,
    limits_for,
)

BOUNDS = Bounds(512 * 2**20, 64)
on_64_bits = pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="sizes of 64-bit Windows")


class Windows:
    """kernel32 and ntdll: they remember what was asked, and refuse what they are told to."""

    def __init__(self, *refused: str, status: int = 0) -> None:
        self.asked: list[str] = []
        self._refused, self._status = refused, status
        self.limits = b""

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.asked.append(name)
            if name == "SetInformationJobObject":
                self.limits = ctypes.string_at(ctypes.cast(arguments[2], ctypes.c_void_p), arguments[3])
            if name == "QueryInformationJobObject":
                about = ctypes.cast(arguments[2], ctypes.POINTER(type(arguments[2]._obj))).contents
                if arguments[1] == BASIC_ACCOUNTING:
                    about.user_time, about.kernel_time = 15_000, 5_000
                elif arguments[1] == EXTENDED_LIMITS:
                    about.job_memory_peak = 99
            return 0 if name in self._refused else 5

        return call

    def NtResumeProcess(self, process: int) -> int:  # noqa: N802 - its name there
        self.asked.append("NtResumeProcess")
        return self._status

    def GetLastError(self) -> int:  # noqa: N802 - as above
        return 1392


@on_64_bits
def test_the_layouts_are_those_of_winnt_h() -> None:
    assert [ctypes.sizeof(each) for each in (BasicLimits, IoCounters, ExtendedLimits, Accounting)] == [64, 48, 144, 48]
    assert (BasicLimits.flags.offset, BasicLimits.active_processes.offset) == (16, 40)
    assert (ExtendedLimits.job_memory.offset, ExtendedLimits.job_memory_peak.offset) == (120, 136)


def test_the_bounds_are_all_of_the_jobs_together() -> None:
    limits = limits_for(BOUNDS)
    assert (limits.basic.active_processes, limits.job_memory) == (64, 512 * 2**20)
    assert limits.basic.flags == 0x8 | 0x200 | 0x400 | 0x2000  # processes, memory, no dialogues, killed with its handle


def test_a_program_goes_on_only_once_it_is_inside() -> None:
    windows = Windows()
    job = JobObject(BOUNDS, windows, windows)
    assert windows.asked == ["CreateJobObjectW", "SetInformationJobObject"]
    assert windows.limits == bytes(limits_for(BOUNDS))
    job.take_in(7)
    assert windows.asked[2:] == ["AssignProcessToJobObject", "NtResumeProcess"]


def test_all_of_it_is_killed_and_the_handle_given_back_once() -> None:
    windows = Windows()
    job = JobObject(BOUNDS, windows, windows)
    job.kill()
    job.close()
    job.close()
    job.kill()
    assert windows.asked[2:] == ["TerminateJobObject", "CloseHandle"]


def test_what_it_has_used_is_that_of_all_of_it() -> None:
    windows = Windows()
    assert JobObject(BOUNDS, windows, windows).used() == (2_000, 99)
    assert cpu_us_of(Accounting(user_time=1, kernel_time=10)) == 1


@pytest.mark.parametrize("refused", ["CreateJobObjectW", "SetInformationJobObject"])
def test_one_without_its_bounds_is_none(refused: str) -> None:
    windows = Windows(refused)
    with pytest.raises(OSError, match="error 1392"):
        JobObject(BOUNDS, windows, windows)
    assert ("CloseHandle" in windows.asked) == (refused == "SetInformationJobObject")


def test_a_program_that_cannot_be_put_inside_does_not_begin() -> None:
    windows = Windows("AssignProcessToJobObject")
    with pytest.raises(OSError, match="refused a job object"):
        JobObject(BOUNDS, windows, windows).take_in(7)
    assert "NtResumeProcess" not in windows.asked


def test_one_that_does_not_go_on_is_said() -> None:
    windows = Windows(status=-1073741790)
    with pytest.raises(OSError, match="NTSTATUS 0xc0000022"):
        JobObject(BOUNDS, windows, windows).take_in(7)


@pytest.mark.skipif(sys.platform == "win32", reason="there they are")
def test_elsewhere_there_are_none() -> None:
    with pytest.raises(OSError, match="for Windows only"):
        JobObject(BOUNDS)
