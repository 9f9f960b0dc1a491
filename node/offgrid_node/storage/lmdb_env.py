"""Opening an LMDB environment, checking that it is the one that was left, and saying in words what went wrong.

Layout: the database "journal" holds the packs (journal.py), "t/NAME" the rows of table NAME (rows.py), "meta" the
chain's tail and, where events have gone, what comes before its first, each table's sum and the id of the log that lies
above (redo_log.py), if there is one. A file beside them
says that a store has been made here: LMDB takes a missing or empty data file for a new one, which would turn a lost
store into an empty one without a word.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import NamedTuple, TypedDict

import lmdb
import msgspec

from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, Unavailable
from offgrid_node.storage.disk import DISK_RETRY_MS, disk_fault, write_durably
from offgrid_node.storage.journal import EMPTY, Tail, decode_pack, gap
from offgrid_node.storage.rows import TABLES_MAX, RowSeal, TableSum, damaged_row
from offgrid_node.storage.runway import Runway

LAYOUT_VERSION = 2  # 1 knew of no log above it and would pass over what is there
JOURNAL, META, TABLE = "journal", "meta", "t/"
OWN_DATABASES = 2
TAIL_KEY, FLOOR_KEY = b"tail", b"floor"
SUM_KEY = b"sum/"
LOG_KEY = b"log"
DATABASES_MAX = TABLES_MAX + OWN_DATABASES  # LMDB's max_dbs
READERS_MAX = 30  # fits the lock file into one page, so that a full disk cannot fault a reader's slot
UNWRITTEN_PAGES_MAX = 8  # at the end of a whole file
# Rows and packs that are looked at before the map is laid anew. Each brings up to 64 KiB of the file into what the
# system counts as this process's memory, where it would stay; to lay a map takes less than a millisecond.
SEEN_MAX = 2_048

_MARKER = "store.made"
DATA_FILE, LOCK_FILE = "data.mdb", "lock.mdb"  # LMDB's own names
_META_SEAL = RowSeal("\0meta")


class _Engine(TypedDict, total=False):
    lib_version: int


class Gap(NamedTuple):
    """Between two sound rows, the keys of which are these (None: the table's end), one was seen to be damaged. Should
    that be its key, it had any other of those."""

    low: bytes
    high: bytes | None
    damaged: bytes


class Opened(msgspec.Struct):
    """An open environment and what is known of it. `synced_txn` is the last transaction known to be on the disk."""

    env: lmdb.Environment
    synced_txn: int
    runway: Runway
    page_bytes: int
    tail: Tail = EMPTY
    floor: Tail = EMPTY  # the last event that is kept no more
    log_id: bytes = b""
    dbs: dict[str, lmdb._Database] = msgspec.field(default_factory=dict)
    sums: dict[str, TableSum] = msgspec.field(default_factory=dict)
    suspect: set[str] = msgspec.field(default_factory=set)  # tables that were seen to lack rows, or to have another's
    gaps: dict[str, list[Gap]] = msgspec.field(default_factory=dict)  # by table
    seen: int = 0  # rows and packs, since the map was laid
    number: int = msgspec.field(
        default_factory=itertools.count().__next__
    )  # after a reopening transactions may count anew

    def lay_map(self) -> None:
        """Lets go of all pages that were looked at; the system caches them as long as it likes. No transaction may be
        open. Raises lmdb.Error, and must be closed then."""
        self.env.set_mapsize(self.env.info()["map_size"])
        self.seen = 0

    def check_absent(self, table: str, key: bytes) -> None:
        """Before it is said that a row is not there. Raises Corrupt."""
        self.check_trusted(table)
        for low, high, damaged in self.gaps.get(table, ()):
            if low < key and (high is None or key < high):
                raise damaged_row(table, damaged)

    def check_trusted(self, table: str) -> None:
        """What is not found in a table that lacks rows may have been there, and what is may be of before. Raises
        Corrupt (RowsMissing)."""
        if table in self.suspect:
            text = f"table {table} is not the one that was committed, and rows may be missing: restore it from a backup"
            raise Corrupt(text, reason="RowsMissing")

    def doubt(self, table: str, fault: Corrupt) -> None:
        """After a read that this was raised in."""
        if fault.reason in ("OrderBroken", "RowsMissing"):
            self.suspect.add(table)

    def bytes_of(self, name: str) -> int:
        """The pages of one database; none where there is no such one."""
        db = self.dbs.get(name)
        if db is None:
            return 0
        with self.env.begin() as txn:
            return _pages(txn.stat(db)) * self.page_bytes

    def size_bytes(self) -> int:
        """The file's."""
        return (self.env.info()["last_pgno"] + 1) * self.page_bytes

    def used_bytes(self) -> int:
        """Without the file's free pages."""
        known = [*self.dbs.values()]  # before it is read: a commit in another thread may add a table
        with self.env.begin() as txn:
            stats = [self.env.stat(), *map(txn.stat, known)]
        return sum(map(_pages, stats)) * self.page_bytes

    def close(self) -> None:
        self.runway.close()
        self.env.close()


def _pages(stat: lmdb._StatDict) -> int:
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]


