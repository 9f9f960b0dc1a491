"""The executors that stand before something of the owner's: an interpreter, language models, a cluster.

Each is made only where the config asks for it, and only then are its modules imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.executors.executor import Executor

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.executors.cgroups import Groups
    from offgrid_node.executors.watch import Lookout

MIB = 1024 * 1024
PYTHON_WORK, DASK_WORK = "work-python", "work-dask"  # in the data folder: what functions are given to work in
LLM_KIND = "llm_call"


class Hosted:
    """`fixed` offer the same as long as they live, `live` what is there at the moment."""

    def __init__(self, config: Config, groups: Groups | None, lookout: Lookout) -> None:
        """Raises OSError when a work folder cannot be made."""
        self.fixed: list[Executor] = []
        self.live: dict[str, Executor] = {}
        self._watchers = []
        host, data_dir, slots = config.host, config.node.data_dir, config.host.slots
        if host.python.enabled:
            from offgrid_node.executors.python import PythonExecutor

            python = PythonExecutor(
                data_dir / PYTHON_WORK,
                memory_bytes=host.python.memory_mb * MIB,
                cpu_percent=host.python.cpu_percent,
                count=slots,
                sandbox=host.python.sandbox,
                readable=[Path(path) for path in host.python.readable],
                hidden=data_dir,
                groups=groups,
                lookout=lookout,
            )
            self.fixed.append(python)
        if host.llm.endpoint:
            from offgrid_node.executors.llm import LlmExecutor

            key = host.llm.api_key.get_secret_value()
            llm = LlmExecutor(host.llm.endpoint, models=host.llm.models, slots=host.llm.slots, api_key=key)
            self.live["llm"] = llm
            self._watchers.append(llm.watch)
        if host.dask.scheduler:
            from offgrid_node.executors.dask import DaskExecutor

            bound = host.dask.memory_mb * MIB
            work_dir = data_dir / DASK_WORK
            dask = DaskExecutor(
                host.dask.scheduler, work_dir, memory_bytes=bound, count=slots, groups=groups, lookout=lookout
            )
            self.live["dask"] = dask
            self._watchers.append(dask.watch)

    def watch(self) -> None:
        """In the running loop: begins to look at what the live ones stand before."""
        for watch in self._watchers:
            watch()


def kinds_of(config: Config) -> tuple[str, ...]:
    """The kinds of job that this host takes: an owner who names an endpoint wants it used."""
    kinds = config.host.kinds
    return kinds if not config.host.llm.endpoint or LLM_KIND in kinds else (*kinds, LLM_KIND)
