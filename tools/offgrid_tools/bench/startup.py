"""startup: how soon a command has answered, beside a Python that does nothing and the commands of others.

All are run as they are installed, beside this interpreter, with their bytecode written; each takes its turn in each
round. Processor time bends little with other work on the machine, the time that passes a lot.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan

ROUNDS, ROUNDS_QUICK = 30, 5
WARMING = 2  # rounds that are not counted
BIN = Path(sys.executable).parent
LEFT_OUT = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # an installed command has neither
PYTHON, DASK, CELERY = "python", "dask", "celery"


class Taken(msgspec.Struct, frozen=True):
    """What one run took: the processor's time, and what passed."""

    cpu_ms: float
    passed_ms: float


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    with LocalMesh(plan.folder / "startup", "bench", {"core": ("core", "broker", "host")}) as mesh:
        mesh.start()
        commands = commands_of(mesh.founder.folder)
        plan.say(f"startup: {', '.join(commands)}")
        runs: dict[str, list[Taken]] = {name: [] for name in commands}
        for count in range(WARMING + plan.rounds(ROUNDS, ROUNDS_QUICK)):
            for name, command in commands.items():
                taken = run(command)
                if count >= WARMING:
                    runs[name].append(taken)
    return figures({name: median_of(taken) for name, taken in runs.items()})


def commands_of(node: Path) -> Mapping[str, Sequence[str]]:
    """Of others those that are installed."""
    ours = {
        "help": (str(BIN / "offgrid"), "--help"),
        "node_help": (str(BIN / "offgrid-node"), "--help"),
        "status": (str(BIN / "offgrid"), "--node-dir", str(node), "status"),
        PYTHON: (sys.executable, "-c", "pass"),
    }
    return {**ours, **{name: (str(BIN / name), "--help") for name in (DASK, CELERY) if (BIN / name).exists()}}


def run(command: Sequence[str]) -> Taken:
    """Raises RuntimeError where it did not end well."""
    environ = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if sys.platform == "win32":
        raise RuntimeError("Windows tells no processor time of a program that has ended")
    _, status, used = os.wait4(process.pid, 0)
    passed_ms = 1000 * (time.perf_counter() - began)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Taken(1000 * (used.ru_utime + used.ru_stime), passed_ms)


def median_of(runs: Sequence[Taken]) -> Taken:
    return Taken(median(run.cpu_ms for run in runs), median(run.passed_ms for run in runs))


def figures(taken: Mapping[str, Taken]) -> list[Figure]:
    ours = ("help", "node_help", "status")
    beside = [name for name in (PYTHON, DASK, CELERY) if name in taken]
    return [
        *(Figure(f"{name}_cpu_ms", taken[name].cpu_ms, PYTHON, taken[PYTHON].cpu_ms) for name in ours),
        *(Figure(f"{name}_p50_ms", taken[name].passed_ms, PYTHON, taken[PYTHON].passed_ms) for name in ours),
        *(
            Figure(f"help_vs_{name}", taken["help"].cpu_ms / taken[name].cpu_ms, f"{name}, ms", taken[name].cpu_ms)
            for name in beside
        ),
    ]
