"""Sets resource limits and becomes another program: `python -I -S limits.py cpu=5 core=0 -- PROGRAM [ARGUMENT…]`.

A program of its own, run where `prlimit` or `setpriv` is missing; it imports nothing of ours. A limit that the system
refuses (macOS has no address-space limit) is left alone. `parent=PID` (Linux) has the program killed when that process
ends. Exit codes as a shell's: 126 cannot be run, 127 not found.
"""

from __future__ import annotations

import os
import sys

PR_SET_PDEATHSIG, SIGKILL = 1, 9


def main(arguments: list[str]) -> int:
    if sys.platform == "win32":
        return 126
    import resource

    end = arguments.index("--")
    for setting in arguments[:end]:
        name, _, value = setting.partition("=")
        if name == "parent":
            _die_with(int(value))
            continue
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (int(value), int(value)))
        except (OSError, ValueError):
            continue
    program = arguments[end + 1 :]
    try:
        os.execv(program[0], program)  # noqa: S606  no shell is the point
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126


def _die_with(parent: int) -> None:
    """Asks the kernel for SIGKILL when the parent ends; without its help the program runs all the same."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
