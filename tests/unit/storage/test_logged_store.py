"""The store with a log above: what is durable where, and what becomes of it when a write fails at any point."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from offgrid_node.protocol.errors import Corrupt, Fault, Unavailable
from offgrid_node.protocol.sound import sound
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.logged import SPARE_BYTES, LoggedStore
from offgrid_node.storage.overlay import OVERLAY_BYTES_MAX, OVERLAY_ROWS_MAX
from offgrid_node.storage.redo_log import BLOCK_BYTES, LOG_BYTES, LOG_FILE, RECORD_BYTES_MAX, RedoLog
from offgrid_node.storage.store import Batch

MIB = 1024 * 1024
LIMIT_BYTES = 256 * MIB


def batch(number: int, size: int = 100) -> Batch:
    body = b"%d" % number + bytes(size)
    return Batch([body], {("jobs", b"%06d" % number): body, ("last", b"one"): body})


@contextlib.contextmanager
def opened(folder: Path, limit_bytes: int = LIMIT_BYTES) -> Iterator[LoggedStore]:
    with contextlib.closing(LoggedStore.open(folder, limit_bytes=limit_bytes)) as store:
        yield store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a store that knows its tables and holds batch 0."""
    with opened(tmp_path / "store") as store:
        store.commit(batch(0))
    return tmp_path / "store"


def left_by_a_killed_process(folder: Path, target: Path) -> Path:
    """The files as they are now, as whoever starts after a kill finds them."""
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns("owner.*", "lock.mdb"))


def below(folder: Path, target: Path) -> int:
    """How many batches are in LMDB's own file."""
    copy = left_by_a_killed_process(folder, target)
    with contextlib.closing(LmdbStore.open(copy, limit_bytes=LIMIT_BYTES)) as store:
        assert store.verify() == []
        return store.journal_seq


def assert_holds(store: LoggedStore, count: int, size: int = 100) -> None:
    """Exactly the batches below `count`."""
    bodies = [batch(n, size if n else 100).events[0] for n in range(count)]
    assert store.journal_seq == count
    assert [event for _, event in store.events()] == bodies
    assert [event for _, event in store.events(reverse=True)] == bodies[::-1]
    assert dict(store.scan("jobs")) == {b"%06d" % n: body for n, body in enumerate(bodies)}
    assert store.get("last", b"one") == bodies[-1]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_records_that_were_bound_to_the_end_of_the_journal_alone_count_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """What a process left that was killed before stores knew more of their end."""
    with monkeypatch.context() as former, contextlib.ExitStack() as left:
        former.setattr(LmdbStore, "seal", LmdbStore.former_seal)
        former.setattr(RedoLog, "_write_mark", lambda log: None)
        store = left.enter_context(opened(tmp_path / "store"))
        for number in range(1 + count):
            store.commit(batch(number))
        killed = left_by_a_killed_process(tmp_path / "store", tmp_path / "killed")
    with opened(killed) as store:
        assert_holds(store, 1 + count)
        store.commit(batch(1 + count))
        again = left_by_a_killed_process(killed, tmp_path / "again")
    with opened(again) as store:
        assert_holds(store, 2 + count)


