"""How a process that calls Python functions begins: its command line, behind its limits or its sandbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import offgrid
from offgrid.by_value import PYTHON
from offgrid_node.executors import confine
from offgrid_node.executors.python_process import HEAD
from offgrid_node.executors.sandbox import SYSTEM_FOLDERS, Sandbox

OURS = str(Path(offgrid.__file__).parents[1])  # where the codec is imported from
PROGRAM = Path(__file__).with_name("python_worker.py")
START_TIMEOUT_S = 30.0  # a small machine imports slowly
FILE_BYTES_MAX = 256 * 1024 * 1024
OPEN_FILES_MAX = 1024  # a function may well hold connections
CPU_S_MAX = 2**31  # of a process; each call has its own, lower bound


class Launch:
    """The same for each process of a kind. `imports` are loaded before it is ready; `memory_bytes` bounds its address
    space (POSIX)."""

    def __init__(self, imports: Sequence[str], memory_bytes: int, sandbox: Sandbox | None) -> None:
        self._imports, self._memory_bytes, self._sandbox = imports, memory_bytes, sandbox
        self._prlimit, self._setpriv = confine.find_prlimit(), confine.find_setpriv()

    @contextmanager
    def wrapped(self, folder: Path) -> Iterator[tuple[list[str], list[int], int]]:
        """The command behind its limits or its sandbox, the descriptors that it is given, and where to read what the
        sandbox tells of it (-1: there is none). They are open as long as this is. Raises OSError."""
        if self._sandbox is None:
            yield (
                confine.wrapped(self._argv, self._limits(), self._prlimit, dies_with_us=True, setpriv=self._setpriv),
                [],
                -1,
            )
            return
        with ExitStack() as held:
            status_fd, telling = os.pipe()
            held.callback(os.close, status_fd)
            held.callback(os.close, telling)
            filter_file = self._sandbox.filter_file()
            filter_fd = held.enter_context(filter_file).fileno() if filter_file else -1
            argv = self._sandbox.command(self._argv, folder, self._limits(), telling, filter_fd)
            yield argv, [fd for fd in (telling, filter_fd) if fd >= 0], status_fd

    def probe(self) -> str:
        """Why such processes do not work on this machine; empty when they do. It starts one, which ends at once."""
        try:
            with tempfile.TemporaryDirectory() as folder, self.wrapped(Path(folder)) as (argv, fds, _):
                asked = subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=START_TIMEOUT_S,
                    check=False,
                    env=confine.environment(folder),
                    pass_fds=fds,
                )
            hello = json.loads(asked.stdout[HEAD.size :]) if asked.stdout.startswith(b"H") else None
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            return f"its process cannot be started: {error}"
        if hello is None:
            words = asked.stderr.decode(errors="replace").split("\n")
            return f"its process does not start: {next((line for line in reversed(words) if line), 'it said nothing')}"
        return "" if hello.get("python") == PYTHON else f"its process runs Python {hello.get('python')}, not {PYTHON}"

    @property
    def _argv(self) -> list[str]:
        """What starts one. -I: nothing of the caller's environment or folder is looked at."""
        return [sys.executable, "-I", str(PROGRAM), f"path={OURS}", *(f"import={name}" for name in self._imports)]

    def _limits(self) -> confine.Limits:
        return confine.Limits(
            cpu_s=CPU_S_MAX, memory_bytes=self._memory_bytes, file_bytes=FILE_BYTES_MAX, open_files=OPEN_FILES_MAX
        )


def needed_paths() -> tuple[Path, ...]:
    """What a process of this Python has to read, behind a sandbox: the environment, its base, and the codec."""
    paths = dict.fromkeys(Path(path) for path in (sys.prefix, sys.base_prefix, OURS, str(PROGRAM)))
    return tuple(path for path in paths if not any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS))
