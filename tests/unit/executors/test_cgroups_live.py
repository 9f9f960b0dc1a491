"""Control groups of this machine's kernel: what gets away from everything else is found, counted and ended by them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from offgrid import by_value
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import cgroup_setup, sandbox
from offgrid_node.executors.cgroups import Bounds, Group, Groups, Kernel
from offgrid_node.executors.executor import Outcome, Work
from offgrid_node.executors.process import ProcessExecutor
from offgrid_node.executors.python import PythonExecutor

MIB = 1024 * 1024
COMMANDS = {"sh": Path("/bin/sh"), "python": Path("/usr/bin/python3")}
BURNT_US = 200_000
# Computes for longer than that, says its number on the descriptor that it is given, and goes on.
BURNS = """
import os, sys, time
while time.process_time() < 0.3:
    pass
os.write(int(sys.argv[1]), str(os.getpid()).encode())
time.sleep(60)
"""
# Casts off parent, session, process group and environment, and becomes BURNS.
GETS_AWAY = f"""
import os, sys
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        os.set_inheritable(writing, True)
        os.execve(sys.executable, [sys.executable, "-I", "-c", {BURNS!r}, str(writing)], {{}})
    os._exit(0)
print(os.read(reading, 99).decode())
"""
# Children that nobody waits for, each with this many bytes of its own.
CHILDREN = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        kept = os.urandom(1 << 20) * int(sys.argv[2])
        time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    found, problem = cgroup_setup.find(tmp_path)
    if found is None:
        pytest.skip(problem)
    yield found
    assert Kernel().below(found._folder) == []
    found.close()


@pytest.fixture(params=["rlimits", "bwrap"])
def held_by(request: pytest.FixtureRequest) -> str:
    if request.param == "bwrap" and sandbox.find()[0] is None:
        pytest.skip(sandbox.find()[1])
    return str(request.param)


def run(executor: ProcessExecutor | PythonExecutor, payload: jobs_pb2.JobPayload, timeout_ms: int = 20_000) -> Outcome:
    async def story() -> Outcome:
        try:
            return await executor.run(Work(payload, timeout_ms, owner="a"))
        finally:
            executor.close()

    return asyncio.run(story())


def program(command: str, *args: str) -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command=command, args=args))


def function(called: Callable[..., Any], *args: Any) -> jobs_pb2.JobPayload:
    task = jobs_pb2.PythonTask(function=by_value.encode_function(called), python=by_value.PYTHON, name="f")
    return jobs_pb2.JobPayload(python=task, input=by_value.encode_call(args, {}))


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


@pytest.mark.skipif(not COMMANDS["python"].exists(), reason="there is no /usr/bin/python3")
class TestPrograms:
    def executor(self, tmp_path: Path, groups: Groups, held_by: str, memory_mb: int = 512) -> ProcessExecutor:
        made = ProcessExecutor(
            COMMANDS, work_dir=tmp_path / "work", memory_bytes=memory_mb * MIB, sandbox=held_by, groups=groups
        )
        together = (
            ("cgroup" if groups.bounds else "watched") if held_by == "bwrap" else "each"
        )  # it could leave its group
        assert made.isolation == {"process": held_by, "process_limits": together}
        return made

    def test_one_runs_as_without(self, tmp_path: Path, groups: Groups, held_by: str) -> None:
        payload = program("sh", "-c", "cat; echo log >&2; exit 7")
        payload.input = b"hello"
        outcome = run(self.executor(tmp_path, groups, held_by), payload)
        assert (outcome.output, outcome.log, outcome.exit_code, outcome.error) == (b"hello", b"log\n", 7, "")

    def test_nothing_gets_away_and_all_of_it_is_counted(self, tmp_path: Path, groups: Groups) -> None:
        outcome = run(self.executor(tmp_path, groups, "rlimits"), program("python", "-I", "-c", GETS_AWAY))
        assert outcome.exit_code == 0
        assert not alive(int(outcome.output))
        assert outcome.usage.cpu_us > BURNT_US

    def test_memory_is_that_of_all_of_them(self, tmp_path: Path, groups: Groups, held_by: str) -> None:
        outcome = run(
            self.executor(tmp_path, groups, held_by, memory_mb=128), program("python", "-I", "-c", CHILDREN, "4", "48")
        )
        assert outcome.error == "ExecutionFailed"
        assert "bytes of memory" in outcome.error_detail

    def test_so_is_their_number(self, tmp_path: Path, groups: Groups) -> None:
        """Held by limits alone it was nobody's to count."""
        if groups.bounds:
            pytest.skip("here the kernel refuses a process too many, and the program goes on")
        outcome = run(self.executor(tmp_path, groups, "rlimits"), program("python", "-I", "-c", CHILDREN, "80", "0"))
        assert outcome.error == "ExecutionFailed"
        assert "processes; at most 64 are allowed" in outcome.error_detail

    def test_what_cannot_be_put_inside_is_not_run(self, tmp_path: Path, groups: Groups, held_by: str) -> None:
        class Broken(Groups):
            def make(self, bounds: Bounds) -> Group:
                made = groups.make(bounds)
                made.remove()
                return replace(made, folder=made.folder.with_name("gone"))

        executor = self.executor(tmp_path, Broken(groups._folder, groups._controllers, Kernel()), held_by)
        outcome = run(executor, program("sh", "-c", "echo ran"))
        assert (outcome.error, outcome.output) == ("ExecutionFailed", b"")
        assert "control group" in outcome.error_detail

    def test_where_no_group_can_be_made_no_job_runs(self, tmp_path: Path, groups: Groups) -> None:
        class Full(Groups):
            def make(self, bounds: Bounds) -> Group:
                raise OSError(28, "No space left on device")

        executor = self.executor(tmp_path, Full(groups._folder, groups._controllers, Kernel()), "rlimits")
        outcome = run(executor, program("sh", "-c", "echo ran"))
        assert (outcome.error, outcome.output) == ("ExecutionFailed", b"")
        assert list((tmp_path / "work").iterdir()) == []


