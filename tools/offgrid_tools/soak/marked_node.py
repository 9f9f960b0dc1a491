"""`offgrid-node`, which says what is just being done to its store, and dies in the midst of it when it is told to; with
a wrong clock, and shorter times between what it does by itself.

    python -m offgrid_tools.soak.marked_node SKEW_S FATE COMMAND...     any command of offgrid-node

A mark is a line of standard output: `+append` when a batch with events of a session goes to the disk, `-append` when
it is there. One without its end was the last that the process did. A fate is `append:7`: by kill -9, at the seventh
moment from then on in which it is about to change a file, or just has, while it appends; `-` is none. It comes with the
command or, later, as a line of standard input. `migrate` leads from a form that a soak has made up (old_form.py).
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offgrid_node import __main__ as command
from offgrid_node import daemon, migrating, restoring_backup, session_vault
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.state.sessions.tables import BLOCKS, IMPORTS, PURGING, SNAPSHOTS
from offgrid_node.protocol.state.summaries.tables import SUMMARIES
from offgrid_node.services import retention
from offgrid_node.services.backups import making
from offgrid_node.services.memory import compacting as summing
from offgrid_node.services.sessions import snapshots
from offgrid_node.storage import compacting, disk, lmdb, logged, redo_log, session_keys, wrapped_keys
from offgrid_node.storage.store import Batch
from offgrid_tools.soak.old_form import MADE_UP

MARK = b"\x01"
BEGUN, DONE = b"+", b"-"
NO_FATE = "-"
LOOK_MS, SNAPSHOT_EVENTS, SNAPSHOT_MS, SUMMARY_MS = 700, 100, 1_000, 500
TABLES = {SNAPSHOTS: "snapshot", SUMMARIES: "summary", IMPORTS: "import", BLOCKS: "append"}
KILLED = getattr(signal, "SIGKILL", 9)

Phases = Callable[..., list[str]]


class Fate:
    """What it does, and when it is to die."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._phase, self._left = "", 0

    def tell(self, fate: str) -> None:
        phase, _, moments = fate.partition(":")
        if fate != NO_FATE:
            with self._lock:
                self._phase, self._left = phase, int(moments)

    def begin(self, phases: list[str]) -> None:
        with self._lock:
            self._open.update(phases)
        _say(BEGUN, phases)

    def end(self, phases: list[str]) -> None:
        _say(DONE, phases)
        with self._lock:
            self._open.subtract(phases)

    def moment(self) -> None:
        with self._lock:
            if self._phase and self._open[self._phase] > 0:
                self._left -= 1
                if self._left <= 0:
                    os.kill(os.getpid(), KILLED)


FATE = Fate()


def _say(sign: bytes, phases: list[str]) -> None:
    for phase in phases:
        os.write(1, MARK + sign + phase.encode() + b"\n")


def phases_of(batch: Batch) -> list[str]:
    """What a batch is of, as far as a soak wants to know."""
    found = {TABLES[table] for (table, _), value in batch.writes.items() if table in TABLES and value is not None}
    if any(table == PURGING for table, _ in batch.writes):
        found.add("purge")
    if batch.floor:
        found.add("retention")
    return sorted(found)


def mark(owner: Any, name: str, phases: Phases) -> None:
    """Has a method, or a module's function, say when it begins and when it is done, however it ends."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def marked(*arguments: Any, **named: Any) -> Any:
        found = phases(*arguments)
        FATE.begin(found)
        try:
            return real(*arguments, **named)
        finally:
            FATE.end(found)

    setattr(owner, name, marked)


def change(owner: Any, name: str) -> None:
    """Has it be two moments: before, and after."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def changed(*arguments: Any, **named: Any) -> Any:
        FATE.moment()
        outcome = real(*arguments, **named)
        FATE.moment()
        return outcome

    setattr(owner, name, changed)


class Os:
    """The module `os` of those who write."""

    def __init__(self) -> None:
        for name in ("open", "write", "pwrite", "replace", "ftruncate"):
            if hasattr(os, name):
                setattr(self, name, getattr(os, name))
                change(self, name)

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


def mark_all() -> None:
    mark(logged.LoggedStore, "commit", lambda store, batch: phases_of(batch))
    mark(logged.LoggedStore, "checkpoint", lambda store: ["checkpoint"])
    mark(logged.LoggedStore, "take_over", lambda store, bring: ["take over"])
    mark(compacting, "_bring", lambda *_: ["take over"])
    mark(session_keys, "write_keys", lambda *_: ["keys"])
    mark(session_vault.SessionVault, "drop", lambda *_: ["purge"])
    mark(wrapped_keys.WrappedKeys, "_replace", lambda *_: ["wrap"])
    mark(making.Making, "_rotate", lambda *_: ["rotation"])
    mark(migrating, "migrate", lambda *_: ["migrate"])
    mark(restoring_backup, "restore_backup", lambda *_: ["restore"])


def change_all() -> None:
    for name in ("replace", "rename", "unlink", "mkdir"):
        change(Path, name)
    for name in ("commit", "move_on"):
        change(lmdb.LmdbStore, name)
    for writer in (redo_log, lmdb, disk):
        writer.os = Os()  # type: ignore[attr-defined]
    for name in ("sync_file", "sync_folder"):
        real = getattr(disk, name)
        change(disk, name)
        for module in [*sys.modules.values()]:
            if module is not disk and getattr(module, name, None) is real:
                setattr(module, name, getattr(disk, name))


def shorten() -> None:
    retention.FIRST_MS = retention.INTERVAL_MS = LOOK_MS
    snapshots.SNAPSHOT_EVENTS, snapshots.SNAPSHOT_MS = SNAPSHOT_EVENTS, SNAPSHOT_MS
    summing.START_MS = SUMMARY_MS
    making.FIRST_MS = LOOK_MS


def skewed(skew_s: int) -> type[daemon.SystemClock]:
    class SkewedClock(daemon.SystemClock):
        def now(self) -> Now:
            return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000 + skew_s * 1_000_000)

    return SkewedClock


def hear() -> None:
    for line in sys.stdin:
        FATE.tell(line.strip())


def main(skew_s: int, fate: str, arguments: list[str]) -> None:
    migrating.migrate = functools.partial(migrating.migrate, steps=MADE_UP)
    mark_all()
    change_all()
    shorten()
    daemon.SystemClock = skewed(skew_s)  # type: ignore[misc]
    FATE.tell(fate)
    threading.Thread(target=hear, daemon=True).start()
    sys.argv = ["offgrid-node", *arguments]
    command.main()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
