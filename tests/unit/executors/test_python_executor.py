"""PythonExecutor: functions in warm processes, bounded, cleaned up after, and no process for two owners."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import offgrid
from offgrid import by_value
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import python as python_module
from offgrid_node.executors import python_launch, python_workers
from offgrid_node.executors import sandbox as sandboxes
from offgrid_node.executors.executor import OUTPUT_BYTES_MAX, Outcome, Progress, Work
from offgrid_node.executors.python import PythonExecutor
from offgrid_node.executors.python_process import SAID_BYTES_MAX

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="looks at processes as POSIX has them"),
    pytest.mark.filterwarnings("error"),
]
T = TypeVar("T")
MIB = 1024 * 1024
HOW = {"sandbox": "rlimits"}  # of the test that runs
WITHOUT_BWRAP = sandboxes.find()[1]


def payload(function: Callable[..., Any], *args: Any, **kwargs: Any) -> jobs_pb2.JobPayload:
    task = jobs_pb2.PythonTask(function=by_value.encode_function(function), python=by_value.PYTHON, name="f")
    return jobs_pb2.JobPayload(python=task, input=by_value.encode_call(args, kwargs))


class World:
    """An executor that lives as long as its loop; each call is a job."""

    def __init__(self, folder: Path, memory_bytes: int = 512 * MIB, count: int = 2) -> None:
        self.said: list[Progress] = []
        self.sandboxed = HOW["sandbox"] == "bwrap"
        self.executor = PythonExecutor(folder, memory_bytes=memory_bytes, count=count, sandbox=HOW["sandbox"])

    async def run(
        self, function: Callable[..., Any], *args: Any, timeout_ms: int = 20_000, owner: str = "a"
    ) -> Outcome:
        work = Work(payload(function, *args), timeout_ms, say=self.said.append, owner=owner)
        return await self.executor.run(work)

    async def value(self, function: Callable[..., Any], *args: Any, owner: str = "a") -> Any:
        outcome = await self.run(function, *args, owner=owner)
        assert (outcome.error, outcome.exit_code) == ("", 0), outcome
        return by_value.decode_result(outcome.output)


def in_world(folder: Path, story: Callable[[World], Awaitable[T]], **settings: int) -> T:
    async def run() -> T:
        world = World(folder, **settings)
        try:
            return await story(world)
        finally:
            world.executor.close()

    return asyncio.run(run())


@pytest.fixture(autouse=True, params=["rlimits", "bwrap"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test with limits alone, and behind bubblewrap."""
    if request.param == "bwrap" and WITHOUT_BWRAP:
        pytest.skip(WITHOUT_BWRAP)
    monkeypatch.setitem(HOW, "sandbox", request.param)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The work folder; whatever a test did, nothing is left in it."""
    yield tmp_path / "work"
    assert list((tmp_path / "work").glob("*")) == []


def processes(*words: str) -> list[int]:
    """Those that run with one of these words in their command or environment, on this machine, inside sandboxes too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if any(word.encode() in said for word in words):
                    found.append(int(entry.name))
    return found


def identity() -> str:
    """Of the process that calls it: a process's number says nothing in a sandbox."""
    import builtins

    return str(builtins.__dict__.setdefault("identity", os.urandom(8).hex()))


async def eventually(condition: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.005)
    return True


def add(a: int, b: int) -> int:
    return a + b


def test_it_offers_the_version_of_python_that_it_runs_on(folder: Path) -> None:
    async def story(world: World) -> None:
        assert world.executor.offers == (f"python:{sys.version_info.major}.{sys.version_info.minor}",)
        assert world.executor.problems == ()

    in_world(folder, story)


def test_it_offers_nothing_where_its_process_does_not_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_launch, "PROGRAM", folder / "nowhere.py")

    async def story(world: World) -> None:
        assert world.executor.offers == ()
        (problem,) = world.executor.problems
        assert "does not start" in problem

    in_world(folder, story)


