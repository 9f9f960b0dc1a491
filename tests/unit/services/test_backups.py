"""Backups and compactions of a node: one at a time, by itself when it is due and worth it, and never in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offgrid.backup.recovery import Recipient
from offgrid.v1 import state_pb2
from offgrid_node.backups.errand import Done
from offgrid_node.backups.rotation import NEWEST, name_of
from offgrid_node.backups.taking import Facts
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest, Unavailable
from offgrid_node.services.backups.handlers import BackupHandlers
from offgrid_node.services.backups.making import Making
from offgrid_node.services.backups.sides import BackupParts, Said
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.kept_facts import Backups
from offgrid_node.services.stream import Stream
from offgrid_node.storage.compacting import Compacted

HOUR_MS, START_US = 3_600_000, 1_790_000_000_000_000
MB = 1024 * 1024


class StoreFile:
    """Writes a word for a backup."""

    def __init__(self) -> None:
        self.made: list[tuple[Path, bytes, Facts]] = []
        self.compacted = 0
        self.free_bytes = 0
        self.journal_seq = 1
        self.damaged: tuple[str, ...] = ()
        self.refused: Fault | None = None

    def back_up(self, target: Path, recipient: bytes, facts: Facts, said: Said) -> Done:
        if self.refused is not None:
            raise self.refused
        said("writing", 1, 2)
        self.made.append((target, recipient, facts))
        name = name_of(facts.made_us, self.journal_seq, damaged=bool(self.damaged), sealed=bool(recipient))
        path = target / name if target.is_dir() else target
        path.write_bytes(b"backup")
        return Done(str(path), 6, self.journal_seq, self.damaged)

    def compact(self, said: Said) -> Compacted:
        if self.refused is not None:
            raise self.refused
        self.compacted += 1
        return Compacted(2, 1)

    def get(self, table: str, key: bytes) -> bytes | None:
        """As the store of the node's."""
        return None

    def sizes(self) -> tuple[int, int, int]:
        return 64 * MB, 64 * MB - self.free_bytes, 1024 * MB


