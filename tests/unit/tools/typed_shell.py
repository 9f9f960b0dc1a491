"""A shell at a terminal of its own, as somebody sits before it: what is typed there with Tab, and what comes of it.

In it `offgrid` and `offgrid-node` answer where the shell asks what could come next, and otherwise only say which words
they were given: so a line that ends with Enter tells what the shell has made of it.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# A machine that is busy with other tests may answer later than people would wait for words.
PATIENT = "from offgrid_tools.cli import completing, main; completing.ANSWER_S = 30; main()"
PROGRAMS = {
    "offgrid": ("_OFFGRID_COMPLETE", PATIENT),
    "offgrid-node": ("_OFFGRID_NODE_COMPLETE", "from offgrid_node.__main__ import main; main()"),
}
PROGRAM = """#!/bin/sh
if [ -n "${variable}" ]; then exec {python} -P -c '{code}'; fi
printf '<%s>' "$@" END; echo
"""
SHELLS: Mapping[str, list[str]] = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--interactive"],
}
TAKES_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
GIVE_UP_S = 30.0
ENDED = re.compile(r"((?:<[^<>]*>)+)<END>")


class TypedShell:
    """Use it in a `with` block."""

    def __init__(self, shell: str, folder: Path, script: str, **environment: str) -> None:
        """`script` is what is sourced first; the shell stands in `folder`, which is its home, too."""
        programs = folder / "bin"
        programs.mkdir()
        for name, (variable, code) in PROGRAMS.items():
            text = PROGRAM.format(variable=variable, python=shlex.quote(sys.executable), code=code)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        (folder / "script").write_text(script)
        python_path = os.pathsep.join(filter(None, sys.path))
        own = {"HOME": str(folder), "TERM": "xterm", "PYTHONPATH": python_path, "XDG_CONFIG_HOME": str(folder)}
        self._env = {**os.environ, **own, "PATH": f"{programs}:{os.environ['PATH']}", **environment}
        self._argv, self._folder, self._seen = SHELLS[shell], folder, ""

    def __enter__(self) -> TypedShell:
        self._terminal, inner = os.openpty()
        take = (sys.executable, "-c", TAKES_TERMINAL, *self._argv)
        self._process = subprocess.Popen(
            take, stdin=inner, stdout=inner, stderr=inner, env=self._env, cwd=self._folder, start_new_session=True
        )
        os.close(inner)
        self.typed("source ./script; offgrid ready\n")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._terminal)

    def typed(self, line: str) -> list[str]:
        """The words that the program was given in the end."""
        self._seen = ""
        os.write(self._terminal, line.encode())
        deadline = time.monotonic() + GIVE_UP_S
        while (ended := ENDED.search(self._seen)) is None:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"nothing came of {line!r}; the terminal shows {self._seen!r}"
            if select.select([self._terminal], [], [], left_s)[0]:
                self._seen += os.read(self._terminal, 1 << 16).decode("utf-8", "replace")
        return ended[1][1:-1].split("><")
