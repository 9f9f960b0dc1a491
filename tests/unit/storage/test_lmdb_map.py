"""The store's map counts as the process's memory only as far as it was looked at lately."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from offgrid_node.storage import lmdb as lmdb_store
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.lmdb_env import SEEN_MAX, Opened
from offgrid_node.storage.store import Batch

MIB = 1024 * 1024
ROWS = 10_000
VALUE = bytes(4_000)  # a page each


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    with contextlib.closing(LmdbStore.open(tmp_path, limit_bytes=256 * MIB)) as opened:
        yield opened


def key(number: int) -> bytes:
    return b"job-%05d" % number


def fill(store: LmdbStore, rows: int = ROWS) -> None:
    for first in range(0, rows, 500):
        store.commit(Batch([], {("jobs", key(number)): VALUE for number in range(first, first + 500)}))


def mapped_mib(path: Path) -> float:
    """What of the store's file counts as this process's memory."""
    counted, within = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name and not name.endswith(":"):
            within = bool(rest) and rest[-1] == str(path / "data.mdb")
        elif name == "Rss:" and within:
            counted += int(rest[0])
    return counted / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_neither_writing_nor_reading_all_of_it_keeps_all_of_it(store: LmdbStore, tmp_path: Path) -> None:
    fill(store)
    assert store.size_bytes() > 39 * MIB
    assert mapped_mib(tmp_path) < 20
    assert sum(1 for _ in store.scan("jobs")) == ROWS
    assert mapped_mib(tmp_path) < 20
    assert all(store.get("jobs", key(number)) == VALUE for number in range(0, ROWS, 3))
    assert mapped_mib(tmp_path) < 20


def test_it_is_laid_anew_below_readers_and_a_writer(store: LmdbStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_store, "SEEN_MAX", 3)
    fill(store, 500)
    wrong: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            wrong.extend(number for number in range(0, 500, 50) if store.get("jobs", key(number)) != VALUE)
            wrong.extend(0 for name, value in store.scan("jobs") if value != VALUE)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(200):
        store.commit(Batch([b"event"], {("others", key(number)): VALUE}))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert store.journal_seq == 200
    assert list(store.verify()) == []


def test_a_map_that_cannot_be_laid_is_made_with_the_next_look(
    store: LmdbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, 500)
    laid: list[Opened] = []

    def refuse(opened: Opened) -> None:
        laid.append(opened)
        raise lmdb.Error("no address space")

    with monkeypatch.context() as patch:
        patch.setattr(Opened, "lay_map", refuse)
        for number in range(SEEN_MAX):
            store.get("jobs", key(number % 500))
    assert len(laid) == 1
    assert store.get("jobs", key(1)) == VALUE
    store.commit(Batch([b"event"], {}))
    assert list(store.verify()) == []
