"""What this machine has, as its host tells brokers: memory, processors, graphics cards, platform. Asked once, at start.

Each question has a bounded time and an answer for machines that do not know: 0, or none. What the owner's config says
goes before what the machine says.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid.v1 import jobs_pb2
from offgrid_node.logs import fields

if TYPE_CHECKING:
    from offgrid_node.config import Config

MIB = 1024 * 1024
NVIDIA_SMI = "nvidia-smi"
NVIDIA_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
NVIDIA_TIMEOUT_S = 5.0  # a driver that hangs must not keep the node from starting
GPUS_MAX = 64
MODEL_CHARS_MAX = 64
CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")
AUTO = "auto"
UNHELD = "rlimits"  # what executors say of work that only limits hold
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

_log = logging.getLogger(__name__)


def unheld_notices(isolation: Mapping[str, str], *, root: bool = IS_ROOT) -> tuple[str, ...]:
    """What an operator should know of work that no sandbox holds, where the node is root's: then the work is, too."""
    kinds = sorted(kind for kind, alone in isolation.items() if alone == UNHELD)
    if not root or not kinds:
        return ()
    warning = (
        f"{' and '.join(kinds)} jobs run as root without a sandbox: one that means to leaves its control group and the "
        "limits with it, and can end this node; install bubblewrap, or run the node as a user of its own"
    )
    return (warning,)


def machine_profile(config: Config, isolation: Mapping[str, str]) -> jobs_pb2.HostProfile:
    """Without what only the running node knows: its id, its executors and models."""
    host = config.host
    gpus = probed_gpus() if host.gpus == (AUTO,) else parsed_gpus(host.gpus)
    return jobs_pb2.HostProfile(
        slots=host.slots,
        memory_mb=host.memory_mb or memory_mb(),
        cpus=host.cpus or usable_cpus(),
        gpus=gpus,
        labels=dict(host.labels),
        platform=platform_name(),
        isolation=isolation,
    )


def memory_mb() -> int:
    """Of the machine, or of the container where that has less; 0: not known."""
    physical = _windows_memory() if sys.platform == "win32" else _posix_memory()
    try:
        limit = int(CGROUP_MEMORY.read_text())
    except (OSError, ValueError):  # no such control group, or "max"
        limit = physical
    return min(physical, limit) // MIB


def usable_cpus() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def platform_name() -> str:
    """As "linux/x86_64"."""
    return f"{platform.system().lower()}/{platform.machine().lower()}"


def probed_gpus() -> list[jobs_pb2.Gpu]:
    """NVIDIA's, by its own tool; none where that is missing, fails, or does not answer in time."""
    program = shutil.which(NVIDIA_SMI)
    if program is None:
        return []
    try:
        said = subprocess.run(
            [program, *NVIDIA_QUERY],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=NVIDIA_TIMEOUT_S,
            check=True,
            text=True,
            errors="replace",
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        told = fields("gpu_unknown", program=program, why=error)
        _log.warning("a program that lists graphics cards failed", extra=told)
        return []
    return list(read_nvidia_smi(said))


def read_nvidia_smi(said: str) -> Iterator[jobs_pb2.Gpu]:
    """One card a line, "NVIDIA GeForce RTX 4090, 24564"; a line that is none is left out."""
    for line in said.splitlines()[:GPUS_MAX]:
        model, _, memory = line.rpartition(",")
        if model.strip() and memory.strip().isdecimal():
            yield jobs_pb2.Gpu(model=model.strip()[:MODEL_CHARS_MAX], memory_mb=int(memory))


def parsed_gpus(entries: Sequence[str]) -> list[jobs_pb2.Gpu]:
    """As the config has them, checked there: "RTX 4090:24564"."""
    parts = [entry.rpartition(":") for entry in entries]
    return [jobs_pb2.Gpu(model=model, memory_mb=int(memory)) for model, _, memory in parts]


def _posix_memory() -> int:
    if sys.platform == "win32":
        return 0
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _windows_memory() -> int:
    """GlobalMemoryStatusEx of kernel32: MEMORYSTATUSEX is 64 bytes, the total at 8."""
    if sys.platform != "win32":
        return 0
    import ctypes
    import struct

    status = ctypes.create_string_buffer(64)
    struct.pack_into("<I", status, 0, len(status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(status):
        return 0
    return int.from_bytes(status.raw[8:16], "little")