def test_a_function_is_called_with_what_the_job_brings(folder: Path) -> None:
    async def story(world: World) -> None:
        outcome = await world.run(add, 40, 2)
        assert by_value.decode_result(outcome.output) == 42
        assert (outcome.exit_code, outcome.error, outcome.log) == (0, "", b"")
        assert outcome.executor.startswith(f"python/{by_value.PYTHON} ")
        assert outcome.usage.memory_peak_bytes > 4 * MIB

    in_world(folder, story)


def test_a_coroutine_is_awaited(folder: Path) -> None:
    async def slow(x: int) -> int:
        await asyncio.sleep(0.001)
        return x + 1

    in_world(folder, lambda world: _equals(world.value(slow, 1), 2))


async def _equals(value: Awaitable[Any], expected: Any) -> None:
    assert await value == expected


def test_bytes_are_the_output_as_they_are(folder: Path) -> None:
    async def story(world: World) -> None:
        assert (await world.run(lambda: b"raw")).output == b"raw"

    in_world(folder, story)


def test_what_it_prints_is_the_log_and_progress_is_told(folder: Path) -> None:
    def talk(times: int) -> None:
        for n in range(times):
            print("said", n)  # noqa: T201
            offgrid.progress(n / times, f"at {n}")
        subprocess.run(["/bin/echo", "from a child"], check=True)
        sys.stderr.write("no line feed")

    async def story(world: World) -> None:
        outcome = await world.run(talk, 3)
        assert outcome.log == b"said 0\nsaid 1\nsaid 2\nfrom a child\nno line feed"
        assert b"".join(said.log for said in world.said) == outcome.log
        told = [(said.fraction, said.message) for said in world.said if said.fraction is not None]
        assert told == [(0.0, "at 0"), (1 / 3, "at 1"), (2 / 3, "at 2")]
        assert (await world.run(talk, 0)).log == b"from a child\nno line feed"

    in_world(folder, story)


def test_an_exception_comes_back_with_its_traceback(folder: Path) -> None:
    def fail(key: str) -> None:
        {}[key]

    async def story(world: World) -> None:
        outcome = await world.run(fail, "nowhere")
        assert (outcome.error, outcome.exit_code) == ("", 1)
        assert b"Traceback" in outcome.log
        assert b"KeyError: 'nowhere'" in outcome.log
        error = by_value.decode_failure(outcome.output)
        assert type(error) is KeyError

    in_world(folder, story)


@pytest.mark.parametrize(
    ("function", "exit_code"),
    [
        (lambda: sys.exit(3), 3),
        (lambda: os._exit(4), 4),
        (lambda: os.kill(os.getpid(), 11), -11),
    ],
)
def test_it_may_end_itself(folder: Path, function: Callable[[], None], exit_code: int) -> None:
    async def story(world: World) -> None:
        outcome = await world.run(function)
        expected = 128 - exit_code if world.sandboxed and exit_code < 0 else exit_code  # as a shell says it
        assert (outcome.error, outcome.exit_code) == ("", expected)
        assert await world.value(add, 1, 1) == 2

    in_world(folder, story)


def test_an_end_without_a_result_is_no_success(folder: Path) -> None:
    async def story(world: World) -> None:
        outcome = await world.run(lambda: os._exit(0))
        assert outcome.error == "ExecutionFailed"
        assert "no result" in outcome.error_detail

    in_world(folder, story)


def test_the_process_is_warm_for_the_same_owner(folder: Path) -> None:
    async def story(world: World) -> None:
        assert len({await world.value(identity) for _ in range(4)}) == 1

    in_world(folder, story)


def test_no_process_serves_two_owners(folder: Path) -> None:
    """However few there may be at once, and whoever is next."""

    async def story(world: World) -> None:
        seen: dict[str, str] = {}
        for owner in "abacbca":
            assert seen.setdefault(await world.value(identity, owner=owner), owner) == owner

    in_world(folder, story, count=2)


