"""Calls functions for a host, one after another: `python -I python_worker.py [path=FOLDER] [import=MODULE]`.

A program of its own; of ours it imports only the codec, from the folder it is given. Requests come on standard input,
answers go to standard output as frames: a letter, a length, that many bytes.

    H  it is ready          {"python": …, "cloudpickle": …}
    P  progress             {"fraction": …, "message": …}
    E  a call has ended     {"exit_code": …, "error": …, "detail": …, "clean": …, "cpu_us": …, "memory_peak_bytes": …},
                            a line feed, the output

What the function prints goes to standard error, which is the job's log; a line that the request names ends it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, BinaryIO

HEAD = struct.Struct(">cI")
SIZES = struct.Struct(">IIII")  # of a request: its settings, the function, the call, the job's files
OUTPUT_BYTES_MAX = 64 * 1024 * 1024  # the node's own bound, see executor.py
DETAIL_CHARS_MAX = 2_000  # it may be the words of an exception of the function's
CLOSE_TIMEOUT_S = 2
LOST = "ClusterLost"  # a dask job's scheduler is gone: no fault of the function's
LOST_PROBE_S = 3
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
END_TIMEOUT_S = 1.0


class Answers:
    """The way back to the host; frames of several threads do not mix."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, threading.Lock()

    def send(self, letter: bytes, data: bytes) -> None:
        with self._lock:
            self._file.write(HEAD.pack(letter, len(data)) + data)
            self._file.flush()

    def progress(self, fraction: float | None, message: str) -> None:
        self.send(b"P", json.dumps({"fraction": fraction, "message": message}).encode())


def main(arguments: list[str]) -> int:
    requests, answers = os.fdopen(os.dup(0), "rb"), Answers(os.fdopen(os.dup(1), "wb"))
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what functions print is the log
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for setting in arguments:
        name, _, value = setting.partition("=")
        if name == "path" and value not in sys.path:
            sys.path.insert(0, value)
        elif name == "import":
            __import__(value)
    adopt_orphans()
    import cloudpickle

    from offgrid import by_value, inside

    inside.Listener.say = answers.progress
    hello = {"python": by_value.PYTHON, "cloudpickle": cloudpickle.__version__}
    answers.send(b"H", json.dumps(hello).encode())
    while request := _read(requests):
        end, output = carry_out(*request)
        answers.send(b"E", json.dumps(end).encode() + b"\n" + output)
    return 0


def _read(requests: BinaryIO) -> tuple[dict[str, Any], bytes, bytes, bytes] | None:
    head = requests.read(SIZES.size)
    if len(head) < SIZES.size:
        return None
    settings, function, call, files = (requests.read(size) for size in SIZES.unpack(head))
    return json.loads(settings), function, call, files


def carry_out(settings: Mapping[str, Any], code: bytes, data: bytes, files: bytes) -> tuple[dict[str, Any], bytes]:
    """One call. The process's own folder, where it begins, is empty but for the job's files. What the function changes
    of folder, environment and path is put back."""
    environment, path = dict(os.environ), list(sys.path)
    limit_cpu(settings["cpu_s"])
    used = Used()
    try:
        with ExitStack() as held:
            lay_files(settings["files"], files, settings["memory_folder"], held)
            end, output = call(settings, code, data)
    finally:
        os.chdir(settings["home"])
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = path
    if ended := end_children():
        sys.stderr.write(f"offgrid: {ended} of its processes were left running, and ended\n")
    end |= {"clean": is_clean(), "cpu_us": used.cpu_us(), "memory_peak_bytes": used.memory_peak_bytes()}
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(2, settings["log_end"].encode() + b"\n")
    return end, output


def call(settings: Mapping[str, Any], code: bytes, data: bytes) -> tuple[dict[str, Any], bytes]:
    from offgrid import by_value

    try:
        output = by_value.encode_result(apply(settings, code, data))
        if len(output) > OUTPUT_BYTES_MAX:
            detail = f"it returned {len(output)} bytes; at most {OUTPUT_BYTES_MAX} are allowed"
            return _end(error="OutputTooLarge", detail=detail), b""
        return _end(), output
    except ClusterLost as lost:
        return _end(error=LOST, detail=str(lost)), b""
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return (_end(exit_code), by_value.encode_failure(end)) if exit_code else (_end(), by_value.encode_result(None))
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the job's result
        import traceback

        traceback.print_exception(error)
        return _end(1), by_value.encode_failure(error)


def _end(exit_code: int = 0, error: str = "", detail: str = "") -> dict[str, Any]:
    return {"exit_code": exit_code, "error": error, "detail": detail[:DETAIL_CHARS_MAX]}