def open_environment(path: Path, map_bytes: int, synced_txn: int = -1) -> Opened:
    """Opens the environment in `path`, which the caller owns, and checks the end of its journal.

    `synced_txn` is what an earlier `Opened` knew to be on the disk; whatever is newer is fsynced before it is shown.
    Raises `Corrupt` (StoreMissing, StoreDamaged or the journal's reasons), `FailedPrecondition` (WrongFormat) or
    `Unavailable` (DiskError).
    """
    made = (path / _MARKER).exists()
    env = runway = None
    try:
        env = _open(path, map_bytes, fresh=_is_fresh(path, made))
        env.reader_check()
        if not made and env.stat()["entries"] == 0:
            _make(env)
        runway = Runway(path / DATA_FILE)
        opened = Opened(env, env.info()["last_txnid"], runway, env.stat()["psize"])
        _check_length(opened, path / DATA_FILE)
        if opened.synced_txn > synced_txn:
            env.sync(True)
        _load(opened)
        if not made:
            write_durably(path / _MARKER, f"offgrid-node store, layout {LAYOUT_VERSION}\n".encode())
    except BaseException as error:
        if runway is not None:
            runway.close()
        if env is not None:
            env.close()
        if isinstance(error, (lmdb.Error, OSError)):
            raise fault_of(error, f"cannot open the store in {path}", path) from error
        raise
    return opened


def _check_length(opened: Opened, data: Path) -> None:
    """A file that was cut off ends this process by SIGBUS once a page is read that is not there. Pages that the last
    transaction took and gave back again may never have been written, so a few may be missing at the end: as zeros,
    which are no page, nobody can die of them."""
    pages, there = opened.env.info()["last_pgno"] + 1, data.stat().st_size // opened.page_bytes
    if there + UNWRITTEN_PAGES_MAX < pages:
        text = f"the store's file {data} ends after {there} of its {pages} pages: restore it from a backup"
        raise Corrupt(text, reason="StoreDamaged")
    if there < pages:
        os.truncate(data, pages * opened.page_bytes)


def _is_fresh(path: Path, made: bool) -> bool:
    try:
        empty = (path / DATA_FILE).stat().st_size == 0
    except FileNotFoundError:
        empty = True
    if empty and made:
        raise Corrupt(
            f"the store's file {path / DATA_FILE} is missing or empty: restore it from a backup, or remove the whole "
            "folder to begin anew",
            reason="StoreMissing",
        )
    return empty


def _open(path: Path, map_bytes: int, *, fresh: bool) -> lmdb.Environment:
    """Default flags only: every commit is fsynced, data before meta page; the others lose or destroy stores."""
    engine = _newest_engine() if fresh else _Engine()
    return lmdb.open(
        str(path),
        map_size=map_bytes,
        mode=0o600,
        max_dbs=DATABASES_MAX,
        max_readers=READERS_MAX,
        max_spare_txns=1,
        **engine,
    )


def _newest_engine() -> _Engine:
    """LMDB 1.0 where the binding has it (it turns a truncated file into an error); an existing file decides itself."""
    try:
        lmdb.version(lib_version=1)
    except (TypeError, lmdb.Error):
        return _Engine()
    return _Engine(lib_version=1)


def _make(env: lmdb.Environment) -> None:
    with env.begin(write=True) as txn:
        env.open_db(JOURNAL.encode(), txn=txn)
        meta = env.open_db(META.encode(), txn=txn)
        txn.put(TAIL_KEY, tail_value(EMPTY), db=meta)


def tail_value(tail: Tail, key: bytes = TAIL_KEY) -> bytes:
    """What lies under TAIL_KEY, or under FLOOR_KEY."""
    data = bytes([LAYOUT_VERSION]) + tail.seq.to_bytes(8, "big") + tail.digest
    return _META_SEAL.wrap(key, data)


def sum_key(table: str) -> bytes:
    return SUM_KEY + table.encode("utf-8")


def sum_value(table: str, total: TableSum) -> bytes:
    """What lies under a table's `sum_key`."""
    return _META_SEAL.wrap(sum_key(table), total.encode())