def test_it_is_replaced_after_many_calls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_module, "Kind", lambda: python_workers.Kind(calls_max=2))

    async def story(world: World) -> None:
        assert len({await world.value(identity) for _ in range(6)}) == 3

    in_world(folder, story)


def test_a_thread_that_goes_on_after_a_call_takes_its_process_with_it(folder: Path) -> None:
    def leave() -> str:
        import threading

        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        return identity()

    async def story(world: World) -> None:
        assert await world.value(leave) != await world.value(identity)

    in_world(folder, story)


@pytest.mark.parametrize("setsid", [False, True])
def test_a_child_that_goes_on_after_a_call_is_ended(folder: Path, setsid: bool) -> None:
    """One that has left its session and its parent as well."""
    mark = f"60.{os.getpid()}{time.monotonic_ns()}"

    def leave() -> None:
        orphaning = ["/bin/sh", "-c", f"/usr/bin/setsid /bin/sleep {mark} & true"]
        subprocess.run(orphaning if setsid else ["/bin/sh", "-c", f"/bin/sleep {mark} & true"], check=True)

    async def story(world: World) -> None:
        await world.value(leave)
        assert await eventually(lambda: not processes(mark))

    in_world(folder, story)


def test_a_call_finds_folder_environment_and_path_as_if_it_were_the_first(folder: Path) -> None:
    def spoil() -> str:
        Path("left").write_text("x")
        os.environ["LEFT"] = "x"
        sys.path.append("left")
        os.chdir("/")
        return os.environ["HOME"]

    def look() -> tuple[list[str], str, bool]:
        return os.listdir("."), os.environ.get("LEFT", ""), "left" in sys.path

    async def story(world: World) -> None:
        home = await world.value(spoil)
        assert home == "/job" if world.sandboxed else Path(home).parent == folder
        assert await world.value(look) == ([], "", False)
        assert await asyncio.to_thread(lambda: list(folder.glob("*/*"))) == []

    in_world(folder, story)


def test_it_sees_nothing_of_the_nodes_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFGRID_SECRET", "x")
    in_world(folder, lambda world: _equals(world.value(lambda: os.environ.get("OFFGRID_SECRET")), None))


def test_the_time_limit_kills_it(folder: Path) -> None:
    def spin() -> None:
        while True:
            pass

    async def story(world: World) -> None:
        outcome = await world.run(spin, timeout_ms=700)
        assert outcome.error == "JobTimeout"
        assert "700 ms" in outcome.error_detail
        world.executor.close()
        assert await eventually(lambda: not processes(str(folder)))

    in_world(folder, story)


def test_cancelling_kills_it_and_its_children(folder: Path) -> None:
    mark = f"60.{os.getpid()}{time.monotonic_ns()}"

    def hang() -> None:
        subprocess.run(["/bin/sleep", mark], check=False)

    async def story(world: World) -> None:
        task = asyncio.create_task(world.run(hang))
        assert await eventually(lambda: bool(processes(mark)))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await eventually(lambda: not processes(mark))

    in_world(folder, story)


def test_memory_is_limited(folder: Path) -> None:
    async def story(world: World) -> None:
        outcome = await world.run(lambda: len(bytearray(1024 * MIB)))
        assert outcome.exit_code == 1
        assert type(by_value.decode_failure(outcome.output)) is MemoryError

    in_world(folder, story)


def test_what_returns_too_much_is_refused(folder: Path) -> None:
    async def story(world: World) -> None:
        outcome = await world.run(bytes, OUTPUT_BYTES_MAX + 1)
        assert (outcome.error, outcome.output) == ("OutputTooLarge", b"")
        outcome = await world.run(bytes, OUTPUT_BYTES_MAX)
        assert len(outcome.output) == OUTPUT_BYTES_MAX

    in_world(folder, story)


