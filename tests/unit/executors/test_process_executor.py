"""ProcessExecutor: listed programs only, bounded in every way, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import confine
from offgrid_node.executors import process as process_module
from offgrid_node.executors.capture import LOG_MARK
from offgrid_node.executors.executor import LOG_BYTES_MAX, Outcome, Progress, Work
from offgrid_node.executors.process import ProcessExecutor

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="uses /bin/sh"),
    # A folder or transport that only the garbage collector tidied up is a leak.
    pytest.mark.filterwarnings("error"),
]

SH = Path("/bin/sh")


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private place for the jobs' folders, so that leftovers show."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(params=["util-linux", "limits.py"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ProcessExecutor:
    """One with each of the two kinds of wrapper."""
    if request.param == "limits.py":
        monkeypatch.setattr(confine, "PRLIMIT_PATHS", ())
        monkeypatch.setattr(confine, "SETPRIV_PATHS", ())
    elif confine.find_prlimit() is None:
        pytest.skip("util-linux is not installed")
    return ProcessExecutor({"sh": SH, "python": Path(sys.executable)}, memory_bytes=512 * 1024 * 1024)


def process(command: str, *args: str, stdin: bytes = b"") -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command=command, args=args), input=stdin)


def shell(script: str, stdin: bytes = b"") -> jobs_pb2.JobPayload:
    return process("sh", "-c", script, stdin=stdin)


def run(executor: ProcessExecutor, payload: jobs_pb2.JobPayload, timeout_ms: int = 10_000) -> Outcome:
    return asyncio.run(executor.run(Work(payload, timeout_ms)))


def alive(pid: int) -> bool:
    """Not gone, and not a zombie that waits to be collected by init."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def eventually(condition: Callable[[], bool], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True


def test_only_programs_that_exist_and_can_be_run_are_offered(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("no program")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    executor = ProcessExecutor(
        {
            "sh": SH,
            "gone": tmp_path / "gone",
            "plain": tmp_path / "plain.txt",
            "folder": tmp_path,
            "dangling": tmp_path / "link",
            "relative": Path("bin/sh"),
            "../sh": SH,
            "Upper": SH,
        }
    )
    assert executor.offers == ("process:sh",)
    assert len(executor.problems) == 7
    assert any("'gone'" in problem and "does not exist" in problem for problem in executor.problems)


@pytest.mark.parametrize("name", ["../sh", "/bin/sh", "bin/sh", "sh\n", "sh -c", "", ".sh", "s" * 64, "ls"])
def test_a_command_is_a_listed_name_and_nothing_else(name: str) -> None:
    outcome = run(ProcessExecutor({"sh": SH}), process(name, "-c", "echo hi"))
    assert (outcome.error, outcome.output) == ("ExecutionFailed", b"")


def test_a_link_in_the_folder_is_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sneaky").symlink_to(SH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(ProcessExecutor({"sh": SH}), process("sneaky")).error == "ExecutionFailed"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")
def test_input_is_standard_input_and_a_file(executor: ProcessExecutor) -> None:
    outcome = run(executor, shell("cat; cat input; cat input", b"some text\n"))
    assert outcome.output == 3 * b"some text\n"
    assert (outcome.exit_code, outcome.error) == (0, "")
    assert outcome.executor.startswith("process:sh@")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is a pipe")
def test_the_input_is_in_no_file_and_no_program_changes_it(executor: ProcessExecutor, temporary_folder: Path) -> None:
    script = f"grep -rl mark''er {temporary_folder} 2>&1; echo changed >input || echo refused; cat"
    outcome = run(executor, shell(script, b"a marker"))
    assert outcome.output == b"refused\na marker"


def test_without_files_in_memory_the_input_comes_through_a_pipe(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "memory_file", lambda data: nullcontext(None))
    large = bytes(range(256)) * 4096
    assert run(executor, shell("cat", large)).output == large
    assert run(executor, shell("head -c 3", b"abc" + large)).output == b"abc"
    assert run(executor, shell("exit 4", large)).exit_code == 4


def test_a_program_that_does_not_read_its_input_is_fine(executor: ProcessExecutor) -> None:
    assert run(executor, shell("exit 0", bytes(2 * 1024 * 1024))).exit_code == 0