def apply(settings: Mapping[str, Any], code: bytes, data: bytes) -> Any:
    from offgrid import by_value

    if settings.get("scheduler"):
        return on_cluster(settings["scheduler"], code, data)
    function = by_value.decode_function(code)
    args, kwargs = by_value.decode_call(data)
    return finished(function(*args, **kwargs))


def finished(value: Any) -> Any:
    """The value of a function, or of a coroutine, which gets a loop of its own."""

    async def wait() -> Any:
        return await value

    return asyncio.run(wait()) if inspect.isawaitable(value) else value


# ---- on a dask cluster


class ClusterLost(Exception):
    """The scheduler cannot be reached, or not any more."""


def on_cluster(scheduler: str, code: bytes, data: bytes) -> Any:
    from distributed import Client

    from offgrid import by_value

    try:
        client = Client(scheduler, timeout=LOST_PROBE_S, name="offgrid")
    except (OSError, TimeoutError) as error:
        raise ClusterLost(f"the scheduler does not answer: {error}") from error
    scheduler_id = client.scheduler_info()["id"]
    try:
        function = by_value.decode_function(code)
        args, kwargs = by_value.decode_call(data)
        return finished(function(client, *args, **kwargs))
    except Exception as error:
        if scheduler_now(client) != scheduler_id:
            raise ClusterLost(f"the scheduler was lost while the job ran: {type(error).__name__}: {error}") from error
        raise
    finally:
        client.close(timeout=CLOSE_TIMEOUT_S)


def scheduler_now(client: Any) -> str:
    """Which scheduler answers; "" when none does. One that was started anew knows nothing of what was asked before."""
    try:
        return str(client.sync(client.scheduler.identity, callback_timeout=LOST_PROBE_S)["id"])
    except Exception:  # noqa: BLE001 - of whatever kind: it did not answer
        return ""


# ---- what the process has used, and what the function has left in it


class Used:
    """Processor time since it was made, of this process and of those that it has waited for, and its largest size."""

    def __init__(self) -> None:
        self._began_us = self._cpu_us()
        self._reset = _write("/proc/self/clear_refs", "5")  # Linux: the peak starts anew, see proc(5)

    def cpu_us(self) -> int:
        return self._cpu_us() - self._began_us

    def memory_peak_bytes(self) -> int:
        if self._reset:
            with open("/proc/self/status", encoding="ascii", errors="replace") as status:
                return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
        if sys.platform == "win32":
            return 0
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def _cpu_us(self) -> int:
        if sys.platform == "win32":
            return time.process_time_ns() // 1000
        import resource

        spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return round(sum(each.ru_utime + each.ru_stime for each in spent) * 1e6)


def lay_files(files: Sequence[tuple[str, int]], data: bytes, memory_folder: str, held: ExitStack) -> None:
    """What the job brings, in its folder, for as long as `held` is. No byte of it reaches a disk where there is a place
    in memory: the sandbox's folder, or files of the system's."""
    at = 0
    for name, size in files:
        content, at = data[at : at + size], at + size
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        if memory_folder:
            fd, path = tempfile.mkstemp(dir=memory_folder)
            held.callback(os.unlink, path)
            held.callback(os.close, fd)
        elif sys.platform == "linux":
            fd = os.memfd_create(os.path.basename(name), os.MFD_CLOEXEC)
            path = f"/proc/{os.getpid()}/fd/{fd}"
            held.callback(os.close, fd)
        else:
            with open(name, "xb") as file:
                file.write(content)
            continue
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.symlink(path, name)


def adopt_orphans() -> None:
    """Linux: what a function's children leave behind becomes this process's own, to be found and ended."""
    if sys.platform != "linux":
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> int:
    """Ends what a function has left running, and what that leaves; how many they were."""
    if sys.platform == "win32":
        return 0
    import signal

    killed: set[int] = set()
    deadline = time.monotonic() + END_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG) != (0, 0):
                continue
        except ChildProcessError:
            break
        for pid in _children():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        time.sleep(0.001)
    return len(killed)


def _children() -> list[int]:
    """Linux, where the kernel lists them; elsewhere none, and the process is not used again."""
    try:
        with open(f"/proc/self/task/{threading.get_native_id()}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def limit_cpu(cpu_s: int) -> None:
    """A stray thread of a call that was given up cannot compute for ever, even when the host is gone."""
    if sys.platform == "win32":
        return
    import resource

    spent = resource.getrusage(resource.RUSAGE_SELF)
    soft, hard = round(spent.ru_utime + spent.ru_stime) + 1 + cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def is_clean() -> bool:
    """Whether nothing of the call goes on: no thread, no child. Else the process is not used again."""
    if threading.active_count() > 1:
        return False
    if sys.platform == "win32":
        return True
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def _write(path: str, text: str) -> bool:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
