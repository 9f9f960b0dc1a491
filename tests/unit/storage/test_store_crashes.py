"""The store with a log above on a disk that remembers: random histories, faults at each place, power cuts everywhere.

The disk keeps two images. What is written and flushed is in both; a write to the log that fails, or that a power cut
ends, leaves any of its sectors. A transaction of LMDB is on the disk whole or not at all, but what was said of it may
be wrong in either way. After a cut the store must hold all batches that were acknowledged, each whole, and perhaps the
one that was under way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Unavailable
from offgrid_node.storage import redo_log
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.redo_log import LOG_FILE, RECORD_BYTES_MAX
from offgrid_node.storage.store import Batch

LIMIT_BYTES = 256 * 1024 * 1024
SMALL_BYTES = 32 * 1024  # of records, so that the log is full now and then
SECTOR_BYTES = 512
SIZES = (10, 600, 9_000, RECORD_BYTES_MAX + 1)
BELOW = ("lost", "there", "ghost")  # a failed transaction: not there; there all the same; only after a power cut
STEPS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from(SIZES)),
    st.tuples(st.just("commit"), st.just(10)),
    st.sampled_from([("checkpoint", 0), ("reopen", 0), ("kill", 0)]),
    st.tuples(st.just("fail log"), st.sampled_from([0, 1, 2])),
    st.tuples(st.sampled_from(BELOW), st.just(0)),
)

State = tuple[list[bytes], dict[tuple[str, bytes], bytes]]


class Disk:
    """Stands between the store in `live` and its files; `durable` is what a power cut leaves."""

    def __init__(self, root: Path, rng: random.Random, patched: pytest.MonkeyPatch) -> None:
        self.live, self.durable, self._rng = root / "live", root / "durable", rng
        self._scratch = root / "ghost"
        self.log_failure: int | None = None  # how many writes fail: 0 keeps all, 1 some, 2 none of the sectors
        self.below_failure = ""
        self.cuts: list[bytes] = []  # the log's images that a cut within the last write may leave
        self._log = b""
        self._commit, self._move_on = LmdbStore.commit, LmdbStore.move_on
        patched.setattr(redo_log, "os", self)
        patched.setattr(LmdbStore, "commit", as_method(self._on_commit))
        patched.setattr(LmdbStore, "move_on", as_method(self._on_move_on))

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    # ---- the log's file

    def pwrite(self, fd: int, data: memoryview, at: int) -> int:
        if not os.path.samestat(os.fstat(fd), os.stat(self.live / LOG_FILE)):  # the looks of the test itself
            return os.pwrite(fd, data, at)
        if at == redo_log.RECORDS_END:
            return self._mark(fd, bytes(data), at)
        if self._rng.random() < 0.1 and len(data) > SECTOR_BYTES:
            data = data[: len(data) // 2]  # a short write
        whole = bytes(data)
        before = self._log.ljust(at + len(whole), b"\0")
        self.cuts = [self._torn(before, whole, at) for _ in range(3)]
        if self.log_failure is None:
            self._log = before[:at] + whole + before[at + len(whole) :]
            return os.pwrite(fd, whole, at)
        kept = self.log_failure
        self.log_failure = None
        self._log = self._torn(before, whole, at) if kept == 1 else before
        if kept != 2:  # the cache shows it all the same
            os.pwrite(fd, whole, at)
        if kept == 0:
            self._log = before[:at] + whole + before[at + len(whole) :]
        raise OSError(self._rng.choice([errno.EIO, errno.ENOSPC]), "refused")

    def _mark(self, fd: int, mark: bytes, at: int) -> int:
        """Not flushed: on the disk now, with a later one, or never."""
        if self._rng.random() < 0.5:
            self._log = self._log[:at] + mark + self._log[at + len(mark) :]
        return os.pwrite(fd, mark, at)

    def _torn(self, before: bytes, data: bytes, at: int) -> bytes:
        image = bytearray(before)
        for sector in range(0, len(data), SECTOR_BYTES):
            if self._rng.random() < 0.5:
                part = data[sector : sector + SECTOR_BYTES]
                image[at + sector : at + sector + len(part)] = part
        return bytes(image)

    # ---- LMDB's

    def _on_commit(self, store: LmdbStore, batch: Batch) -> int:
        self._transact(lambda target: self._commit(target, batch), store)
        return store.journal_seq

    def _on_move_on(self, store: LmdbStore, log_id: bytes = b"") -> None:
        self._transact(lambda target: self._move_on(target, log_id), store)

    def _transact(self, change: Callable[[LmdbStore], object], store: LmdbStore) -> None:
        if store._path != self.live:  # the looks of the test itself
            change(store)
            return
        failure, self.below_failure = self.below_failure, ""
        if failure == "ghost":
            shutil.rmtree(self._scratch, ignore_errors=True)
            copy_store(self.live, self._scratch)
            with contextlib.closing(LmdbStore.open(self._scratch, limit_bytes=LIMIT_BYTES)) as ghost:
                change(ghost)
            self._keep_below(self._scratch)
        elif failure != "lost":
            change(store)
            self._keep_below(self.live)
        if failure:
            raise Unavailable("the disk refused", reason="DiskError")

    def _keep_below(self, source: Path) -> None:
        self.durable.mkdir(exist_ok=True)
        shutil.copy(source / "data.mdb", self.durable / "data.mdb")
        shutil.copy(source / "store.made", self.durable / "store.made")

    # ---- power

    def images(self, target: Path) -> Iterator[tuple[Path, bool]]:
        """Folders as cuts after the last step leave them, or (True) during its last write."""
        for log in (self._log, *self.cuts):
            shutil.rmtree(target, ignore_errors=True)
            copy_store(self.durable, target)
            (target / LOG_FILE).write_bytes(log)
            yield target, log is not self._log


def as_method(call: Callable[..., object]) -> Callable[..., object]:
    def method(store: LmdbStore, *arguments: object) -> object:
        return call(store, *arguments)

    return method


def copy_store(source: Path, target: Path) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("owner.*", "lock.mdb"))


def after(state: State, batch: Batch) -> State:
    rows = dict(state[1])
    for key, value in batch.writes.items():
        rows.pop(key, None)
        if value is not None:
            rows[key] = value
    return state[0] + batch.events, rows


def state_of(store: LoggedStore) -> State:
    rows = {(table, key): value for table in ("t", "u") for key, value in store.scan(table)}
    return [event for _, event in store.events()], rows


def batch_of(rng: random.Random, number: int, size: int) -> Batch:
    batch = Batch([b"%d " % number + bytes(size)])
    for _ in range(rng.randrange(3)):
        value = None if rng.random() < 0.3 else b"%d" % number
        batch.writes[rng.choice("ttttu"), b"%d" % rng.randrange(6)] = value
    return batch


def opened(folder: Path) -> LoggedStore:
    return LoggedStore.open(folder, limit_bytes=LIMIT_BYTES)


def reopened(disk: Disk, store: LoggedStore, *, kill: bool) -> LoggedStore:
    if kill:
        store._drop_log()
        store._below.close()
        disk.log_failure, disk.below_failure = None, ""
    else:
        store.close()
    return opened(disk.live)


def is_settled(store: LoggedStore) -> bool:
    return not (store._in_doubt or store._broken)


@settings(derandomize=True)
@example(steps=[("ghost", 0), ("checkpoint", 0), ("kill", 0), ("commit", 10)], seed=1)
@example(steps=[("commit", 10), ("fail log", 0), ("lost", 0), ("commit", 10), ("lost", 0), ("checkpoint", 0)], seed=0)
@given(steps=st.lists(STEPS, max_size=14), seed=st.integers(0, 2**32))
def test_a_power_cut_at_any_point_leaves_what_was_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], seed: int
) -> None:
    root, rng = tmp_path_factory.mktemp("disk"), random.Random(seed)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(redo_log, "RECORDS_END", redo_log.BLOCK_BYTES + SMALL_BYTES)
        patched.setattr(redo_log, "LOG_BYTES", 2 * redo_log.BLOCK_BYTES + SMALL_BYTES)
        disk = Disk(root, rng, patched)
        store = opened(disk.live)
        acked: State = ([], {})
        open_end: list[State] = []  # what was refused and may be there
        try:
            for number, (step, value) in enumerate([("commit", 10), ("commit", 600), *steps]):
                before, disk.cuts = acked, []
                if step == "commit":
                    batch = batch_of(rng, number, value)
                    tried = after(acked, batch)
                    try:
                        store.commit(batch)
                        acked, open_end = tried, []
                    except Unavailable:
                        open_end = open_end or [tried]
                elif step == "checkpoint":
                    assert store.verify() == []
                elif step in ("reopen", "kill"):
                    store = reopened(disk, store, kill=step == "kill")
                elif step == "fail log":
                    disk.log_failure = value
                else:
                    disk.below_failure = step
                seen = state_of(store)
                assert store.journal_seq == len(seen[0])
                assert seen in [acked, *open_end]
                acked = seen
                if is_settled(store):
                    open_end = []
                for image, cut in disk.images(root / "image"):
                    with contextlib.closing(opened(image)) as found:
                        allowed = [acked, *open_end, *([before] if cut else [])]
                        assert state_of(found) in allowed
                        assert found.verify() == []
        finally:
            store.close()
