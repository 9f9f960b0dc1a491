"""Calls functions that jobs bring, in warm processes of their own: only where the host's owner has allowed it.

A function may do whatever this node's user may do, within the limits of its process; see python_workers.py for what
keeps one owner's functions away from another's.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from offgrid.by_value import PYTHON
from offgrid_node.executors import confine
from offgrid_node.executors.capture import failed
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.python_workers import Kind, Workers
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import check_payload, needs_of

PROBE_TIMEOUT_S = 30
MEMORY_BYTES = 1024 * 1024 * 1024


class PythonExecutor:
    """An Executor of python payloads, for functions pickled by the version of Python that this node runs on.

    `count` is how many may run at once, the host's slots. `work_dir` must be this executor's alone. Raises OSError when
    it cannot be made.
    """

    def __init__(self, work_dir: Path | None, *, memory_bytes: int = MEMORY_BYTES, count: int = 1) -> None:
        self._workers = Workers(Kind(), work_dir, memory_bytes=memory_bytes, count=count)
        problem = probe(self._workers)
        self._problems = (f"python: {problem}",) if problem else ()
        self._version = f"python/{PYTHON} cloudpickle/{version('cloudpickle')}"

    @property
    def offers(self) -> tuple[str, ...]:
        return () if self._problems else (f"python:{PYTHON}",)

    @property
    def problems(self) -> tuple[str, ...]:
        return self._problems

    @property
    def isolation(self) -> Mapping[str, str]:
        return {"python": "rlimits" if confine.POSIX else "none"}

    async def run(self, work: Work) -> Outcome:
        """See Executor. What the function raises is its own answer: exit code 1, the traceback in the log, and the
        output tells the exception (`offgrid.by_value`)."""
        try:
            check_payload(work.payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, self._version)
        if needs_of(work.payload) not in self.offers:
            asked = work.payload.python.python
            return failed("ExecutionFailed", f"it is for Python {asked}, this host has {PYTHON}", self._version)
        return await self._workers.run(work, {}, work.payload.python.function, self._version)

    def close(self) -> None:
        """See Executor."""
        self._workers.close()


def probe(workers: Workers) -> str:
    """Why such processes do not work on this machine; empty when they do. It starts one, which ends at once."""
    try:
        asked = subprocess.run(
            workers.argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False
        )
        hello = json.loads(asked.stdout[5:]) if asked.stdout.startswith(b"H") else None
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return f"its process cannot be started: {error}"
    if hello is None:
        words = asked.stderr.decode(errors="replace").split("\n")
        return f"its process does not start: {next((line for line in reversed(words) if line), 'it said nothing')}"
    return "" if hello.get("python") == PYTHON else f"its process runs Python {hello.get('python')}, not {PYTHON}"
