"""`offgrid` in this process at a terminal of so many columns: what would be seen there."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Sequence

from offgrid_tools.cli import run

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
JOIN_S = 5.0


def at_terminal(argv: Sequence[str], columns: int) -> tuple[int, list[str]]:
    """Its exit code, and the lines of both streams as they stand in the end, without colours."""
    ours, its = os.openpty()
    told = bytearray()

    def listen() -> None:
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while data := os.read(ours, 1 << 16):
                told.extend(data)

    listening = threading.Thread(target=listen)
    listening.start()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        with (
            os.fdopen(its, "w", encoding="utf-8") as terminal,
            contextlib.redirect_stdout(terminal),
            contextlib.redirect_stderr(terminal),
        ):
            code = run(argv)
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
        listening.join(JOIN_S)
        os.close(ours)
    lines = CONTROL.sub("", told.decode()).replace("\r\n", "\n").split("\n")
    return code, [line.rpartition("\r")[2] for line in lines]
