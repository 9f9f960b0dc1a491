"""Others that jobs are measured beside, where this machine has them: their servers and their libraries.

Each is a class with `name`, `missing()` and, in a `with` block, `run(count, in_flight)`, as jobs_ours.py has it.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Protocol

START_S_MAX = 30.0
STOP_S_MAX = 5.0
POLL_S = 0.05


class Peer(Protocol):
    """Use it in a `with` block, in a folder of its own."""

    def __enter__(self) -> Peer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def run(self, count: int, in_flight: int) -> float:
        """Seconds for `count` jobs, each awaited with its result, with up to `in_flight` under way."""
        ...


def lacking(modules: Sequence[str], programs: Sequence[str] = ()) -> str:
    """What of these this machine does not have, in words; "" when nothing."""
    absent = [f"the Python package {name}" for name in modules if find_spec(name) is None]
    absent += [f"the program {name}" for name in programs if shutil.which(name) is None]
    return f"it needs {' and '.join(absent)}" if absent else ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Processes:
    """A peer's processes, each with its log in the folder and, like our nodes, in a session of its own: Linux shares
    processors out by session first."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], env: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=self.folder,
                start_new_session=sys.platform != "win32",
            )

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Raises RuntimeError with what the process has logged when it ends, or takes too long."""
        deadline = time.monotonic() + START_S_MAX
        while not ready():
            if self._running[name].poll() is not None or time.monotonic() > deadline:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise RuntimeError(f"{name} did not start:\n{log[-2000:]}")
            time.sleep(POLL_S)

    def finish(self, name: str) -> None:
        """Until it has ended by itself; RuntimeError with what it has logged when it failed."""
        if self._running.pop(name).wait(START_S_MAX):
            raise RuntimeError(f"{name} failed:\n{self.log_of(name)[-2000:]}")

    def kill(self, name: str) -> None:
        """At once, without a word."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    @property
    def pids(self) -> dict[str, int]:
        """Of those that were started and not ended here."""
        return {name: process.pid for name, process in self._running.items()}

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        """The last started first."""
        for process in reversed(self._running.values()):
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(POLL_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


PYTHON = sys.executable
