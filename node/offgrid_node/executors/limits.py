"""Sets resource limits and becomes another program: `python -I -S limits.py cpu=5 core=0 -- PROGRAM [ARGUMENT…]`.

A program of its own, run where `prlimit` is missing; it imports nothing of ours. A limit that the system refuses
(macOS has no address-space limit) is left alone. Exit codes as a shell's: 126 cannot be run, 127 not found.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> int:
    if sys.platform == "win32":
        return 126
    import resource

    end = arguments.index("--")
    for setting in arguments[:end]:
        name, _, value = setting.partition("=")
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