class TestFunctions:
    def executor(self, tmp_path: Path, held_by: str, groups: Groups | None) -> PythonExecutor:
        return PythonExecutor(tmp_path / "work", memory_bytes=512 * MIB, sandbox=held_by, groups=groups)

    @pytest.fixture(params=["group", "alone"])
    def either(self, request: pytest.FixtureRequest, groups: Groups) -> Groups | None:
        return groups if request.param == "group" else None

    def test_a_process_says_nothing_of_what_it_used(self, tmp_path: Path, either: Groups | None, held_by: str) -> None:
        """It is told, but not believed."""

        def lies(cpu_us: int) -> None:
            sys.modules["__main__"].Used.cpu_us = lambda self: cpu_us  # type: ignore[attr-defined]
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass

        def stranger(called: Callable[..., Any]) -> Callable[..., Any]:
            called.__module__ = "__main__"  # goes along by value
            return called

        little = run(self.executor(tmp_path, held_by, either), function(stranger(lies), 0))
        much = run(self.executor(tmp_path, held_by, either), function(stranger(lies), 2**60))
        assert little.error == much.error == ""
        assert little.usage.cpu_us > BURNT_US
        assert much.usage.cpu_us < 20_000_000

    def test_what_a_call_leaves_running_is_ended_and_counted(
        self, tmp_path: Path, groups: Groups, held_by: str
    ) -> None:
        def leaves() -> str:
            import os
            import time

            reading, writing = os.pipe()
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.setsid()
                    while time.process_time() < 0.3:
                        pass
                    os.write(writing, b"x")
                    time.sleep(60)
                os._exit(0)
            return os.read(reading, 1).decode()

        outcome = run(self.executor(tmp_path, held_by, groups), function(leaves))
        assert (outcome.error, outcome.exit_code) == ("", 0), outcome
        assert outcome.usage.cpu_us > BURNT_US
        assert b"1 of its processes were left running" in outcome.log