def frame_of(letter: bytes, data: bytes) -> bytes:
    return letter + len(data).to_bytes(4, "big") + data


JSON_BOMB = b'{"a":[' + b"[]," * SAID_BYTES_MAX + b"[]]}"  # in memory a good ten times as large


@pytest.mark.parametrize(
    "frame",
    [
        b"E\xff\xff\xff\xff",
        b"E\0\0\0\x02[]",
        b"E\0\0\0\x05nonse",
        b"H\0\0\0\x01x" + b"E\0\0\0\x01x",
        b"?\0\0\0\x01x",
        frame_of(b"P", JSON_BOMB),
        frame_of(b"E", JSON_BOMB + b"\nout"),
        frame_of(b"P", b'{"fraction":1e400}' + b" " * SAID_BYTES_MAX),
    ],
)
def test_a_function_that_speaks_for_its_process_harms_itself_only(folder: Path, frame: bytes) -> None:
    def forge(frame: bytes) -> None:
        for fd in range(3, 16):
            try:
                os.write(fd, frame)
            except OSError:
                continue
        time.sleep(60)

    async def story(world: World) -> None:
        outcome = await world.run(forge, frame)
        assert outcome.error == "ExecutionFailed"
        assert "no answer" in outcome.error_detail
        assert await world.value(add, 1, 1) == 2

    in_world(folder, story)


@pytest.mark.parametrize(
    "claims",
    ['{"exit_code": "x", "error": [], "cpu_us": -1, "memory_peak_bytes": 1e99}', '{"exit_code": 99999999999999}', "{}"],
)
def test_what_it_claims_of_itself_is_checked(folder: Path, claims: str) -> None:
    def forge(frame: bytes) -> None:
        for fd in range(3, 16):
            try:
                os.write(fd, frame)
            except OSError:
                continue

    async def story(world: World) -> None:
        text = claims.encode() + b"\nout"
        outcome = await world.run(forge, b"E" + len(text).to_bytes(4, "big") + text)
        assert (outcome.error, outcome.exit_code, outcome.output) == ("", 1, b"out")
        assert 0 <= outcome.usage.cpu_us < 2**30  # as seen from outside
        assert 0 <= outcome.usage.memory_peak_bytes < 512 * MIB

    in_world(folder, story)


def test_what_it_says_fits_into_messages_whatever_it_is(folder: Path) -> None:
    """A half surrogate pair, which JSON may hold and no message can; numbers that are no fraction."""

    def forge(frames: bytes) -> None:
        for fd in range(3, 16):
            try:
                os.write(fd, frames)
            except OSError:
                continue

    async def story(world: World) -> None:
        said = [b'{"fraction":%s,"message":"\\ud800!"}' % number for number in (b"NaN", b"1e400", b"-1", b"0.5")]
        frames = b"".join(frame_of(b"P", each) for each in said)
        frames += frame_of(b"E", b'{"error":"ClusterLost","detail":"\\udfff gone"}\n')
        outcome = await world.run(forge, frames)
        assert outcome.error == "ClusterLost"
        told = [(each.fraction, each.message) for each in world.said if each.message]
        assert told == [(None, "?!"), (None, "?!"), (None, "?!"), (0.5, "?!")]

    in_world(folder, story)


def test_a_pickle_that_cannot_be_read_is_the_jobs_failure(folder: Path) -> None:
    async def story(world: World) -> None:
        task = jobs_pb2.PythonTask(function=b"nonsense", python=by_value.PYTHON)
        outcome = await world.executor.run(Work(jobs_pb2.JobPayload(python=task), 20_000, owner="a"))
        assert (outcome.error, outcome.exit_code) == ("", 1)
        assert b"UnpicklingError" in outcome.log

    in_world(folder, story)


