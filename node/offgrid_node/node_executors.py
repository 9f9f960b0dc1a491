"""The executors of a node: those that its config asks for and its machine has.

Each is made only where it is asked for, and only then are the modules imported that most nodes need not hold.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.executors import cgroup_setup
from offgrid_node.executors.at_work import AtWork
from offgrid_node.executors.builtin import BuiltinExecutor
from offgrid_node.executors.cgroups import Groups
from offgrid_node.executors.executor import WASM_ISOLATION, Executor
from offgrid_node.executors.late import LateExecutor
from offgrid_node.executors.pool import ExecutorPool
from offgrid_node.executors.process import ProcessExecutor
from offgrid_node.executors.watch import Lookout
from offgrid_node.folder import MIB
from offgrid_node.logs import fields

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.executors.dask import DaskExecutor
    from offgrid_node.executors.llm import LlmExecutor
    from offgrid_node.executors.python import PythonExecutor

AT_WORK_NAME = "at-work"  # in the data folder
WORK_NAME, PYTHON_WORK, DASK_WORK = "work", "work-python", "work-dask"  # likewise: what jobs are given to work in

_log = logging.getLogger("offgrid")


def make_executors(config: Config) -> ExecutorPool:
    """In a running loop. What is missing is among the pool's problems. Raises OSError when a work folder cannot be
    made."""
    host, groups, lookout = config.host, _groups_of(config), Lookout()
    fixed: list[Executor] = [_wasm(config)] if host.wasm.enabled else []
    fixed.append(_process(config, groups, lookout))
    if host.python.enabled:
        fixed.append(_python(config, groups, lookout))
    live: dict[str, LlmExecutor | DaskExecutor] = {}
    if host.llm.endpoint:
        live["llm"] = _llm(config)
    if host.dask.scheduler:
        live["dask"] = _dask(config, groups, lookout)
    for executor in live.values():
        executor.watch()
    return ExecutorPool(fixed, BuiltinExecutor(), live, groups)


def open_at_work(config: Config) -> AtWork | None:
    """None, with a warning, where the file cannot be had: a host works without it."""
    try:
        return AtWork(config.node.data_dir / AT_WORK_NAME)
    except OSError as error:
        said = fields("at_work_failing", file=AT_WORK_NAME, why=error.strerror or error)
        _log.warning("payloads that bring this host down are not all noticed", extra=said)
        return None


def _groups_of(config: Config) -> Groups | None:
    """Control groups, where anything is to run that starts processes."""
    host = config.host
    if not (host.process.commands or host.python.enabled or host.dask.scheduler):
        return None
    groups, problem = cgroup_setup.find(config.node.data_dir)
    if problem:
        _log.info("the bounds of jobs are not held by the kernel", extra=fields("cgroups_off", why=problem))
    return groups


def _wasm(config: Config) -> Executor:
    """At once at a host, which is to find out now that it cannot."""

    def make() -> Executor:
        from offgrid_node.executors.wasm import WasmExecutor  # with wasmtime, which takes 5 MiB

        return WasmExecutor(config.host.wasm.memory_mb * MIB, config.host.slots)

    return make() if "host" in config.node.roles else LateExecutor(("wasm",), WASM_ISOLATION, make)


def _process(config: Config, groups: Groups | None, lookout: Lookout) -> ProcessExecutor:
    settings, data_dir = config.host.process, config.node.data_dir
    return ProcessExecutor(
        {name: Path(path) for name, path in settings.commands.items()},
        work_dir=data_dir / WORK_NAME,
        memory_bytes=settings.memory_mb * MIB,
        cpu_percent=settings.cpu_percent,
        sandbox=settings.sandbox,
        readable=[Path(path) for path in settings.readable],
        hidden=data_dir,
        groups=groups,
        lookout=lookout,
    )


def _python(config: Config, groups: Groups | None, lookout: Lookout) -> PythonExecutor:
    from offgrid_node.executors.python import PythonExecutor

    settings, data_dir = config.host.python, config.node.data_dir
    return PythonExecutor(
        data_dir / PYTHON_WORK,
        memory_bytes=settings.memory_mb * MIB,
        cpu_percent=settings.cpu_percent,
        count=config.host.slots,
        sandbox=settings.sandbox,
        readable=[Path(path) for path in settings.readable],
        hidden=data_dir,
        groups=groups,
        lookout=lookout,
    )


def _llm(config: Config) -> LlmExecutor:
    from offgrid_node.executors.llm import LlmExecutor

    settings = config.host.llm
    key = settings.api_key.get_secret_value()
    return LlmExecutor(settings.endpoint, models=settings.models, slots=settings.slots, api_key=key)


def _dask(config: Config, groups: Groups | None, lookout: Lookout) -> DaskExecutor:
    from offgrid_node.executors.dask import DaskExecutor

    settings = config.host.dask
    return DaskExecutor(
        settings.scheduler,
        config.node.data_dir / DASK_WORK,
        memory_bytes=settings.memory_mb * MIB,
        count=config.host.slots,
        groups=groups,
        lookout=lookout,
    )
