"""What is to be kept running, and what a system needs for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

NAME = "offgrid-node"
RESTART_S = 5
NEVER_AGAIN = (2, 3, 4)
"""Exit codes that another try does not change: a wrong config, a lost key, and what the node refuses to do."""


class Order(msgspec.Struct, frozen=True):
    """One node that a system is to keep running.

    `command` starts it in the foreground. `account` is whose process it is to be, and `user` says that this account's
    own service manager keeps it. `writable` are its folders, besides its own, and `groups` what opens its devices.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    account: str
    home: Path
    user: bool
    writable: tuple[Path, ...] = ()
    groups: tuple[str, ...] = ()
    raw_bluetooth: bool = False


class Plan(msgspec.Struct, frozen=True):
    """The file that a system reads, and commands: to take it up and begin, to end and forget, and to ask.

    `title` is what people know the service by. `show` prints the file as the manager has it; with none, `path` is that.
    `folder_of` reads in such a file whose service it is, "" where it does not say. Of `start` each must succeed; of
    `stop` none must. `hints` are for the person who installs it. `runs_where` is there while the manager runs the
    machine, None where it always does.
    """

    title: str
    path: Path
    content: bytes
    folder_of: Callable[[bytes], str]
    start: Sequence[Sequence[str]]
    stop: Sequence[Sequence[str]]
    after_removal: Sequence[Sequence[str]]
    ask: Sequence[str]
    hints: Sequence[str] = ()
    show: Sequence[str] = ()
    runs_where: Path | None = None