def test_arguments_are_never_seen_by_a_shell(executor: ProcessExecutor) -> None:
    text = "$(id) `id`; rm -rf / | & > x * \\ '\""
    outcome = run(executor, process("python", "-c", "import sys; print(sys.argv[1], end='')", text))
    assert outcome.output.decode() == text


def test_an_exit_code_is_the_programs_answer_and_no_error(executor: ProcessExecutor) -> None:
    outcome = run(executor, shell("echo out; echo err >&2; exit 7"))
    assert (outcome.exit_code, outcome.error) == (7, "")
    assert (outcome.output, outcome.log) == (b"out\n", b"err\n")
    assert run(executor, shell("kill -TERM $$")).exit_code == -15


def test_the_environment_is_small_and_fixed(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_X", "evil")
    monkeypatch.setenv("SECRET", "hush")
    outcome = run(
        executor,
        process("python", "-I", "-c", "import os; print(sorted(os.environ), os.environ['HOME'] == os.getcwd())"),
    )
    names, _, home = outcome.output.decode().strip().rpartition(" ")
    assert set(names.strip("[]").replace("'", "").split(", ")) <= {"HOME", "LANG", "LC_CTYPE", "PATH"}
    assert home == "True"


def test_a_program_that_vanished_is_not_startable(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho hi\n")
    program.chmod(0o755)
    executor = ProcessExecutor({"program": program})
    assert run(executor, process("program")).output == b"hi\n"
    program.unlink()
    outcome = run(executor, process("program"))
    assert outcome.error == "ExecutionFailed"
    assert "could not be started" in outcome.error_detail


@pytest.mark.parametrize("args", [("a\0b",), ("x" * 4097,), ("x",) * 65])
def test_arguments_are_bounded(args: tuple[str, ...]) -> None:
    outcome = run(ProcessExecutor({"sh": SH}), process("sh", *args))
    assert outcome.error == "ExecutionFailed"
    assert "payload.process.args" in outcome.error_detail


def test_a_timeout_kills_the_whole_group(executor: ProcessExecutor) -> None:
    started = time.monotonic()
    outcome = run(executor, shell("sleep 600 & echo $! >&2; sleep 600"), 300)
    assert outcome.error == "JobTimeout"
    assert time.monotonic() - started >= 0.3
    assert asyncio.run(eventually(lambda: not alive(int(outcome.log))))


def test_cancelling_the_task_kills_the_grandchild(executor: ProcessExecutor, temporary_folder: Path) -> None:
    async def cancel() -> int:
        task = asyncio.create_task(executor.run(Work(shell("sh -c 'echo $$ > pid; sleep 600; :'; :"), 600_000)))
        pids: list[str] = []

        def started() -> bool:
            pids[:] = [text for file in temporary_folder.glob("*/pid") if (text := file.read_text())]
            return bool(pids)

        assert await eventually(started)
        assert alive(int(pids[0]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: not alive(int(pids[0])))
        return int(pids[0])

    asyncio.run(cancel())
    assert list(temporary_folder.iterdir()) == []


def test_what_is_left_running_goes_with_its_parent(executor: ProcessExecutor) -> None:
    outcome = run(executor, shell("sleep 600 & echo $!"), 60_000)
    assert (outcome.exit_code, outcome.error) == (0, "")
    assert asyncio.run(eventually(lambda: not alive(int(outcome.output))))


def test_a_stray_in_a_session_of_its_own_does_not_hold_up_the_result(executor: ProcessExecutor) -> None:
    script = (
        "import os, sys, time\n"
        "r, w = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); os.write(w, b'x'); time.sleep(600); os._exit(0)\n"
        "os.read(r, 1); print('done', flush=True)\n"
    )
    outcome = run(executor, process("python", "-I", "-c", script), 60_000)
    assert (outcome.output, outcome.error) == (b"done\n", "")


GETS_AWAY = (
    "import os, sys, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        print(os.getpid(), file=sys.stderr, flush=True)\n"
    "        if os.fork() == 0:\n"
    "            os.execve('/bin/sh', ['sh', '-c', 'echo $$ >&2; exec sleep 600'], {})\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc to find it in")
@pytest.mark.parametrize("ends", ["by itself", "by its time", "by cancelling"])
def test_who_leaves_its_session_ends_with_its_job(executor: ProcessExecutor, temporary_folder: Path, ends: str) -> None:
    """One by its HOME, and one that has cast that off by its session."""
    script = GETS_AWAY + ("time.sleep(1.0)" if ends == "by itself" else "time.sleep(600)")
    log = bytearray()

    async def until_its_end() -> None:
        work = Work(process("python", "-I", "-c", script), 2_000 if ends == "by its time" else 600_000, say=heard)
        task = asyncio.create_task(executor.run(work))
        assert await eventually(lambda: log.count(b"\n") == 2)
        if ends == "by cancelling":
            task.cancel()
        await asyncio.wait({task})

    def heard(said: Progress) -> None:
        log.extend(said.log)

    asyncio.run(until_its_end())
    pids = [int(line) for line in log.split()]
    assert len(pids) == 2
    assert asyncio.run(eventually(lambda: not any(map(alive, pids))))
    assert list(temporary_folder.iterdir()) == []


def test_output_without_end_is_stopped_at_the_cap(executor: ProcessExecutor) -> None:
    outcome = run(executor, shell("cat /dev/zero"), 60_000)
    assert (outcome.error, outcome.output) == ("OutputTooLarge", b"")


def test_a_log_without_end_is_cut_and_marked(executor: ProcessExecutor) -> None:
    outcome = run(executor, process("python", "-I", "-c", "import sys; sys.stderr.write('x' * 300000); print('ok')"))
    assert (outcome.output, outcome.error) == (b"ok\n", "")
    assert len(outcome.log) == LOG_BYTES_MAX
    assert outcome.log.endswith(LOG_MARK)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no address-space limit")
def test_a_memory_bomb_stops_at_the_limit(executor: ProcessExecutor) -> None:
    outcome = run(executor, process("python", "-I", "-c", "x = bytearray(1 << 30)"))
    assert outcome.exit_code != 0
    assert b"MemoryError" in outcome.log


def test_limits_hold_inside(executor: ProcessExecutor) -> None:
    script = "ulimit -c; ulimit -n; ulimit -t; ulimit -f"
    core, files, cpu_s, file_blocks = map(int, run(executor, shell(script), 3000).output.split())
    assert (core, files) == (0, 256)
    assert cpu_s == 3 * (os.cpu_count() or 1) + 1
    assert file_blocks * 512 == 256 * 1024 * 1024


def test_a_file_cannot_outgrow_its_limit(executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.executors.process.FILE_BYTES_MAX", 1024 * 1024)
    outcome = run(executor, shell("head -c 3000000 /dev/zero > big; wc -c < big"))
    assert outcome.output.strip() == b"1048576"


def test_fifty_runs_leave_no_descriptor_and_no_folder_behind(temporary_folder: Path) -> None:
    executor = ProcessExecutor({"sh": SH})
    scripts = (
        "exit 0",
        "sleep 9",
        "while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done",
        "mkdir d; touch d/f; chmod 0 d",
    )

    async def fifty() -> None:
        for number in range(50):
            await executor.run(Work(shell(scripts[number % 4] if number < 8 else scripts[0]), 100))

    def descriptors() -> int:
        return len(os.listdir("/dev/fd"))

    asyncio.run(fifty())
    before = descriptors()
    asyncio.run(fifty())
    assert descriptors() == before
    assert list(temporary_folder.iterdir()) == []


def test_the_loop_has_its_turn_between_the_starts_of_programs(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of them would else keep everything else waiting for as long as all of their starts take together."""
    turn, started, spawn = [0], list[int](), process_module.spawn

    async def noted(*args: object, **named: object) -> object:
        started.append(turn[0])
        return await spawn(*args, **named)  # type: ignore[arg-type]

    async def batch() -> list[Outcome]:
        loop = asyncio.get_running_loop()

        def count() -> None:
            turn[0] += 1
            loop.call_soon(count)

        count()
        return list(await asyncio.gather(*(executor.run(Work(shell("true"), 10_000)) for _ in range(5))))

    monkeypatch.setattr(process_module, "spawn", noted)
    assert [outcome.exit_code for outcome in asyncio.run(batch())] == [0] * 5
    assert len(set(started)) == 5, started
