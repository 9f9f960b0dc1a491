"""A process that works on a store for test_lmdb_faults: `python store_child.py MODE FOLDER [FAULT_FILE]`.

It prints one JSON line per step, after the step, so that what it printed is what it was promised.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

from offgrid_node.protocol.errors import Fault
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

MIB = 1024 * 1024


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def batch(number: int, size: int = 100) -> Batch:
    """Batch `number`: two events and two rows that can be recomputed from it."""
    body = b"%d:" % number + bytes([number % 256]) * size
    return Batch([body, b"+" + body], {("jobs", b"%08d" % number): body, ("last", b"one"): body})


def write_for_ever(folder: Path, kind: type[LmdbStore | LoggedStore]) -> None:
    store = kind.open(folder, limit_bytes=512 * MIB, initial_map_bytes=64 * 1024)
    for number in itertools.count(store.journal_seq // 2):
        say(seq=store.commit(batch(number, size=number % 7 * 700)))


def write_until_refused(folder: Path) -> None:
    """Fills the disk, reports what is then still true, makes room by deleting `ballast`, goes on."""
    store = LmdbStore.open(folder, limit_bytes=512 * MIB)
    fault: Fault | None = None
    number = 0
    while fault is None:
        try:
            store.commit(batch(number, size=20_000))
            number += 1
        except Fault as refusal:
            fault = refusal
    report(store, fault, number, size=20_000)
    ballast = folder.parent / "ballast"
    if ballast.exists():
        ballast.unlink()
        store.commit(batch(number, size=20_000))
        report(store, None, number + 1, size=20_000)
    store.close()


def write_with_fault(folder: Path, fault_file: Path, kind: str) -> None:
    """Ten good commits, three under the fault, then good ones again."""
    store = LmdbStore.open(folder, limit_bytes=512 * MIB)
    for number in range(10):
        store.commit(batch(number))
    fault_file.write_text(kind)
    done = 10
    for _ in range(3):
        fault: Fault | None = None
        try:
            store.commit(batch(done))
            done += 1
        except Fault as refusal:
            fault = refusal
        report(store, fault, done)
    fault_file.unlink()
    store.commit(batch(done))
    report(store, None, done + 1)
    store.close()


def report(store: LmdbStore, fault: Fault | None, batches: int, size: int = 100) -> None:
    """Whether the store holds exactly the first `batches` batches."""
    try:
        rows = dict(store.scan("jobs"))
    except Fault as unreadable:
        say(type=type(fault).__name__, reading=type(unreadable).__name__, reason=unreadable.reason)
        return
    say(
        batches=batches,
        type=type(fault).__name__ if fault else "",
        reason=fault.reason if fault else "",
        message=fault.message if fault else "",
        retry_ms=fault.retry_ms if fault else None,
        seq=store.journal_seq,
        rows=len(rows),
        right=rows
        == {b"%08d" % n: batch(n, len(rows[b"%08d" % n]) - len(b"%d:" % n)).events[0] for n in range(batches)},
        events=sum(1 for _ in store.events()),
        verify=list(store.verify()),
    )


if __name__ == "__main__":
    mode, folder = sys.argv[1], Path(sys.argv[2])
    if mode == "for-ever":
        write_for_ever(folder, LmdbStore)
    elif mode == "for-ever-logged":
        write_for_ever(folder, LoggedStore)
    elif mode == "until-refused":
        write_until_refused(folder)
    elif mode == "file-limit":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, 3 * MIB))
        write_until_refused(folder)
    else:
        write_with_fault(folder, Path(sys.argv[3]), mode)
