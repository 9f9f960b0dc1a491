"""A store's file becomes small while it serves, loses nothing, and whoever is killed in between starts as ever."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb
import pytest

from offgrid_node.protocol.errors import Corrupt, Exhausted, Unavailable
from offgrid_node.storage import compacting, copying, redo_log
from offgrid_node.storage.compacting import compact
from offgrid_node.storage.copying import copy_place
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

LIMIT = 64 * 1024 * 1024
Contents = tuple[list[tuple[int, bytes]], dict[str, list[tuple[bytes, bytes]]]]


def copied(store: LoggedStore) -> tuple[Path, Sequence[str]]:
    """As `copy_store`, which only another process may call: here by the very handle that is open."""
    place = copy_place(store.path)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    env: lmdb.Environment = store._below._held.now().env
    env.copy(str(place), compact=True)
    return place, ()


def contents(store: LoggedStore) -> Contents:
    return [*store.events()], {table: [*store.scan(table)] for table in sorted(store.tables)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def store(path: Path) -> Iterator[LoggedStore]:
    """Most of its pages are free."""
    store = LoggedStore.open(path, limit_bytes=LIMIT)
    for number in range(40):
        value = bytes([number]) * 100_000
        store.commit(Batch(events=[b"made %d" % number], writes={("jobs", b"%03d" % number): value}))
    store.commit(Batch(writes={("jobs", b"%03d" % number): None for number in range(35)}))
    store.checkpoint()
    yield store
    store.close()


def test_it_becomes_small_and_stays_the_same(store: LoggedStore, path: Path) -> None:
    before = contents(store)
    assert store.used_bytes() < store.size_bytes() / 4
    made = compact(store, lambda: copied(store))
    assert made.after_bytes < made.before_bytes / 4
    assert contents(store) == before
    assert store.verify() == []
    assert not copy_place(path).exists()
    store.commit(Batch(events=[b"after"], writes={("jobs", b"after"): b"1"}))
    store.close()
    again = LoggedStore.open(path, limit_bytes=LIMIT)
    assert contents(again)[0] == [*before[0], (41, b"after")]
    assert again.verify() == []
    again.close()


def test_what_is_committed_meanwhile_is_in_it(store: LoggedStore) -> None:
    def copied_while_others_write() -> tuple[Path, Sequence[str]]:
        store.commit(Batch(events=[b"before the copy"], writes={("jobs", b"x"): b"old"}))
        store.checkpoint()  # it is in the copy, and is remembered
        made = copied(store)
        store.commit(Batch(events=[b"behind it"], writes={("jobs", b"x"): b"new", ("tasks", b"y"): b"1"}))
        store.checkpoint()
        store.commit(Batch(events=[b"in the log alone"], writes={("jobs", b"035"): None}))
        return made

    compact(store, copied_while_others_write)
    assert [event for _, event in store.events(40)] == [b"before the copy", b"behind it", b"in the log alone"]
    assert (store.get("jobs", b"x"), store.get("tasks", b"y"), store.get("jobs", b"035")) == (b"new", b"1", None)
    assert store.verify() == []


def test_events_that_go_meanwhile_are_gone(store: LoggedStore) -> None:
    def copied_while_some_go() -> tuple[Path, Sequence[str]]:
        made = copied(store)
        store.commit(Batch(events=[b"last"], floor=40))
        return made

    compact(store, copied_while_some_go)
    assert (store.journal_floor, [*store.events()]) == (40, [(41, b"last")])
    assert store.verify() == []


def test_a_scan_goes_on_over_it(store: LoggedStore) -> None:
    walk = store.scan("jobs")
    first = next(walk)
    compact(store, lambda: copied(store))
    assert [first[0], *(key for key, _ in walk)] == [b"%03d" % number for number in range(35, 40)]


def test_too_much_that_is_written_meanwhile_ends_it_and_costs_nothing(store: LoggedStore) -> None:
    def copied_while_others_write() -> tuple[Path, Sequence[str]]:
        made = copied(store)
        store.commit(Batch(writes={("jobs", b"x"): bytes(10_000)}))
        store.checkpoint()
        return made

    with pytest.raises(Unavailable, match="too much was written meanwhile"):
        compact(store, copied_while_others_write, bytes_max=5_000)
    assert store.get("jobs", b"x") == bytes(10_000)
    assert not copy_place(store.path).exists()


def test_a_damaged_store_stays_as_it_is(store: LoggedStore) -> None:
    with pytest.raises(Corrupt, match=r"stays as it is: row jobs/037"):
        compact(store, lambda: (copied(store)[0], ["row jobs/037 fails its checksum"]))
    assert store.get("jobs", b"037") is not None


class Killed(BaseException):
    pass


STEPS: list[tuple[object, str]] = [
    (LmdbStore, "leave_log"),
    (LmdbStore, "take_over"),
    (os, "replace"),
    (LoggedStore, "_find_log"),
    (redo_log.RedoLog, "make"),
    (LmdbStore, "move_on"),
    (compacting, "drop_copy"),
]


def of_the_data(*paths: object) -> bool:
    """Files of other steps are renamed as well."""
    return not isinstance(paths[-1], Path) or paths[-1].name == "data.mdb"


@pytest.mark.parametrize(("target", "name"), STEPS, ids=lambda each: each if isinstance(each, str) else "")
def test_whoever_is_killed_at_a_step_finds_all_again(
    store: LoggedStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: object, name: str
) -> None:
    """What lies on the disk at that step is opened as another process would."""
    expected, there, step = contents(store), tmp_path / "as-it-was", getattr(target, name)

    def as_it_is(*args: object, **kwargs: object) -> object:
        if name == "replace" and not of_the_data(*args):
            return step(*args)
        if there.exists():
            return None
        shutil.copytree(path, there / path.name, ignore=shutil.ignore_patterns("owner.*", "lock.mdb"))
        if copy_place(path).exists():
            shutil.copytree(copy_place(path), there / copy_place(path).name)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, as_it_is)
        with pytest.raises(Killed):
            compact(store, lambda: copied(store))
    again = LoggedStore.open(there / path.name, limit_bytes=LIMIT)
    assert contents(again) == expected
    assert again.verify() == []
    assert not copy_place(there / path.name).exists()
    again.close()


def test_a_disk_that_refuses_the_new_log_refuses_commits_until_it_can(
    store: LoggedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("offgrid_node.storage.logged.sync_folder", refused)
        with pytest.raises(Unavailable):
            compact(store, lambda: copied(store))
        with pytest.raises(Unavailable):
            store.commit(Batch(events=[b"not now"]))
    store.commit(Batch(events=[b"now"]))
    store.close()
    again = LoggedStore.open(path, limit_bytes=LIMIT)
    assert [event for _, event in again.events(40)] == [b"now"]
    again.close()


def test_a_file_that_cannot_take_its_place_changes_nothing(
    store: LoggedStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def refused(*args: Path) -> None:
        if of_the_data(*args):
            raise PermissionError(13, "in use")
        replace(*args)

    before = contents(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        with pytest.raises(Unavailable, match="cannot take the place"):
            compact(store, lambda: copied(store))
    store.commit(Batch(events=[b"on as ever"]))
    store.close()
    again = LoggedStore.open(path, limit_bytes=LIMIT)
    assert contents(again)[0] == [*before[0], (41, b"on as ever")]
    again.close()


def test_a_copy_needs_room(store: LoggedStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    monkeypatch.setattr(copying, "free_bytes", lambda folder: 1_000)
    with pytest.raises(Exhausted, match="1000 are free"):
        copying.copy_store(path)
    assert not copy_place(path).exists()


def test_a_copy_by_itself_is_a_store(store: LoggedStore, path: Path) -> None:
    expected = contents(store)
    store.close()
    copy = LmdbStore.open(copying.copy_store(path), limit_bytes=LIMIT)
    assert ([*copy.events()], {table: [*copy.scan(table)] for table in sorted(copy.tables)}) == expected
    copy.close()
    LoggedStore.open(path, limit_bytes=LIMIT).close()
    assert not copy_place(path).exists()
