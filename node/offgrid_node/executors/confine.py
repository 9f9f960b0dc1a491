"""What an operating system offers to confine a child process: the seam between POSIX and Windows.

POSIX: a session of its own, so that the whole process group can be killed, and resource limits set by a small wrapper
between fork and the program (`prlimit` where it is installed, else `limits.py` in a bare interpreter). Windows: a job
object with limits of its own (`job_object.py`). Neither hides files or the network: programs are trusted by the host's
owner, who lists them.

A host that is killed can kill nobody. On Linux the kernel then ends its programs (PR_SET_PDEATHSIG, see prctl(2)), by
`setpriv` or `limits.py`; not their descendants, which the host's next start finds (strays.py), nor a set-user-id
program. On other systems they run on until they end or their CPU time does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

POSIX, LINUX = os.name == "posix", sys.platform == "linux"
# What holds all of a job's processes together where there are no control groups: nothing but each one's own limits, or
# Windows' job object.
TOGETHER = "each" if POSIX else "job_object"
PRLIMIT_PATHS = (Path("/usr/bin/prlimit"), Path("/bin/prlimit"))
SETPRIV_PATHS = (Path("/usr/bin/setpriv"), Path("/bin/setpriv"))
SETPRIV_TIMEOUT_S = 5
POSIX_PATH = "/usr/local/bin:/usr/bin:/bin"


class Limits(msgspec.Struct, frozen=True):
    """Bounds of each process of a job (they are inherited, not shared)."""

    cpu_s: int
    memory_bytes: int
    file_bytes: int
    open_files: int

    def by_name(self) -> dict[str, int]:
        """By the names that `prlimit` and the resource module share."""
        return {
            "cpu": self.cpu_s,
            "as": self.memory_bytes,
            "fsize": self.file_bytes,
            "nofile": self.open_files,
            "core": 0,
        }


def find_prlimit() -> Path | None:
    """util-linux's `prlimit`, from system folders only; it starts ten times faster than an interpreter."""
    return next((path for path in PRLIMIT_PATHS if path.is_file() and os.access(path, os.X_OK)), None)


def find_setpriv() -> Path | None:
    """util-linux's `setpriv` (2.33 or later); busybox has one by that name which knows no parent-death signal."""
    for path in SETPRIV_PATHS if LINUX else ():
        if path.is_file() and os.access(path, os.X_OK):
            command = [*_setpriv(path), str(path), "--version"]
            try:
                asked = subprocess.run(command, check=False, capture_output=True, timeout=SETPRIV_TIMEOUT_S)
                if asked.returncode == 0:
                    return path
            except (OSError, subprocess.TimeoutExpired):
                continue
    return None


def wrapped(
    argv: Sequence[str],
    limits: Limits,
    prlimit: Path | None,
    *,
    dies_with_us: bool = False,
    setpriv: Path | None = None,
) -> list[str]:
    """`argv` behind a wrapper that sets the limits first. On Windows just `argv`: its job object has them.

    With `dies_with_us` (Linux) the program is killed when the thread that starts it ends, as it does with its process.
    """
    command = list(argv)
    if not POSIX:
        return command
    values = within_ours(limits.by_name())
    settings = []
    if prlimit is not None:
        command = [str(prlimit), *(f"--{name}={value}:{value}" for name, value in values.items()), "--", *command]
    else:
        settings = [f"{name}={value}" for name, value in values.items()]
    mortal = dies_with_us and LINUX
    if mortal and setpriv is None:
        settings.append(f"parent={os.getpid()}")
    if settings:
        script = str(Path(__file__).with_name("limits.py"))
        command = [sys.executable, "-I", "-S", script, *settings, "--", *command]
    return [*_setpriv(setpriv), *command] if mortal and setpriv is not None else command


def _setpriv(path: Path) -> list[str]:
    return [str(path), "--pdeathsig", "KILL", "--"]


def environment(home: str) -> dict[str, str]:
    """All that a program gets to see of an environment."""
    if POSIX:
        return {"PATH": POSIX_PATH, "LANG": "C.UTF-8", "HOME": home}
    root = os.environ.get("SYSTEMROOT", r"C:\Windows")  # without it, most programs fail to start
    return {"PATH": rf"{root}\System32", "SYSTEMROOT": root, "HOME": home, "USERPROFILE": home, "TEMP": home}


def creation_flags() -> int:
    """For a process group of its own on Windows; 0 elsewhere, where `start_new_session` does it."""
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP
    return 0


def kill_tree(pid: int) -> None:
    """Kills the process group that `pid` leads or led; none left is no error. On Windows the job object is killed.

    A descendant that made a session of its own gets away; its control group or `strays.py` finds it on Linux, elsewhere
    its CPU limit ends it.
    """
    if sys.platform == "win32":
        return
    import signal

    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # macOS answers EPERM for a group of zombies only


def never_block(fd: int) -> None:
    """Reading this end of a pipe waits for nothing from now on (POSIX; elsewhere asyncio has pipes of its own)."""
    if sys.platform == "win32":
        raise NotImplementedError
    os.set_blocking(fd, False)


def within_ours(values: dict[str, int]) -> dict[str, int]:
    """No limit may exceed our own hard one: setting it would fail, and the program would not start."""
    if sys.platform == "win32":
        return values
    import resource

    capped = {}
    for name, value in values.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        capped[name] = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return capped
