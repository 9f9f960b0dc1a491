"""The `offgrid` operator command: it talks to one node through `offgrid.client` and knows nothing of its insides.

Everything but click is imported when a command needs it, so that `--help` stays quick.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

GC_THRESHOLD = 50_000  # objects; imports make so many that the default would look through all of them again and again


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; `exits.py` says what they mean."""
    from offgrid_tools.cli.entry import run as run_command

    return run_command(argv)


def main() -> NoReturn:
    """The installed command. Ends the process at once: taking modules apart costs 20 ms and frees nothing of value."""
    gc.set_threshold(GC_THRESHOLD)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes of broken connections to the terminal
    code = run(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