def test_a_batch_is_durable_in_the_log_before_it_is_below(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as store:
        for number in range(1, 6):
            store.commit(batch(number))
        assert below(folder, tmp_path / "raw") == 1
        killed = left_by_a_killed_process(folder, tmp_path / "killed")
    assert below(folder, tmp_path / "closed") == 6
    with opened(killed) as store:
        assert_holds(store, 6)
        store.commit(batch(6))
        again = left_by_a_killed_process(killed, tmp_path / "again")
        assert store.verify() == []
        assert_holds(store, 7)
    with opened(again) as store:
        assert_holds(store, 7)


@pytest.mark.parametrize(("size", "count"), [(100, LOG_BYTES // 4096 + 2), (OVERLAY_BYTES_MAX // 24, 12)])
def test_what_has_grown_is_written_below(folder: Path, tmp_path: Path, size: int, count: int) -> None:
    with opened(folder) as store:
        for number in range(1, count):
            store.commit(batch(number, size))
        assert 1 < below(folder, tmp_path / "raw") < count
        assert_holds(store, count, size)
        killed = left_by_a_killed_process(folder, tmp_path / "killed")
    with opened(killed) as store:
        assert_holds(store, count, size)
        assert store.verify() == []


def test_rows_in_memory_are_bounded(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as store:
        for first in range(0, OVERLAY_ROWS_MAX + 1, 64):
            store.commit(Batch(writes={("jobs", b"+%06d" % n): b"" for n in range(first, first + 64)}))
        store.commit(batch(1))
        assert below(folder, tmp_path / "raw") == 1
        assert sum(1 for _ in store.scan("jobs", prefix=b"+")) == OVERLAY_ROWS_MAX + 64
        raw = left_by_a_killed_process(folder, tmp_path / "rows")
        with contextlib.closing(LmdbStore.open(raw, limit_bytes=LIMIT_BYTES)) as lower:
            assert sum(1 for _ in lower.scan("jobs", prefix=b"+")) >= OVERLAY_ROWS_MAX


@pytest.mark.parametrize(
    "direct",
    [Batch(writes={("new", b"k"): b"v"}), Batch([bytes(RECORD_BYTES_MAX)])],
    ids=["a new table", "a large batch"],
)
def test_what_lmdb_must_judge_goes_there_behind_all_before_it(folder: Path, tmp_path: Path, direct: Batch) -> None:
    with opened(folder) as store:
        store.commit(batch(1))
        store.commit(direct)
        assert below(folder, tmp_path / "raw") == store.journal_seq == 2 + len(direct.events)


def test_a_store_that_is_nearly_full_keeps_nothing_in_its_log(tmp_path: Path) -> None:
    with opened(tmp_path / "store", limit_bytes=SPARE_BYTES) as store:
        for number in range(3):
            store.commit(batch(number))
        assert below(tmp_path / "store", tmp_path / "raw") == 3


def test_a_scan_sees_above_and_below_as_one(folder: Path) -> None:
    with opened(folder) as store:
        store.commit(Batch(writes={("jobs", key): b"below" for key in (b"b", b"d", b"f")}))
        store.verify()  # a checkpoint
        store.commit(Batch(writes={("jobs", b"a"): b"above", ("jobs", b"d"): b"above", ("jobs", b"f"): None}))
        store.commit(Batch(writes={("jobs", b"g"): b"above", ("jobs", b"h"): None}))
        expected = [(b"a", b"above"), (b"b", b"below"), (b"d", b"above"), (b"g", b"above")]
        assert list(store.scan("jobs", b"a")) == expected
        assert list(store.scan("jobs", b"a", reverse=True)) == expected[::-1]
        assert list(store.scan("jobs", prefix=b"d")) == [(b"d", b"above")]


def damage(folder: Path, key: bytes) -> None:
    """In LMDB's own file."""
    with contextlib.closing(lmdb.open(str(folder), max_dbs=64, map_size=16 * MIB)) as env:
        table = env.open_db(b"t/jobs", create=False)
        with env.begin(db=table, write=True) as txn:
            txn.put(key, b"8 bytes!" + b"a lie")


def test_a_walk_gives_what_lies_above_right_before_and_behind_a_damaged_row(folder: Path) -> None:
    with opened(folder) as store:
        for number in (10, 20, 30):
            store.commit(batch(number))
    damage(folder, b"000020")
    with opened(folder) as store:
        for number in (5, 15, 19, 25, 35):
            store.commit(batch(number))
        damaged = list[bytes]()
        found = [int(key) for key, _ in sound(store.scan, "jobs", on_damaged=damaged.append)]
    assert (found, damaged) == ([0, 5, 10, 15, 19, 25, 30, 35], [b"000020"])


@pytest.mark.parametrize("start", [22, 25])
def test_a_walk_goes_on_at_a_row_above_though_the_one_below_it_is_damaged(folder: Path, start: int) -> None:
    with opened(folder) as store:
        for number in (10, 20, 30):
            store.commit(batch(number))
    damage(folder, b"000020")
    with opened(folder) as store:
        for number in (22, 23, 25, 26):
            store.commit(batch(number))
        damaged = list[bytes]()
        found = [int(key) for key, _ in sound(store.scan, "jobs", b"%06d" % start, on_damaged=damaged.append)]
    assert (found, damaged) == ([number for number in (22, 23, 25, 26, 30) if number >= start], [])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("start", [b"", b"000020", b"000025"])
@pytest.mark.parametrize("deleted", [False, True])
def test_a_damaged_row_that_was_written_anew_above_is_damaged_no_more(
    folder: Path, start: bytes, reverse: bool, deleted: bool
) -> None:
    numbers = [0, 10, 20, 30, 40]
    with opened(folder) as store:
        for number in numbers[1:]:
            store.commit(batch(number))
    damage(folder, b"000020")
    with opened(folder) as store:
        store.commit(Batch(writes={("jobs", b"000020"): None}) if deleted else batch(20))
        store.commit(batch(25))
        found = [int(key) for key, _ in store.scan("jobs", start, reverse=reverse)]
        before = [int(key) for key, _ in store.scan("jobs", end=b"000020", reverse=reverse)]
    expected = [n for n in (0, 10, 20, 25, 30, 40) if n >= int(start or b"0") and not (deleted and n == 20)]
    assert found == (expected[::-1] if reverse else expected)
    assert before == ([10, 0] if reverse else [0, 10])


def test_a_walk_misses_nothing_where_commits_come_between_its_rows(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(1, 60):
            store.commit(batch(number))
    damage(folder, b"000020")
    with opened(folder) as store:
        found = list[int]()
        for key, _ in sound(store.scan, "jobs"):
            found.append(int(key))
            store.commit(batch(100 + len(found)))
            if len(found) > 80:
                break
    assert found[:59] == [number for number in range(60) if number != 20]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_goes_on_over_a_checkpoint(folder: Path, reverse: bool) -> None:
    with opened(folder) as store:
        for number in range(1, 40):
            store.commit(batch(number))
        rows, seen = store.scan("jobs", reverse=reverse), []
        for number, row in enumerate(rows):
            seen.append(row[0])
            if number % 10 == 0:
                store.commit(Batch(writes={("jobs", b"000020"): None}))
                store.verify()
        expected = [b"%06d" % n for n in range(40) if n != 20]
        assert seen == expected[:: -1 if reverse else 1]


# ---- failures


class Refusing:
    """Makes some of the disk's calls fail, and says how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log_after_writing = self.log_before_writing = self.below = 0
        append, commit, move_on = RedoLog.append, LmdbStore.commit, LmdbStore.move_on

        def refusing_append(log: RedoLog, batch: Batch, body: bytes) -> None:
            if self.log_before_writing:
                self.log_before_writing -= 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            end = log._end
            append(log, batch, body)
            if self.log_after_writing:
                self.log_after_writing -= 1
                log._end = end  # as if it had not been told
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        def refusing(call: Callable[..., object]) -> Callable[..., object]:
            def refused(store: LmdbStore, *arguments: object) -> object:
                if self.below:
                    self.below -= 1
                    raise Unavailable("the disk refused", reason="DiskError")
                return call(store, *arguments)

            return refused

        monkeypatch.setattr(RedoLog, "append", refusing_append)
        monkeypatch.setattr(LmdbStore, "commit", refusing(commit))
        monkeypatch.setattr(LmdbStore, "move_on", refusing(move_on))


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Refusing:
    return Refusing(monkeypatch)


def assert_refused(store: LoggedStore, number: int) -> None:
    with pytest.raises(Fault) as caught:
        store.commit(batch(number))
    assert caught.value.reason == "DiskError"


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("above", [1, 3])
def test_a_record_that_was_refused_is_never_seen(
    folder: Path, tmp_path: Path, refusing: Refusing, written: bool, above: int
) -> None:
    with opened(folder) as store:
        for number in range(1, above):
            store.commit(batch(number))
        refusing.log_after_writing, refusing.log_before_writing = int(written), int(not written)
        assert_refused(store, above)
        assert_holds(store, above)
        killed = left_by_a_killed_process(folder, tmp_path / "killed")
        store.commit(batch(above))
        assert_holds(store, above + 1)
    with opened(killed) as store:
        assert_holds(store, above)


def test_nothing_is_written_until_a_refused_record_is_void(folder: Path, tmp_path: Path, refusing: Refusing) -> None:
    with opened(folder) as store:
        refusing.log_after_writing, refusing.below = 1, 2
        assert_refused(store, 1)
        assert_refused(store, 1)
        assert_holds(store, 1)
        store.commit(Batch([batch(1).events[0]], batch(1).writes))
        assert_holds(store, 2)
        killed = left_by_a_killed_process(folder, tmp_path / "killed")
    with opened(killed) as store:
        assert_holds(store, 2)


def test_a_checkpoint_that_fails_loses_nothing_and_reads_go_on(
    folder: Path, tmp_path: Path, refusing: Refusing
) -> None:
    with opened(folder) as store:
        for number in range(1, 4):
            store.commit(batch(number))
        refusing.below = 2
        for _ in range(2):
            with pytest.raises(Unavailable):
                store.commit(Batch(writes={("new", b"k"): b"v"}))
            assert_holds(store, 4)
        killed = left_by_a_killed_process(folder, tmp_path / "killed")
        store.commit(batch(4))
        assert_holds(store, 5)
    with opened(killed) as store:
        assert_holds(store, 4)


def test_a_checkpoint_that_failed_and_is_there_all_the_same_counts_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = LmdbStore.commit

    def late(store: LmdbStore, batch: Batch) -> int:
        commit(store, batch)
        monkeypatch.setattr(LmdbStore, "commit", commit)
        raise Unavailable("the disk refused", reason="DiskError")

    with opened(folder) as store:
        store.commit(batch(1))
        monkeypatch.setattr(LmdbStore, "commit", late)
        assert store.verify() == []
        assert_holds(store, 2)
        store.commit(batch(2))
        assert_holds(store, 3)
        assert store.verify() == []
        assert_holds(store, 3)


def test_a_close_that_cannot_write_below_leaves_it_to_the_log(folder: Path, refusing: Refusing) -> None:
    with opened(folder) as store:
        store.commit(batch(1))
        refusing.below = 1
    with opened(folder) as store:
        assert_holds(store, 2)


def test_a_log_that_cannot_be_opened_is_said_and_gives_the_folder_back(folder: Path) -> None:
    (folder / LOG_FILE).rename(folder / "kept")
    (folder / LOG_FILE).mkdir()
    with pytest.raises(Unavailable, match="log") as caught:
        LoggedStore.open(folder, limit_bytes=LIMIT_BYTES)
    assert caught.value.reason == "DiskError"
    (folder / LOG_FILE).rmdir()
    (folder / "kept").rename(folder / LOG_FILE)
    with opened(folder) as store:
        assert_holds(store, 1)


# ---- damage, and files that do not belong together


@pytest.fixture
def killed(folder: Path, tmp_path: Path) -> Path:
    """As a killed process left it: batch 0 below, three more in the log."""
    with opened(folder) as store:
        for number in range(1, 4):
            store.commit(batch(number))
        return left_by_a_killed_process(folder, tmp_path / "killed")


def refused_at_open(folder: Path) -> Corrupt:
    with pytest.raises(Corrupt, match="backup") as caught:
        LoggedStore.open(folder, limit_bytes=LIMIT_BYTES)
    return caught.value


def test_acknowledged_batches_behind_a_damaged_record_are_missed(killed: Path) -> None:
    log = killed / LOG_FILE
    data = bytearray(log.read_bytes())
    data[2 * BLOCK_BYTES + 100] ^= 1
    log.write_bytes(data)
    fault = refused_at_open(killed)
    assert fault.reason == "StoreDamaged"
    assert "record 1" in fault.message
    data[2 * BLOCK_BYTES + 100] ^= 1
    log.write_bytes(data)
    with opened(killed) as store:
        assert_holds(store, 4)


def test_a_store_without_its_log_is_refused(killed: Path) -> None:
    (killed / LOG_FILE).unlink()
    assert refused_at_open(killed).reason == "StoreMissing"
    assert refused_at_open(killed).reason == "StoreMissing"


def test_another_stores_log_is_refused(killed: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "other") as store:
        store.commit(batch(0))
    shutil.copy(tmp_path / "other" / LOG_FILE, killed / LOG_FILE)
    assert "another store's" in refused_at_open(killed).message


def test_a_store_that_is_older_than_its_log_is_refused(folder: Path, tmp_path: Path) -> None:
    old = left_by_a_killed_process(folder, tmp_path / "old")
    with opened(folder) as store:
        store.commit(batch(1))
        store.verify()  # a checkpoint
        store.commit(batch(2))
        shutil.copy(folder / LOG_FILE, old / LOG_FILE)
    assert "older" in refused_at_open(old).message


def test_what_a_killed_process_left_is_written_below_at_once(killed: Path, tmp_path: Path) -> None:
    with opened(killed) as store:
        assert below(killed, tmp_path / "raw") == 4
        assert_holds(store, 4)


def test_a_store_whose_log_was_never_finished_makes_it_anew(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("offgrid_node.storage.redo_log.sync_file", full)
        with pytest.raises(Unavailable, match="log") as caught:
            LoggedStore.open(tmp_path / "fresh", limit_bytes=LIMIT_BYTES)
    assert caught.value.reason == "DiskError"
    with opened(tmp_path / "fresh") as store:
        store.commit(batch(0))
        assert_holds(store, 1)


def test_verify_looks_at_the_log_while_it_holds_what_is_not_below(folder: Path, refusing: Refusing) -> None:
    with opened(folder) as store:
        store.commit(batch(1))
        store.commit(batch(2))
        with (folder / LOG_FILE).open("r+b") as file:
            file.seek(BLOCK_BYTES + 100)
            file.write(b"?")
        refusing.below = 1
        assert [finding for finding in store.verify() if "record 0" in finding]
        assert store.verify() == []  # a checkpoint has written below what memory still knew
        assert_holds(store, 3)


def test_a_batch_that_is_there_all_the_same_is_seen_whole_once_the_store_can_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, txn = LmdbStore.commit, LmdbStore.txn
    refused = Unavailable("the disk refused", reason="DiskError")

    def unreadable(store: LmdbStore) -> int:
        raise refused

    def late(store: LmdbStore, batch: Batch) -> int:
        commit(store, batch)
        monkeypatch.setattr(LmdbStore, "txn", property(unreadable))
        raise refused

    with opened(folder) as store:
        large = Batch([bytes(RECORD_BYTES_MAX)], {("jobs", b"large"): b"v"})
        monkeypatch.setattr(LmdbStore, "commit", late)
        with pytest.raises(Unavailable):
            store.commit(large)
        with pytest.raises(Unavailable):
            store.get("jobs", b"large")
        monkeypatch.setattr(LmdbStore, "txn", txn)
        assert store.get("jobs", b"large") == b"v"
        assert [seq for seq, _ in store.events()] == [1, 2]
        assert store.journal_seq == 2


def test_a_batch_of_very_many_rows_goes_below(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as store:
        store.commit(batch(1))
        store.commit(Batch(writes={("jobs", b"+%06d" % n): b"" for n in range(OVERLAY_ROWS_MAX + 1)}))
        assert below(folder, tmp_path / "raw") == 2


META_TXN = 152  # in a meta page of LMDB 1.0


def lose_newest(folder: Path) -> None:
    """As if the page that LMDB's last transaction wrote last had never come to the disk: two take turns, and it begins
    with the newer one."""
    data = bytearray((folder / "data.mdb").read_bytes())
    pages = [data[page * 4096 : (page + 1) * 4096] for page in (0, 1)]
    newest = max((0, 1), key=lambda page: int.from_bytes(pages[page][META_TXN : META_TXN + 8], "little"))
    data[newest * 4096 + 8 : (newest + 1) * 4096] = pages[1 - newest][8:]
    (folder / "data.mdb").write_bytes(data)


def test_a_newest_transaction_that_was_of_records_is_made_good_by_them(folder: Path) -> None:
    with opened(folder) as store:
        for number in range(1, 4):
            store.commit(batch(number))
    lose_newest(folder)
    with opened(folder) as store:
        assert_holds(store, 4)
        assert store.verify() == []


def test_a_newest_transaction_that_was_of_more_is_missed(folder: Path) -> None:
    with opened(folder) as store:
        store.commit(batch(1))
        store.commit(Batch([b"x"], {("a table of its own", b"x"): b"x"}))
    lose_newest(folder)
    with pytest.raises(Corrupt, match="the store's file is older"), opened(folder):
        pass


def test_the_end_that_the_mark_knows_is_one_of_rows_too(folder: Path) -> None:
    """So that LMDB's list of tables as it once was, beside the journal of now, is not taken for this transaction's."""
    with opened(folder) as store:
        ends = [store._below.seal]
        for key in (b"x", b"y"):
            store.commit(Batch(writes={("jobs", key): b"without an event"}))
            store.checkpoint()
            ends.append(store._below.seal)
        assert len({*ends}) == 3