def log_value(log_id: bytes) -> bytes:
    """What lies under LOG_KEY."""
    return _META_SEAL.wrap(LOG_KEY, log_id)


def _load(opened: Opened) -> None:
    with opened.env.begin() as txn, txn.cursor() as cursor:
        keys = list(cursor.iternext(keys=True, values=False))
    names = [key.rstrip(b"\0").decode("utf-8", "replace") for key in keys]  # LMDB 1.0 ends them with a NUL
    for name in names:
        opened.dbs[name] = opened.env.open_db(name.encode("utf-8"), create=False)
    if JOURNAL not in opened.dbs or META not in opened.dbs:
        raise Corrupt("the store's own tables are missing: restore it from a backup", reason="StoreDamaged")
    opened.tail, opened.floor, opened.sums, opened.log_id = read_meta(opened)
    _suspect_tables(opened)
    _check_tail(opened)


def _suspect_tables(opened: Opened) -> None:
    """LMDB's own list of them is held against the summary: one of before would bring back rows that were right once."""
    there = {name.removeprefix(TABLE) for name in opened.dbs if name.startswith(TABLE)}
    opened.suspect |= there ^ opened.sums.keys()
    with opened.env.begin() as txn:
        for table in there & opened.sums.keys():
            if txn.stat(opened.dbs[TABLE + table])["entries"] != opened.sums[table].rows:
                opened.suspect.add(table)


class Meta(NamedTuple):
    """The store's summary as it is on the disk."""

    tail: Tail
    floor: Tail
    sums: dict[str, TableSum]
    log_id: bytes


def read_meta(opened: Opened) -> Meta:
    """Raises `Corrupt` when any of it fails its checksum."""
    with opened.env.begin(db=opened.dbs[META]) as txn, txn.cursor() as cursor:
        rows = [(bytes(key), bytes(value)) for key, value in cursor]
    tail, floor = None, EMPTY
    sums: dict[str, TableSum] = {}
    log_id = b""
    for key, stored in rows:
        if not _META_SEAL.holds(key, stored):
            raise Corrupt("the store's summary fails its checksum: restore it from a backup", reason="StoreDamaged")
        data = _META_SEAL.unwrap(key, stored)
        if key == TAIL_KEY:
            tail = _read_tail(data)
        elif key == FLOOR_KEY:
            floor = _read_tail(data)
        elif key.startswith(SUM_KEY):
            sums[key[len(SUM_KEY) :].decode("utf-8")] = TableSum.decode(data)
        elif key == LOG_KEY:
            log_id = data
    if tail is None:
        raise Corrupt("the store's summary is missing: restore it from a backup", reason="StoreDamaged")
    return Meta(tail, floor, sums, log_id)


def _read_tail(data: bytes) -> Tail:
    if data[0] != LAYOUT_VERSION:
        raise FailedPrecondition(
            f"the store has layout {data[0]}, this program reads {LAYOUT_VERSION}: use the version that wrote it",
            reason="WrongFormat",
        )
    return Tail(int.from_bytes(data[1:9], "big"), data[9:])


def _check_tail(opened: Opened) -> None:
    """The newest pack must be whole and be the one that the summary names."""
    with opened.env.begin(db=opened.dbs[JOURNAL]) as txn, txn.cursor() as cursor:
        item = cursor.item() if cursor.last() else None
    found = decode_pack(bytes(item[0]), bytes(item[1])).tail if item else opened.floor
    if found.seq < opened.tail.seq:
        raise gap(found.seq + 1, opened.tail.seq)
    if found != opened.tail:
        raise Corrupt(
            f"journal: event {found.seq} is not the end that the summary names: restore the store from a backup",
            reason="JournalForked",
        )


def fault_of(error: BaseException, doing: str, path: Path) -> Fault:
    """An LMDB or system error as a fault: `Corrupt` for a damaged file, `Unavailable` for a disk that refuses."""
    if isinstance(error, lmdb.VersionMismatchError):
        return FailedPrecondition(
            f"{doing}: it was written by another LMDB format: install the lmdb package that wrote it",
            reason="WrongFormat",
        )
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.NotFoundError)):
        return Corrupt(f"{doing}: {error}: restore it from a backup", reason="StoreDamaged")
    if isinstance(error, lmdb.ReadersFullError):
        return Unavailable(
            f"{doing}: other programs read it and take all {READERS_MAX} readers' slots: stop them",
            reason="TooManyReaders",
            retry_ms=DISK_RETRY_MS,
        )
    return disk_fault(path, doing, error)
