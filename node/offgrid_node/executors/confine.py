"""What an operating system offers to confine a child process: the seam between POSIX and Windows.

POSIX: a session of its own, so that the whole process group can be killed, and resource limits set by a small wrapper
between fork and the program (`prlimit` where it is installed, else `limits.py` in a bare interpreter). Windows: a
process group and `taskkill /T`, best effort, and no resource limits. Neither hides files or the network: programs are
trusted by the host's owner, who lists them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POSIX = os.name == "posix"
PRLIMIT_PATHS = (Path("/usr/bin/prlimit"), Path("/bin/prlimit"))
POSIX_PATH = "/usr/local/bin:/usr/bin:/bin"
TASKKILL_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Limits:
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


def wrapped(argv: Sequence[str], limits: Limits, prlimit: Path | None) -> list[str]:
    """`argv` behind a wrapper that sets the limits first. On Windows just `argv`: there are none."""
    if not POSIX:
        return list(argv)
    values = _within_ours(limits.by_name())
    if prlimit is not None:
        return [str(prlimit), *(f"--{name}={value}:{value}" for name, value in values.items()), "--", *argv]
    script = str(Path(__file__).with_name("limits.py"))
    settings = [f"{name}={value}" for name, value in values.items()]
    return [sys.executable, "-I", "-S", script, *settings, "--", *argv]


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
    """Kills the process group (on Windows the tree) that `pid` leads or led; none left is no error.

    A descendant that made a session of its own gets away; its CPU limit ends it.
    """
    if sys.platform == "win32":
        taskkill = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "taskkill.exe"
        command = [str(taskkill), "/T", "/F", "/PID", str(pid)]
        options = {"check": False, "capture_output": True, "timeout": TASKKILL_TIMEOUT_S}
        threading.Thread(target=subprocess.run, args=(command,), kwargs=options, daemon=True).start()
        return
    import signal

    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # macOS answers EPERM for a group of zombies only


def _within_ours(values: dict[str, int]) -> dict[str, int]:
    """No limit may exceed our own hard one: setting it would fail, and the program would not start."""
    if sys.platform == "win32":
        return values
    import resource

    capped = {}
    for name, value in values.items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        capped[name] = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return capped
