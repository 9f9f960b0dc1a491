"""A store's rows brought into a newer form: behind a backup, each once, and gone on with wherever it was broken off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from offgrid.backup.container import BackupReader
from offgrid_node import migrating
from offgrid_node.folder import Folder, open_store
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey
from offgrid_node.migrating import Migrated, Step, migrate
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.restoring_backup import Secret, restore_backup
from offgrid_node.storage import format as forms
from offgrid_node.storage.format import CURSOR_KEY, FORMAT, FORMAT_KEY, STORE, check_format, format_of, format_row
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch, Store

ROWS = 10


class Killed(BaseException):
    pass


def longer(letter: bytes) -> Step:
    """Three rows at a time get one letter more."""

    def portion(store: Store, place: bytes) -> tuple[Batch, bytes | None]:
        rows = [row for row, _ in zip(store.scan("jobs", place), range(3), strict=False)]
        batch = Batch(writes={("jobs", key): value + letter for key, value in rows})
        return batch, rows[-1][0] + b"\0" if len(rows) == 3 else None

    return Step(f"rows end with {letter.decode()}", portion)


STEPS: Mapping[int, Step] = {1: longer(b"a"), 2: longer(b"b")}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = found(tmp_path / "node", "home", "attic", ["core"], {}).folder
    store = open_store(folder.config({}), create=False)
    store.commit(Batch(writes={("jobs", b"%02d" % n): b"row" for n in range(ROWS)}))
    store.close()
    return folder


def rows(folder: Folder) -> tuple[int, list[bytes]]:
    store = open_store(folder.config({}), create=False, any_format=True)
    try:
        return format_of(store), [value for _, value in store.scan("jobs")]
    finally:
        store.close()


def migrated(folder: Folder, **asked: bool) -> Migrated:
    return migrate(folder.path, steps=STEPS, newest=3, **asked)


def test_each_row_is_changed_once_by_each_step(folder: Folder) -> None:
    made = migrated(folder)
    assert (made.before, made.after, made.steps) == (1, 3, ("rows end with a", "rows end with b"))
    assert rows(folder) == (3, [b"rowab"] * ROWS)
    assert migrated(folder) == Migrated(3, 3, ())


def test_the_backup_has_what_was_before(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = migrated(folder)
    assert made.backup is not None
    with BackupReader.open(made.backup) as reader:
        reader.check()
    key = NodeKey.load(folder.keys_path)
    restore_backup(tmp_path / "again", made.backup, key, ["core"], {}, secret=Secret())
    assert rows(Folder(tmp_path / "again")) == (1, [b"row"] * ROWS)


def test_a_dry_run_changes_nothing(folder: Folder) -> None:
    assert migrated(folder, dry_run=True).steps == ("rows end with a", "rows end with b")
    assert rows(folder) == (1, [b"row"] * ROWS)
    assert not [*folder.path.rglob("form-*.zip")]


@pytest.mark.parametrize("commits", range(8))
def test_whoever_is_killed_goes_on(folder: Folder, monkeypatch: pytest.MonkeyPatch, commits: int) -> None:
    """Before each commit, and behind it."""
    left, commit = [commits // 2 * 2], LoggedStore.commit

    def killing(store: LoggedStore, batch: Batch) -> int:
        if not left[0]:
            if commits % 2:
                commit(store, batch)
            raise Killed
        left[0] -= 1
        return commit(store, batch)

    with monkeypatch.context() as patch:
        patch.setattr(LoggedStore, "commit", killing)
        with pytest.raises(Killed):
            migrated(folder)
    migrated(folder)
    assert rows(folder) == (3, [b"rowab"] * ROWS)


def test_without_a_backup_nothing_is_changed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise FailedPrecondition("the disk is full")

    monkeypatch.setattr(migrating, "take_backup", refused)
    with pytest.raises(FailedPrecondition, match="the disk is full"):
        migrated(folder)
    assert rows(folder) == (1, [b"row"] * ROWS)


def test_a_node_does_not_run_on_a_store_of_before_nor_on_one_half_done(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms.check_format, "__defaults__", (3,))
    with pytest.raises(FailedPrecondition, match=r"have form 1, this version needs 3: offgrid-node migrate"):
        open_store(folder.config({}), create=False)
    store = open_store(folder.config({}), create=False, any_format=True)
    store.commit(Batch(writes={(STORE, FORMAT_KEY): format_row(3), (STORE, CURSOR_KEY): b"05"}))
    store.close()
    with pytest.raises(FailedPrecondition, match="offgrid-node migrate"):
        open_store(folder.config({}), create=False)


def test_there_is_no_way_back(folder: Folder) -> None:
    migrated(folder)
    with pytest.raises(FailedPrecondition, match=r"have form 3, and this program knows forms up to 1.*no way back"):
        open_store(folder.config({}), create=False)
    with pytest.raises(FailedPrecondition, match="no way back"):
        migrate(folder.path)


def test_a_step_that_is_gone_is_said(folder: Folder) -> None:
    with pytest.raises(FailedPrecondition, match="no step leads from form 1"):
        migrate(folder.path, steps={2: STEPS[2]}, newest=3)


def test_new_stores_have_the_newest_form_and_those_without_a_word_the_first() -> None:
    store = MemoryStore()
    assert format_of(store) == 1
    forms.stamp(store, 7)
    assert format_of(store) == 7
    forms.stamp(store, 8)
    assert format_of(store) == 7
    check_format(store, 7)


def test_this_version_needs_no_step() -> None:
    assert {*migrating.STEPS} == {*range(1, FORMAT)}
