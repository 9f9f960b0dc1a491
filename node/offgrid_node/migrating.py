"""`offgrid-node migrate`: brings the rows of a store from the form in which an older version wrote them into today's.

One step leads from each form to the next. A backup comes first; then each step goes over the store in portions, and
each portion is one transaction with the place behind it: whoever is killed goes on there, and no row is changed twice.
The last portion of a step writes the store's new form. A node runs only on a store that is done (folder.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from offgrid_node import __version__
from offgrid_node.backups.taking import Facts, take_backup
from offgrid_node.folder import Folder, backup_folder, open_store
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.storage.copying import copy_store, drop_copy
from offgrid_node.storage.disk import make_folder
from offgrid_node.storage.format import CURSOR_KEY, FORMAT, FORMAT_KEY, STORE, check_format, format_of, format_row
from offgrid_node.storage.store import Batch, Store

Portion = Callable[[Store, bytes], tuple[Batch, bytes | None]]
"""What is to be changed behind a place, empty at first, and the place behind that; None: it was the last."""


class Step(msgspec.Struct, frozen=True):
    """`what` it does, in words. The portions are bounded, and given the same place they change the same."""

    what: str
    portion: Portion


STEPS: Mapping[int, Step] = {}  # by the form that they lead from; none is needed yet

Say = Callable[[str], None]


class Migrated(msgspec.Struct, frozen=True):
    """`steps`: those taken, or to be taken; `backup` is None where nothing was to be done, or it was made before."""

    before: int
    after: int
    steps: tuple[str, ...]
    backup: Path | None = None


def migrate(
    path: Path,
    *,
    dry_run: bool = False,
    say: Say = lambda sentence: None,
    steps: Mapping[int, Step] = STEPS,
    newest: int = FORMAT,
) -> Migrated:
    """Of the node in this folder, which stands still. Raises FailedPrecondition (WrongFormat), what `open_store` and
    `take_backup` raise; then the store is as it was, or a portion farther."""
    folder = Folder(path)
    config = folder.config()
    store = open_store(config, create=False, any_format=True)
    try:
        before, begun = format_of(store), store.get(STORE, CURSOR_KEY) is not None
        way = _way(store, before, steps, newest)
    finally:
        store.close()
    named = tuple(steps[at].what for at in way)
    if dry_run or not way:
        return Migrated(before, newest, named)
    backup = None if begun else _back_up(folder, before, say)
    store = open_store(config, create=False, any_format=True)
    try:
        for at in way:
            say(f"form {at} to {at + 1}: {steps[at].what}")
            _take(store, at, steps[at])
    finally:
        store.close()
    return Migrated(before, newest, named, backup)


def _way(store: Store, before: int, steps: Mapping[int, Step], newest: int) -> range:
    """The forms that are left behind, one after the other."""
    if before > newest:
        check_format(store, newest)
    missing = [at for at in range(before, newest) if at not in steps]
    if missing:
        text = f"no step leads from form {missing[0]} of a store's rows any more: run a version in between first"
        raise FailedPrecondition(text, reason="NoStep")
    return range(before, newest)


def _back_up(folder: Folder, before: int, say: Say) -> Path:
    config, now_us = folder.config(), time.time_ns() // 1_000
    target = backup_folder(config)
    make_folder(target)
    made = datetime.fromtimestamp(now_us / 1_000_000, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    place = config.storage.memory_db
    facts = Facts(NodeKey.load(folder.keys_path).node_id, config.node.name, config.mesh.name, now_us, __version__)
    file = target / f"form-{before}-{made}.zip"  # not one of those that go by themselves
    try:
        take_backup(copy_store(place), file, facts, None, lambda doing, done, total: None)
    finally:
        drop_copy(place)
    say(f"backup: {file}")
    return file


def _take(store: Store, at: int, step: Step) -> None:
    place = store.get(STORE, CURSOR_KEY) or b""
    while True:
        batch, behind = step.portion(store, place)
        done = behind is None
        batch.writes[STORE, CURSOR_KEY] = behind
        if done:
            batch.writes[STORE, FORMAT_KEY] = format_row(at + 1)
        store.commit(batch)
        if done:
            return
        place = behind or b""
