"""Programs behind bubblewrap (bwrap(1)), on Linux: namespaces of their own for users, processes, network, IPC, names
and cgroups, no capability, a filter of system calls, and of the file system nothing to write to but the job's folder.

Read-only are the system's programs and libraries, the program itself, and what the host's owner adds. `/tmp` and
`/dev/shm` are small and in memory. Whether it works here is tried out at the start, really: bubblewrap may be missing,
too old, or have no user namespaces to use. Nothing else takes its place silently.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from offgrid_node.executors import confine, seccomp

BWRAP_PATHS = (Path("/usr/bin/bwrap"), Path("/usr/local/bin/bwrap"), Path("/bin/bwrap"))
JOB_FOLDER = "/job"
TMP_BYTES, SHM_BYTES = 64 * 1024 * 1024, 16 * 1024 * 1024
# Of one job. The kernel holds them where the node is not root's; for root, whose processes it does not count, and for
# what all of them take together, `watch.py` does, a moment later.
PROCESSES_MAX = 64
NOBODY = 65534
PROBE_TIMEOUT_S = 10
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
HOST_NAME = "job"
NO_FILES: Mapping[str, int] = {}


class Sandbox(msgspec.Struct, frozen=True):
    """How to start a program behind bubblewrap. `readable` are further paths that programs may read; `hidden`, the
    node's own folder, stays out of sight wherever it lies."""

    bwrap: Path
    prlimit: Path
    readable: tuple[Path, ...] = ()
    hidden: Path | None = None
    filter: bytes = msgspec.field(default_factory=seccomp.filter_for)

    def command(
        self,
        argv: Sequence[str],
        folder: Path,
        limits: confine.Limits,
        status_fd: int,
        filter_fd: int,
        files: Mapping[str, int] = NO_FILES,
    ) -> list[str]:
        """`argv` in the sandbox, with the job's folder at JOB_FOLDER. What became of it is told on `status_fd`, as JSON
        documents (bwrap's `--json-status-fd`); `filter_fd` is `filter_file`'s, or -1. `files` are descriptors of what
        lies in the job's folder, read-only, under these names."""
        limiting = [
            *(f"--{name}={value}:{value}" for name, value in confine.within_ours(limits.by_name()).items()),
            f"--nproc={PROCESSES_MAX}:{PROCESSES_MAX}",
        ]
        return [
            str(self.bwrap),
            *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
            *("--unshare-cgroup-try", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)),
            *("--hostname", HOST_NAME, "--cap-drop", "ALL", "--die-with-parent", "--new-session"),
            *("--json-status-fd", str(status_fd)),
            *(("--seccomp", str(filter_fd)) if filter_fd >= 0 else ()),
            *self._file_system(Path(argv[0]), folder),
            *(arg for name, fd in files.items() for arg in ("--ro-bind-data", str(fd), f"{JOB_FOLDER}/{name}")),
            # Where the node is root's, whoever is inside is root to the files under /proc/sys: its capabilities are
            # gone, but those files ask for the user alone.
            *("--remount-ro", "/proc", "--remount-ro", "/"),
            *("--chdir", JOB_FOLDER, "--", str(self.prlimit), *limiting, "--", *argv),
        ]

    def filter_file(self) -> BinaryIO | None:
        """The filter of system calls to be handed over; None where this machine's is not known. Raises OSError."""
        if not self.filter or sys.platform != "linux":
            return None
        file = os.fdopen(os.memfd_create("filter", os.MFD_CLOEXEC), "r+b")
        file.write(self.filter)
        file.seek(0)
        return file

    def _file_system(self, program: Path, folder: Path) -> list[str]:
        arguments = []
        for name in SYSTEM_FOLDERS:
            path = Path(name)
            if path.is_symlink():
                arguments += ["--symlink", str(path.readlink()), name]
            elif path.is_dir():
                arguments += ["--ro-bind", name, name]
        arguments += ["--proc", "/proc", "--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
        arguments += ["--remount-ro", "/dev", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"]  # noqa: S108
        for name in SYSTEM_FILES:
            arguments += ["--ro-bind-try", name, name]
        itself = [path for path in _itself(program) if not any(map(path.is_relative_to, self.readable))]
        for path in (*self.readable, *itself):
            arguments += ["--ro-bind-try", str(path), str(path)]
        if self.hidden is not None and self.hidden.is_dir() and self._shows(self.hidden):
            arguments += ["--tmpfs", str(self.hidden)]
        return [*arguments, "--bind", str(folder), JOB_FOLDER]

    def _shows(self, path: Path) -> bool:
        return any(path.is_relative_to(shown) for shown in (*map(Path, SYSTEM_FOLDERS), *self.readable))


def find(readable: Sequence[Path] = (), hidden: Path | None = None) -> tuple[Sandbox | None, str]:
    """A sandbox that works here, tried out; or None, and why not in a few words."""
    if sys.platform != "linux":
        return None, "bubblewrap is for Linux only"
    bwrap = next((path for path in BWRAP_PATHS if path.is_file() and os.access(path, os.X_OK)), None)
    if bwrap is None:
        return None, "bubblewrap is not installed"
    prlimit = confine.find_prlimit()
    if prlimit is None:
        return None, "util-linux's prlimit, which sets the limits inside, is not installed"
    sandbox = Sandbox(bwrap, prlimit, tuple(readable), hidden)
    problem = _probe(sandbox)
    return (None, f"bubblewrap does not work here: {problem}") if problem else (sandbox, "")


def _probe(sandbox: Sandbox) -> str:
    """Runs a program in it as a job would be; why that does not work, empty when it does."""
    limits = confine.Limits(cpu_s=PROBE_TIMEOUT_S, memory_bytes=2**30, file_bytes=2**20, open_files=64)
    reading, writing = os.pipe()
    try:
        with tempfile.TemporaryDirectory() as folder, sandbox.filter_file() or open(os.devnull, "rb") as filter_file:
            fd = filter_file.fileno() if sandbox.filter else -1
            command = sandbox.command(["/bin/true"], Path(folder), limits, writing, fd)
            fds = [writing] if fd < 0 else [writing, fd]
            tried = subprocess.run(
                command, check=False, capture_output=True, timeout=PROBE_TIMEOUT_S, pass_fds=fds, env={}
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        os.close(reading)
        os.close(writing)
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return "" if tried.returncode == 0 else (said[-1] if said else f"exit code {tried.returncode}")


def _itself(program: Path) -> list[Path]:
    """Where a listed program lies, when that is not among the system's folders: its path and what that leads to."""
    found = []
    for path in (program, program.resolve()):
        if not any(path.is_relative_to(folder) for folder in SYSTEM_FOLDERS) and path not in found:
            found.append(path)
    return found