class Node:
    """Time passes when it is told to; work in threads ends when `work` is called."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.file, self.now_ms = StoreFile(), 0
        self._timers: list[tuple[int, Callable[[], None]]] = []
        self._waiting: list[Callable[[], None]] = []
        runtime: Any = SimpleNamespace(clock=self, store=self.file)
        bulk = Bulk(lambda work, ended: self._waiting.append(lambda: ended(work())))
        self.parts = BackupParts(self.file, bulk, folder, "attic", "home", "0.1", **settings)
        self.making = Making(runtime, "n-1", self.parts, self.later)
        self.handlers = BackupHandlers(self.making)

    def now(self) -> Now:
        return Now(self.now_ms, START_US + self.now_ms * 1_000)

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        if delay_ms:
            self._timers.append((self.now_ms + delay_ms, callback))
        else:
            callback()

    def work(self) -> None:
        while self._waiting:
            self._waiting.pop(0)()

    def wait(self, ms: int) -> None:
        end = self.now_ms + ms
        while True:
            self.work()
            due = min((at for at, _ in self._timers if at <= end), default=None)
            if due is None:
                self.now_ms = end
                return
            self.now_ms = due
            for timer in [timer for timer in self._timers if timer[0] <= due]:
                self._timers.remove(timer)
                timer[1]()

    def listed(self) -> state_pb2.ListBackupsResponse:
        ticket = self.handlers.list_backups(ADMIN, state_pb2.ListBackupsRequest())
        self.work()
        assert isinstance(ticket.outcome, state_pb2.ListBackupsResponse)
        return ticket.outcome

    def told(self, stream: Stream) -> list[Any]:
        self.wait(0)
        if stream.fault is not None:
            raise stream.fault
        return stream.take()


def create(node: Node, **asked: Any) -> Stream:
    return node.handlers.create_backup(ADMIN, state_pb2.CreateBackupRequest(**asked))


def test_a_backup_says_how_far_it_is_and_where_it_lies(tmp_path: Path) -> None:
    node = Node(tmp_path / "backups")
    first, last = node.told(create(node, path=str(tmp_path / "mine")))
    assert (first.doing, first.done_bytes, first.total_bytes, first.done) == ("writing", 1, 2, False)
    assert (last.done, last.backup.path, last.backup.bytes) == (True, str(tmp_path / "mine"), 6)
    assert node.file.made[0][2] == Facts("n-1", "attic", "home", START_US, "0.1")


def test_each_is_counted_and_one_that_found_another_under_way_is_not(tmp_path: Path) -> None:
    node = Node(tmp_path / "backups")
    streams = [create(node, path=str(tmp_path / name)) for name in ("first", "second")]
    node.told(streams[0])
    assert streams[1].fault is not None
    assert node.making.counted == Backups(1, 0, START_US, 6)
    node.file.refused = Unavailable("no room")
    with pytest.raises(Unavailable):
        node.told(create(node, path=str(tmp_path / "third")))
    assert node.making.counted == Backups(1, 1, START_US, 6)


def test_without_a_path_it_lies_beside_those_made_by_itself(tmp_path: Path) -> None:
    node = Node(tmp_path / "backups")
    node.told(create(node))
    (backup,) = node.listed().backups
    assert (backup.made_us, backup.journal_seq, backup.bytes, backup.sealed) == (START_US, 1, 6, False)


def test_one_at_a_time(tmp_path: Path) -> None:
    node = Node(tmp_path / "backups")
    running = create(node)
    with pytest.raises(Exhausted, match="a backup is under way"):
        node.told(node.handlers.compact_store(ADMIN, state_pb2.CompactStoreRequest()))
    assert running.take()[-1].done
    assert node.told(node.handlers.compact_store(ADMIN, state_pb2.CompactStoreRequest()))[-1].after_bytes == 1


@pytest.mark.parametrize("path", ["mine", "../mine", "/a\0b", "/" + "x" * 5_000])
def test_a_path_is_absolute(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidRequest, match="path: "):
        create(Node(tmp_path), path=path)


def test_it_is_sealed_for_whom_it_is_asked(tmp_path: Path) -> None:
    node = Node(tmp_path / "backups", recovery_key=b"r" * 32)
    node.told(create(node, encrypt=True))
    node.told(create(node, path=str(tmp_path / "other"), recipient=Recipient(b"p" * 32).encode()))
    assert [made[1][:32] for made in node.file.made] == [b"r" * 32, b"p" * 32]
    with pytest.raises(InvalidRequest, match="recipient: "):
        create(node, recipient=b"short")
    with pytest.raises(FailedPrecondition, match="no recovery key is set"):
        create(Node(tmp_path), encrypt=True)


def test_a_node_whose_store_is_no_file_says_so() -> None:
    handlers = BackupHandlers(None)
    with pytest.raises(FailedPrecondition, match="is no file"):
        handlers.create_backup(ADMIN, state_pb2.CreateBackupRequest())
    assert isinstance(handlers.list_backups(ADMIN, state_pb2.ListBackupsRequest()).outcome, FailedPrecondition)


# ---- by itself


def started(folder: Path, **settings: Any) -> Node:
    node = Node(folder, **{"interval_ms": HOUR_MS, "bytes_max": 1 << 40, **settings})
    node.making.start()
    return node


def test_each_hour_if_anything_has_happened(tmp_path: Path) -> None:
    node = started(tmp_path / "backups")
    node.wait(HOUR_MS - 1)
    assert not node.file.made
    node.wait(3 * HOUR_MS)
    assert len(node.file.made) == 1
    node.file.journal_seq = 2
    node.wait(HOUR_MS)
    assert len(node.file.made) == 2


def test_the_hour_is_that_since_the_newest_also_over_a_restart(tmp_path: Path) -> None:
    node = started(tmp_path / "backups")
    node.wait(HOUR_MS)
    again = started(tmp_path / "backups")
    again.now_ms, again.file.journal_seq = HOUR_MS + HOUR_MS // 2, 2
    again = Node(tmp_path / "backups", interval_ms=HOUR_MS, bytes_max=1 << 40)
    again.now_ms, again.file.journal_seq = HOUR_MS + HOUR_MS // 2, 2
    again.making.start()
    again.wait(HOUR_MS // 2 - 1)
    assert not again.file.made
    again.wait(1_000)
    assert len(again.file.made) == 1


def test_nothing_by_itself_where_that_is_off(tmp_path: Path) -> None:
    node = started(tmp_path / "backups", interval_ms=0)
    node.wait(100 * HOUR_MS)
    assert not node.file.made


def test_old_ones_go(tmp_path: Path) -> None:
    node = started(tmp_path / "backups")
    (tmp_path / "backups").mkdir()
    (tmp_path / "backups" / "keys.wrapped").write_bytes(b"another file")
    for number in range(NEWEST + 6):
        node.file.journal_seq = number
        node.wait(HOUR_MS)
    assert NEWEST <= len(node.listed().backups) <= NEWEST + 3
    assert (tmp_path / "backups" / "keys.wrapped").exists()


def test_what_could_not_be_done_is_said_and_tried_again(tmp_path: Path) -> None:
    node = started(tmp_path / "backups")
    node.file.refused = Unavailable("the disk is full")
    node.wait(HOUR_MS)
    assert node.making.notices == ("no backup could be made: the disk is full",)
    node.file.refused = None
    node.wait(HOUR_MS)
    assert (len(node.file.made), node.making.notices) == (1, ())


def test_rows_that_are_damaged_are_said(tmp_path: Path) -> None:
    node = started(tmp_path / "backups")
    node.file.damaged = ("row tasks/'one'",)
    node.wait(HOUR_MS)
    assert "lacks 1 rows of the store that are damaged: row tasks/'one'" in node.making.notices[0]


@pytest.mark.parametrize(("free_bytes", "times"), [(15 * MB, 0), (16 * MB, 1)])
def test_the_file_is_made_small_when_it_is_worth_it(tmp_path: Path, free_bytes: int, times: int) -> None:
    node = started(tmp_path / "backups", interval_ms=0, vacuum_ms=HOUR_MS)
    node.file.free_bytes = free_bytes
    node.wait(HOUR_MS)
    assert node.file.compacted == times


def test_a_compaction_that_failed_is_said(tmp_path: Path) -> None:
    node = started(tmp_path / "backups", interval_ms=0, vacuum_ms=HOUR_MS)
    node.file.free_bytes, node.file.refused = 60 * MB, Exhausted("1000 are free")
    node.wait(HOUR_MS)
    assert node.making.notices == ("the store's file could not be made small: 1000 are free",)


def test_after_its_end_nothing_begins(tmp_path: Path) -> None:
    node = started(tmp_path / "backups", vacuum_ms=HOUR_MS)
    node.making.close()
    node.wait(10 * HOUR_MS)
    assert not node.file.made