def test_another_version_of_python_is_refused(folder: Path) -> None:
    async def story(world: World) -> None:
        task = jobs_pb2.PythonTask(function=b"f", python="3.1")
        outcome = await world.executor.run(Work(jobs_pb2.JobPayload(python=task), 1_000, owner="a"))
        assert outcome.error == "ExecutionFailed"
        assert "3.1" in outcome.error_detail

    in_world(folder, story)


def test_a_process_that_nobody_needs_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_workers, "IDLE_S", 0.01)

    async def story(world: World) -> None:
        await world.value(add, 1, 1)
        assert await eventually(lambda: not processes(str(folder)))

    in_world(folder, story)


def test_files_come_and_go(folder: Path) -> None:
    def work() -> str:
        Path("out").mkdir()
        Path("out/copy.txt").write_bytes(Path("in/text.txt").read_bytes().upper())
        Path("left.bin").write_bytes(b"x")
        return subprocess.run(["/bin/cat", "in/text.txt"], capture_output=True, check=True).stdout.decode()

    async def story(world: World) -> None:
        asked = payload(work)
        asked.outputs.extend(["out/*", "in/*"])
        files = {"in/text.txt": b"hello"}
        outcome = await world.executor.run(Work(asked, 20_000, files, owner="a"))
        assert (outcome.error, outcome.exit_code) == ("", 0), outcome
        assert by_value.decode_result(outcome.output) == "hello"
        assert [(file.name, file.data) for file in outcome.files] == [("out/copy.txt", b"HELLO")]

    in_world(folder, story)


def test_what_fills_the_disk_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_workers, "FOLDER_BYTES_MAX", 8 * MIB)

    def fill() -> None:
        for number in range(64):
            Path(f"{number}").write_bytes(bytes(MIB))
        time.sleep(60)

    async def story(world: World) -> None:
        outcome = await world.run(fill)
        assert outcome.error == "ExecutionFailed"
        assert "files take" in outcome.error_detail

    in_world(folder, story)


@pytest.mark.parametrize("how", ["bwrap"], indirect=True)
class TestBehindBubblewrap:
    def test_it_sees_python_and_its_folder_and_no_network(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("x")
        secret = str(tmp_path / "secret")

        def look() -> tuple[bool, bool, str]:
            import socket

            try:
                socket.create_connection(("127.0.0.1", 22), timeout=1)
                network = "there"
            except OSError as error:
                network = error.strerror
            return Path(secret).exists(), Path("/etc/passwd").exists(), network

        async def story(world: World) -> None:
            seen, passwords, network = await world.value(look)
            assert (seen, passwords) == (False, False)
            assert network in ("Connection refused", "Network is unreachable")  # its own loopback, empty
            assert world.executor.isolation == {"python": "bwrap", "python_limits": "watched"}

        in_world(folder, story)

    def test_many_processes_are_stopped(self, folder: Path) -> None:
        def breed() -> None:
            children = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(200)]
            children[0].wait()

        async def story(world: World) -> None:
            outcome = await world.run(breed)
            assert outcome.error == "ExecutionFailed" or b"BlockingIOError" in outcome.log, outcome

        in_world(folder, story)


def test_where_bubblewrap_is_asked_for_and_missing_nothing_is_offered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandboxes, "BWRAP_PATHS", ())
    strict = PythonExecutor(folder, sandbox="bwrap")
    assert (strict.offers, strict.isolation) == ((), {})
    assert "bubblewrap is not installed" in strict.problems[0]
    easy = PythonExecutor(folder, sandbox="auto")
    assert easy.offers != ()
    assert "without a sandbox" in easy.problems[0]
    assert easy.isolation == {"python": "rlimits", "python_limits": "each"}


def test_calls_run_beside_each_other(folder: Path) -> None:
    async def story(world: World) -> None:
        outcomes = await asyncio.gather(*(world.value(add, n, n, owner=str(n % 2)) for n in range(2)))
        assert list(outcomes) == [0, 2]

    in_world(folder, story)
