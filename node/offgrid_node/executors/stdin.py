"""A job's input as a program's standard input, and its files in its folder, without a byte of them on a disk: a host
may be stolen or thrown away.

Linux: an anonymous file in memory (memfd_create(2)), sealed against changes, which can also be opened again by the name
`input` in the job's folder. Files are such files too: links to them or, in the sandbox, what bubblewrap makes of them
in memory. Elsewhere the input is a pipe, under no name, and files are ordinary files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

INPUT_NAME = "input"
OWN_STDIN = "/proc/self/fd/0"


def name_input(folder: Path) -> None:
    """Gives the job's folder its `input`, where the system has one: whoever opens it opens its own standard input anew.

    Raises OSError."""
    if sys.platform == "linux":
        (folder / INPUT_NAME).symlink_to(OWN_STDIN)


@contextmanager
def memory_file(data: bytes) -> Iterator[BinaryIO | None]:
    """The input, to be read from its start; None where the system has no such files and a pipe must do.

    Raises OSError when there is no memory for it."""
    if sys.platform != "linux":
        yield None
        return
    import fcntl

    fd = os.memfd_create(INPUT_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(fd, "r+b") as file:
        file.write(data)
        file.flush()
        file.seek(0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield file


def link_files(folder: Path, files: Mapping[str, bytes], held: ExitStack) -> None:
    """Lays files into a job's folder for as long as `held` is. Raises OSError."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file = held.enter_context(memory_file(data))
        if file is None:
            path.write_bytes(data)
        else:  # ours, not the program's own: its children may have closed that
            path.symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def open_files(files: Mapping[str, bytes], held: ExitStack) -> dict[str, int]:
    """Files as descriptors to hand over, by name. Linux only. Raises OSError."""
    opened = {}
    for name, data in files.items():
        file = held.enter_context(memory_file(data))
        assert file is not None
        opened[name] = file.fileno()
    return opened
