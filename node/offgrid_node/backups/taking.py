"""Writes a store that nobody else has open, a copy of the node's, into a backup.

Under NAME.new, to the disk, read back and checked, and only then under its own name: whoever is killed leaves a backup
that is whole, or a NAME.new that the next one of that name overwrites. Rows that are damaged are left out and named: a
store that fails is just when a backup is wanted. What it keeps for others is left out as well, as in segments of the
journal: they bring it anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from offgrid.backup import BackupError
from offgrid.backup.container import BackupReader, BackupWriter, Manifest
from offgrid.backup.recovery import Recipient
from offgrid.v1 import state_pb2
from offgrid_node.backups.rotation import name_of
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition, Unavailable
from offgrid_node.protocol.sound import DAMAGED, row_name, sound
from offgrid_node.protocol.state.tables import CHANGES, JOURNAL, OF_REPLICAS, STATE_KEY
from offgrid_node.storage.copying import check_room
from offgrid_node.storage.disk import disk_fault, sync_file, sync_folder
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.store import Store

LEFT_OUT = OF_REPLICAS | {CHANGES}
SEGMENT_BYTES, SEGMENT_ROWS = 1024 * 1024, 8_192
DAMAGED_MAX = 1_000  # rows that are named; a store with more is one to be restored
LIMIT_BYTES = 1 << 40  # of a copy that nothing is written to
OWN_NEW = "backup.new"
WRITING, CHECKING = "writing", "checking"

Say = Callable[[str, int, int], None]
"""What is done, how far it is and of how much, in bytes."""


class Facts(msgspec.Struct, frozen=True):
    """What the store itself does not say."""

    node_id: str
    node: str
    mesh: str
    made_us: int
    made_by: str


def take_backup(copy: Path, target: Path, facts: Facts, recipient: Recipient | None, say: Say) -> tuple[Path, Manifest]:
    """Into the file `target`, or, named by what it is, into the folder `target`. Returns the file.

    Raises AlreadyExists, FailedPrecondition (NoFolder), Exhausted (DiskFull), Unavailable (DiskError; BackupUnread
    where what was written does not read back), Corrupt for a journal that is damaged."""
    names_itself = target.is_dir()
    folder = target if names_itself else target.parent
    if not folder.is_dir():
        raise FailedPrecondition(f"{folder} is no folder: make it first", reason="NoFolder")
    new = folder / (OWN_NEW if names_itself else f"{target.name}.new")
    store = LmdbStore.open(copy, limit_bytes=LIMIT_BYTES)
    try:
        if not names_itself:
            _check_free(target)
        check_room(folder, store.size_bytes(), f"a backup in {folder}")
        manifest, key = _write(store, new, facts, recipient, say)
        with BackupReader.open(new, key=key) as reader:
            if reader.check(lambda done, total: say(CHECKING, done, total)) != manifest:
                raise Unavailable(f"{new} is not what was written: check the disk", reason="BackupUnread")
        sealed, damaged = recipient is not None, bool(manifest.damaged)
        file = folder / name_of(manifest.made_us, manifest.journal_seq, damaged=damaged, sealed=sealed)
        file = file if names_itself else target
        _check_free(file)
        new.replace(file)
        sync_folder(folder)
    except BackupError as error:
        text = f"{new} does not read back as it was written: {error}; check the disk"
        raise Unavailable(text, reason="BackupUnread") from error
    except OSError as error:
        raise disk_fault(folder, f"cannot write {new}", error) from error
    finally:
        store.close()
        with suppress(OSError):
            new.unlink(missing_ok=True)
    return file, manifest


def _check_free(file: Path) -> None:
    if file.exists():
        raise AlreadyExists(f"{file} is there already, and is never overwritten", reason="BackupExists")


def _write(store: LmdbStore, new: Path, facts: Facts, recipient: Recipient | None, say: Say) -> tuple[Manifest, bytes]:
    total, done = store.used_bytes(), 0
    with _private(new) as file, BackupWriter(file, recipient) as writer:
        contents = Contents(store)
        for segment in contents.segments():
            done += writer.add(segment)
            say(WRITING, min(done, total), total)
        state = state_pb2.JournalRow.FromString(store.get(JOURNAL, STATE_KEY) or b"")
        manifest = writer.finish(
            node_id=facts.node_id,
            node=facts.node,
            mesh=facts.mesh,
            life=state.life,
            journal_floor=store.journal_floor,
            journal_seq=store.journal_seq,
            made_us=facts.made_us,
            made_by=facts.made_by,
            rows=contents.rows,
            damaged=tuple(contents.damaged),
        )
        file.flush()
        sync_file(file.fileno())
    return manifest, writer.key


def _private(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    return path.open("r+b")


class Contents:
    """All of a store that a backup has, piece by piece; `rows` and `damaged` say what that was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: Counter[str] = Counter()
        self.damaged: list[str] = []

    @property
    def rows(self) -> Mapping[str, int]:
        return dict(self._counts)

    def segments(self) -> Iterator[state_pb2.Segment]:
        """Raises Corrupt where the journal is damaged, or more rows than are named."""
        segment, size, count = state_pb2.Segment(), 0, 0
        for table in sorted(self._store.tables - LEFT_OUT):
            part: state_pb2.SegmentTable | None = None
            for key, value in self._rows(table):
                if part is None:
                    part = segment.tables.add(name=table)
                part.rows.add(key=key, value=value)
                self._counts[table] += 1
                size, count = size + len(key) + len(value), count + 1
                if size >= SEGMENT_BYTES or count >= SEGMENT_ROWS:
                    yield segment
                    segment, part, size, count = state_pb2.Segment(), None, 0, 0
        if count:
            yield segment
        yield from self._events()

    def _rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from sound(self._store.scan, table, on_damaged=lambda key: self._damaged(row_name(table, key)))
        except Corrupt as fault:
            if fault.reason == DAMAGED:
                raise
            self._damaged(fault.message)

    def _damaged(self, what: str) -> None:
        if len(self.damaged) == DAMAGED_MAX:
            text = f"more than {DAMAGED_MAX} rows are damaged: restore the store from a backup"
            raise Corrupt(text, reason="StoreDamaged")
        self.damaged.append(what)

    def _events(self) -> Iterator[state_pb2.Segment]:
        floor, size = self._store.journal_floor, 0
        part = state_pb2.SegmentEvents(first_seq=floor + 1)
        for seq, event in self._store.events(floor):
            part.events.append(event)
            size += len(event)
            if size >= SEGMENT_BYTES:
                yield state_pb2.Segment(events=[part], floor=floor)
                part, size = state_pb2.SegmentEvents(first_seq=seq + 1), 0
        if part.events or floor:
            yield state_pb2.Segment(events=[part], floor=floor)
