"""A process of its own copies the store that this one has open, and says how it went, however it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import asdict

from offgrid.backup.container import BackupReader
from offgrid_node.backups import sending
from offgrid_node.backups.errand import Errand
from offgrid_node.backups.sending import Errands
from offgrid_node.backups.store_file import StoreFile
from offgrid_node.backups.taking import Facts
from offgrid_node.protocol.errors import AlreadyExists, Internal, Unavailable
from offgrid_node.storage.copying import copy_place
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

FACTS = Facts("n-1", "attic", "home", 1, "0.1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LoggedStore]:
    store = LoggedStore.open(tmp_path / "memory.db", limit_bytes=64 * 1024 * 1024)
    store.commit(Batch(events=[b"first"], writes={("tasks", b"one"): b"planted"}))
    yield store
    store.close()


def test_a_store_that_is_open_is_backed_up_with_all_that_is_durable(store: LoggedStore, tmp_path: Path) -> None:
    store.commit(Batch(events=[b"in the log alone"]))
    said: list[str] = []
    done = StoreFile(store, Errands()).back_up(tmp_path / "mine", b"", FACTS, lambda doing, *_: said.append(doing))
    with BackupReader.open(tmp_path / "mine") as reader:
        assert reader.check().journal_seq == done.journal_seq == 2
    assert [*dict.fromkeys(said)] == ["copying", "writing", "checking"]
    with pytest.raises(AlreadyExists, match="never overwritten"):
        StoreFile(store, Errands()).back_up(tmp_path / "mine", b"", FACTS, lambda doing, *_: None)
    assert not copy_place(store.path).exists()


def test_a_store_that_is_open_is_compacted(store: LoggedStore) -> None:
    for number in range(20):
        store.commit(Batch(writes={("jobs", b"%02d" % number): bytes(100_000)}))
    store.commit(Batch(writes={("jobs", b"%02d" % number): None for number in range(20)}))
    store.checkpoint()
    done = StoreFile(store, Errands()).compact(lambda doing, *_: None)
    assert done.after_bytes < done.before_bytes / 4
    assert store.get("tasks", b"one") == b"planted"


def test_one_that_dies_is_named_so(store: LoggedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "MODULE", "no.such.module")
    with pytest.raises(Internal, match=r"what copies the store ended with 1: .*no"):
        Errands().send(Errand(str(store.path)), lambda doing, *_: None)


def test_a_node_that_stops_waits_for_none(store: LoggedStore, tmp_path: Path) -> None:
    errands, begun = Errands(), threading.Event()
    errand = Errand(str(store.path), str(tmp_path / "mine"), facts=asdict(FACTS))

    def said(doing: str, done: int, total: int) -> None:
        if not begun.is_set():
            begun.set()
            errands.close()

    with pytest.raises(Unavailable, match="stopping"):
        errands.send(errand, said)
    with pytest.raises(Unavailable, match="stopping"):
        errands.send(errand, said)
