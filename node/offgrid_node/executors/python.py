"""Calls functions that jobs bring, in warm processes of their own: only where the host's owner has allowed it.

Behind bubblewrap (sandbox.py) a function sees Python, its packages and its own folder, and no network; without it, it
may do whatever this node's user may, within the limits of its process. See python_workers.py for what keeps one owner's
functions away from another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from offgrid.by_value import PYTHON
from offgrid_node.executors import sandbox as sandboxes
from offgrid_node.executors.capture import failed
from offgrid_node.executors.cgroups import Groups
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.process import BWRAP, NO_CPU, RLIMITS, held
from offgrid_node.executors.python_launch import needed_paths
from offgrid_node.executors.python_workers import Kind, Workers
from offgrid_node.executors.sandbox import Sandbox
from offgrid_node.executors.watch import Lookout
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import check_payload, needs_of

MEMORY_BYTES = 1024 * 1024 * 1024


class PythonExecutor:
    """An Executor of python payloads, for functions pickled by the version of Python that this node runs on.

    `count` is how many may run at once, the host's slots. `sandbox`, `readable`, `hidden`, `cpu_percent`, `groups` and
    `lookout` are as in process.py: where "bwrap" is asked for and does not work, nothing is offered. `work_dir` must be
    this executor's alone. Raises OSError when it cannot be made.
    """

    def __init__(
        self,
        work_dir: Path | None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        cpu_percent: int = 0,
        count: int = 1,
        sandbox: str = RLIMITS,
        readable: Sequence[Path] = (),
        hidden: Path | None = None,
        groups: Groups | None = None,
        lookout: Lookout | None = None,
    ) -> None:
        self._sandbox: Sandbox | None = None
        without, problem = "", ""
        if sandbox != RLIMITS:
            self._sandbox, without = sandboxes.find((*needed_paths(), *readable), hidden)
            if without and sandbox == BWRAP:
                problem = f"no function is run: host.python.sandbox is {BWRAP!r}, but {without}"
        self._workers = Workers(
            Kind(),
            work_dir,
            memory_bytes=memory_bytes,
            count=count,
            cpu_percent=cpu_percent,
            sandbox=self._sandbox,
            groups=groups,
            lookout=lookout,
        )
        if cpu_percent and not self._workers.workplace.holds_cpu:
            problem = problem or f"no function is run: host.python.cpu_percent is {cpu_percent}, but {NO_CPU}"
        problem = problem or self._workers.launch.probe()
        self._works = not problem
        if without and not problem:
            problem = f"functions run without a sandbox, held by limits only: {without}"
        self._problems = (f"python: {problem}",) if problem else ()
        self._version = f"python/{PYTHON} cloudpickle/{version('cloudpickle')}"

    @property
    def offers(self) -> tuple[str, ...]:
        return (f"python:{PYTHON}",) if self._works else ()

    @property
    def problems(self) -> tuple[str, ...]:
        return self._problems

    @property
    def isolation(self) -> Mapping[str, str]:
        if not self._works:
            return {}
        return held("python", self._sandbox, self._workers.workplace)

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
