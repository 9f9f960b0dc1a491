"""Why the last start of this node came to nothing, kept in its folder: what a service manager had started has told
nobody but its journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offgrid_node.config import CONFIG_NAME
from offgrid_node.keys import write_private
from offgrid_node.protocol.errors import Fault

REFUSAL_NAME = "offgrid.refused"  # beside offgrid.toml, for that may be why; until a start succeeds
REFUSAL_BYTES_MAX = 4_096
SECOND = "AlreadyRunning"


@contextmanager
def refusal_kept(folder: Path) -> Iterator[None]:
    """A Fault that leaves the block is written down, but for that of a second process beside the node itself; a folder
    that takes no file, or has no node, is no reason for another error."""
    try:
        yield
    except Fault as fault:
        with suppress(OSError, Fault):
            if fault.reason != SECOND and (folder / CONFIG_NAME).exists():
                write_private(folder / REFUSAL_NAME, fault.message[: REFUSAL_BYTES_MAX // 4])
        raise


def forget_refusal(folder: Path) -> None:
    with suppress(OSError):
        (folder / REFUSAL_NAME).unlink(missing_ok=True)


def last_refusal(folder: Path) -> str:
    """In one line; "" where the last start was none."""
    try:
        said = (folder / REFUSAL_NAME).read_bytes()[:REFUSAL_BYTES_MAX].decode(errors="replace")
    except OSError:
        return ""
    return " ".join(said.split())
